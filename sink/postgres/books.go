package postgres

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"tallyman/schema"
	"tallyman/sink"
)

var _ sink.Books = (*Warehouse)(nil)

const (
	advanceFloors = `SELECT tallyman.advance_floors($1)`

	sumCompleteness = `
SELECT count(*), count(*) FILTER (WHERE c.state = 'open'), coalesce(sum(c.refused), 0)::bigint, coalesce(sum(c.announced) FILTER (WHERE c.state <> 'retired'), 0)::bigint,
       LEAST(min(c.complete_through), (SELECT min(e.complete_through) FROM tallyman.expectations e WHERE e.revision_id = $1)),
       (SELECT count(*) FROM tallyman.expectations e WHERE e.revision_id = $1),
       EXISTS (SELECT FROM tallyman.revisions r WHERE r.revision_id = $1 AND r.state = 'active')
FROM tallyman.completeness c
WHERE c.revision_id = $1`

	sumMissing = `
SELECT coalesce(sum(m.last - m.first + 1), 0)::bigint, min(m.since)
FROM tallyman.missing($2) m
WHERE m.revision_id = $1`

	listHolds = `
SELECT c.source, c.incarnation, c.announced, c.covered, c.complete_through, c.seen_at, c.state = 'open', c.refused, coalesce(c.refused_why, '')
FROM tallyman.completeness c
WHERE c.revision_id = $1 AND c.complete_through < 'infinity'
UNION ALL
SELECT e.source, NULL, 0, 0, e.complete_through, NULL, false, 0, ''
FROM tallyman.expectations e
WHERE e.revision_id = $1 AND e.complete_through < 'infinity'
ORDER BY complete_through, incarnation, source
LIMIT 10`

	listMissing = `
SELECT r.dataset, m.revision_id, m.source, m.incarnation, m.first, m.last, m.since
FROM tallyman.missing($2) m
JOIN tallyman.revisions r USING (revision_id)
WHERE r.state = 'active' AND ($1 = '' OR r.dataset = $1)
ORDER BY r.dataset, m.source, m.incarnation, m.first`

	// Only what is missing now: a number that was loaded meanwhile needs no excuse.
	acceptMissing = `
WITH lost AS (
    SELECT GREATEST(h.first, $3) AS first, LEAST(h.last, $4) AS last
    FROM tallyman.streams s
    CROSS JOIN LATERAL tallyman.holes(s.revision_id, s.incarnation, s.floor, s.announced) h
    WHERE (s.revision_id, s.incarnation) = ($1, $2) AND h.first <= $4 AND h.last >= $3
), accepted AS (
    INSERT INTO tallyman.satisfied (revision_id, incarnation, first, last, reason, why, by_whom)
    SELECT $1, $2, first, last, 'accepted', $5, $6 FROM lost ORDER BY first
    RETURNING first, last
)
SELECT coalesce(sum(last - first + 1), 0)::bigint FROM accepted`
)

// AdvanceFloors implements sink.Books.
func (w *Warehouse) AdvanceFloors(ctx context.Context, r sink.Revision) (moved int64, err error) {
	err = w.pool.QueryRow(ctx, advanceFloors, r.ID).Scan(&moved)
	return moved, w.class("advance the floors of streams", err)
}

// ReadPositions returns how far a revision has read, ordered by cluster, topic
// and partition. Unlike Assign it makes nothing.
func (w *Warehouse) ReadPositions(ctx context.Context, r sink.Revision) ([]sink.Position, error) {
	rows, err := w.pool.Query(ctx, listPositions, r.ID)
	if err != nil {
		return nil, w.class("read positions", err)
	}
	all, err := pgx.CollectRows(rows, scanPosition)
	return all, w.class("read positions", err)
}

// Completeness implements sink.Books.
func (w *Warehouse) Completeness(ctx context.Context, r sink.Revision, grace time.Duration) (c sink.Completeness, err error) {
	moment := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err = pgx.BeginTxFunc(ctx, w.pool, moment, func(tx pgx.Tx) error {
		c, err = completeness(ctx, tx, r, grace)
		return err
	})
	return c, w.class("read completeness", err)
}

// completeness asks everything of one moment.
func completeness(ctx context.Context, tx pgx.Tx, r sink.Revision, grace time.Duration) (c sink.Completeness, err error) {
	b := &pgx.Batch{}
	b.Queue(sumCompleteness, r.ID).QueryRow(func(row pgx.Row) error {
		var through pgtype.Timestamptz
		if err := row.Scan(&c.Streams, &c.Open, &c.Refused, &c.Announced, &through, &c.Expected, &c.Read); err != nil {
			return err
		}
		c.All, c.Through = through.Valid && through.InfinityModifier == pgtype.Infinity, finite(through)
		return nil
	})
	b.Queue(sumMissing, r.ID, grace).QueryRow(func(row pgx.Row) error {
		var oldest pgtype.Timestamptz
		err := row.Scan(&c.Missing, &oldest)
		c.Oldest = finite(oldest)
		return err
	})
	b.Queue(sumMissing, r.ID, time.Duration(0)).QueryRow(func(row pgx.Row) error {
		var (
			nowhere int64
			oldest  pgtype.Timestamptz
		)
		err := row.Scan(&nowhere, &oldest)
		c.Satisfied = c.Announced - nowhere
		return err
	})
	b.Queue(listHolds, r.ID).Query(func(rows pgx.Rows) (err error) {
		c.Holds, err = pgx.CollectRows(rows, scanHold)
		return err
	})
	return c, tx.SendBatch(ctx, b).Close()
}

// finite returns a time, zero for what is none.
func finite(t pgtype.Timestamptz) time.Time {
	if !t.Valid || t.InfinityModifier != pgtype.Finite {
		return time.Time{}
	}
	return t.Time.UTC()
}

func scanHold(row pgx.CollectableRow) (h sink.Hold, err error) {
	var (
		incarnation        pgtype.UUID
		announced, covered int64
		through, heard     pgtype.Timestamptz
	)
	err = row.Scan(&h.Source, &incarnation, &announced, &covered, &through, &heard, &h.Open, &h.Refused, &h.Fault)
	h.Incarnation, h.Announced, h.Covered = incarnation.Bytes, uint64(announced), uint64(covered)
	h.Through, h.Heard = finite(through), finite(heard)
	return h, err
}

// Missing implements sink.Books.
func (w *Warehouse) Missing(ctx context.Context, dataset string, grace time.Duration) ([]sink.Missing, error) {
	rows, err := w.pool.Query(ctx, listMissing, dataset, grace)
	if err != nil {
		return nil, w.class("list missing batches", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (m sink.Missing, err error) {
		var (
			name        string
			incarnation pgtype.UUID
			first, last int64
			since       pgtype.Timestamptz
		)
		if err = row.Scan(&name, &m.Revision, &m.Source, &incarnation, &first, &last, &since); err != nil {
			return m, err
		}
		m.Incarnation, m.First, m.Last, m.Since = incarnation.Bytes, uint64(first), uint64(last), finite(since)
		m.Dataset, err = schema.ParseDataset(name)
		return m, err
	})
	return all, w.class("list missing batches", err)
}

// AcceptMissing implements sink.Books.
func (w *Warehouse) AcceptMissing(ctx context.Context, a sink.Acceptance) (n int64, err error) {
	err = w.pool.QueryRow(ctx, acceptMissing, a.Revision, pgtype.UUID{Bytes: a.Incarnation, Valid: a.Incarnation != uuid.Nil},
		int64(a.First), int64(a.Last), optional(a.Why), optional(a.By)).Scan(&n)
	return n, w.class("accept missing batches", err)
}
