package source

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"tallyman/schema"
	"tallyman/schema/batch"
)

// Accepted is a durable batch, and its place in the journal.
type Accepted struct {
	ID uuid.UUID
	// Incarnation and Sequence number the batch within its stream; for a batch
	// that was there already, as it was numbered then.
	Incarnation uuid.UUID
	Sequence    uint64
	Rows        int // of the call
}

// Manifest returns the dataset that the source carries.
func (s *Source) Manifest() schema.Manifest { return s.cfg.Manifest }

// MaxValue returns how many bytes of native tuples a batch can have: what
// exceeds it is [ErrTooLarge].
func (s *Source) MaxValue() int { return s.limit }

// AppendNative is Append for rows that are native tuples already, as a codec of
// the manifest makes them, with uuid.Nil for the id. It tells which batches
// hold them.
func (s *Source) AppendNative(ctx context.Context, tuples []byte) ([]Accepted, error) {
	if len(tuples) == 0 {
		return nil, nil
	}
	accepted, err := s.appendNative(ctx, tuples)
	if err != nil {
		return nil, fmt.Errorf("append to %s: %w", s.cfg.Manifest.Dataset, err)
	}
	return accepted, nil
}

func (s *Source) appendNative(ctx context.Context, tuples []byte) ([]Accepted, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ends, err := s.codec.Ends(nil, tuples, uuid.Nil)
	if err != nil {
		return nil, err
	}
	begin := 0
	for i, end := range ends {
		if size := end - begin; size > s.limit {
			return nil, fmt.Errorf("row %d: %w: %d bytes, a message holds %d", i+1, ErrTooLarge, size, s.limit)
		}
		begin = end
	}
	parts, err := s.join(ctx, &encoded{value: tuples, ends: ends})
	if err != nil {
		return nil, err
	}
	accepted := make([]Accepted, len(parts))
	for i, p := range parts {
		key := p.batch.answer.Key
		accepted[i] = Accepted{ID: p.batch.id, Incarnation: key.Incarnation, Sequence: key.Sequence, Rows: p.rows}
	}
	return accepted, nil
}

// AppendBatchNative is AppendBatchAt for rows that are native tuples already,
// with the batch's id. The tuples must not change afterwards.
func (s *Source) AppendBatchNative(ctx context.Context, id uuid.UUID, at time.Time, tuples []byte) (Accepted, error) {
	accepted, err := s.appendBatchNative(ctx, id, at, tuples)
	if err != nil {
		return Accepted{}, fmt.Errorf("append batch %s to %s: %w", id, s.cfg.Manifest.Dataset, err)
	}
	return accepted, nil
}

func (s *Source) appendBatchNative(ctx context.Context, id uuid.UUID, at time.Time, tuples []byte) (Accepted, error) {
	if err := ctx.Err(); err != nil {
		return Accepted{}, err
	}
	at, err := batch.TimeWith(id, at)
	if err != nil {
		return Accepted{}, err
	}
	ends, err := s.codec.Ends(nil, tuples, id)
	if err != nil {
		return Accepted{}, err
	}
	if len(ends) == 0 {
		return Accepted{}, errors.New("it has no rows")
	}
	answer, err := s.acceptAlone(id, at, &encoded{value: tuples, ends: ends})
	if err != nil {
		return Accepted{}, err
	}
	key := answer.Key
	return Accepted{ID: id, Incarnation: key.Incarnation, Sequence: key.Sequence, Rows: len(ends)}, nil
}
