package postgres

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"tallyman/schema"
	"tallyman/schema/ddl"
	"tallyman/sink"
)

// Copied is what CopyUncovered has copied.
type Copied struct {
	Batches int64 `json:"batches"`
	Rows    int64 `json:"rows"`
}

// copyLock is the key of an advisory lock that copies share, and that an activation
// waits for: the time of loading of what is copied is long before it is seen.
const copyLock = initLock + 1

const (
	copyV4 = `
INSERT INTO tallyman.v4_ids (revision_id, unique_id, batch_time)
SELECT $2, v.unique_id, v.batch_time FROM tallyman.v4_ids v
WHERE v.revision_id = $1 AND v.unique_id = ANY ($3::uuid[])
ORDER BY v.unique_id
ON CONFLICT DO NOTHING`

	// A v4 id stands for one batch, with the time that it first came with.
	copyClaims = `
INSERT INTO tallyman.loaded_elements (revision_id, batch_time, unique_id, outcome, incarnation, sequence, row_count, byte_count, digest, seal)
SELECT $2, o.batch_time, o.unique_id, o.outcome, o.incarnation, o.sequence, o.row_count, o.byte_count, o.digest, o.seal
FROM unnest($3::timestamptz[], $4::uuid[]) AS k (batch_time, unique_id)
JOIN tallyman.loaded_elements o ON (o.revision_id, o.batch_time, o.unique_id) = ($1, k.batch_time, k.unique_id)
WHERE NOT EXISTS (SELECT FROM tallyman.v4_ids v WHERE (v.revision_id, v.unique_id) = ($2, k.unique_id) AND v.batch_time <> k.batch_time)
ORDER BY o.batch_time, o.unique_id
ON CONFLICT DO NOTHING
RETURNING unique_id, CASE outcome WHEN 'loaded' THEN row_count ELSE 0 END`

	// As a batch that loads does.
	closeCopied = `
WITH had AS (
    SELECT q.sha256
    FROM unnest($2::timestamptz[], $3::uuid[]) AS k (batch_time, unique_id)
    JOIN tallyman.quarantine q ON (q.revision_id, q.unique_id) = ($1, k.unique_id) AND q.state = 'open'
    JOIN tallyman.loaded_elements l ON (l.revision_id, l.batch_time, l.unique_id) = ($1, k.batch_time, k.unique_id)
    WHERE q.content IS NULL OR q.content = l.digest
    ORDER BY q.sha256
    FOR UPDATE OF q
)
UPDATE tallyman.quarantine q SET state = 'redriven', closed_at = now(), closed_why = 'copied from another revision'
FROM had
WHERE q.revision_id = $1 AND q.sha256 = had.sha256`
)

