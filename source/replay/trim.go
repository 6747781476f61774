package replay

import (
	"context"
	"time"

	"tallyman/source/journal"
)

// trim deletes what every expected target has confirmed and what is older than
// the retention. It is done only after the topic was read to its end, so that a
// receipt that takes something back is known.
func (r *Replayer) trim(ctx context.Context) {
	for _, c := range r.trimmable(time.Now()) {
		if ctx.Err() != nil {
			return
		}
		n, err := r.cfg.Journal.Trim(c.stream, c.confirmed, c.before)
		r.metrics.trimmed.Add(float64(n))
		if err != nil {
			r.cfg.Logger.Warn("journal can't be trimmed, trying again", "dataset", c.stream.Dataset, "cause", err)
			return
		}
		if n > 0 {
			r.cfg.Logger.Info("trimmed batches that every target has confirmed", "dataset", c.stream.Dataset,
				"incarnation", c.stream.Incarnation, "batches", n, "older_than", r.cfg.Retention)
		}
	}
}

// candidate is what of a stream may go, as far as targets have a say in it.
type candidate struct {
	stream    journal.Stream
	confirmed []journal.Range
	before    time.Time
}

func (r *Replayer) trimmable(now time.Time) (all []candidate) {
	r.mu.Lock()
	defer r.mu.Unlock()
	clock, ok := r.book.clock(now)
	if !ok || !r.complete || len(r.book.expects) == 0 {
		return nil
	}
	for _, e := range r.book.streams {
		if has := r.book.confirmed(e, r.cfg.Retention); len(has) > 0 {
			all = append(all, candidate{stream: e.stream, confirmed: has, before: clock.Add(-r.cfg.Retention)})
		}
	}
	return all
}
