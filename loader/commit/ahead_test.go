package commit

import (
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tallyman/schema/batch"
	"tallyman/sink"
)

// reread has partition 1 read from its start once more.
func (r *rig) reread() {
	r.book.mu.Lock()
	p := r.book.positions[1]
	p.Next = 0
	p.Era++
	r.book.positions[1] = p
	r.book.groups = nil
	r.book.mu.Unlock()
	r.restart([]int32{1})
}

// submitted is how many batches went into transactions since the last reread.
func (r *rig) submitted() (n int) {
	r.book.mu.Lock()
	defer r.book.mu.Unlock()
	for _, size := range r.book.groups {
		n += size
	}
	return n
}

// outcome returns how many batches the metrics count with an outcome.
func (r *rig) outcome(name string) int {
	return int(testutil.ToFloat64(r.handler.metrics.batches.WithLabelValues(name)))
}

// smallGroups has a lane ask the ledger soon, and many times.
func smallGroups(c *Config) {
	c.GroupBytes = 50
	c.Ledger = c.Committers[0].(*book)
}

const rereadBatches = 300

// What the ledger has is passed without a transaction of its own, counted as a
// duplicate; what comes in between is not: a new batch loads, one with other rows
// under a known id is a conflict, and one that says it is another than it is is
// refused.
func TestReadAgain(t *testing.T) {
	t.Parallel()
	withRig(t, smallGroups, func(t *testing.T, r *rig) {
		first := r.batch(0)
		r.publish(1, first)
		for n := range rereadBatches - 1 {
			r.publish(1, r.batch(n))
		}
		r.restart([]int32{1})
		r.eventually("all loaded", at(1, rereadBatches))
		if r.book.looks > 1 {
			t.Errorf("the ledger was asked %d times on the first way", r.book.looks)
		}

		r.publish(1, r.batch(1000)) // is new
		altered := *first
		altered.Value = []byte(`{"n":7}` + "\n")
		altered.Seal()
		r.publish(1, &altered)
		broken := altered
		broken.Value = []byte(`{"n":8}` + "\n")
		r.publish(1, &broken)
		for _, n := range []int64{5, 6, 7} {
			r.append(1, r.log[1][n])
		}
		r.reread()
		r.eventually("all read again", at(1, rereadBatches+6))
		if got := len(r.book.order); got != rereadBatches+1 {
			t.Errorf("%d batches loaded, want %d", got, rereadBatches+1)
		}
		if loaded, duplicates, conflicts, dead := r.outcome("loaded"), r.outcome("duplicate"), r.outcome("conflict"), r.outcome("quarantined"); loaded != rereadBatches+1 ||
			duplicates != rereadBatches+3 || conflicts != 1 || dead != 1 {
			t.Errorf("%d loaded, %d duplicates, %d conflicts, %d quarantined", loaded, duplicates, conflicts, dead)
		}
		if n := r.submitted(); n > rereadBatches/2 {
			t.Errorf("%d of %d batches went into transactions, though the ledger has them", n, rereadBatches)
		}
	})
}

// A ledger that gives no answer, or none in time, costs nothing but speed.
func TestReadAgainWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(b *book){
		"an error": func(b *book) { b.blind = &sink.Error{Class: sink.Retryable, Err: errPlanted} },
		"silence":  func(b *book) { b.silent = true },
	} {
		t.Run(name, func(t *testing.T) { readAgainWithout(t, fail) })
	}
}

func readAgainWithout(t *testing.T, fail func(b *book)) {
	t.Parallel()
	withRig(t, smallGroups, func(t *testing.T, r *rig) {
		for n := range rereadBatches {
			r.publish(1, r.batch(n))
		}
		r.restart([]int32{1})
		r.eventually("all loaded", at(1, rereadBatches))
		r.book.mu.Lock()
		fail(r.book)
		r.book.mu.Unlock()
		r.reread()
		r.eventually("all read again", at(1, rereadBatches))
		if r.book.looks == 0 {
			t.Error("the ledger was not asked")
		}
		if n, duplicates := r.submitted(), r.outcome("duplicate"); n != rereadBatches || duplicates != rereadBatches {
			t.Errorf("%d batches went into transactions, %d were duplicates, want all %d", n, duplicates, rereadBatches)
		}
	})
}

// A warehouse that was away may come back as an older copy of itself: what was
// known of the one before is looked for again.
func TestReadAgainFromARestoredWarehouse(t *testing.T) {
	t.Parallel()
	withRig(t, smallGroups, func(t *testing.T, r *rig) {
		for n := range rereadBatches {
			r.publish(1, r.batch(n))
		}
		r.restart([]int32{1})
		r.eventually("all loaded", at(1, rereadBatches))
		r.book.mu.Lock()
		loaded := r.book.order
		r.book.before = func(g *sink.Group) error {
			if len(g.Elements) > 0 {
				return nil
			}
			r.book.before = nil
			r.book.ledger, r.book.seals, r.book.order = map[uuid.UUID]batch.Digest{}, map[batch.Digest]bool{}, nil
			return &sink.Error{Class: sink.Retryable, Err: errPlanted}
		}
		r.book.mu.Unlock()
		r.reread()
		r.eventually("all read again", at(1, rereadBatches))
		if r.book.before != nil || !slices.Equal(r.book.order, loaded) {
			t.Errorf("%d of %d batches were loaded again; the warehouse had none", len(r.book.order), len(loaded))
		}
	})
}
