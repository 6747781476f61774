package publish

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"tallyman/source/journal"
)

// span is a run of announced sequences, both ends included.
type span struct{ first, last uint64 }

// lane publishes one stream.
type lane struct {
	p      *Publisher
	stream journal.Stream
	budget *semaphore.Weighted
	wake   chan struct{} // holds a token when something was announced

	mu      sync.Mutex
	queue   []span // announced, not yet taken
	fresh   map[uint64]*journal.Record
	kept    int64 // bytes in fresh
	waiting int   // announced and not finished
	aside   int
	recent  []moment
}

// moment is a short time and what was published in it: all of it lies between
// first and last, perhaps with others.
type moment struct {
	begin, end time.Time
	span
}

const (
	momentTime = time.Second
	momentKeep = 10 * time.Minute
)

// published notes that a batch was published now.
func (l *lane) published(n uint64, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := len(l.recent) - 1; i >= 0 && now.Sub(l.recent[i].begin) < momentTime {
		m := &l.recent[i]
		m.end, m.first, m.last = now, min(m.first, n), max(m.last, n)
		return
	}
	for len(l.recent) > 0 && now.Sub(l.recent[0].end) > momentKeep {
		l.recent = l.recent[1:]
	}
	l.recent = append(l.recent, moment{begin: now, end: now, span: span{n, n}})
}

// since returns runs of numbers among which is all that was published after a time.
func (l *lane) since(t time.Time) (all []journal.Range) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.recent {
		if m.end.After(t) {
			all = append(all, journal.Range{First: m.first, Last: m.last})
		}
	}
	return all
}

func newLane(p *Publisher, s journal.Stream) *lane {
	return &lane{
		p: p, stream: s, budget: semaphore.NewWeighted(p.cfg.InFlightBytes),
		wake: make(chan struct{}, 1), fresh: map[uint64]*journal.Record{},
	}
}

// announce queues a sequence. r spares reading the journal while the lane
// keeps up; it may be nil.
func (l *lane) announce(n uint64, r *journal.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last := len(l.queue) - 1; last >= 0 && l.queue[last].last+1 == n {
		l.queue[last].last = n
	} else {
		l.queue = append(l.queue, span{first: n, last: n})
	}
	l.waiting++
	l.p.metrics.unpublished.Inc()
	if r != nil && l.kept+r.Size() <= l.p.cfg.InFlightBytes {
		l.fresh[n] = r
		l.kept += r.Size()
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// take returns the next announced sequence, with its record if it is in memory.
func (l *lane) take() (n uint64, r *journal.Record, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 {
		return 0, nil, false
	}
	n = l.queue[0].first
	if l.queue[0].first++; l.queue[0].first > l.queue[0].last {
		l.queue = l.queue[1:]
	}
	if r = l.fresh[n]; r != nil {
		delete(l.fresh, n)
		l.kept -= r.Size()
	}
	return n, r, true
}

func (l *lane) counts() (waiting, aside int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waiting, l.aside
}

// run publishes until ctx ends.
func (l *lane) run(ctx context.Context) {
	var sending sync.WaitGroup
	defer sending.Wait()
	for {
		n, r, ok := l.take()
		if !ok {
			select {
			case <-l.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		key := journal.Key{Stream: l.stream, Sequence: n}
		if r == nil {
			var err error
			if r, err = l.p.cfg.Journal.Get(key); err != nil {
				l.setAside(key, err)
				continue
			}
		}
		size := l.p.weight(r)
		if l.budget.Acquire(ctx, size) != nil {
			return
		}
		sending.Go(func() {
			defer l.budget.Release(size)
			l.publish(ctx, r)
		})
	}
}

// weight is what a record takes of a budget: a larger one takes all of it.
func (p *Publisher) weight(r *journal.Record) int64 {
	return min(max(r.Size(), 1), p.cfg.InFlightBytes)
}

// publish sends one batch and notes what became of it.
func (l *lane) publish(ctx context.Context, r *journal.Record) {
	err := l.p.sender.Send(ctx, r)
	var no *refused
	switch {
	case err == nil:
		if err := l.p.cfg.Journal.MarkPublished(r.Key); err != nil {
			// It is published; without the mark it will be once more, which its id makes harmless.
			l.p.cfg.Logger.Warn("published batch is not marked", "batch", r.Batch.ID, "error", err)
		}
		l.published(r.Key.Sequence, time.Now())
		l.p.metrics.published.WithLabelValues(r.Topic).Inc()
		l.p.metrics.bytes.WithLabelValues(r.Topic).Add(float64(r.Size()))
		l.p.cfg.Journal.Release(r) // nobody reads it: the broker has answered
		l.finish(false)
	case errors.As(err, &no):
		l.setAside(r.Key, err)
	}
	// Otherwise ctx ended: the batch stays unpublished.
}

// setAside raises the alarm for a batch that can't be published.
func (l *lane) setAside(k journal.Key, reason error) {
	l.p.cfg.Logger.Error("batch is set aside: it can't be published", "batch", k.String(), "error", reason)
	if err := l.p.cfg.Journal.SetAside(k, reason.Error()); err != nil {
		l.p.cfg.Logger.Warn("set-aside batch is not marked", "batch", k.String(), "error", err)
	}
	l.p.metrics.aside.Inc()
	l.finish(true)
}

func (l *lane) finish(aside bool) {
	l.mu.Lock()
	l.waiting--
	if aside {
		l.aside++
	}
	l.mu.Unlock()
	l.p.metrics.unpublished.Dec()
	l.p.left()
}

// Republish sends everything that the journal holds once more, whether it is
// published or not, and returns how many batches it sent. The loader refuses by
// their ids what it has. It goes on after a batch that the journal can't read
// or the broker refuses, and returns those errors joined.
func (p *Publisher) Republish(ctx context.Context) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	var (
		sending sync.WaitGroup
		mu      sync.Mutex
		sent    int
		errs    []error
	)
	note := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			errs = append(errs, err)
		} else {
			sent++
		}
	}
	budget := semaphore.NewWeighted(p.cfg.InFlightBytes)
	for r, err := range p.cfg.Journal.All() {
		if err != nil {
			note(err)
			continue
		}
		size := p.weight(r)
		if err := budget.Acquire(ctx, size); err != nil {
			note(err)
			break
		}
		sending.Go(func() {
			defer budget.Release(size)
			note(p.sender.Send(ctx, r))
		})
	}
	sending.Wait()
	if err := errors.Join(errs...); err != nil {
		return sent, fmt.Errorf("publish again: %w", err)
	}
	return sent, nil
}
