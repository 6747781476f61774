package commit

import "sync"

// breaker keeps a stream of bad batches from draining a topic into quarantine.
// It looks at the newest outcomes of a load, over all its lanes.
type breaker struct {
	mu      sync.Mutex
	outcome []bool // a ring: true is quarantined
	next    int
	dead    int
	size    int
	least   int     // quarantined batches below this number never open it
	ratio   float64 // share of the window that may be quarantined
}

// newBreaker returns a breaker over a window of the given number of batches,
// which opens when more than ratio of them, and at least half a window's
// worth, would be quarantined.
func newBreaker(window int, ratio float64) *breaker {
	return &breaker{outcome: make([]bool, 0, window), size: window, least: max(window/2, 1), ratio: ratio}
}

// admits says whether a transaction that quarantines dead batches and loads
// good ones may commit. It is asked before the commit and changes nothing.
func (b *breaker) admits(dead, good int) bool {
	if dead == 0 {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	total, considered := b.dead+dead, len(b.outcome)+dead+good
	return total < b.least || float64(total) <= b.ratio*float64(considered)
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
