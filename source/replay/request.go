package replay

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"tallyman/schema/batch"
	"tallyman/source/journal"
)

const (
	// maxRequests is how many requests wait; of more, the topic reminds later.
	maxRequests = 64
	// maxLife bounds how long a request is remembered, whatever it says.
	maxLife = 7 * 24 * time.Hour
)

// requests are what people ask for. Only follow's goroutine uses known.
type requests struct {
	known map[uuid.UUID]time.Time // taken, and until when they need not be taken again
	queue chan *batch.Replay
}

func newRequests() requests {
	return requests{known: map[uuid.UUID]time.Time{}, queue: make(chan *batch.Replay, maxRequests)}
}

// takeRequest takes a request, unless it is somebody else's, over, or known: the
// topic brings it again whenever it is read from its start.
func (r *Replayer) takeRequest(m message) {
	q, err := batch.ParseReplay(m.value)
	now := time.Now()
	if err == nil && q.At.After(now.Add(maxAhead)) {
		err = fmt.Errorf("replay request %s: its time %s is ahead of this machine's clock", q.ID, q.At.Format(time.RFC3339))
	}
	if err != nil {
		r.metrics.refused.Inc()
		r.complain("replay request is ignored: it can't be read", "partition", m.partition, "cause", err)
		return
	}
	for id, until := range r.requests.known {
		if now.After(until) {
			delete(r.requests.known, id)
		}
	}
	if _, known := r.requests.known[q.ID]; known || q.Source != r.cfg.Source || !now.Before(q.Expires) || now.Sub(q.At) > maxLife {
		return
	}
	r.mu.Lock()
	has := r.book.streams[journal.Stream{Incarnation: q.Incarnation, Dataset: q.Dataset}] != nil
	r.mu.Unlock()
	if !has {
		r.cfg.Logger.Debug("replay request is ignored: this journal does not have the stream", "request", q.ID, "incarnation", q.Incarnation)
		return
	}
	select {
	case r.requests.queue <- q:
		r.requests.known[q.ID] = q.At.Add(maxLife)
	default:
		r.complain("replay request has to wait: too many are there", "request", q.ID)
	}
}

// serve carries out one request after another until ctx ends.
func (r *Replayer) serve(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case q := <-r.requests.queue:
			r.carryOut(ctx, q)
		}
	}
}

// carryOut sends what was asked for, but for what the target has confirmed since.
func (r *Replayer) carryOut(ctx context.Context, q *batch.Replay) {
	stream := journal.Stream{Incarnation: q.Incarnation, Dataset: q.Dataset}
	ranges := q.Ranges
	r.mu.Lock()
	if s := r.book.streams[stream].said[q.Target]; s != nil && s.receipt.At.After(q.At) {
		ranges = without(ranges, covered(s.receipt))
	}
	r.mu.Unlock()
	log := r.cfg.Logger.With("request", q.ID, "by", q.RequestedBy, "dataset", q.Dataset, "incarnation", q.Incarnation)
	var sent, not uint64
	err := r.Send(ctx, stream, ranges, func(o Outcome) {
		if o.State == Sent {
			sent++
			return
		}
		not += o.Range.Last - o.Range.First + 1
		log.Error("batches that were asked for are not sent", "first", o.Range.First, "last", o.Range.Last, "state", o.State.String(), "cause", o.Err)
	})
	if err != nil {
		if ctx.Err() == nil {
			log.Warn("replay request is carried out only in part: ask once more", "batches", sent, "cause", err)
		}
		return
	}
	log.Info("published again what was asked for", "batches", sent, "not_sent", not)
}
