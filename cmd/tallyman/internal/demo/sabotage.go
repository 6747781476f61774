package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Without the seal, loaders don't see before a transaction what is loaded, so that
// the key alone would have to refuse it.
const dropLedgerKeySQL = `
ALTER TABLE tallyman.loaded_elements DROP CONSTRAINT loaded_elements_pkey;
CREATE FUNCTION public.forget_seal() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.seal := NULL; RETURN NEW; END $$;
CREATE TRIGGER forget_seal BEFORE INSERT ON tallyman.loaded_elements FOR EACH ROW EXECUTE FUNCTION public.forget_seal()`

// dropLedgerKey takes away what refuses a batch that comes twice.
func (d *Demo) dropLedgerKey(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, d.DSN())
	if err != nil {
		return fmt.Errorf("connect to drop the ledger's key: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, dropLedgerKeySQL); err != nil {
		return fmt.Errorf("drop the ledger's key: %w", err)
	}
	return nil
}

// deleteRecords waits for a few records of the first partition and deletes them
// before any loader runs.
func (d *Demo) deleteRecords(ctx context.Context) error {
	const some = 3
	for {
		for _, p := range d.broker.Cluster().PartitionInfos(d.manifest.Topic) {
			if p.Partition == 0 && p.HighWatermark >= some {
				return d.broker.DeleteRecords(d.manifest.Topic, 0, some)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookEvery):
		}
	}
}
