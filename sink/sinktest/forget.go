package sinktest

import (
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"tallyman/schema/batch"
	"tallyman/sink"
)

// forgotten loads nothing twice of what the ledger has forgotten, knows the
// numbers of streams still, and keeps whole whatever it can't tell.
func forgotten(f *fixture) {
	now := time.Now().UTC().Truncate(time.Millisecond)
	old := now.AddDate(0, 0, -300)
	s, unheard := f.stream(), f.stream()
	aged := func(of *stream, sequence uint64) sink.Element {
		e := f.element(idAt(old), 0, s.next, int64(sequence))
		s.next++
		return of.renumber(e, sequence)
	}
	plain := func(e sink.Element) sink.Element {
		s.next++
		return e
	}
	one, two, three := aged(s, 1), aged(s, 2), aged(s, 3)
	first, second := aged(unheard, 1), aged(unheard, 2)
	foreign := plain(f.element(idAt(old), 0, s.next, 7))
	random := plain(f.elementAt(old, uuid.New(), 0, s.next, 8))
	derived := plain(f.element(batch.FileID(f.revision.Manifest.Dataset, "csv", batch.Digest{2}, 0, ""), 0, s.next, 9))
	fresh := s.element(4)
	s.load(one, three, first, second, foreign, random, derived, fresh)
	s.announce(nil, s.says(4, 4, false))
	hole := sink.Missing{Incarnation: s.incarnation, First: 2, Last: 2}
	f.missing(hole)
	before := f.snapshot().Rows
	if err := f.w.Forget(now.AddDate(0, 0, -200)); err != nil {
		f.Fatal(err)
	}
	window, err := f.w.Window(f.Context())
	if err != nil || !window.Horizon.After(old) || window.Horizon.After(now) {
		f.Fatalf("window %+v, %v", window, err)
	}
	f.missing(hole)

	again := []sink.Element{one, two, three, first, second, foreign, random, derived, fresh}
	want := []sink.Outcome{sink.Duplicate, sink.Expired, sink.Duplicate, sink.Duplicate, sink.Duplicate, sink.Expired, sink.Expired, sink.Duplicate, sink.Duplicate}
	c := f.committer()
	for range 2 { // the second time nothing is added
		for i := range again {
			again[i].Offset, s.next = s.next, s.next+1
		}
		f.commit(c, f.group(s.next, again...), want...)
		if q := f.quarantine(); len(q) != 3 || q[0].Reason != batch.Expired || !q[0].Open {
			f.Errorf("quarantine holds %+v", q)
		}
	}
	if diff := gocmp.Diff(before, f.snapshot().Rows); diff != "" {
		f.Errorf("rows (-before +after):\n%s", diff)
	}
	f.missing() // what is in quarantine is known
	// An id that nobody has seen is taken only if its time is.
	f.commit(c, f.group(s.next+2, plain(f.element(idAt(window.Horizon.Add(-time.Millisecond)), 0, s.next, 1)),
		plain(f.element(idAt(window.Horizon), 0, s.next, 2))), sink.Expired, sink.Loaded)
}
