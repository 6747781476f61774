package consume

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tallyman/internal/sandbox"
	"tallyman/sink"
)

// remake deletes the topic and makes it again with other messages.
func (r *rig) remake(partitions int32, values ...string) {
	r.t.Helper()
	if err := r.broker.DeleteTopic(topic); err != nil {
		r.t.Fatal(err)
	}
	r.create(partitions, nil)
	if len(values) > 0 {
		r.produce(0, values...)
	}
}

func (r *rig) deleteBefore(offset int64) {
	r.t.Helper()
	if err := r.broker.DeleteRecords(topic, 0, offset); err != nil {
		r.t.Fatal(err)
	}
}

// outcome is what became of a partition that was read after its log changed.
type outcome struct {
	Read    []string // after the change, to the end of the log
	Begin   int64
	Era     int64
	Gap     [2]int64 // first and last; zero: none
	Rewinds float64
}

// change is what happens to a log while nobody reads it.
type change struct {
	make func(r *rig)
	want outcome
}

// changes are what can happen to a log of the values old, whose first ten were
// read: the position is at offset 10, and its anchor is the record at 9.
func changes(old []string) map[string]change {
	return map[string]change{
		"nothing": {
			func(*rig) {},
			outcome{Read: old[10:], Begin: 10, Era: 1},
		},
		"made again, empty but for one": {
			func(r *rig) { r.remake(1, "new") },
			outcome{Read: []string{"new"}, Begin: 0, Era: 2, Rewinds: 1},
		},
		"made again, up to the anchor": {
			func(r *rig) { r.remake(1, numbered("new", 9)...) },
			outcome{Read: numbered("new", 9), Begin: 0, Era: 2, Rewinds: 1},
		},
		"made again, as long": {
			func(r *rig) { r.remake(1, numbered("new", 10)...) },
			outcome{Read: numbered("new", 10), Begin: 0, Era: 2, Rewinds: 1},
		},
		"made again, longer": {
			func(r *rig) { r.remake(1, numbered("new", 30)...) },
			outcome{Read: numbered("new", 30), Begin: 0, Era: 2, Rewinds: 1},
		},
		"made again, the first of it deleted": {
			func(r *rig) { r.remake(1, numbered("new", 30)...); r.deleteBefore(4) },
			outcome{Read: numbered("new", 30)[4:], Begin: 4, Era: 2, Rewinds: 1},
		},
		"made again with the same values": { // told by the timestamp
			func(r *rig) { r.remake(1, old...) },
			outcome{Read: old, Begin: 0, Era: 2, Rewinds: 1},
		},
		"retention past the position": {
			func(r *rig) { r.deleteBefore(15) },
			outcome{Read: old[15:], Begin: 15, Era: 1, Gap: [2]int64{10, 14}},
		},
		"retention of everything": {
			func(r *rig) { r.deleteBefore(20); r.produce(0, "next") },
			outcome{Read: []string{"next"}, Begin: 20, Era: 1, Gap: [2]int64{10, 19}},
		},
		"retention up to the position": {
			func(r *rig) { r.deleteBefore(10) },
			outcome{Read: old[10:], Begin: 10, Era: 1},
		},
		"retention past the anchor": {
			func(r *rig) {
				r.place(0, func(p *sink.Position) { p.Next = 12 })
				r.deleteBefore(11)
			},
			outcome{Read: old[12:], Begin: 12, Era: 1},
		},
		"the end before the position, the anchor there": {
			func(r *rig) { r.place(0, func(p *sink.Position) { p.Next = 30 }) },
			outcome{Read: old, Begin: 0, Era: 2, Rewinds: 1},
		},
		"the end before the position, no anchor": {
			func(r *rig) { r.place(0, func(p *sink.Position) { p.Next, p.Anchor = 30, nil }) },
			outcome{Read: old, Begin: 0, Era: 2, Rewinds: 1},
		},
		"the log's start went back, no anchor": {
			func(r *rig) { r.place(0, func(p *sink.Position) { p.LogStart, p.Anchor = 5, nil }) },
			outcome{Read: old, Begin: 0, Era: 2, Rewinds: 1},
		},
		"no anchor": {
			func(r *rig) { r.place(0, func(p *sink.Position) { p.Anchor = nil }) },
			outcome{Read: old[10:], Begin: 10, Era: 1},
		},
		"another record at the anchor's offset": {
			func(r *rig) { r.place(0, func(p *sink.Position) { p.Anchor.SHA256[0]++ }) },
			outcome{Read: old, Begin: 0, Era: 2, Rewinds: 1},
		},
		"never read, the first deleted": {
			func(r *rig) {
				r.place(0, func(p *sink.Position) { *p = sink.Position{Partition: p.Partition, Era: 1, LogStart: -1} })
				r.deleteBefore(3)
			},
			outcome{Read: old[3:], Begin: 3, Era: 1, Gap: [2]int64{0, 2}},
		},
	}
}

