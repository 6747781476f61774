package replay

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"tallyman/schema/batch"
	"tallyman/source/journal"
)

// A target that misses batches gets them, under their ids, a few times; then there
// is an alarm, and nothing more until the hole changes, somebody asks, or the
// target says once more that it misses them.
func TestSendsWhatATargetMisses(t *testing.T) {
	t.Parallel()
	r := newRig(t).receipts()
	r.add(10)
	r.start(func(c *Config) { c.Tries = 2 })
	r.tell(receipt{target: "main", through: 2, announced: 10, missing: []journal.Range{span(3, 4), span(8, 8)}})
	r.eventually("two tries of three batches, and the alarm", func() bool {
		return r.sent() == 6 && r.log.has("ERROR batches were sent again and again") && r.metric("tallyman_source_stuck_batches") == 3
	})
	r.wantTimes(map[uint64]int{3: 2, 4: 2, 8: 2})
	if n := r.metric("tallyman_source_replayed_batches_total"); n != 6 {
		t.Errorf("%v batches are counted", n)
	}

	r.tell(receipt{target: "main", through: 6, announced: 10, missing: []journal.Range{span(7, 8)}})
	r.eventually("what is new in the hole", func() bool { return r.sent() == 9 && r.metric("tallyman_source_stuck_batches") == 2 })
	r.wantTimes(map[uint64]int{3: 2, 4: 2, 7: 2, 8: 3})

	var o outcomes
	noError(t, r.replayer.Send(r.context(), r.stream(), []journal.Range{span(8, 8)}, o.note))
	r.eventually("what was asked for, and its tries anew", func() bool { return r.sent() == 12 })
	r.wantTimes(map[uint64]int{3: 2, 4: 2, 7: 2, 8: 6})

	r.eventually("the alarm again", func() bool { return r.metric("tallyman_source_stuck_batches") == 2 })
	r.tell(receipt{target: "main", through: 6, announced: 10, missing: []journal.Range{span(7, 8)}})
	r.eventually("what is missed still", func() bool { return r.sent() == 14 })
	r.wantTimes(map[uint64]int{3: 2, 4: 2, 7: 3, 8: 7})

	r.tell(receipt{target: "main", through: 10, announced: 10})
	r.eventually("no hole", func() bool { return r.metric("tallyman_source_stuck_batches") == 0 })
}

// What two targets miss is sent once for both.
func TestSendsOnceForTwoTargets(t *testing.T) {
	t.Parallel()
	r := newRig(t).receipts()
	r.add(4)
	r.tell(receipt{target: "a", announced: 4, missing: []journal.Range{span(1, 3)}})
	r.tell(receipt{target: "b", announced: 4, missing: []journal.Range{span(2, 4)}})
	r.start(func(c *Config) { c.Tries = 1 })
	r.eventually("each once", func() bool { return r.sent() >= 4 && r.metric("tallyman_source_stuck_batches") == 6 })
	r.wantTimes(map[uint64]int{1: 1, 2: 1, 3: 1, 4: 1})
}

// What was trimmed, and what is damaged, is told of and not tried again; the rest
// of the hole is sent.
func TestTellsWhatCannotBeSent(t *testing.T) {
	t.Parallel()
	r := newRig(t).receipts()
	r.add(6)
	old := r.stream()
	_, err := r.journal.Announce(topic, orders(), false)
	noError(t, err)
	if n, err := r.journal.Trim(old, []journal.Range{span(1, 2)}, time.Now().Add(time.Hour)); n != 2 || err != nil {
		t.Fatalf("trimmed %d, %v", n, err)
	}
	noError(t, r.journal.Close())
	r.damage(journal.Key{Stream: old, Sequence: 4}, true)
	r.open()
	r.start(func(c *Config) { c.Tries = 1 })
	r.tell(receipt{target: "main", stream: old, announced: 1 << 60, missing: []journal.Range{span(1, 1<<60)}})
	r.eventually("the others", func() bool {
		return r.metric("tallyman_source_lost_batches") == float64(uint64(1<<60)-3) && r.metric("tallyman_source_stuck_batches") == 3
	})
	r.wantTimes(map[uint64]int{3: 1, 5: 1, 6: 1})
	for _, line := range []string{"does not hold any more", "is damaged in the journal"} {
		if !r.log.has(line) {
			t.Errorf("nobody said %q", line)
		}
	}
}

