package commit

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tallyman/loader/consume"
	"tallyman/schema/batch"
	"tallyman/sink"
)

// TestBisectsToTheOneBadBatch plants batches that the warehouse refuses.
func TestBisectsToTheOneBadBatch(t *testing.T) {
	withRig(t, nil, func(t *testing.T, r *rig) {
		bad := map[uuid.UUID]bool{}
		for i := range 64 {
			b := r.batch(i)
			bad[b.ID] = i == 0 || i == 31 || i == 63
			r.publish(0, b)
		}
		r.book.before = func(g *sink.Group) error {
			for _, e := range g.Elements {
				if bad[e.Batch.ID] {
					return &sink.Error{Class: sink.BadData, Reason: batch.Constraint, Err: errPlanted}
				}
			}
			return nil
		}
		r.together([]int32{0})
		r.eventually("position at 64", at(0, 64))
		if len(r.book.order) != 61 || len(r.book.dead) != 3 {
			t.Errorf("loaded %d and quarantined %d, want 61 and 3", len(r.book.order), len(r.book.dead))
		}
		for _, d := range r.book.dead {
			if d.Reason != batch.Constraint || !bad[d.Batch.ID] {
				t.Errorf("quarantined %+v", d)
			}
		}
	})
}

// TestBisectsLeftHalfFirst sees which groups are submitted while the last of
// eight batches is looked for.
func TestBisectsLeftHalfFirst(t *testing.T) {
	withRig(t, nil, func(t *testing.T, r *rig) {
		for i := range 8 {
			r.publish(0, r.batch(i))
		}
		var tried [][2]int64
		r.book.before = func(g *sink.Group) error {
			tried = append(tried, [2]int64{g.Advances[0].From, g.Advances[0].To})
			for _, e := range g.Elements {
				if e.Offset == 7 {
					return &sink.Error{Class: sink.BadData, Reason: batch.Rejected, Err: errPlanted}
				}
			}
			return nil
		}
		r.together([]int32{0})
		r.eventually("position at 8", at(0, 8))
		want := [][2]int64{{0, 8}, {0, 4}, {4, 8}, {4, 6}, {6, 8}, {6, 7}, {7, 8}, {7, 8}}
		if diff := cmp.Diff(want, tried); diff != "" {
			t.Errorf("groups submitted (-want +got):\n%s", diff)
		}
	})
}

// TestOneRefusalIsNoProof sees a batch load that came alone and was refused once
// only, and one go to quarantine that repeats it.
func TestOneRefusalIsNoProof(t *testing.T) {
	withRig(t, nil, func(t *testing.T, r *rig) {
		once, always := r.batch(1), r.batch(2)
		tries := map[uuid.UUID]int{}
		r.book.before = func(g *sink.Group) error {
			for _, e := range g.Elements {
				if tries[e.Batch.ID]++; e.Batch.ID == always.ID || tries[e.Batch.ID] == 1 {
					return &sink.Error{Class: sink.BadData, Reason: batch.Rejected, Err: errPlanted}
				}
			}
			return nil
		}
		r.publish(0, once)
		r.restart([]int32{0})
		r.eventually("position at 1", at(0, 1))
		r.publish(0, always)
		r.restart([]int32{0})
		r.eventually("position at 2", at(0, 2))
		if diff := cmp.Diff(map[uuid.UUID]int{once.ID: 2, always.ID: 2}, tries); diff != "" {
			t.Errorf("tries (-want +got):\n%s", diff)
		}
		if len(r.book.order) != 1 || len(r.book.dead) != 1 || r.book.dead[0].Batch.ID != always.ID {
			t.Errorf("loaded %d, quarantined %+v", len(r.book.order), r.book.dead)
		}
	})
}