// What becomes of a position when the log is not what it was.
func TestLogChangedWhileAway(t *testing.T) {
	t.Parallel()
	old := numbered("old", 20)
	for name, tc := range changes(old) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, sandbox.BrokerConfig{}, 1)
			r.produce(0, old[:10]...)
			first := r.start(nil)
			r.untilRead(t, 0, old[:10]...)
			if err := first.stop(); err != nil {
				t.Fatal(err)
			}
			r.produce(0, old[10:]...)
			tc.make(r)
			r.update(func() { clear(r.read); clear(r.begins) })
			second := r.start(nil)
			r.untilRead(t, 0, tc.want.Read...)
			if err := second.stop(); err != nil {
				t.Fatal(err)
			}
			got := outcome{
				Read: r.values(0), Begin: r.begins[0][0].Next, Era: r.positions[0].Era,
				Rewinds: second.metric("tallyman_loader_topic_rewinds_total"),
			}
			gap := 0.0
			for _, m := range r.gaps[0] {
				got.Gap = [2]int64{m.From, m.To - 1}
				gap += float64(m.To - m.From)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
			if counted := second.metric("tallyman_loader_gap_messages_total"); counted != gap {
				t.Errorf("%v messages of gaps counted, want %v", counted, gap)
			}
		})
	}
}

// A topic that is made again while it is read is read from its start, whether
// it is longer or shorter than before.
func TestTopicMadeAgainWhileRead(t *testing.T) {
	t.Parallel()
	for name, n := range map[string]int{"shorter": 3, "as long": 10, "longer": 40} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, sandbox.BrokerConfig{}, 1)
			r.produce(0, numbered("old", 10)...)
			c := r.start(nil)
			r.untilRead(t, 0, numbered("old", 10)...)
			if err := r.broker.DeleteTopic(topic); err != nil {
				t.Fatal(err)
			}
			if n == 10 { // nothing else tells a log that ends where the old one did
				c.untilUnhealthy("topic ads.clicks is gone")
			}
			r.create(1, nil)
			r.produce(0, numbered("new", n)...)
			r.untilRead(t, 0, numbered("new", n)...)
			if got := c.metric("tallyman_loader_topic_rewinds_total"); got != 1 {
				t.Errorf("%v rewinds", got)
			}
		})
	}
}

// blind has every fetch answered with nothing, as of a log that ends at high,
// until the function that it returns is called.
func (r *rig) blind(high int64) (see func()) {
	var sees atomic.Bool
	cluster := r.broker.Cluster()
	cluster.ControlKey(int16(kmsg.Fetch), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if sees.Load() {
			return nil, nil, false
		}
		answer := request.ResponseKind().(*kmsg.FetchResponse)
		t, p := kmsg.NewFetchResponseTopic(), kmsg.NewFetchResponseTopicPartition()
		p.HighWatermark, p.LastStableOffset = high, high
		t.Topic, t.Partitions = topic, append(t.Partitions, p)
		answer.Topics = append(answer.Topics, t)
		return answer, nil, true
	})
	return func() { sees.Store(true) }
}

// A topic that is made again while no fetch sees it gone is told by its
// metadata, or by a batch that can't follow on what was read.
func TestTopicMadeAgainUnseen(t *testing.T) {
	t.Parallel()
	old := numbered("old", 10)
	for name, tc := range map[string]struct {
		metadata time.Duration
		batches  [][]string // of the new topic
	}{
		"told by metadata": {50 * time.Millisecond, [][]string{numbered("first", 10), numbered("second", 10)}},
		"told by a batch":  {patience, [][]string{numbered("new", 30)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, sandbox.BrokerConfig{}, 1)
			r.produce(0, old...)
			c := r.start(func(c *Config) { c.MetadataEvery = tc.metadata })
			r.untilRead(t, 0, old...)
			see := r.blind(10)
			if err := r.broker.DeleteTopic(topic); err != nil {
				t.Fatal(err)
			}
			if tc.metadata < patience {
				c.untilUnhealthy("topic ads.clicks is gone")
			}
			r.create(1, nil)
			for _, values := range tc.batches {
				r.produce(0, values...)
			}
			see()
			r.untilRead(t, 0, slices.Concat(tc.batches...)...)
			if got := c.metric("tallyman_loader_topic_rewinds_total"); got != 1 {
				t.Errorf("%v rewinds", got)
			}
			c.untilHealthy()
		})
	}
}

