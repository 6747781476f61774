package commit

import (
	"context"
	"time"

	"tallyman/schema/batch"
	"tallyman/sink"
)

const (
	aheadSteps = 64              // how many steps are looked up in the ledger at once
	aheadLimit = 5 * time.Second // how long the answer is waited for
)

// lookAhead marks the steps that the ledger has, while a topic is read again: one
// look at the ledger takes the place of two digests, walking the rows and a claim
// for each. A step is known only if the message says that it is the very one that
// was loaded: id, time, number in the stream, and the digest over all of it.
// Whether that digest is right no longer matters, as nothing of the message is
// loaded. Everything else, and whatever the ledger does not answer, goes the
// ordinary way. A transaction could be no surer: what is in the ledger stays, or is
// forgotten as loaded. A position that is moved back in between fences the step.
func (l *lane) lookAhead(ctx context.Context, steps []*step) {
	l.mu.Lock()
	again := l.rereading
	l.mu.Unlock()
	if !again {
		return
	}
	var (
		asked   []*step
		batches []*batch.Batch
	)
	for _, s := range steps {
		if r := &s.record; r.Skip || r.Refused != nil || batch.KindOf(r.Headers) != batch.IsBatch {
			continue
		}
		if b, err := batch.Restore(s.record.Key, s.record.Value, s.record.Headers); err == nil && b.Dataset == l.handler.decoder.dataset {
			asked, batches = append(asked, s), append(batches, b)
		}
	}
	if len(asked) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, aheadLimit)
	defer cancel()
	known, newest := 0, map[int32]*step{}
	loaded, err := l.handler.config.Ledger.Loaded(ctx, l.handler.config.Revision, batches)
	if err != nil { // the transaction meets what is wrong, and waits for it
		loaded = nil
	}
	for i, there := range loaded {
		if there {
			s := asked[i]
			s.known = true
			known++
			if before := newest[s.partition()]; before != nil {
				before.strip()
			}
			newest[s.partition()] = s // stays whole until a newer one comes, to recognise the log by
		}
	}
	if known == 0 {
		l.readAgain(false)
	}
}

// readAgain says whether what comes was probably loaded before.
func (l *lane) readAgain(again bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rereading = again && l.handler.config.Ledger != nil
}

// passed counts known batches whose positions were moved.
func (l *lane) passed(known int) {
	l.handler.breaker.record(0, known)
	l.handler.metrics.batches.WithLabelValues("duplicate").Add(float64(known))
}

// loadedBefore says that a group had batches, all of which were loaded before.
func loadedBefore(res sink.Result) bool {
	for _, outcome := range res.Outcomes {
		if outcome != sink.Duplicate {
			return false
		}
	}
	return len(res.Outcomes) > 0
}
