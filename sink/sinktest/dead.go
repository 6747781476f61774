package sinktest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"tallyman/schema/batch"
	"tallyman/sink"
)

func reasons() []batch.Reason {
	return []batch.Reason{
		batch.NoID, batch.BadID, batch.BadEnvelope, batch.BadDigest, batch.BadRows, batch.WrongDataset, batch.NoManifest,
		batch.IDConflict, batch.FromTheFuture, batch.Expired, batch.TooLarge, batch.Unreadable, batch.Rejected, batch.Constraint,
	}
}

// dead keeps a message of every reason, with its coordinates, beside batches
// that load; positions move past them.
func dead(f *fixture) {
	good := f.element(batch.NewID(), 0, 0, 1)
	g := f.group(40, good)
	var want []Quarantined
	for i, reason := range reasons() {
		d := bury(f.element(batch.NewID(), 0, 1+2*int64(i), int64(i)), reason)
		d.Batch.Incarnation, d.Batch.Sequence = uuid.New(), uint64(i+1)
		row := Quarantined{Offset: d.Offset, Reason: reason, Detail: d.Detail, ID: d.Batch.ID,
			Kept: int64(len(d.Value)), Size: int64(len(d.Value)), Open: true}
		if reason == batch.NoID || reason == batch.Unreadable {
			d.Batch, row.ID = nil, uuid.Nil
		}
		g.Dead = append(g.Dead, d)
		want = append(want, row)
	}
	f.commit(f.committer(), g, sink.Loaded)
	if diff := gocmp.Diff(want, f.quarantine()); diff != "" {
		f.Error(diff)
	}
	f.rows(good.Batch.ID, 1)
	f.next(0, 40)
}

// deadTwice keeps a message once that comes twice, together or later; messages
// without content are told apart by their coordinates.
func deadTwice(f *fixture) {
	c := f.committer()
	d := bury(f.element(batch.NewID(), 0, 0, 1), batch.Constraint)
	again := d
	again.Offset = 1
	f.commit(c, f.deadGroup(2, d, again))
	d.Offset = 2
	hollow := sink.Dead{Message: sink.Message{Partition: f.partition(0), Offset: 3}, Reason: batch.NoID}
	nothing := hollow
	nothing.Offset = 4
	f.commit(c, f.deadGroup(5, d, hollow, nothing))
	var offsets []int64
	for _, q := range f.quarantine() {
		offsets = append(offsets, q.Offset)
	}
	if diff := gocmp.Diff([]int64{0, 3, 4}, offsets); diff != "" {
		f.Errorf("offsets in quarantine: %s", diff)
	}
	f.next(0, 5)
}

// deadThenGood loads a good copy that comes after a dead one, and that closes
// the dead one's row, unless its identity is not to be believed.
func deadThenGood(f *fixture) {
	c := f.committer()
	for i, reason := range reasons() {
		e := f.element(batch.NewID(), 0, 2*int64(i), int64(i))
		f.commit(c, f.deadGroup(2*int64(i)+1, bury(e, reason)))
		f.rows(e.Batch.ID, 0)
		e.Offset++
		f.commit(c, f.group(2*int64(i)+2, e), sink.Loaded)
		f.rows(e.Batch.ID, 1)
	}
	for _, q := range f.quarantine() {
		open := false
		switch q.Reason {
		case batch.NoID, batch.BadID, batch.BadEnvelope, batch.BadDigest, batch.BadRows, batch.IDConflict:
			open = true
		}
		if q.Open != open {
			f.Errorf("after a good copy: %+v, want open %v", q, open)
		}
	}
}

// goodThenDead does not keep a dead copy of what is loaded, but one of its id
// with other content.
func goodThenDead(f *fixture) {
	c := f.committer()
	e := f.element(batch.NewID(), 0, 0, 1)
	f.commit(c, f.group(1, e), sink.Loaded)
	same, other := e, f.element(e.Batch.ID, 0, 2, 2)
	same.Offset = 1
	f.commit(c, f.deadGroup(3, bury(same, batch.Constraint), bury(other, batch.Constraint)))
	if q := f.quarantine(); len(q) != 1 || q[0].Offset != 2 || !q[0].Open {
		f.Errorf("quarantine holds %+v, want the message at 2", q)
	}
	f.rows(e.Batch.ID, 1)
	f.next(0, 3)
}

// deadBesideGood loads a batch whose dead copy lies in the same group, which is
// then of no interest any more.
func deadBesideGood(f *fixture) {
	e := f.element(batch.NewID(), 0, 1, 1)
	copied := e
	copied.Offset = 0
	g := f.group(2, e)
	g.Dead = []sink.Dead{bury(copied, batch.Constraint)}
	f.commit(f.committer(), g, sink.Loaded)
	f.rows(e.Batch.ID, 1)
	for _, q := range f.quarantine() {
		if q.Open {
			f.Errorf("in quarantine: %+v, whose content has loaded", q)
		}
	}
}

// deadOfOtherContent keeps what is dead open when its id loads with other rows:
// they are in no table.
func deadOfOtherContent(f *fixture) {
	c := f.committer()
	e := f.element(batch.NewID(), 0, 0, 1)
	other := f.element(e.Batch.ID, 0, 1, 2)
	f.commit(c, f.deadGroup(1, bury(e, batch.Constraint)))
	f.commit(c, f.group(2, other), sink.Loaded)
	if q := f.quarantine(); len(q) != 1 || q[0].Offset != 0 || !q[0].Open {
		f.Errorf("quarantine holds %+v, want the message at 0, open", q)
	}
	f.rows(e.Batch.ID, 1)
}

