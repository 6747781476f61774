package source

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"tallyman/schema/batch"
	"tallyman/schema/rows"
	"tallyman/source/journal"
)

// openBatch is a batch that calls of Append still join.
type openBatch struct {
	id      uuid.UUID
	value   []byte
	rows    int
	calls   int  // that wait for it
	overdue bool // the linger time is over
	timer   *time.Timer

	done chan struct{} // closed when the outcome is known
	err  error         // the outcome
}

// wait returns the batch's outcome, or ctx's error.
func (b *openBatch) wait(ctx context.Context) error {
	select {
	case <-b.done:
		return b.err
	case <-ctx.Done():
		return fmt.Errorf("whether the rows are durable is not known: %w", ctx.Err())
	}
}

// Append adds rows, each with its values in the manifest's order, and returns
// once the batch that holds them is durable. Values are as [rows.Codec.Append]
// takes them. All rows of a call are in one batch, so that they are loaded
// together, unless they are more than a batch holds; of such a call, an error
// after the first row was accepted, as with a full disk, leaves it unknown
// which of its batches are durable.
//
// The package documentation lists the errors.
func (s *Source) Append(ctx context.Context, rows [][]any) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("append to %s: %w", s.cfg.Manifest.Dataset, err)
	}
	if len(rows) == 0 {
		return nil
	}
	batches, err := s.join(rows)
	for _, b := range batches {
		err = errors.Join(err, b.wait(ctx))
	}
	if err != nil {
		return fmt.Errorf("append to %s: %w", s.cfg.Manifest.Dataset, err)
	}
	return nil
}

// join puts rows into the open batch, or into new ones, and returns these.
func (s *Source) join(rows [][]any) ([]*openBatch, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	if b := s.open; b != nil {
		value, count := b.value, b.rows
		next, err := s.fill(b, rows, 0)
		if err == nil && next == len(rows) {
			b.calls++
			s.cutIfDue()
			return []*openBatch{b}, nil
		}
		b.value, b.rows = value, count
		if err != nil {
			return nil, err
		}
		s.cut()
	}
	batches, err := s.pack(rows)
	if err != nil {
		return nil, err
	}
	for i, b := range batches {
		s.begin(b)
		if i < len(batches)-1 {
			s.cut()
		}
	}
	s.cutIfDue()
	return batches, nil
}

// pack makes as many new batches as rows need. Nothing is handed over before
// the last row is encoded.
func (s *Source) pack(rows [][]any) ([]*openBatch, error) {
	var batches []*openBatch
	for next := 0; next < len(rows); {
		b := &openBatch{id: batch.NewID(), calls: 1, value: make([]byte, 0, s.room), done: make(chan struct{})}
		var err error
		if next, err = s.fill(b, rows, next); err != nil {
			return nil, err
		}
		batches = append(batches, b)
	}
	return batches, nil
}

// fill encodes rows from one on into b until a row has no room, and returns
// that row's index. An empty batch takes at least one.
func (s *Source) fill(b *openBatch, rows [][]any, from int) (int, error) {
	for i := from; i < len(rows); i++ {
		if b.rows == s.cfg.MaxRows {
			return i, nil
		}
		value, err := s.encode(b.value, b.id, rows, i)
		if err != nil {
			return i, err
		}
		if b.rows > 0 && len(value) > min(s.cfg.MaxBytes, s.limit) {
			return i, nil
		}
		b.value = value
		b.rows++
	}
	return len(rows), nil
}

// encode appends one of rows to dst; its error names the row.
func (s *Source) encode(dst []byte, id uuid.UUID, all [][]any, i int) ([]byte, error) {
	value, err := s.codec.Append(dst, id, all[i])
	var bad *rows.Error
	if errors.As(err, &bad) {
		return dst, &rows.Error{Row: i + 1, Column: bad.Column, Detail: bad.Detail}
	}
	if size := len(value) - len(dst); size > s.limit {
		return dst, fmt.Errorf("row %d: %w: %d bytes, a message holds %d", i+1, ErrTooLarge, size, s.limit)
	}
	return value, err
}

// begin makes b the open batch. Callers hold s.mu.
func (s *Source) begin(b *openBatch) {
	s.open = b
	b.timer = time.AfterFunc(s.cfg.Linger, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		b.overdue = true
		s.cutIfDue()
	})
}

// cutIfDue cuts the open batch unless it should wait for company. Callers hold s.mu.
func (s *Source) cutIfDue() {
	b := s.open
	if b == nil {
		return
	}
	full := b.rows >= s.cfg.MaxRows || len(b.value) >= min(s.cfg.MaxBytes, s.limit)
	if full || s.writing == 0 && (b.overdue || b.calls >= s.company) {
		s.cut()
	}
}

// cut sends the open batch to the journal. Callers hold s.mu.
func (s *Source) cut() {
	b := s.open
	s.open = nil
	b.timer.Stop()
	s.company = b.calls
	s.room = len(b.value) + len(b.value)/8
	s.writing++
	s.tasks.Go(func() {
		b.err = s.accept(b.id, b.value, b.rows)
		close(b.done)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.writing--
		s.cutIfDue()
	})
}

// accept makes a batch durable and hands it to the publisher.
func (s *Source) accept(id uuid.UUID, value []byte, count int) error {
	at, err := batch.TimeOf(id)
	if err != nil {
		return err
	}
	b := &batch.Batch{
		ID: id, Time: at, Dataset: s.cfg.Manifest.Dataset, Schema: s.hash,
		ContentType: batch.Native, Rows: count, Value: value,
	}
	topic := s.cfg.Manifest.Topic
	answer, err := s.journal.Append(topic, b)
	if err != nil {
		return err
	}
	if !answer.Duplicate {
		s.publisher.Appended(&journal.Record{Key: answer.Key, Topic: topic, Batch: b})
	}
	return nil
}

// AppendBatch adds one batch under the caller's id, of version 7 or 8, and
// returns once it is durable. The same id with the same rows again is answered
// as the first time; with other rows it is [ErrIDConflict]. A batch over the
// topic's message limit is [ErrTooLarge].
//
// The package documentation lists the errors.
func (s *Source) AppendBatch(ctx context.Context, id uuid.UUID, rows [][]any) error {
	err := s.appendBatch(ctx, id, rows)
	if err != nil {
		return fmt.Errorf("append batch %s to %s: %w", id, s.cfg.Manifest.Dataset, err)
	}
	return nil
}

func (s *Source) appendBatch(ctx context.Context, id uuid.UUID, rows [][]any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, err := batch.TimeOf(id); err != nil {
		return err
	}
	if len(rows) == 0 {
		return errors.New("it has no rows")
	}
	value := make([]byte, 0, len(rows)*int(s.width.Load()))
	for i := range rows {
		var err error
		if value, err = s.encode(value, id, rows, i); err != nil {
			return err
		}
		if len(value) > s.limit {
			return fmt.Errorf("%w: %d bytes at row %d of %d, a message holds %d", ErrTooLarge, len(value), i+1, len(rows), s.limit)
		}
	}
	s.width.Store(int64(len(value)*9/8/len(rows) + 1))
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.tasks.Add(1)
	s.mu.Unlock()
	defer s.tasks.Done()
	return s.accept(id, value, len(rows))
}
