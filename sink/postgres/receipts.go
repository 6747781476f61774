package postgres

import (
	"bytes"
	"context"
	"crypto/sha256"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"tallyman/schema/batch"
	"tallyman/sink"
)

var _ sink.Receipts = (*Warehouse)(nil)

// heardOfLate is how far back announced streams are looked for: longer than any
// transaction takes that brings an announcement.
const heardOfLate = 10 * time.Minute

const (
	addStreams = `
INSERT INTO tallyman.receipts (cluster, revision_id, incarnation, due_at)
SELECT $2, s.revision_id, s.incarnation, now()
FROM tallyman.streams s
WHERE s.revision_id = $1 AND s.seen_at > now() - $3::interval
  AND NOT EXISTS (SELECT FROM tallyman.receipts r WHERE (r.cluster, r.revision_id, r.incarnation) = ($2, s.revision_id, s.incarnation))
ORDER BY s.incarnation
ON CONFLICT DO NOTHING`

	// A stream of which all was told is looked at again when its source
	// announces it once more: the source has not seen the receipt.
	wakeStreams = `
WITH unseen AS (
    SELECT r.incarnation
    FROM tallyman.receipts r
    JOIN tallyman.streams s USING (revision_id, incarnation)
    WHERE r.cluster = $2 AND r.revision_id = $1 AND r.due_at = 'infinity' AND s.seen_at > r.looked_at AND s.seen_at > now() - $3::interval
    FOR UPDATE OF r SKIP LOCKED
)
UPDATE tallyman.receipts r SET due_at = now()
FROM unseen
WHERE r.cluster = $2 AND r.revision_id = $1 AND r.incarnation = unseen.incarnation`

	waitsLongest = `
SELECT greatest(extract(epoch FROM now() - min(r.looked_at)), 0)::float8
FROM tallyman.receipts r
WHERE r.cluster = $2 AND r.revision_id = $1 AND r.due_at < 'infinity'
  AND EXISTS (SELECT FROM tallyman.revisions v WHERE v.revision_id = $1 AND v.state = 'active')`

	// Sources hear of what readers see. One that is being built lacks nearly
	// everything, and what stands by is nobody's measure.
	selectSpeaks = `SELECT EXISTS (SELECT FROM tallyman.revisions WHERE revision_id = $1 AND state = 'active')`

	takeDue = `
WITH due AS (
    SELECT r.incarnation
    FROM tallyman.receipts r
    WHERE r.cluster = $2 AND r.revision_id = $1 AND r.due_at <= now()
    ORDER BY r.due_at
    LIMIT $4
    FOR UPDATE SKIP LOCKED
)
UPDATE tallyman.receipts r SET due_at = now() + $3::interval
FROM due
WHERE r.cluster = $2 AND r.revision_id = $1 AND r.incarnation = due.incarnation
RETURNING r.incarnation, r.sent, r.sent_at, now()`

	readReceipts = `
SELECT s.incarnation, r.*
FROM unnest($2::uuid[]) AS s (incarnation)
CROSS JOIN LATERAL tallyman.receipt($1, s.incarnation, $3, $4) r`

	noteReceipts = `
UPDATE tallyman.receipts r
SET looked_at = n.at, due_at = CASE WHEN n.over THEN 'infinity'::timestamptz ELSE n.at + $3::interval END,
    sent = coalesce(n.sent, r.sent), sent_at = CASE WHEN n.sent IS NULL THEN r.sent_at ELSE n.at END
FROM unnest($4::uuid[], $5::timestamptz[], $6::bool[], $7::bytea[]) AS n (incarnation, at, over, sent)
WHERE r.cluster = $2 AND r.revision_id = $1 AND r.incarnation = n.incarnation`
)

// taken is a stream that is looked at, and what its source was told last.
type taken struct {
	incarnation uuid.UUID
	sent        []byte
	sentAt, at  time.Time
}

// TakeReceipts implements sink.Receipts.
func (w *Warehouse) TakeReceipts(ctx context.Context, d sink.Due) ([]batch.Receipt, int, error) {
	due, unchanged, looked, err := w.takeReceipts(ctx, d)
	if err == nil {
		err = w.note(ctx, d, unchanged, false)
	}
	return due, looked, w.class("take receipts", err)
}

func (w *Warehouse) takeReceipts(ctx context.Context, d sink.Due) (due, unchanged []batch.Receipt, looked int, err error) {
	of := pgtype.Interval{Microseconds: heardOfLate.Microseconds(), Valid: true}
	if d.All {
		of = pgtype.Interval{Months: 12 * 1000, Valid: true}
	}
	var speaks bool
	if err := w.pool.QueryRow(ctx, selectSpeaks, d.Revision.ID).Scan(&speaks); err != nil || !speaks {
		return nil, nil, 0, err
	}
	for _, statement := range []string{addStreams, wakeStreams} {
		if _, err := w.pool.Exec(ctx, statement, d.Revision.ID, d.Cluster, of); err != nil {
			return nil, nil, 0, err
		}
	}
	rows, err := w.pool.Query(ctx, takeDue, d.Revision.ID, d.Cluster, d.Lease, d.Limit)
	if err != nil {
		return nil, nil, 0, err
	}
	all, err := pgx.CollectRows(rows, scanTaken)
	if err != nil || len(all) == 0 {
		return nil, nil, 0, err
	}
	target, err := w.Target(ctx)
	if err != nil {
		return nil, nil, 0, err
	}
	receipts, err := w.receiptsOf(ctx, d, all)
	if err != nil {
		return nil, nil, 0, err
	}
	for _, t := range all {
		r, ok := receipts[t.incarnation]
		if !ok {
			continue // the stream is gone, and the row is looked at again
		}
		r.Target, r.At = target, t.at
		if t.due(&r, d.Again) {
			due = append(due, r.Receipt)
		} else {
			unchanged = append(unchanged, r.Receipt)
		}
	}
	return due, unchanged, len(all), nil
}