// deadOutOfWindow keeps dead messages whose times have no place in the ledger:
// they must not hold up what comes after them.
func deadOutOfWindow(f *fixture) {
	w, err := f.w.Window(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	times := []time.Time{w.End, time.UnixMilli(1<<48 - 1)}
	if !w.Horizon.IsZero() {
		times = append(times, w.Horizon.Add(-time.Millisecond))
	}
	good := f.element(batch.NewID(), 0, 100, 1)
	g := f.group(101, good)
	for i, at := range times {
		for j, reason := range []batch.Reason{batch.WrongDataset, batch.NoManifest, batch.FromTheFuture, batch.Expired} {
			e := f.element(idAt(at), 0, int64(4*i+j), 1)
			g.Dead = append(g.Dead, bury(e, reason))
		}
	}
	f.commit(f.committer(), g, sink.Loaded)
	if q := f.quarantine(); len(q) != len(g.Dead) {
		f.Errorf("%d messages in quarantine, want %d", len(q), len(g.Dead))
	}
	f.next(0, 101)
}

// idAt returns a new v7 id of a time.
func idAt(at time.Time) uuid.UUID {
	id := batch.NewID()
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(at.UnixMilli()))
	copy(id[:6], n[2:])
	return id
}

// deadLarge keeps payloads up to 8 MiB whole and the first 64 KiB of larger ones.
func deadLarge(f *fixture) {
	const whole, head = 8 << 20, 64 << 10
	c := f.committer()
	for i, size := range []int{whole, whole + 1} {
		m := sink.Message{Partition: f.partition(0), Offset: int64(i), Timestamp: moment(), Value: bytes.Repeat([]byte{'x'}, size)}
		f.commit(c, f.deadGroup(int64(i)+1, sink.Dead{Message: m, Reason: batch.TooLarge, Detail: "too large"}))
	}
	want := []Quarantined{
		{Offset: 0, Reason: batch.TooLarge, Detail: "too large", Kept: whole, Size: whole, Open: true},
		{Offset: 1, Reason: batch.TooLarge, Detail: "too large", Kept: head, Size: whole + 1, Open: true},
	}
	if diff := gocmp.Diff(want, f.quarantine()); diff != "" {
		f.Error(diff)
	}
}

// deadOddText keeps what strangers write: no text, NUL bytes, times beyond
// every calendar, headers and keys that are anything.
func deadOddText(f *fixture) {
	const odd = "a\x00b\xffc\xc3"
	e := f.element(batch.NewID(), 0, 0, 1)
	d := bury(e, batch.BadEnvelope)
	d.Detail = odd + strings.Repeat("é", 3)
	d.Batch.Source = odd
	d.Key, d.Timestamp = []byte(odd), time.UnixMilli(1<<62)
	d.Headers = append(d.Headers, batch.Header{Key: odd, Value: nil}, batch.Header{Key: "", Value: []byte(odd)})
	bare := sink.Dead{Message: sink.Message{Partition: f.partition(0), Offset: 1, Timestamp: time.UnixMilli(-1 << 62)}, Reason: batch.Unreadable}
	f.commit(f.committer(), f.deadGroup(2, d, bare))
	q := f.quarantine()
	if len(q) != 2 {
		f.Fatalf("%d messages in quarantine, want 2", len(q))
	}
	if text := q[0].Detail; !utf8.ValidString(text) || !strings.HasPrefix(text, "a") || !strings.HasSuffix(text, "ééé") || strings.Contains(text, "\x00") {
		f.Errorf("detail %q of %q", text, d.Detail)
	}
	f.next(0, 2)
}

// deadKnown says of dead messages that come again that there is nothing new
// about them: while they are in quarantine, after they were given up, and when
// their id stood for other content before.
func deadKnown(f *fixture) {
	c, q := f.committer(), f.w.NewQuarantine()
	next := int64(0)
	say := func(what string, g *sink.Group, want int) {
		f.Helper()
		asked := -1
		g.Admit = func(res sink.Result) error {
			asked = res.Known
			return nil
		}
		res, err := c.Commit(f.Context(), g)
		if err != nil {
			f.Fatalf("%s: %v", what, err)
		}
		if res.Known != want || asked != want {
			f.Errorf("%s: %d known, and %d by Admit, want %d", what, res.Known, asked, want)
		}
	}
	for _, reason := range reasons() {
		d := bury(f.element(batch.NewID(), 0, next, 1), reason)
		for what, want := range []int{0, 1} {
			d.Offset = next
			next++
			say(fmt.Sprintf("%s, time %d", reason, what), f.deadGroup(next, d), want)
		}
		if _, err := q.Discard(f.Context(), f.byOffset()[d.Offset-1].Key, sink.Discard{By: "suite", Why: "no use"}); err != nil {
			f.Fatal(err)
		}
		d.Offset = next
		next++
		say(string(reason)+", given up", f.deadGroup(next, d), 1)
	}
	e := f.element(batch.NewID(), 0, next, 1)
	other := f.element(e.Batch.ID, 0, next+1, 2)
	say("other content", f.group(next+2, e, other), 0)
	e.Offset, other.Offset = next+2, next+3
	say("other content again", f.group(next+4, e, other), 1)
}
