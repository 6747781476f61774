package replay

import (
	"cmp"
	"context"
	"slices"
	"time"

	"tallyman/source/journal"
)

const (
	// sliceOf is how many batches are sent before is looked whether they are
	// still missed.
	sliceOf      = 64
	longestPause = 10 * time.Minute
)

// job is a piece of a hole that is due.
type job struct {
	stream journal.Stream
	target string
	piece  piece
}

// resend sends some of what is due. It returns false if nothing is.
func (r *Replayer) resend(ctx context.Context) bool {
	if ctx.Err() != nil || time.Since(r.began) < r.cfg.Grace {
		return false // what the process before this one published may still be on its way
	}
	j, ok := r.next()
	if !ok {
		return false
	}
	found, err := r.cfg.Journal.Held(j.stream, j.piece.First, j.piece.Last, sliceOf)
	if err != nil {
		r.postpone(j, err)
		return true
	}
	part := j.piece.Range
	if len(found) == sliceOf {
		part.Last = found[len(found)-1]
	}
	young, err := r.young(j.stream, part)
	if err != nil {
		r.postpone(j, err)
		return true
	}
	for _, y := range young {
		r.account(j.stream, y, func(p *piece) { p.next = time.Now().Add(r.cfg.Grace) })
	}
	r.send(ctx, j, without([]journal.Range{part}, young))
	return ctx.Err() == nil
}

// next returns what is due longest, and raises the alarm for what does not close.
func (r *Replayer) next() (job, bool) {
	now := time.Now()
	var first job
	found := false
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.book.streams {
		for name, s := range e.said {
			if !s.live {
				continue
			}
			for _, stuck := range s.holes.stuck(now, r.cfg.Tries) {
				r.cfg.Logger.Error("batches were sent again and again, and the target still misses them; they are sent on, ever more seldom: see tallyman replay",
					"target", name, "dataset", e.stream.Dataset, "incarnation", e.stream.Incarnation, "first", stuck.First, "last", stuck.Last, "tries", r.cfg.Tries)
			}
			if p, ok := s.holes.due(now, r.cfg.Tries, s.heard); ok && (!found || p.next.Before(first.piece.next)) {
				first, found = job{stream: e.stream, target: name, piece: p}, true
			}
		}
	}
	return first, found
}

// postpone leaves a piece for a while that the journal failed to tell of.
func (r *Replayer) postpone(j job, err error) {
	r.cfg.Logger.Warn("what a target misses can't be looked up in the journal, trying again", "target", j.target, "cause", err)
	r.account(j.stream, j.piece.Range, func(p *piece) { p.next = time.Now().Add(r.cfg.Grace) })
}

// young returns the parts of a range that are not to be sent again: what is
// still to be published for the first time, and what just was.
func (r *Replayer) young(stream journal.Stream, part journal.Range) ([]journal.Range, error) {
	all := r.cfg.Publisher.Since(stream, time.Now().Add(-r.cfg.Grace))
	waiting, err := r.cfg.Journal.Waiting(stream, part.First, part.Last)
	if err != nil {
		return nil, err
	}
	for n := range waiting {
		all = append(all, journal.Range{First: n, Last: n})
	}
	slices.SortFunc(all, func(a, b journal.Range) int { return cmp.Compare(a.First, b.First) })
	var young []journal.Range
	for _, y := range both(all, []journal.Range{part}) {
		if l := len(young) - 1; l >= 0 && y.First <= young[l].Last+1 {
			young[l].Last = max(young[l].Last, y.Last)
		} else {
			young = append(young, y)
		}
	}
	return young, nil
}

// send sends ranges, and notes what became of them.
func (r *Replayer) send(ctx context.Context, j job, ranges []journal.Range) {
	if len(ranges) == 0 {
		return
	}
	sent := 0
	err := r.sender.Send(ctx, j.stream, ranges, func(o Outcome) {
		r.metrics.count(o)
		log := r.cfg.Logger.With("target", j.target, "dataset", j.stream.Dataset, "incarnation", j.stream.Incarnation)
		switch o.State {
		case Sent:
			sent++
		case Absent:
			log.Error("target misses batches that the journal does not hold any more: they can't be sent from here", "first", o.Range.First, "last", o.Range.Last)
		case Damaged:
			log.Error("target misses a batch that is damaged in the journal: it can't be sent from here", "sequence", o.Range.First, "cause", o.Err)
		case Refused:
			log.Error("target misses a batch that the broker refuses", "sequence", o.Range.First, "cause", o.Err)
		}
		r.account(j.stream, o.Range, func(p *piece) {
			if o.State == Absent || o.State == Damaged {
				p.lost = true
				return
			}
			p.tries++
			p.sent = time.Now()
			p.next = p.sent.Add(r.after(p.tries))
		})
	})
	if err != nil && ctx.Err() == nil {
		r.postpone(j, err)
	}
	if sent > 0 {
		r.cfg.Logger.Info("published again what a target misses", "target", j.target, "dataset", j.stream.Dataset,
			"incarnation", j.stream.Incarnation, "first", ranges[0].First, "last", ranges[len(ranges)-1].Last, "batches", sent)
	}
}

// after returns how long to wait after so many tries.
func (r *Replayer) after(tries int) time.Duration {
	d := r.cfg.Grace
	for range tries - 1 {
		d = min(2*d, longestPause)
	}
	return d
}