// TestBadCopiesOfOneID sees each copy of an id judged by itself: two bad copies
// are quarantined, the good one between them loads, and its repeat is refused.
func TestBadCopiesOfOneID(t *testing.T) {
	withRig(t, nil, func(t *testing.T, r *rig) {
		good := r.batch(1)
		bad := *good
		bad.Value = []byte("{\"n\":2}\n")
		bad.Seal()
		for _, b := range []*batch.Batch{&bad, good, &bad, good} {
			r.publish(0, b)
		}
		r.book.before = func(g *sink.Group) error {
			for _, e := range g.Elements {
				if e.Content == bad.Content() {
					return &sink.Error{Class: sink.BadData, Reason: batch.Constraint, Err: errPlanted}
				}
			}
			return nil
		}
		r.together([]int32{0})
		r.eventually("position at 4", at(0, 4))
		if diff := cmp.Diff(map[uuid.UUID]batch.Digest{good.ID: good.Content()}, r.book.ledger); diff != "" {
			t.Errorf("ledger (-want +got):\n%s", diff)
		}
		var offsets []int64
		for _, d := range r.book.dead {
			offsets = append(offsets, d.Offset)
		}
		if diff := cmp.Diff([]int64{0, 2}, offsets); diff != "" {
			t.Errorf("quarantined offsets (-want +got):\n%s", diff)
		}
	})
}

// TestRefusedQuarantineIsNobodysBadData sees a load stop, and nothing buried,
// when the warehouse calls a group bad that has no rows.
func TestRefusedQuarantineIsNobodysBadData(t *testing.T) {
	withRig(t, nil, func(t *testing.T, r *rig) {
		refusals := 3
		r.book.before = func(g *sink.Group) error {
			if refusals--; len(g.Dead) > 0 && refusals >= 0 {
				return &sink.Error{Class: sink.BadData, Reason: batch.Rejected, Err: errPlanted}
			}
			return nil
		}
		r.append(0, consume.Record{})
		r.publish(0, r.batch(1))
		r.together([]int32{0})
		r.eventually("stopped", func(*book) bool { return r.stopped("quarantine_refused") })
		r.eventually("position at 2", at(0, 2))
		if len(r.book.order) != 1 || len(r.book.dead) != 1 || r.book.dead[0].Reason != batch.NoID {
			t.Errorf("loaded %d, quarantined %+v", len(r.book.order), r.book.dead)
		}
	})
}

// TestGraceBeforeAForeignKeyIsBelieved sees a batch load whose parent came
// late, and one go to quarantine whose parent never came.
func TestGraceBeforeAForeignKeyIsBelieved(t *testing.T) {
	withRig(t, nil, func(t *testing.T, r *rig) {
		began := time.Now()
		late, orphan := r.batch(1), r.batch(2)
		r.book.before = func(g *sink.Group) error {
			for _, e := range g.Elements {
				if e.Batch.ID == orphan.ID || e.Batch.ID == late.ID && time.Since(began) < 20*time.Second {
					return &sink.Error{Class: sink.BadData, Grace: true, Reason: batch.Constraint, Err: errPlanted}
				}
			}
			return nil
		}
		r.publish(0, late)
		r.publish(0, orphan)
		r.restart([]int32{0})
		r.eventually("trouble told", func(*book) bool { return r.handler.Healthy() != nil })
		if r.handler.Outage() {
			t.Error("a row without its parent counts as an outage")
		}
		r.eventually("position at 1", at(0, 1))
		r.eventually("position at 2", at(0, 2))
		if len(r.book.order) != 1 || len(r.book.dead) != 1 || r.book.dead[0].Batch.ID != orphan.ID {
			t.Errorf("loaded %d, quarantined %+v", len(r.book.order), r.book.dead)
		}
		if waited := time.Since(began); waited < 50*time.Second {
			t.Errorf("the orphan was believed after %v", waited)
		}
	})
}