// What is still to be published, or was just now, is not doubled.
func TestLeavesAloneWhatIsOnItsWay(t *testing.T) {
	t.Parallel()
	r := newRig(t).receipts()
	r.add(1)
	one := r.addUnpublished()
	r.start(func(c *Config) { c.Tries = 2 })
	r.tell(receipt{target: "main", announced: 2, missing: []journal.Range{span(1, 2)}})
	r.eventually("the tries of the other", func() bool { return r.metric("tallyman_source_stuck_batches") == 1 })
	r.wantTimes(map[uint64]int{1: 2})
	r.stop()
	r.replayer.cfg.Grace = time.Hour
	r.publisher.Appended(one)
	noError(t, r.publisher.Wait(r.context()))
	if young, err := r.replayer.young(r.stream(), span(1, 2)); err != nil || !cmp.Equal(young, []journal.Range{span(2, 2)}) {
		t.Errorf("published in the last hour: %v, %v", young, err)
	}
	r.wantTimes(map[uint64]int{1: 2, 2: 1})
}

// Receipts of others, and what can't be read, harm nothing.
func TestIgnoresWhatIsNotItsOwn(t *testing.T) {
	t.Parallel()
	r := newRig(t).receipts()
	r.add(3)
	r.start(func(c *Config) { c.Tries = 1 })
	all := []journal.Range{span(1, 3)}
	r.tell(receipt{target: "main", stream: journal.Stream{Incarnation: uuid.New(), Dataset: orders()}, announced: 3, missing: all})
	r.tell(receipt{target: "main", source: "shop-2", announced: 3, missing: all})
	r.tell(receipt{target: "main", at: time.Now().Add(48 * time.Hour), announced: 3, missing: all})
	r.produce(&kgo.Record{Topic: batch.ReceiptsTopic, Value: []byte("{"), Headers: []kgo.RecordHeader{{Key: "ce_type", Value: []byte("tallyman.receipt.v1")}}})
	r.produce(&kgo.Record{Topic: batch.ReceiptsTopic, Key: []byte("x"), Value: []byte("y")})
	r.produce(&kgo.Record{Topic: batch.ReceiptsTopic, Key: []byte("x")})
	r.tell(receipt{target: "main", through: 2, announced: 3, missing: []journal.Range{span(3, 3)}})
	r.eventually("the one that counts", func() bool { return r.sent() == 1 && r.metric("tallyman_source_receipts_refused_total") == 2 })
	r.wantTimes(map[uint64]int{3: 1})
}

// The topic may come later, be made anew, with fewer or with more receipts than
// before, lose what was read, get partitions, and change leaders.
func TestReadsReceiptsWhateverHappensToTheirTopic(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.add(9)
	r.start(func(c *Config) { c.Tries = 1 })
	want := func(what string, n uint64) {
		t.Helper()
		r.tell(receipt{target: "main", through: n - 1, announced: 9, missing: []journal.Range{span(n, n)}})
		r.eventually(what, func() bool { _, times := r.batches(); return times[n] == 1 })
	}
	r.receipts()
	want("a topic that comes later", 1)
	for range 5 {
		r.produce(&kgo.Record{Topic: batch.ReceiptsTopic, Key: []byte("other")})
	}
	want("after others", 2)
	r.deleteTopic(batch.ReceiptsTopic)
	r.eventually("it is gone", func() bool { r.replayer.mu.Lock(); defer r.replayer.mu.Unlock(); return !r.replayer.complete })
	r.receipts()
	want("a new topic", 3)
	for p, end := range r.ends(batch.ReceiptsTopic) {
		noError(t, r.broker.DeleteRecords(batch.ReceiptsTopic, p, end))
	}
	want("after a cut", 4)
}

// What a target said is known after a restart, and that it went back, too.
func TestRemembersReceipts(t *testing.T) {
	t.Parallel()
	r := newRig(t).receipts()
	r.add(3)
	r.start(nil)
	r.tell(receipt{target: "main", through: 3, announced: 3})
	r.eventually("the receipt", func() bool { return r.said("main") != nil })
	stream := r.stream()
	r.stop()
	noError(t, r.journal.Close())
	r.open()
	notes, err := r.journal.Notes(NotePrefix)
	noError(t, err)
	if all := Receipts(notes); len(all) != 1 || all[0].Through != 3 || streamOfReceipt(all[0]) != stream {
		t.Fatalf("kept are %+v", all)
	}
	r.tell(receipt{target: "main", stream: stream, through: 1, announced: 2})
	r.start(nil)
	r.eventually("the warning", func() bool { return r.log.has("WARN target says less than before") })
	r.stop()
	if notes, err = r.journal.Notes(restoredPrefix); err != nil || len(notes) != 1 {
		t.Errorf("%v, %v", notes, err)
	}
}

// Send of a stream that is not there is told and is no error.
func TestSendOfNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t).receipts()
	r.start(nil)
	var o outcomes
	err := r.replayer.Send(r.context(), r.stream(), []journal.Range{span(1, math.MaxUint64)}, o.note)
	if err != nil || o.states[1] != Absent {
		t.Errorf("%v, %v", o.all, err)
	}
	r.stop()
	noError(t, r.journal.Close())
	if err := r.replayer.Send(r.context(), r.stream(), []journal.Range{span(1, 1)}, o.note); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("from a closed journal: %v", err)
	}
}
