package postgres_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/schema/ddl"
	"tallyman/sink"
	"tallyman/sink/postgres"
	"tallyman/sink/sinktest"
)

func TestSuite(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			sinktest.Run(t, func(t testing.TB) sinktest.Warehouse { return suiteWarehouse(t, sandboxtest.Postgres(t, version)) })
		})
	}
}

func TestSuiteForgetting(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			sinktest.RunForgetting(t, func(t testing.TB) sinktest.Warehouse { return suiteWarehouse(t, sandboxtest.Postgres(t, version)) })
		})
	}
}

// suiteWarehouse opens the database at dsn for the suite.
func suiteWarehouse(t testing.TB, dsn string) sinktest.Warehouse {
	w, err := postgres.Open(t.Context(), postgres.Config{URL: dsn})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	if _, err := w.Init(t.Context(), postgres.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	ctx := context.WithoutCancel(t.Context())
	return sinktest.Warehouse{
		Positions: w, Catalog: w, Manifests: w, Ledger: w, Books: w, Receipts: w, Retirer: w, NewCommitter: w.NewCommitter, NewQuarantine: w.Quarantine,
		Apply: func(m schema.Manifest) (sink.Revision, error) {
			applied, err := w.Apply(ctx, m)
			return applied.Revision, err
		},
		Rows: func(r sink.Revision, id uuid.UUID) (n int64, err error) {
			sql := fmt.Sprintf("SELECT count(*) FROM %s WHERE %s = $1::text::uuid", ddl.PostgresName(r.Physical), schema.BatchIDColumn)
			return n, pool.QueryRow(ctx, sql, id.String()).Scan(&n)
		},
		Quarantine: func(r sink.Revision) ([]sinktest.Quarantined, error) { return readQuarantine(ctx, pool, r) },
		Forget: func(before time.Time) error {
			o := postgres.InitOptions{Retention: &postgres.Retention{Days: 100}, Now: func() time.Time { return before.AddDate(0, 0, 100) }}
			_, err := w.Init(ctx, o)
			return err
		},
		Act: func(r sink.Revision, a sinktest.Action) error {
			change := "ADD CONSTRAINT n_not_negative CHECK (n >= 0)"
			if a == sinktest.Relax {
				change = "DROP CONSTRAINT n_not_negative"
			}
			_, err := pool.Exec(ctx, "ALTER TABLE "+ddl.PostgresName(r.Physical)+" "+change)
			return err
		},
	}
}

func readQuarantine(ctx context.Context, pool *pgxpool.Pool, r sink.Revision) ([]sinktest.Quarantined, error) {
	const sql = `
SELECT partition, kafka_offset, reason, detail, unique_id, octet_length(coalesce(payload, '')), payload_size, state = 'open'
FROM tallyman.quarantine WHERE revision_id = $1 AND cluster = 'default' AND topic = $2
ORDER BY partition, kafka_offset`
	rows, err := pool.Query(ctx, sql, r.ID, r.Manifest.Topic)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (q sinktest.Quarantined, err error) {
		var (
			reason string
			id     pgtype.UUID
		)
		err = row.Scan(&q.Partition, &q.Offset, &reason, &q.Detail, &id, &q.Kept, &q.Size, &q.Open)
		q.Reason, q.ID = batch.Reason(reason), uuid.UUID(id.Bytes)
		return q, err
	})
}