// TestOutageIsNotBadData sees nothing quarantined, and everything loaded, after
// errors of every class but BadData.
func TestOutageIsNotBadData(t *testing.T) {
	for _, class := range []sink.Class{sink.Retryable, sink.TooSlow, sink.Misconfigured} {
		t.Run(class.String(), func(t *testing.T) {
			withRig(t, nil, func(t *testing.T, r *rig) {
				tries := 0
				r.book.before = func(*sink.Group) error {
					if tries++; tries <= 40 {
						return &sink.Error{Class: class, Reason: "planted", Err: errPlanted}
					}
					return nil
				}
				for i := range 9 {
					r.publish(0, r.batch(i))
				}
				r.restart([]int32{0})
				r.eventually("trouble told", func(*book) bool { return r.handler.Healthy() != nil })
				if got := r.handler.Outage(); got != (class == sink.Retryable) {
					t.Errorf("an outage: %v", got)
				}
				if got := r.stopped("planted"); got != (class == sink.Misconfigured) {
					t.Errorf("the metric says stopped: %v", got)
				}
				r.eventually("position at 9", at(0, 9))
				if len(r.book.order) != 9 || len(r.book.dead) != 0 || len(r.resets) != 0 {
					t.Errorf("loaded %d, quarantined %d, %d resets", len(r.book.order), len(r.book.dead), len(r.resets))
				}
				synctest.Wait()
				if err := r.handler.Healthy(); err != nil || r.stopped("planted") {
					t.Errorf("still in trouble: %v", err)
				}
			})
		})
	}
}

// TestStoppedWhileProbing sees the metric say so all the time, also while a
// probe is under way: an alarm must not begin anew each minute.
func TestStoppedWhileProbing(t *testing.T) {
	withRig(t, nil, func(t *testing.T, r *rig) {
		var told []float64
		stopped := r.handler.metrics.stopped.WithLabelValues("planted")
		r.book.before = func(*sink.Group) error {
			if told = append(told, testutil.ToFloat64(stopped)); len(told) < 4 {
				return &sink.Error{Class: sink.Misconfigured, Reason: "planted", Err: errPlanted}
			}
			return nil
		}
		r.publish(0, r.batch(1))
		r.restart([]int32{0})
		r.eventually("position at 1", at(0, 1))
		synctest.Wait()
		if diff := cmp.Diff([]float64{0, 1, 1, 1, 0}, append(told, testutil.ToFloat64(stopped))); diff != "" {
			t.Errorf("stopped, at each try and after (-want +got):\n%s", diff)
		}
	})
}

// TestTooSlowIsHalved sees groups get smaller until the warehouse takes them.
func TestTooSlowIsHalved(t *testing.T) {
	withRig(t, nil, func(t *testing.T, r *rig) {
		r.book.before = func(g *sink.Group) error {
			if len(g.Elements) > 5 {
				return &sink.Error{Class: sink.TooSlow, Err: errPlanted}
			}
			return nil
		}
		for i := range 16 {
			r.publish(0, r.batch(i))
		}
		r.together([]int32{0})
		r.eventually("position at 16", at(0, 16))
		if diff := cmp.Diff([]int{4, 4, 4, 4}, r.book.groups); diff != "" {
			t.Errorf("sizes of groups (-want +got):\n%s", diff)
		}
	})
}

// TestFencedDropsAllPartitionsOfTheGroup moves one position behind the
// handler's back and sees the positions of all the group's partitions read again.
func TestFencedDropsAllPartitionsOfTheGroup(t *testing.T) {
	withRig(t, nil, func(t *testing.T, r *rig) {
		for i := range 30 {
			r.publish(int32(i%3), r.batch(i))
		}
		first := true
		r.book.before = func(g *sink.Group) error {
			if !first {
				return nil
			}
			first = false
			if len(g.Advances) != 3 {
				t.Errorf("a group of %d partitions, want 3", len(g.Advances))
			}
			p := r.book.positions[1]
			p.Next, p.Era = 4, p.Era+1
			r.book.positions[1] = p
			return &sink.Error{Class: sink.Fenced, Err: errPlanted}
		}
		r.together([]int32{0, 1, 2})
		r.eventually("all considered", func(b *book) bool { return at(0, 10)(b) && at(1, 10)(b) && at(2, 10)(b) })
		if got := <-r.resets; len(got) != 3 {
			t.Errorf("positions of %v read again, want those of all three", got)
		}
		if len(r.book.order) != 26 {
			t.Errorf("loaded %d, want 26: all but the four that somebody else passed", len(r.book.order))
		}
	})
}

