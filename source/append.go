package source

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
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

	done   chan struct{} // closed when the outcome is known
	answer journal.Appended
	err    error // the outcome
}

// part is the rows of one call that are in one batch.
type part struct {
	batch *openBatch
	rows  int
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

// encoded is rows as native tuples.
type encoded struct {
	value []byte
	ends  []int // where each row ends in value
}

// size returns the bytes of the first n rows.
func (e *encoded) size(n int) int {
	if n == 0 {
		return 0
	}
	return e.ends[n-1]
}

// encode makes tuples of a batch. Its error names the row.
func (s *Source) encode(e *encoded, id uuid.UUID, all [][]any) error {
	e.value = slices.Grow(e.value[:0], len(all)*int(s.width.Load()))
	e.ends = slices.Grow(e.ends[:0], len(all))
	for i, row := range all {
		begin := len(e.value)
		var err error
		e.value, err = s.codec.Append(e.value, id, row)
		var bad *rows.Error
		if errors.As(err, &bad) {
			return &rows.Error{Row: i + 1, Column: bad.Column, Detail: bad.Detail}
		}
		if err != nil {
			return err
		}
		if size := len(e.value) - begin; size > s.limit {
			return fmt.Errorf("row %d: %w: %d bytes, a message holds %d", i+1, ErrTooLarge, size, s.limit)
		}
		e.ends = append(e.ends, len(e.value))
	}
	s.width.Store(int64(len(e.value)*9/8/len(all) + 1))
	return nil
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
	// Callers encode side by side, before it is known which batch takes the rows.
	e := s.spare.Get().(*encoded)
	defer s.spare.Put(e)
	err := s.encode(e, uuid.Nil, rows)
	if err == nil {
		_, err = s.join(ctx, e)
	}
	if err != nil {
		return fmt.Errorf("append to %s: %w", s.cfg.Manifest.Dataset, err)
	}
	return nil
}

// join brings rows into batches, and returns these once they are durable.
func (s *Source) join(ctx context.Context, e *encoded) ([]part, error) {
	parts, err := s.place(e)
	for _, p := range parts {
		err = errors.Join(err, p.batch.wait(ctx))
	}
	return parts, err
}

// place puts rows into the open batch, or into new ones, and returns these.
func (s *Source) place(e *encoded) ([]part, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	if b := s.open; b != nil {
		if s.room(b, e, 0) == len(e.ends) {
			b.calls++
			s.fill(b, e, 0, len(e.ends))
			s.cutIfDue()
			return []part{{b, len(e.ends)}}, nil
		}
		s.cut()
	}
	var parts []part
	for next := 0; next < len(e.ends); {
		if next > 0 {
			s.cut()
		}
		b := &openBatch{id: batch.NewID(), calls: 1, value: make([]byte, 0, s.usual), done: make(chan struct{})}
		end := s.room(b, e, next)
		s.fill(b, e, next, end)
		s.begin(b)
		parts, next = append(parts, part{b, end - next}), end
	}
	s.cutIfDue()
	return parts, nil
}

// room returns up to which of e's rows b has room for those from one on. An
// empty batch takes at least one.
func (s *Source) room(b *openBatch, e *encoded, from int) int {
	bytes := min(s.cfg.MaxBytes, s.limit) - len(b.value) + e.size(from)
	fit := sort.Search(len(e.ends)-from, func(i int) bool { return e.ends[from+i] > bytes })
	if b.rows == 0 {
		fit = max(fit, 1)
	}
	return from + min(fit, s.cfg.MaxRows-b.rows)
}

// fill moves rows of e into b.
func (s *Source) fill(b *openBatch, e *encoded, from, to int) {
	start, shift := len(b.value), e.size(from)
	b.value = append(b.value, e.value[shift:e.ends[to-1]]...)
	for _, end := range e.ends[from:to] {
		s.codec.SetID(b.value[:start+end-shift], b.id)
	}
	b.rows += to - from
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
	s.usual = len(b.value) + len(b.value)/8
	s.writing++
	s.tasks.Go(func() {
		at, err := batch.TimeOf(b.id)
		if err == nil {
			b.answer, err = s.accept(b.id, at, b.value, b.rows)
		}
		b.err = err
		close(b.done)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.writing--
		s.cutIfDue()
	})
}

// accept makes a batch durable and hands it to the publisher.
func (s *Source) accept(id uuid.UUID, at time.Time, value []byte, count int) (journal.Appended, error) {
	b := &batch.Batch{
		ID: id, Time: at, Dataset: s.cfg.Manifest.Dataset, Schema: s.hash,
		ContentType: batch.Native, Rows: count, Value: value,
	}
	topic := s.cfg.Manifest.Topic
	answer, err := s.journal.Append(topic, b)
	if err == nil && !answer.Duplicate {
		s.publisher.Appended(&journal.Record{Key: answer.Key, Topic: topic, Batch: b})
		s.announcer.touch()
	}
	return answer, err
}

// AppendBatch adds one batch under the caller's id, of version 1, 6, 7 or 8,
// and returns once it is durable. The same id with the same rows again is
// answered as the first time; with other rows it is [ErrIDConflict]. A batch
// over the topic's message limit is [ErrTooLarge].
//
// The package documentation lists the errors.
func (s *Source) AppendBatch(ctx context.Context, id uuid.UUID, rows [][]any) error {
	at, err := batch.TimeOf(id)
	if err == nil {
		err = s.appendBatch(ctx, id, at, rows)
	}
	return s.ofBatch(id, err)
}

// AppendBatchAt is AppendBatch with the batch time, which an id of version 4
// needs: it has none of its own, so whoever made the id keeps a time beside it.
// The time is cut to the microsecond; with another one the same id is
// [ErrIDConflict]. With an id of another version the time must be the one in
// the id.
func (s *Source) AppendBatchAt(ctx context.Context, id uuid.UUID, at time.Time, rows [][]any) error {
	at, err := batch.TimeWith(id, at)
	if err == nil {
		err = s.appendBatch(ctx, id, at, rows)
	}
	return s.ofBatch(id, err)
}

// ofBatch adds to an error which batch it is about.
func (s *Source) ofBatch(id uuid.UUID, err error) error {
	if err != nil {
		return fmt.Errorf("append batch %s to %s: %w", id, s.cfg.Manifest.Dataset, err)
	}
	return nil
}

func (s *Source) appendBatch(ctx context.Context, id uuid.UUID, at time.Time, rows [][]any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(rows) == 0 {
		return errors.New("it has no rows")
	}
	var e encoded
	if err := s.encode(&e, id, rows); err != nil {
		return err
	}
	_, err := s.acceptAlone(id, at, &e)
	return err
}

// acceptAlone makes a batch of the caller's durable.
func (s *Source) acceptAlone(id uuid.UUID, at time.Time, e *encoded) (journal.Appended, error) {
	if len(e.value) > s.limit {
		return journal.Appended{}, fmt.Errorf("%w: %d bytes in %d rows, a message holds %d", ErrTooLarge, len(e.value), len(e.ends), s.limit)
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return journal.Appended{}, ErrClosed
	}
	s.tasks.Add(1)
	s.mu.Unlock()
	defer s.tasks.Done()
	return s.accept(id, at, e.value, len(e.ends))
}
