package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"tallyman/schema"
	"tallyman/schema/ddl"
	"tallyman/sink"
)

const (
	lockJobsOf = `SELECT job_id FROM tallyman.jobs WHERE revision_id = $1 ORDER BY job_id FOR UPDATE`

	// A job that has not ended may be joined at any time; who still holds a lease in
	// one that has may be committing.
	selectWriter = `
SELECT format('job %s is %s', j.job_id, s.status)
FROM tallyman.jobs j JOIN tallyman.job_status s USING (job_id)
WHERE j.revision_id = $1 AND (s.status IN ` + activeJobs + ` OR EXISTS (
    SELECT FROM tallyman.job_members m WHERE (m.job_id, m.epoch) = (j.job_id, s.epoch) AND m.lease_until > clock_timestamp()))
ORDER BY s.status NOT IN ` + activeJobs + `, j.job_id LIMIT 1`

	selectRevision = `
SELECT dataset, state, physical_schema, physical_table FROM tallyman.revisions WHERE revision_id = $1 FOR UPDATE`

	// The ledger is gone through in the order of its key, by a range of it at a time:
	// what is deleted is not looked at again, nor is what is another revision's.
	selectUpTo = `
SELECT batch_time, unique_id FROM (
    SELECT batch_time, unique_id FROM tallyman.loaded_elements
    WHERE revision_id = $1 AND batch_time >= $2 AND (batch_time, unique_id) > ($2::timestamptz, $3::uuid)
    ORDER BY batch_time, unique_id
    LIMIT 50000) next
ORDER BY batch_time DESC, unique_id DESC LIMIT 1`

	deleteUpTo = `
DELETE FROM tallyman.loaded_elements
WHERE revision_id = $1 AND batch_time >= $2 AND batch_time <= $4
  AND (batch_time, unique_id) > ($2::timestamptz, $3::uuid) AND (batch_time, unique_id) <= ($4::timestamptz, $5::uuid)`
)

// ofRevision are the tables, beside the ledger, with rows of a revision.
func ofRevision() []string {
	return []string{"positions", "v4_ids", "satisfied", "streams", "announcements", "receipts", "quarantine", "gaps"}
}

// DropRevision drops a revision that is not active and that nobody loads: its
// table, positions and everything else that is known of it, its ledger entries last
// and bit by bit. Interrupted, it goes on when it is called again.
func (w *Warehouse) DropRevision(ctx context.Context, d schema.Dataset, id int64) error {
	conn, err := pgx.ConnectConfig(ctx, w.owner())
	if err != nil {
		return w.class("connect", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	fence := w.NewFence()
	_, err = whileLocked(ctx, w.cfg.moment(), func() (struct{}, error) {
		return struct{}{}, step("drop revision", pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
			there, err := w.droppable(ctx, tx, d, id)
			if err != nil || there == (schema.Table{}) {
				return err
			}
			// Who was frozen in a commit is ended; it would be waited for forever.
			if err := fence(ctx, tx, id); err != nil {
				return err
			}
			return w.dropRevision(ctx, tx, there, id)
		}))
	})
	if err != nil {
		return w.class("drop revision", err)
	}
	return w.class("delete the ledger entries of a dropped revision", deleteEntries(ctx, conn, id))
}

// deleteEntries deletes a revision's entries in the ledger, some at a time.
func deleteEntries(ctx context.Context, conn *pgx.Conn, id int64) error {
	after, past := pgtype.Timestamptz{InfinityModifier: pgtype.NegativeInfinity, Valid: true}, pgtype.UUID{Valid: true}
	for {
		var (
			upTo pgtype.Timestamptz
			last pgtype.UUID
		)
		err := conn.QueryRow(ctx, selectUpTo, id, after, past).Scan(&upTo, &last)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err == nil {
			_, err = conn.Exec(ctx, deleteUpTo, id, after, past, upTo, last)
		}
		if err != nil {
			return err
		}
		after, past = upTo, last
	}
}

// droppable locks a revision and the jobs about it, in the order of a deployment,
// and returns its table, or why it is not to be dropped. The zero table: it was.
func (w *Warehouse) droppable(ctx context.Context, tx pgx.Tx, d schema.Dataset, id int64) (none schema.Table, err error) {
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1), set_config('lock_timeout', $2, true)", int64(initLock), milliseconds(w.cfg.moment())); err != nil {
		return none, err
	}
	if _, err := tx.Exec(ctx, lockJobsOf, id); err != nil {
		return none, err
	}
	var (
		dataset string
		state   sink.State
		table   schema.Table
	)
	switch err := tx.QueryRow(ctx, selectRevision, id).Scan(&dataset, &state, &table.Schema, &table.Name); {
	case errors.Is(err, pgx.ErrNoRows):
		return none, noRevision("there is no revision %d: tallyman revision list shows them", id)
	case err != nil:
		return none, err
	case dataset != d.String():
		return none, wrongRevision("revision %d belongs to %s, not to %s", id, dataset, d)
	case state == sink.Active:
		return none, wrongRevision("revision %d is the active one of %s: activate another first", id, d)
	case state == sink.Retired:
		return none, nil
	}
	// Asked once the revision is locked: a deployment that came before is seen, and
	// one that comes later is refused.
	var writer string
	switch err := tx.QueryRow(ctx, selectWriter, id).Scan(&writer); {
	case err == nil:
		return none, wrongRevision("revision %d is being loaded, %s: stop the job first", id, writer)
	case !errors.Is(err, pgx.ErrNoRows):
		return none, err
	}
	return table, nil
}

// dropRevision drops the table and everything that is known of the revision, but
// for its ledger entries.
func (w *Warehouse) dropRevision(ctx context.Context, tx pgx.Tx, table schema.Table, id int64) error {
	if _, err := tx.Exec(ctx, "SELECT set_config('lock_timeout', $1, true)", milliseconds(w.cfg.moment())); err != nil {
		return err
	}
	for _, of := range ofRevision() {
		if _, err := tx.Exec(ctx, fmt.Sprintf("DELETE FROM tallyman.%s WHERE revision_id = $1", of), id); err != nil {
			return err
		}
	}
	if _, err := tx.Exec(ctx, "DROP TABLE IF EXISTS "+ddl.PostgresName(table)); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, setState, id, sink.Retired)
	return err
}