// A topic that is gone is waited for, and said to be gone.
func TestTopicGone(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{}, 1)
	r.produce(0, numbered("old", 10)...)
	c := r.start(nil)
	r.untilRead(t, 0, numbered("old", 10)...)
	if err := r.broker.DeleteTopic(topic); err != nil {
		t.Fatal(err)
	}
	c.untilUnhealthy("topic ads.clicks is gone: make it again with tallyman dataset apply")
	r.create(1, nil)
	r.produce(0, "new")
	r.untilRead(t, 0, "new")
	c.untilHealthy()
}

// A verdict that moves a position is reached twice.
func TestRewindIsDecidedTwice(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{}, 1)
	r.produce(0, numbered("old", 10)...)
	first := r.start(nil)
	r.untilRead(t, 0, numbered("old", 10)...)
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	r.place(0, func(p *sink.Position) { p.Anchor, p.LogStart = nil, 0 })
	lies := r.lie(0) // once, of a log that begins at 2^40
	r.produce(0, "next")
	r.start(nil)
	r.untilRead(t, 0, "next")
	if lies.Load() != 1 || len(r.gaps[0]) != 0 || r.begins[0][len(r.begins[0])-1].Next != 10 {
		t.Errorf("%d lies, gaps %v, began %v", lies.Load(), r.gaps, r.begins[0])
	}
}

// Errors of the warehouse's positions: what waiting helps is waited for, what a
// person must mend ends Run.
func TestPositionsRefuse(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		op    string
		class sink.Class
		fatal bool
	}{
		"assign, outage":      {"assign", sink.Retryable, false},
		"assign, too slow":    {"assign", sink.TooSlow, false},
		"assign, no table":    {"assign", sink.Misconfigured, true},
		"move, outage":        {"move", sink.Retryable, false},
		"move, moved already": {"move", sink.Fenced, false},
		"move, no privilege":  {"move", sink.Misconfigured, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, sandbox.BrokerConfig{}, 1)
			r.produce(0, numbered("a", 10)...)
			r.deleteBefore(5)
			asked := 0
			r.refuse = func(op string) error {
				if op != tc.op {
					return nil
				}
				if asked++; asked > 3 && !tc.fatal {
					return nil
				}
				return &sink.Error{Class: tc.class, Err: errors.New("planted")}
			}
			c := r.start(nil)
			if !tc.fatal {
				c.untilUnhealthy("planted")
				r.untilRead(t, 0, numbered("a", 10)[5:]...)
				c.untilHealthy()
				return
			}
			r.until(t, "the refusal", func() bool { return asked > 0 })
			if err := c.wait(); err == nil || !strings.Contains(err.Error(), "position of partition 0 of ads.clicks: planted") {
				t.Errorf("Run: %v", err)
			}
		})
	}
}

// The position is read anew on Reset, and nothing is handed over with the old
// era after the next Begin.
func TestReset(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{}, 2)
	r.produce(0, numbered("a", 10)...)
	r.produce(1, numbered("b", 10)...)
	c := r.start(nil)
	r.untilRead(t, 0, numbered("a", 10)...)
	r.untilRead(t, 1, numbered("b", 10)...)
	r.place(0, func(p *sink.Position) { p.Next, p.Era, p.Anchor = 0, p.Era+1, nil }) // as tallyman rewind does
	c.Reset([]int32{0, 99})
	r.untilRead(t, 0, append(numbered("a", 10), numbered("a", 10)...)...)
	r.produce(1, "late")
	r.untilRead(t, 1, "late")
	if n := len(r.begins[1]); n != 1 {
		t.Errorf("the other partition began %d times", n)
	}
}

// The handler asks for a Reset itself when it finds itself fenced.
func TestFencedHandler(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{}, 1)
	r.produce(0, numbered("a", 10)...)
	c := r.start(nil)
	r.untilRead(t, 0, numbered("a", 10)...)
	r.place(0, func(p *sink.Position) { p.Next, p.Era, p.Anchor = 5, p.Era+1, nil })
	r.produce(0, "a10")
	r.untilRead(t, 0, numbered("a", 11)[5:]...)
	c.untilHealthy()
}

// A warehouse that went back, as a replica does that took over without the last
// commits, is noticed also where nothing new comes.
func TestWarehouseWentBack(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{}, 1)
	r.produce(0, numbered("a", 10)...)
	c := r.start(nil)
	r.untilRead(t, 0, numbered("a", 10)...)
	r.place(0, func(p *sink.Position) { p.Next, p.Anchor = 6, nil })
	r.untilRead(t, 0, append(numbered("a", 10), numbered("a", 10)[6:]...)...)
	if got := c.metric("tallyman_loader_topic_rewinds_total"); got != 0 {
		t.Errorf("%v rewinds", got)
	}
	c.untilHealthy()
}
