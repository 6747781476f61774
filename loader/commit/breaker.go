package commit

import (
	"fmt"
	"sync"
	"time"

	"tallyman/schema/batch"
	"tallyman/sink"
)

// breakerOpen is the reason under which an open breaker stops a load.
const breakerOpen batch.Reason = "breaker_open"

// breaker keeps a stream of bad batches from draining a topic into quarantine.
// It looks at the newest batches of a load, over all its lanes, and is asked
// inside the transaction that would quarantine more, when all that this would
// do is known and nothing of it is durable.
type breaker struct {
	mu      sync.Mutex
	outcome []bool // a ring: true is quarantined
	next    int
	dead    int
	size    int
}

// newBreaker returns a breaker over a window of the given number of batches. It
// opens when more than half of them, and of the transaction's own, would be
// quarantined; fewer than half a window's worth never open it.
func newBreaker(window int) *breaker { return &breaker{size: window} }

// admits says whether a transaction that quarantines dead batches and loads
// good ones may commit. It changes nothing.
func (b *breaker) admits(dead, good int) bool {
	if dead == 0 {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	total, considered := b.dead+dead, len(b.outcome)+dead+good
	return 2*total < b.size || 2*total <= considered
}

// record tells the breaker what a committed transaction did.
func (b *breaker) record(dead, good int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range dead {
		b.push(true)
	}
	for range good {
		b.push(false)
	}
}

// push adds one outcome; the oldest makes room.
func (b *breaker) push(dead bool) {
	if len(b.outcome) < b.size {
		b.outcome = append(b.outcome, dead)
	} else {
		if b.outcome[b.next] {
			b.dead--
		}
		b.outcome[b.next] = dead
		b.next = (b.next + 1) % b.size
	}
	if dead {
		b.dead++
	}
}

// tally counts what a transaction adds to quarantine and what it does not: a
// topic that is read again brings no news of what was refused or given up before.
func tally(g *sink.Group, res sink.Result) (dead, good int) {
	dead = len(g.Dead)
	for _, outcome := range res.Outcomes {
		if outcome.Refused() != "" {
			dead++
		} else {
			good++
		}
	}
	return dead - res.Known, good + res.Known
}

// admit is what a group asks before it commits; its error stops the load.
func (b *breaker) admit(g *sink.Group, res sink.Result) error {
	if b.admits(tally(g, res)) {
		return nil
	}
	return &sink.Error{Class: sink.Misconfigured, Reason: breakerOpen, Err: fmt.Errorf(
		"most of the newest batches can't be loaded, the next because of %s. Mend that, or raise loader.breaker_window and start again, and they go to quarantine",
		firstFault(g, res))}
}

// refusedElement says why an element went to quarantine.
func refusedElement(o sink.Outcome, e *sink.Element) string {
	if o == sink.Expired {
		return fmt.Sprintf("batch %s is of %s, before the ledger's horizon", e.Batch.ID, e.Batch.Time.Format(time.RFC3339Nano))
	}
	return fmt.Sprintf("id %s stands for other content already", e.Batch.ID)
}

// firstFault tells why the first batch that a group quarantines can't load.
func firstFault(g *sink.Group, res sink.Result) string {
	if len(g.Dead) > 0 {
		return fmt.Sprintf("%s: %s", g.Dead[0].Reason, g.Dead[0].Detail)
	}
	for i, outcome := range res.Outcomes {
		if outcome.Refused() != "" {
			return fmt.Sprintf("%s: %s", outcome.Refused(), refusedElement(outcome, &g.Elements[i]))
		}
	}
	return "nothing"
}