// TestUnknownOutcomeIsRunAgain loses the answers of transactions that are durable.
func TestUnknownOutcomeIsRunAgain(t *testing.T) {
	withRig(t, func(c *Config) { c.GroupBatches = 5 }, func(t *testing.T, r *rig) {
		lost := 0
		r.book.after = func(*sink.Group) error {
			if lost++; lost%2 == 1 {
				return &sink.Error{Class: sink.Retryable, Err: errPlanted}
			}
			return nil
		}
		for i := range 40 {
			r.publish(0, r.batch(i))
		}
		r.restart([]int32{0})
		r.eventually("position at 40", at(0, 40))
		if len(r.book.order) != 40 || len(r.resets) == 0 {
			t.Errorf("loaded %d, %d resets", len(r.book.order), len(r.resets))
		}
	})
}

// TestAnySchedule throws random errors of every kind at random groups, moves
// positions behind the handler's back, and sees every good batch loaded once,
// every bad one quarantined, and nothing left over.
func TestAnySchedule(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	withRig(t, func(c *Config) { c.GroupBatches = 16; c.BreakerWindow = 1 << 20 }, func(t *testing.T, r *rig) {
		const n = 300
		bad := map[uuid.UUID]bool{}
		for i := range n {
			b := r.batch(i)
			bad[b.ID] = rng.IntN(20) == 0
			r.publish(int32(i%3), b)
		}
		faults := 60
		r.book.before = func(g *sink.Group) error {
			for _, e := range g.Elements {
				if bad[e.Batch.ID] {
					return &sink.Error{Class: sink.BadData, Reason: batch.Rejected, Err: errPlanted}
				}
			}
			if faults--; faults < 0 {
				return nil
			}
			class := []sink.Class{sink.Misconfigured, sink.Retryable, sink.TooSlow, sink.Fenced}[rng.IntN(4)]
			if class == sink.Fenced && rng.IntN(2) == 0 { // a rewind by somebody else
				p := r.book.positions[g.Advances[0].Partition.Number]
				p.Next, p.Era = 0, p.Era+1
				r.book.positions[g.Advances[0].Partition.Number] = p
			}
			return &sink.Error{Class: class, Err: errPlanted}
		}
		r.book.after = func(*sink.Group) error {
			if faults > 0 && rng.IntN(4) == 0 {
				return &sink.Error{Class: sink.Retryable, Err: errPlanted}
			}
			return nil
		}
		r.restart([]int32{0, 1, 2})
		r.eventually("all considered", func(b *book) bool { return at(0, 100)(b) && at(1, 100)(b) && at(2, 100)(b) })
		synctest.Wait()
		if l := r.handler.lanes[0]; len(l.inbox)+len(l.queue) != 0 || l.queued != 0 {
			t.Errorf("left over: %d in the inbox, %d in the queue, %d bytes", len(l.inbox), len(l.queue), l.queued)
		}
		buried := map[uuid.UUID]bool{}
		for _, d := range r.book.dead {
			buried[d.Batch.ID] = true
		}
		for id, isBad := range bad {
			_, loaded := r.book.ledger[id]
			if loaded == isBad || buried[id] != isBad {
				t.Errorf("batch %s: bad %v, loaded %v, quarantined %v", id, isBad, loaded, buried[id])
			}
		}
	})
}