// due says whether the stream's source is told now. One that announced a closed
// stream once more has not seen what it was told. One that can do something about
// its stream is told again and again: after the warehouse was restored from a
// backup, what was told last is not what this warehouse remembers.
func (t *taken) due(r *owed, again time.Duration) bool {
	switch {
	case !bytes.Equal(t.sent, fingerprint(&r.Receipt)):
		return true
	case r.Closed && r.seen.After(t.sentAt):
		return true
	default:
		return !over(&r.Receipt) && t.at.Sub(t.sentAt) >= again
	}
}

// over says whether a stream is closed and all of it accounted for.
func over(r *batch.Receipt) bool { return r.Closed && r.Through == r.Announced }

// fingerprint is what a receipt says, whenever it says so.
func fingerprint(r *batch.Receipt) []byte {
	timeless := *r
	timeless.At = time.Unix(0, 0)
	value, err := timeless.Value()
	if err != nil {
		return nil // nothing equals it, and whoever sends it meets the error
	}
	sum := sha256.Sum256(value)
	return sum[:]
}

func scanTaken(row pgx.CollectableRow) (t taken, err error) {
	var (
		incarnation pgtype.UUID
		sentAt, at  pgtype.Timestamptz
	)
	err = row.Scan(&incarnation, &t.sent, &sentAt, &at)
	t.incarnation, t.sentAt, t.at = incarnation.Bytes, finite(sentAt), finite(at)
	return t, err
}

// owed is a receipt, and when its stream was announced last.
type owed struct {
	batch.Receipt
	seen time.Time
}

// receiptsOf reads what is to be told of streams.
func (w *Warehouse) receiptsOf(ctx context.Context, d sink.Due, all []taken) (map[uuid.UUID]owed, error) {
	ids := make([]pgtype.UUID, len(all))
	for i, t := range all {
		ids[i] = pgtype.UUID{Bytes: t.incarnation, Valid: true}
	}
	rows, err := w.pool.Query(ctx, readReceipts, d.Revision.ID, ids, d.Grace, batch.MaxReceiptRanges)
	if err != nil {
		return nil, err
	}
	receipts := map[uuid.UUID]owed{}
	var (
		r                              owed
		seen                           pgtype.Timestamptz
		incarnation                    pgtype.UUID
		through, considered, announced int64
		firsts, lasts                  []int64
	)
	_, err = pgx.ForEachRow(rows, []any{&incarnation, &r.Source, &r.Closed, &seen, &through, &considered, &announced, &firsts, &lasts}, func() error {
		r.seen = finite(seen)
		r.Dataset, r.Incarnation = d.Revision.Manifest.Dataset, incarnation.Bytes
		r.Through, r.Considered, r.Announced = uint64(through), uint64(considered), uint64(announced)
		r.Missing = make([]batch.Range, len(firsts))
		for i := range firsts {
			r.Missing[i] = batch.Range{First: uint64(firsts[i]), Last: uint64(lasts[i])}
		}
		receipts[r.Incarnation] = r
		return nil
	})
	return receipts, err
}

// ReceiptsAge implements sink.Receipts.
func (w *Warehouse) ReceiptsAge(ctx context.Context, d sink.Due) (time.Duration, error) {
	var seconds *float64
	if err := w.pool.QueryRow(ctx, waitsLongest, d.Revision.ID, d.Cluster).Scan(&seconds); err != nil || seconds == nil {
		return 0, w.class("see how old receipts are", err)
	}
	return time.Duration(*seconds * float64(time.Second)), nil
}

// ReceiptsSent implements sink.Receipts.
func (w *Warehouse) ReceiptsSent(ctx context.Context, d sink.Due, receipts []batch.Receipt) error {
	return w.class("note receipts", w.note(ctx, d, receipts, true))
}

// note notes that streams were looked at, and whether their sources were told.
func (w *Warehouse) note(ctx context.Context, d sink.Due, receipts []batch.Receipt, sent bool) error {
	if len(receipts) == 0 {
		return nil
	}
	ids, at := make([]pgtype.UUID, len(receipts)), make([]time.Time, len(receipts))
	done, told := make([]bool, len(receipts)), make([][]byte, len(receipts))
	for i := range receipts {
		r := &receipts[i]
		ids[i], at[i] = pgtype.UUID{Bytes: r.Incarnation, Valid: true}, r.At
		done[i] = over(r)
		if sent {
			told[i] = fingerprint(r)
		}
	}
	_, err := w.pool.Exec(ctx, noteReceipts, d.Revision.ID, d.Cluster, d.Every, ids, at, done, told)
	return err
}
