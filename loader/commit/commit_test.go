package commit

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"tallyman/loader/consume"
	"tallyman/schema/batch"
	"tallyman/sink"
)

// TestLoadsWhatIsQueuedTogether sees batches of two partitions in few groups,
// every one loaded, positions at the ends, anchors on the last records.
func TestLoadsWhatIsQueuedTogether(t *testing.T) {
	withRig(t, nil, func(t *testing.T, r *rig) {
		for i := range 50 {
			r.publish(int32(i%2), r.batch(i))
		}
		r.together([]int32{0, 1})
		r.eventually("both at 25", func(b *book) bool { return at(0, 25)(b) && at(1, 25)(b) })
		if len(r.book.order) != 50 || len(r.book.groups) != 1 {
			t.Errorf("loaded %d of 50 in groups of %v, want one", len(r.book.order), r.book.groups)
		}
		last := r.log[1][24]
		if a := r.book.positions[1].Anchor; a == nil || a.Offset != 24 || a.SHA256 != last.Fingerprint() {
			t.Errorf("anchor %+v is not on the last record", a)
		}
		if got := testutil.ToFloat64(r.handler.metrics.batches.WithLabelValues("loaded")); got != 50 {
			t.Errorf("metric says %v batches loaded, not 50", got)
		}
	})
}

// TestPassesWhatCarriesNoBatch sees a position move over markers and over
// messages of ours that this version doesn't know.
func TestPassesWhatCarriesNoBatch(t *testing.T) {
	withRig(t, nil, func(t *testing.T, r *rig) {
		r.append(0, consume.Record{Skip: true})
		r.append(0, consume.Record{Message: sink.Message{Headers: []batch.Header{
			{Key: "ce_specversion", Value: []byte("1.0")}, {Key: "ce_type", Value: []byte("tallyman.unheard-of.v1")},
		}}})
		r.restart([]int32{0})
		r.eventually("position at 2", at(0, 2))
		if len(r.book.dead)+len(r.book.order) != 0 {
			t.Errorf("dead %d, loaded %d", len(r.book.dead), len(r.book.order))
		}
	})
}

// TestBadBatchesGoToQuarantineTheRestLoads has one row for each way in which a
// message itself can be at fault.
func TestBadBatchesGoToQuarantineTheRestLoads(t *testing.T) {
	withRig(t, func(c *Config) { c.BreakerWindow = 1 << 20 }, func(t *testing.T, r *rig) {
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
	})
}

// TestEndWaitsForTheGroupInFlight and drops what was queued behind it.
func TestEndWaitsForTheGroupInFlight(t *testing.T) {
	withRig(t, nil, func(t *testing.T, r *rig) {
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
		synctest.Wait()
		select {
		case <-ended:
			t.Fatal("End did not wait")
		default:
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
	})
}

// TestLateCommitOfASessionThatEnded sees a transaction commit after everybody
// stopped waiting for it and the partition began again: what it loaded is passed
// over, what comes behind it is loaded once.
func TestLateCommitOfASessionThatEnded(t *testing.T) {
	for _, lost := range []bool{false, true} {
		withRig(t, nil, func(t *testing.T, r *rig) {
			for i := range 3 {
				r.publish(0, r.batch(i))
			}
			leave := make(chan struct{})
			r.book.mu.Lock()
			r.book.gate = leave
			r.book.mu.Unlock()
			if lost { // the answer, too
				r.book.late = &sink.Error{Class: sink.Retryable, Err: errPlanted}
			}
			r.restart([]int32{0})
			synctest.Wait()
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			r.handler.End(ended, []int32{0})
			for i := range 3 {
				r.publish(0, r.batch(3+i))
			}
			r.restart([]int32{0})
			synctest.Wait()
			if n := len(r.book.order); n != 0 {
				t.Fatalf("%d batches were loaded beside the transaction in flight", n)
			}
			close(leave)
			r.eventually("position at 6", at(0, 6))
			if len(r.book.order) != 6 || len(r.book.dead) != 0 {
				t.Errorf("loaded %d, quarantined %d", len(r.book.order), len(r.book.dead))
			}
		})
	}
}

// TestLag sees the age of the oldest batch that is not committed.
func TestLag(t *testing.T) {
	withRig(t, nil, func(t *testing.T, r *rig) {
		r.book.before = func(*sink.Group) error { return &sink.Error{Class: sink.Retryable, Err: errPlanted} }
		r.publish(0, r.batch(1))
		r.log[0][0].Timestamp = time.Now().Add(-time.Hour)
		r.log[0][0].HighWater = 7
		r.restart([]int32{0})
		lags := r.handler.Lags()
		if len(lags) != 1 || lags[0].Messages != 7 || lags[0].Age < time.Hour || lags[0].Age > time.Hour+time.Minute {
			t.Errorf("lags %+v", lags)
		}
		n, err := testutil.GatherAndCount(r.registry, "tallyman_loader_lag_seconds", "tallyman_loader_lag_messages")
		if err != nil || n != 2 {
			t.Errorf("%d lag series, %v", n, err)
		}
	})
}
