package replay

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/google/uuid"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"tallyman/source/journal"
	"tallyman/source/publish"
)

// Store is a journal that batches are read from: a [journal.Journal], or a
// [journal.Reader] of one that nobody holds.
type Store interface {
	Get(k journal.Key) (*journal.Record, error)
	Held(s journal.Stream, first, last uint64, limit int) ([]uint64, error)
}

// Limits bound how fast batches are sent again.
type Limits struct {
	// Batches a second. Defaults to 500.
	Batches int
	// Bytes of rows a second; a single larger batch takes longer. Defaults to 16 MiB.
	Bytes int64
}

// State is what became of a batch that was to be sent.
type State uint8

// The states.
const (
	Sent    State = iota // all in-sync replicas have it
	Absent               // the journal does not hold it: it was trimmed, or never was here
	Damaged              // its bytes changed on the disk: it was not sent
	Refused              // the broker will never take it
)

// String returns the state as reports have it.
func (s State) String() string {
	switch s {
	case Sent:
		return "sent"
	case Absent:
		return "not in the journal"
	case Damaged:
		return "damaged"
	default:
		return "refused"
	}
}

// Outcome is what became of a batch, or of a run of batches that are not in the
// journal.
type Outcome struct {
	Stream journal.Stream
	// Range is the batch's number, twice; of an Absent outcome all that are not there.
	Range journal.Range
	State State
	ID    uuid.UUID // of what was read
	Rows  int       // of what was read
	Bytes int64     // of rows, of what was read
	Err   error     // why it was not sent; nil: it was, or it is absent
}

// Sender sends batches of one journal. It is safe for concurrent use with a
// journal.Journal, and its limits hold for all who use it together.
type Sender struct {
	store   Store
	to      *publish.Sender
	batches *rate.Limiter
	bytes   *rate.Limiter
	budget  *semaphore.Weighted
}

// inFlightBytes bounds the bytes of batches that wait for the broker.
const inFlightBytes = 8 << 20

// NewSender returns a sender of a journal's batches.
func NewSender(store Store, to *publish.Sender, l Limits) *Sender {
	if l.Batches <= 0 {
		l.Batches = 500
	}
	if l.Bytes <= 0 {
		l.Bytes = 16 << 20
	}
	return &Sender{
		store: store, to: to,
		batches: rate.NewLimiter(rate.Limit(l.Batches), max(l.Batches/10, 1)),
		bytes:   rate.NewLimiter(rate.Limit(l.Bytes), int(min(l.Bytes, 1<<30))),
		budget:  semaphore.NewWeighted(inFlightBytes),
	}
}

// page is how many numbers of batches are looked up at a time.
const page = 1024

// Send publishes what the journal holds of some ranges of a stream, whoever has
// it already, and tells of each batch what became of it: one call of note at a
// time, not in the order of numbers. It goes on after a batch that can't be
// sent. The error is ctx's, or the journal's; what was not told of then may
// have been sent or not.
func (s *Sender) Send(ctx context.Context, stream journal.Stream, ranges []journal.Range, note func(Outcome)) error {
	var (
		sending sync.WaitGroup
		mu      sync.Mutex
		failed  error
	)
	tell := func(o Outcome) {
		mu.Lock()
		defer mu.Unlock()
		o.Stream = stream
		note(o)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer sending.Wait()
	for _, r := range ranges {
		err := s.each(stream, r, func(n uint64, absent journal.Range) error {
			if n == 0 {
				tell(Outcome{Range: absent, State: Absent})
				return nil
			}
			o, record := s.read(journal.Key{Stream: stream, Sequence: n})
			if record == nil {
				tell(o)
				return nil
			}
			if err := s.wait(ctx, o.Bytes); err != nil {
				return err
			}
			sending.Go(func() {
				defer s.budget.Release(weight(o.Bytes))
				err := s.to.Send(ctx, record)
				if err != nil && !errors.Is(err, publish.ErrRefused) {
					mu.Lock()
					defer mu.Unlock()
					failed = errors.Join(failed, err)
					return
				}
				if err != nil {
					o.State, o.Err = Refused, err
				}
				tell(o)
			})
			return nil
		})
		if err != nil {
			return fmt.Errorf("send batches of %s %s again: %w", stream.Dataset, stream.Incarnation, err)
		}
	}
	sending.Wait()
	if failed != nil {
		return fmt.Errorf("send batches of %s %s again: %w", stream.Dataset, stream.Incarnation, failed)
	}
	return nil
}

// each visits the numbers of a range that the journal holds, and between them
// the runs that it does not hold, with n = 0. It never counts through such a
// run: a range may name any number of batches.
func (s *Sender) each(stream journal.Stream, r journal.Range, visit func(n uint64, absent journal.Range) error) error {
	next := max(r.First, 1)
	for next <= r.Last {
		found, err := s.store.Held(stream, next, r.Last, page)
		if err != nil {
			return err
		}
		for _, n := range found {
			if n > next {
				if err := visit(0, journal.Range{First: next, Last: n - 1}); err != nil {
					return err
				}
			}
			if err := visit(n, journal.Range{}); err != nil {
				return err
			}
			if next = n + 1; next == 0 { // after the greatest number there is
				return nil
			}
		}
		if len(found) < page {
			break
		}
	}
	if next <= r.Last {
		return visit(0, journal.Range{First: next, Last: r.Last})
	}
	return nil
}

// read reads a batch and checks its digest. The record is nil if there is
// nothing to send.
func (s *Sender) read(k journal.Key) (Outcome, *journal.Record) {
	o := Outcome{Range: journal.Range{First: k.Sequence, Last: k.Sequence}}
	record, err := s.store.Get(k)
	switch {
	case errors.Is(err, journal.ErrNoBatch): // trimmed meanwhile
		o.State = Absent
		return o, nil
	case err != nil:
		o.State, o.Err = Damaged, err
		return o, nil
	}
	o.ID, o.Rows, o.Bytes = record.Batch.ID, record.Batch.Rows, record.Size()
	if !record.Batch.Intact() {
		o.State, o.Err = Damaged, fmt.Errorf("batch %s: %w: its digest does not match", k, journal.ErrCorrupt)
		return o, nil
	}
	return o, record
}

// wait waits until a batch of some bytes may go out, and takes its bytes of the budget.
func (s *Sender) wait(ctx context.Context, bytes int64) error {
	if err := s.batches.Wait(ctx); err != nil {
		return err
	}
	for left := bytes; left > 0; {
		some := min(left, int64(s.bytes.Burst()))
		if err := s.bytes.WaitN(ctx, int(some)); err != nil {
			return err
		}
		left -= some
	}
	return s.budget.Acquire(ctx, weight(bytes))
}

// weight is what a batch takes of the budget: a larger one takes all of it.
func weight(bytes int64) int64 { return min(max(bytes, 1), inFlightBytes) }