// CopyUncovered copies the batches that a revision has and another has not, each
// with its entry in the ledger, which refuses it if it comes from Kafka as well; and
// the rows of batches that the ledger has forgotten. It is for batches that nobody
// can send any more: a copy has whatever was done to the rows since. Interrupted,
// repeated or run twice at once, it copies each batch once. A v4 id that the other
// revision has with another time is left: it stands for one batch. told hears how much
// there is still; nil: nobody does.
func (w *Warehouse) CopyUncovered(ctx context.Context, from, to sink.Revision, told func(left Uncovered)) (Copied, error) {
	var copied Copied
	conn, err := pgx.ConnectConfig(ctx, w.owner())
	if err != nil {
		return copied, w.class("connect", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if !from.Manifest.BatchID || !to.Manifest.BatchID {
		return copied, w.class("copy", wrongRevision("the rows of %s do not say which batch they came with (batch_id is off), so they can't be copied by batch", from.Manifest.Dataset))
	}
	columns, err := columnsOf(ctx, conn, to)
	if err != nil {
		return copied, w.class("read columns", err)
	}
	c := copying{conn: conn, from: from, to: to, columns: columns}
	for before := int64(-1); ; {
		lacks, err := uncovered(ctx, conn, from.ID, to.ID, time.Time{})
		if err != nil {
			return copied, w.class("compare revisions", err)
		}
		if told != nil {
			told(lacks)
		}
		if lacks.Batches == 0 {
			break
		}
		some, err := c.batches(ctx, lacks.batches)
		if err != nil {
			return copied, w.class("copy batches", err)
		}
		if some.Batches == 0 && lacks.Batches == before {
			break // and nobody else copies either
		}
		before = lacks.Batches
		copied.Batches += some.Batches
		copied.Rows += some.Rows
	}
	rows, err := c.forgotten(ctx)
	copied.Rows += rows
	return copied, w.class("copy the rows of forgotten batches", err)
}

// copying copies from one revision's table to another's.
type copying struct {
	conn     *pgx.Conn
	from, to sink.Revision
	columns  string
}

// columnsOf lists the columns of a revision's table, quoted.
func columnsOf(ctx context.Context, q queryer, r sink.Revision) (string, error) {
	all, err := readManifests(ctx, q, r.Manifest.Dataset.String())
	if err != nil {
		return "", err
	}
	var names []string
	for _, columns := range [][]schema.Column{r.Manifest.Columns, {{Name: schema.BatchIDColumn}}, allAdded(r.Manifest, servedBy(r, all[r.Manifest.Dataset.String()]))} {
		for _, c := range columns {
			names = append(names, pgx.Identifier{c.Name}.Sanitize())
		}
	}
	return strings.Join(names, ", "), nil
}

// batches copies some batches in one transaction: those that the other revision
// has got meanwhile are left out.
func (c copying) batches(ctx context.Context, some []uncoveredBatch) (done Copied, err error) {
	times, ids := make([]time.Time, len(some)), make([]pgtype.UUID, len(some))
	for i, b := range some {
		times[i], ids[i] = b.at, pgtype.UUID{Bytes: b.id, Valid: true}
	}
	err = pgx.BeginTxFunc(ctx, c.conn, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		done = Copied{}
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock_shared($1)", int64(copyLock)); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, copyV4, c.from.ID, c.to.ID, ids); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, copyClaims, c.from.ID, c.to.ID, times, ids)
		if err != nil {
			return err
		}
		var (
			id    pgtype.UUID
			count int64
			ours  []pgtype.UUID
		)
		if _, err := pgx.ForEachRow(rows, []any{&id, &count}, func() error {
			ours = append(ours, id)
			done.Rows += count
			return nil
		}); err != nil {
			return err
		}
		done.Batches = int64(len(ours))
		tag, err := tx.Exec(ctx, fmt.Sprintf("INSERT INTO %s (%s) SELECT %[2]s FROM %[3]s WHERE %[4]s = ANY ($1::uuid[])",
			ddl.PostgresName(c.to.Physical), c.columns, ddl.PostgresName(c.from.Physical), pgx.Identifier{schema.BatchIDColumn}.Sanitize()), some0(ours))
		if err == nil && tag.RowsAffected() != done.Rows {
			err = wrongRevision("the table %s has %d rows of %d batches for which the ledger says %d: tallyman verify %s tells which. Nothing of them was copied",
				ddl.PostgresName(c.from.Physical), tag.RowsAffected(), done.Batches, done.Rows, c.from.Manifest.Dataset)
		}
		if err == nil {
			_, err = tx.Exec(ctx, closeCopied, c.to.ID, times, ids)
		}
		return err
	})
	return done, err
}

// some0 makes an empty list of none.
func some0(ids []pgtype.UUID) []pgtype.UUID {
	if ids == nil {
		return []pgtype.UUID{}
	}
	return ids
}

const selectForgets = `SELECT horizon > '-infinity' FROM tallyman.ledger_window`

// unknownRows are the rows of a revision's table whose batches its ledger has
// forgotten, and which another's table does not have.
func (c copying) unknownRows() string {
	id := pgx.Identifier{schema.BatchIDColumn}.Sanitize()
	return fmt.Sprintf(`FROM %s o
WHERE NOT EXISTS (SELECT FROM tallyman.loaded_elements l WHERE l.revision_id = $1 AND l.unique_id = o.%s)
  AND NOT EXISTS (SELECT FROM %s n WHERE n.%[2]s = o.%[2]s)`, ddl.PostgresName(c.from.Physical), id, ddl.PostgresName(c.to.Physical))
}

// countForgotten counts those rows of a revision that another lacks.
func (w *Warehouse) countForgotten(ctx context.Context, conn *pgx.Conn, of, by int64) (n int64, err error) {
	var forgets bool
	if err := conn.QueryRow(ctx, selectForgets).Scan(&forgets); err != nil || !forgets {
		return 0, err
	}
	infos, err := w.datasets(ctx, conn)
	if err != nil {
		return 0, err
	}
	var c copying
	for _, i := range infos {
		switch i.Revision.ID {
		case of:
			c.from = i.Revision
		case by:
			c.to = i.Revision
		}
	}
	if !c.from.Manifest.BatchID || c.to.ID == 0 {
		return 0, nil // whose batch a row is can't be told
	}
	err = conn.QueryRow(ctx, "SELECT count(*) "+c.unknownRows(), of).Scan(&n)
	return n, err
}

// forgotten copies the rows of batches that the ledger has forgotten, if it may
// have forgotten any.
func (c copying) forgotten(ctx context.Context) (rows int64, err error) {
	err = pgx.BeginTxFunc(ctx, c.conn, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		var forgets bool
		if err := tx.QueryRow(ctx, selectForgets).Scan(&forgets); err != nil || !forgets {
			return err
		}
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(initLock)); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, fmt.Sprintf("INSERT INTO %s (%s) SELECT %[2]s ", ddl.PostgresName(c.to.Physical), c.columns)+c.unknownRows(), c.from.ID)
		rows = tag.RowsAffected()
		return err
	})
	return rows, err
}
