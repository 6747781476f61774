package commit

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tallyman/loader/consume"
	"tallyman/schema/batch"
	"tallyman/sink"
)

// TestLoadsWhatIsQueuedTogether sees batches of two partitions in few groups,
// every one loaded, positions at the ends, anchors on the last records.
func TestLoadsWhatIsQueuedTogether(t *testing.T) {
	r := newRig(t, nil)
	for i := range 50 {
		r.publish(int32(i%2), r.batch(i))
	}
	r.restart([]int32{0, 1})
	r.eventually("both at 25", func(b *book) bool { return at(0, 25)(b) && at(1, 25)(b) })
	if len(r.book.order) != 50 {
		t.Errorf("loaded %d of 50", len(r.book.order))
	}
	last := r.log[1][24]
	if a := r.book.positions[1].Anchor; a == nil || a.Offset != 24 || a.SHA256 != last.Fingerprint() {
		t.Errorf("anchor %+v is not on the last record", a)
	}
	if got := testutil.ToFloat64(r.handler.metrics.batches.WithLabelValues("loaded")); got != 50 {
		t.Errorf("metric says %v batches loaded, not 50", got)
	}
}

// TestPassesWhatCarriesNoBatch sees a position move over markers and over
// messages of ours that this version doesn't know.
func TestPassesWhatCarriesNoBatch(t *testing.T) {
	r := newRig(t, nil)
	r.append(0, consume.Record{Skip: true})
	r.append(0, consume.Record{Message: sink.Message{Headers: []batch.Header{
		{Key: "ce_specversion", Value: []byte("1.0")}, {Key: "ce_type", Value: []byte("tallyman.announcement.v1")},
	}}})
	r.restart([]int32{0})
	r.eventually("position at 2", at(0, 2))
	if len(r.book.dead)+len(r.book.order) != 0 {
		t.Errorf("dead %d, loaded %d", len(r.book.dead), len(r.book.order))
	}
}

// TestBadBatchesGoToQuarantineTheRestLoads has one row for each way in which a
// message itself can be at fault.
func TestBadBatchesGoToQuarantineTheRestLoads(t *testing.T) {
	r := newRig(t, func(c *Config) { c.BreakerRatio = 1 })
	change := func(edit func(b *batch.Batch)) consume.Record {
		b := r.batch(1)
		edit(b)
		return consume.Record{Message: sink.Message{Key: b.Key(), Value: b.Value, Headers: b.Headers()}}
	}
	tests := []struct {
		name   string
		want   batch.Reason
		record consume.Record
	}{
		{"empty message", batch.NoID, consume.Record{}},
		{"refused by the reader", batch.TooLarge, consume.Record{Refused: &batch.Refusal{Reason: batch.TooLarge, Detail: "x"}}},
		{"other dataset", batch.WrongDataset, change(func(b *batch.Batch) { b.Dataset.Name = "other"; b.Seal() })},
		{"unknown manifest", batch.NoManifest, change(func(b *batch.Batch) { b.Schema = strings.Repeat("ab", 32); b.Seal() })},
		{"flipped byte", batch.BadDigest, change(func(b *batch.Batch) { b.Value[5] ^= 1 })},
		{"rows that do not decode", batch.BadRows, change(func(b *batch.Batch) { b.Value = []byte("{]"); b.Seal() })},
		{"another row count", batch.BadRows, change(func(b *batch.Batch) { b.Rows = 2; b.Seal() })},
		{"native that does not walk", batch.BadRows, change(func(b *batch.Batch) { b.ContentType = batch.Native; b.Seal() })},
		{"a day ahead", batch.FromTheFuture, change(func(b *batch.Batch) {
			b.Time = time.Now().Add(24 * time.Hour)
			ms := b.Time.UnixMilli()
			for i := range 6 {
				b.ID[i] = byte(ms >> (40 - 8*i))
			}
			b.Seal()
		})},
	}
	for i, tt := range tests {
		r.append(0, tt.record)
		r.publish(0, r.batch(i))
	}
	r.restart([]int32{0})
	r.eventually("all considered", at(0, int64(2*len(tests))))
	if len(r.book.order) != len(tests) {
		t.Errorf("loaded %d good batches, want %d", len(r.book.order), len(tests))
	}
	for i, tt := range tests {
		if i >= len(r.book.dead) || r.book.dead[i].Reason != tt.want {
			t.Errorf("%s: not quarantined as %s: %+v", tt.name, tt.want, r.book.dead[min(i, len(r.book.dead)-1)])
		} else if r.book.dead[i].Detail == "" {
			t.Errorf("%s: no detail", tt.name)
		}
	}
}

// TestBisectsToTheOneBadBatch plants batches that the warehouse refuses.
func TestBisectsToTheOneBadBatch(t *testing.T) {
	r := newRig(t, nil)
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
	r.restart([]int32{0})
	r.eventually("position at 64", at(0, 64))
	if len(r.book.order) != 61 || len(r.book.dead) != 3 {
		t.Errorf("loaded %d and quarantined %d, want 61 and 3", len(r.book.order), len(r.book.dead))
	}
	for _, d := range r.book.dead {
		if d.Reason != batch.Constraint || !bad[d.Batch.ID] {
			t.Errorf("quarantined %+v", d)
		}
	}
}

