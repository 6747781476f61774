package postgres

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"tallyman/schema/batch"
	"tallyman/sink"
)

// Awaited is a batch that somebody waits for.
type Awaited struct {
	ID      uuid.UUID
	Time    time.Time    // the batch time
	Content batch.Digest // as the ledger keeps it
}

// Outstanding is an awaited batch that is not loaded.
type Outstanding struct {
	Awaited
	// Discarded and Conflict say that it can't be loaded any more: somebody gave it
	// up, or the ledger has its id for other content.
	Discarded, Conflict bool
	// Kept is why it is in quarantine, and under which key; empty: it is not.
	Kept batch.Reason
	Key  batch.Digest
}

// One of the messages of a batch in quarantine is enough to know.
const selectOutstanding = `
SELECT a.n, l.outcome = 'discarded', l.digest <> a.content, k.reason, k.sha256
FROM unnest($2::uuid[], $3::timestamptz[], $4::bytea[]) WITH ORDINALITY AS a (id, at, content, n)
LEFT JOIN tallyman.loaded_elements l ON (l.revision_id, l.batch_time, l.unique_id) = ($1, a.at, a.id)
LEFT JOIN LATERAL (
    SELECT q.reason, q.sha256 FROM tallyman.quarantine q
    WHERE (q.revision_id, q.unique_id) = ($1, a.id) AND q.state = 'open'
    ORDER BY q.seen_at DESC, q.sha256 LIMIT 1
) k ON l.outcome IS NULL
WHERE l.outcome IS DISTINCT FROM 'loaded' OR l.digest <> a.content
ORDER BY a.n`

// awaitedAtOnce is how many batches one statement asks for.
const awaitedAtOnce = 10_000

// Outstanding returns those of the batches that a revision has not loaded, in
// their order.
func (w *Warehouse) Outstanding(ctx context.Context, r sink.Revision, batches []Awaited) ([]Outstanding, error) {
	var all []Outstanding
	for len(batches) > 0 {
		n := min(len(batches), awaitedAtOnce)
		some, err := w.outstanding(ctx, r, batches[:n])
		if err != nil {
			return nil, w.class("look for batches in the ledger", err)
		}
		all, batches = append(all, some...), batches[n:]
	}
	return all, nil
}

func (w *Warehouse) outstanding(ctx context.Context, r sink.Revision, batches []Awaited) ([]Outstanding, error) {
	ids, times, contents := make([]pgtype.UUID, len(batches)), make([]time.Time, len(batches)), make([][]byte, len(batches))
	for i, b := range batches {
		ids[i], times[i], contents[i] = pgtype.UUID{Bytes: b.ID, Valid: true}, b.Time, b.Content[:]
	}
	rows, err := w.pool.Query(ctx, selectOutstanding, r.ID, ids, times, contents)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (o Outstanding, err error) {
		var (
			n                   int
			discarded, conflict pgtype.Bool
			reason              pgtype.Text
			key                 []byte
		)
		if err := row.Scan(&n, &discarded, &conflict, &reason, &key); err != nil {
			return o, err
		}
		o = Outstanding{Awaited: batches[n-1], Discarded: discarded.Bool, Conflict: conflict.Bool && !discarded.Bool, Kept: batch.Reason(reason.String)}
		copy(o.Key[:], key)
		return o, nil
	})
}
