package commit

import (
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tallyman/loader/consume"
	"tallyman/schema/batch"
	"tallyman/sink"
)

// TestBreakerOpensOnAStreamOfBadBatches sees the position stop, and go on when
// the cause is mended.
func TestBreakerOpensOnAStreamOfBadBatches(t *testing.T) {
	withRig(t, func(c *Config) { c.BreakerWindow = 20; c.GroupBatches = 4 }, func(t *testing.T, r *rig) {
		mended := false
		r.book.before = func(g *sink.Group) error {
			if len(g.Elements) > 0 && !mended {
				return &sink.Error{Class: sink.BadData, Reason: batch.Constraint, Err: errPlanted}
			}
			return nil
		}
		for i := range 60 {
			r.publish(0, r.batch(i))
		}
		r.together([]int32{0})
		r.eventually("breaker open", func(*book) bool { return r.stopped("breaker_open") })
		time.Sleep(10 * time.Minute) // of the bubble: probes come and go
		synctest.Wait()
		r.book.mu.Lock()
		if n := len(r.book.dead); n != 9 {
			t.Errorf("%d quarantined before the breaker opened, want all below half a window: 9", n)
		}
		mended = true
		r.book.mu.Unlock()
		r.eventually("position at 60", at(0, 60))
		if len(r.book.order) != 51 || len(r.book.dead) != 9 {
			t.Errorf("loaded %d, quarantined %d, want 51 and 9", len(r.book.order), len(r.book.dead))
		}
	})
}

// TestBreakerCountsConflicts sees a stream of ids that stand for other content
// stop within the transaction that finds out.
func TestBreakerCountsConflicts(t *testing.T) {
	withRig(t, func(c *Config) { c.BreakerWindow = 20; c.GroupBatches = 7 }, func(t *testing.T, r *rig) {
		for i := range 40 {
			b := r.batch(i)
			r.book.ledger[b.ID] = batch.Digest{}
			r.publish(0, b)
		}
		r.together([]int32{0})
		r.eventually("breaker open", func(*book) bool { return r.stopped("breaker_open") })
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		r.book.mu.Lock()
		defer r.book.mu.Unlock()
		if p := r.book.positions[0]; p.Next != 7 {
			t.Errorf("position %d, want 7: the group that would make it more than half a window stays", p.Next)
		}
	})
}

// TestProbeLooksAtTheMessagesAgain sees batches load that were from the future
// by a clock that was wrong.
func TestProbeLooksAtTheMessagesAgain(t *testing.T) {
	var slow atomic.Int64 // read by the lane
	slow.Store(int64(-24 * time.Hour))
	withRig(t, func(c *Config) {
		c.BreakerWindow = 10
		c.Now = func() time.Time { return time.Now().Add(time.Duration(slow.Load())) }
	}, func(t *testing.T, r *rig) {
		for i := range 20 {
			r.publish(0, r.batch(i))
		}
		r.together([]int32{0})
		r.eventually("breaker open", func(*book) bool { return r.stopped("breaker_open") })
		slow.Store(0)
		r.eventually("position at 20", at(0, 20))
		if len(r.book.order) != 20 || len(r.book.dead) != 0 {
			t.Errorf("loaded %d, quarantined %d", len(r.book.order), len(r.book.dead))
		}
	})
}

// TestBreakerLetsSingleBadBatchesPass sees one bad batch in three never open it.
func TestBreakerLetsSingleBadBatchesPass(t *testing.T) {
	withRig(t, func(c *Config) { c.BreakerWindow = 10; c.GroupBatches = 1 }, func(t *testing.T, r *rig) {
		for i := range 90 {
			if i%3 == 2 {
				r.append(0, consume.Record{})
			} else {
				r.publish(0, r.batch(i))
			}
		}
		r.restart([]int32{0})
		r.eventually("position at 90", at(0, 90))
		if len(r.book.order) != 60 || len(r.book.dead) != 30 {
			t.Errorf("loaded %d, quarantined %d, want 60 and 30", len(r.book.order), len(r.book.dead))
		}
	})
}

// TestBreakerWindow has one row for each answer of the breaker.
func TestBreakerWindow(t *testing.T) {
	tests := []struct {
		name       string
		before     [2]int // dead and good ones that were committed, in this order
		dead, good int
		want       bool
	}{
		{"nothing to quarantine", [2]int{100, 0}, 0, 5, true},
		{"below half a window", [2]int{0, 0}, 49, 0, true},
		{"half a window, all bad", [2]int{0, 0}, 50, 0, false},
		{"half a window, as many good", [2]int{0, 50}, 50, 0, true},
		{"one more than half", [2]int{50, 50}, 1, 0, false},
		{"old outcomes are forgotten", [2]int{100, 100}, 40, 0, true},
		{"a group outweighs the window", [2]int{0, 100}, 101, 0, false},
		{"the group's own good ones count", [2]int{50, 0}, 1, 60, true},
	}
	for _, tt := range tests {
		b := newBreaker(100)
		b.record(tt.before[0], tt.before[1])
		if got := b.admits(tt.dead, tt.good); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

// TestBreakerIgnoresWhatIsKnown sees a topic read again of which most was given up before.
func TestBreakerIgnoresWhatIsKnown(t *testing.T) {
	b := newBreaker(20)
	g := &sink.Group{Dead: make([]sink.Dead, 4)}
	for range 100 {
		if err := b.admit(g, sink.Result{Known: 4}); err != nil {
			t.Fatal(err)
		}
		b.record(tally(g, sink.Result{Known: 4}))
	}
	err := b.admit(&sink.Group{Dead: make([]sink.Dead, 40)}, sink.Result{})
	if err == nil || !strings.Contains(err.Error(), "raise loader.breaker_window") {
		t.Errorf("a stream of new ones: %v, want a refusal that says what to do", err)
	}
}