// TestGraceBeforeAForeignKeyIsBelieved sees a batch load whose parent came late.
func TestGraceBeforeAForeignKeyIsBelieved(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Grace = time.Minute })
	tries := 0
	r.book.before = func(*sink.Group) error {
		if tries++; tries < 3 {
			return &sink.Error{Class: sink.BadData, Grace: true, Reason: batch.Constraint, Err: errPlanted}
		}
		return nil
	}
	r.publish(0, r.batch(1))
	r.restart([]int32{0})
	r.eventually("position at 1", at(0, 1))
	if len(r.book.order) != 1 || tries != 3 {
		t.Errorf("loaded %d after %d tries", len(r.book.order), tries)
	}
}

// TestOutageIsNotBadData sees nothing quarantined, and everything loaded, after
// errors of every class but BadData.
func TestOutageIsNotBadData(t *testing.T) {
	for _, class := range []sink.Class{sink.Retryable, sink.TooSlow, sink.Misconfigured} {
		t.Run(class.String(), func(t *testing.T) {
			r := newRig(t, nil)
			tries := 0
			r.book.before = func(*sink.Group) error {
				if tries++; tries <= 6 {
					return &sink.Error{Class: class, Reason: "planted", Err: errPlanted}
				}
				return nil
			}
			for i := range 9 {
				r.publish(0, r.batch(i))
			}
			r.restart([]int32{0})
			r.eventually("trouble told", func(*book) bool { return r.handler.Healthy() != nil || tries > 6 })
			r.eventually("position at 9", at(0, 9))
			if len(r.book.order) != 9 || len(r.book.dead) != 0 {
				t.Errorf("loaded %d, quarantined %d", len(r.book.order), len(r.book.dead))
			}
		})
	}
}

// TestUnknownOutcomeIsRunAgain loses the answers of transactions that are durable.
func TestUnknownOutcomeIsRunAgain(t *testing.T) {
	r := newRig(t, func(c *Config) { c.GroupBatches = 5 })
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
}

// TestBreakerOpensOnAStreamOfBadBatches sees the position stop, and go on when
// the cause is mended.
func TestBreakerOpensOnAStreamOfBadBatches(t *testing.T) {
	r := newRig(t, func(c *Config) { c.BreakerWindow = 20; c.GroupBatches = 4 })
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
	r.restart([]int32{0})
	r.eventually("breaker open", func(*book) bool {
		err := r.handler.Healthy()
		return err != nil && strings.Contains(err.Error(), "breaker_open")
	})
	r.book.mu.Lock()
	if n := len(r.book.dead); n > 10 {
		t.Errorf("%d quarantined before the breaker opened, want at most half a window", n)
	}
	mended = true
	r.book.mu.Unlock()
	r.eventually("position at 60", at(0, 60))
	if len(r.book.order)+len(r.book.dead) != 60 {
		t.Errorf("loaded %d, quarantined %d", len(r.book.order), len(r.book.dead))
	}
}

// TestEndWaitsForTheGroupInFlight and drops what was queued behind it.
func TestEndWaitsForTheGroupInFlight(t *testing.T) {
	r := newRig(t, nil)
	entered, leave := make(chan struct{}), make(chan struct{})
	first := true
	r.book.before = func(*sink.Group) error {
		if first {
			first = false
			close(entered)
			<-leave
		}
		return nil
	}
	r.publish(0, r.batch(1))
	r.restart([]int32{0})
	<-entered
	ended := make(chan struct{})
	go func() { r.handler.End(context.Background(), []int32{0}); close(ended) }()
	select {
	case <-ended:
		t.Fatal("End did not wait")
	case <-time.After(20 * time.Millisecond):
	}
	close(leave)
	<-ended
	if r.book.positions[0].Next != 1 {
		t.Error("the group in flight was lost")
	}
	r.publish(0, r.batch(2))
	_ = r.handler.Handle(context.Background(), 0, r.log[0][1:])
	if lags := r.handler.Lags(); len(lags) != 0 {
		t.Errorf("still owns %v", lags)
	}
}

// TestLag sees the age of the oldest batch that is not committed.
func TestLag(t *testing.T) {
	r := newRig(t, nil)
	r.book.before = func(*sink.Group) error { return &sink.Error{Class: sink.Retryable, Err: errPlanted} }
	r.publish(0, r.batch(1))
	r.log[0][0].Timestamp = time.Now().Add(-time.Hour)
	r.log[0][0].HighWater = 7
	r.restart([]int32{0})
	lags := r.handler.Lags()
	if len(lags) != 1 || lags[0].Messages != 7 || lags[0].Age < time.Hour || lags[0].Age > time.Hour+time.Minute {
		t.Errorf("lags %+v", lags)
	}
	n, err := testutil.GatherAndCount(r.registry, "tallyman_load_lag_seconds", "tallyman_load_lag_messages")
	if err != nil || n != 2 {
		t.Errorf("%d lag series, %v", n, err)
	}
}

// TestAnySchedule throws random errors of every kind at random groups, moves
// positions behind the handler's back, and sees every good batch loaded once,
// every bad one quarantined, and every record released.
func TestAnySchedule(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	r := newRig(t, func(c *Config) { c.GroupBatches = 16; c.BreakerRatio = 1; c.Probe = time.Millisecond })
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
}
