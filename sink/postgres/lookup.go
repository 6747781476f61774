package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"tallyman/schema/batch"
	"tallyman/sink"
)

const (
	selectV4Times = `
SELECT unique_id, batch_time FROM tallyman.v4_ids WHERE revision_id = $1 AND unique_id = ANY ($2::uuid[])`

	selectForgotten = `
SELECT k.unique_id, k.sequence > 0 AND tallyman.accounted($1, k.incarnation, k.sequence)
FROM unnest($2::timestamptz[], $3::uuid[], $4::uuid[], $5::bigint[]) AS k (batch_time, unique_id, incarnation, sequence)
WHERE k.batch_time < (SELECT horizon FROM tallyman.ledger_window)`

	selectLoaded = `
SELECT k.number, l.incarnation, l.sequence
FROM unnest($2::timestamptz[], $3::uuid[], $4::bigint[]) WITH ORDINALITY AS k (batch_time, unique_id, seal, number)
JOIN tallyman.loaded_elements l ON (l.revision_id, l.batch_time, l.unique_id) = ($1, k.batch_time, k.unique_id)
WHERE l.outcome = 'loaded' AND l.seal = k.seal`

	selectDigests = `
SELECT l.unique_id, l.digest, l.incarnation, l.sequence
FROM unnest($2::timestamptz[], $3::uuid[]) AS k (batch_time, unique_id)
JOIN tallyman.loaded_elements l ON (l.revision_id, l.batch_time, l.unique_id) = ($1, k.batch_time, k.unique_id)`
)

// Loaded implements sink.Ledger.
func (w *Warehouse) Loaded(ctx context.Context, r sink.Revision, batches []*batch.Batch) ([]bool, error) {
	var seals []pgtype.Int8
	claims := make([]*claim, len(batches))
	for i, b := range batches {
		claims[i] = &claim{batch: b, at: b.Time}
		seals = append(seals, sealOf(b))
	}
	times, unique := ids(claims)
	rows, err := w.pool.Query(ctx, selectLoaded, r.ID, times, unique, seals)
	if err != nil {
		return nil, w.class("look up ids", err)
	}
	var (
		i           int
		incarnation pgtype.UUID
		sequence    pgtype.Int8
		loaded      = make([]bool, len(batches))
	)
	_, err = pgx.ForEachRow(rows, []any{&i, &incarnation, &sequence}, func() error {
		loaded[i-1] = numberOf(batches[i-1]) == (number{stream: incarnation.Bytes, sequence: uint64(sequence.Int64)})
		return nil
	})
	if err != nil {
		return nil, w.class("look up ids", err)
	}
	return loaded, nil
}

// lookUp finds out what the ids stand for that the ledger did not take.
func (t *transaction) lookUp(ctx context.Context, had []*claim) error {
	if err := t.lookUpTimes(ctx, v4Claims(had)); err != nil {
		return err
	}
	times, unique := ids(had)
	rows, err := t.conn.Query(ctx, selectDigests, t.group.Revision.ID, times, unique)
	if err != nil {
		return classify("look up ids", inClaim, t.target, err)
	}
	var (
		id, incarnation pgtype.UUID
		digest          []byte
		sequence        pgtype.Int8
	)
	_, err = pgx.ForEachRow(rows, []any{&id, &digest, &incarnation, &sequence}, func() error {
		c := t.plan.byID[id.Bytes]
		c.known, c.as = batch.Digest(digest), number{stream: incarnation.Bytes, sequence: uint64(sequence.Int64)}
		return nil
	})
	if err != nil {
		return classify("look up ids", inClaim, t.target, err)
	}
	var gone []*claim
	for _, c := range had {
		// What a v4 id stood for at its own time may be forgotten; that it was another time is enough.
		if c.known == (batch.Digest{}) && c.at.Equal(c.batch.Time) {
			gone = append(gone, c)
		}
	}
	return t.lookUpForgotten(ctx, gone)
}

// lookUpForgotten finds out what is known of ids that the ledger neither took nor has:
// they are from before its horizon.
func (t *transaction) lookUpForgotten(ctx context.Context, gone []*claim) error {
	if len(gone) == 0 {
		return nil
	}
	var (
		incarnations []pgtype.UUID
		sequences    []int64
	)
	times, unique := ids(gone)
	for _, c := range gone {
		incarnations = append(incarnations, pgtype.UUID{Bytes: c.batch.Incarnation, Valid: true})
		sequences = append(sequences, int64(c.batch.Sequence))
	}
	rows, err := t.conn.Query(ctx, selectForgotten, t.group.Revision.ID, times, unique, incarnations, sequences)
	if err != nil {
		return classify("look up what is forgotten", inClaim, t.target, err)
	}
	var (
		id      pgtype.UUID
		counted bool
	)
	_, err = pgx.ForEachRow(rows, []any{&id, &counted}, func() error {
		c := t.plan.byID[id.Bytes]
		c.expired, c.counted = true, counted
		return nil
	})
	for _, c := range gone {
		if err == nil && !c.expired {
			err = &sink.Error{Class: sink.Retryable, Reason: reasonUnexpected, Err: fmt.Errorf(
				"look up ids: the ledger refused %s at %s and does not have it", c.batch.ID, c.at.Format(time.RFC3339Nano))}
		}
	}
	return classify("look up what is forgotten", inClaim, t.target, err)
}

// lookUpTimes finds out which times v4 ids stand for.
func (t *transaction) lookUpTimes(ctx context.Context, v4 []*claim) error {
	if len(v4) == 0 {
		return nil
	}
	_, unique := ids(v4)
	rows, err := t.conn.Query(ctx, selectV4Times, t.group.Revision.ID, unique)
	if err != nil {
		return classify("look up the times of v4 ids", inClaim, t.target, err)
	}
	var (
		id pgtype.UUID
		at time.Time
	)
	_, err = pgx.ForEachRow(rows, []any{&id, &at}, func() error {
		t.plan.byID[id.Bytes].at = at.UTC()
		return nil
	})
	return classify("look up the times of v4 ids", inClaim, t.target, err)
}
