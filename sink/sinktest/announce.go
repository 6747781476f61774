package sinktest

import (
	"slices"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"tallyman/schema/batch"
	"tallyman/sink"
)

// stream is one incarnation of the fixture's source, with a clock of its own.
type stream struct {
	f           *fixture
	incarnation uuid.UUID
	next        int64 // offset of partition 0
}

func (f *fixture) stream() *stream { return &stream{f: f, incarnation: uuid.New()} }

// at is a time of the stream's clock, which goes in seconds.
func at(second int) time.Time { return moment().Add(time.Duration(second) * time.Second) }

// element returns the stream's batch with a number, at the next offset.
func (s *stream) element(sequence uint64) sink.Element {
	s.f.Helper()
	e := s.f.element(batch.NewID(), 0, s.next, int64(sequence))
	s.next++
	return s.renumber(e, sequence)
}

// renumber returns the same batch as one of this stream.
func (s *stream) renumber(e sink.Element, sequence uint64) sink.Element {
	b := *e.Batch
	b.Incarnation, b.Sequence = s.incarnation, sequence
	b.Seal()
	e.Batch, e.Headers = &b, b.Headers()
	return e
}

// announce commits announcements as a group, and checks which are refused.
func (s *stream) announce(want []sink.RefusedAnnouncement, all ...batch.Announcement) {
	s.f.Helper()
	s.next++
	g := s.f.group(s.next)
	g.Announcements = all
	s.commit(g, want)
}

func (s *stream) commit(g *sink.Group, want []sink.RefusedAnnouncement) {
	s.f.Helper()
	res, err := s.f.committer().Commit(s.f.Context(), g)
	if err != nil {
		s.f.Fatalf("commit: %v", err)
	}
	if diff := gocmp.Diff(want, res.Refused); diff != "" {
		s.f.Errorf("announcements refused (-want +got):\n%s", diff)
	}
}

// load commits elements.
func (s *stream) load(elements ...sink.Element) {
	s.f.Helper()
	s.commit(s.f.group(s.next, elements...), nil)
}

// says returns an announcement.
func (s *stream) says(sequence uint64, second int, final bool) batch.Announcement {
	return batch.Announcement{Source: "suite", Incarnation: s.incarnation, Dataset: s.f.revision.Manifest.Dataset,
		Sequence: sequence, At: at(second), Final: final}
}

// missing checks what is missing of all streams, before and after floors were advanced.
func (f *fixture) missing(want ...sink.Missing) {
	f.Helper()
	for i := range want {
		want[i].Dataset, want[i].Revision, want[i].Source = f.revision.Manifest.Dataset, f.revision.ID, "suite"
	}
	for range 2 {
		got, err := f.w.Missing(f.Context(), f.revision.Manifest.Dataset.String(), 0)
		if err != nil {
			f.Fatal(err)
		}
		if diff := gocmp.Diff(want, got, cmpopts.IgnoreFields(sink.Missing{}, "Since"), cmpopts.EquateEmpty()); diff != "" {
			f.Errorf("missing (-want +got):\n%s", diff)
		}
		for _, m := range got {
			if age := time.Since(m.Since); age < -time.Hour || age > time.Hour {
				f.Errorf("missing since %v", m.Since)
			}
		}
		f.floors()
	}
}

func (f *fixture) floors() {
	f.Helper()
	if _, err := f.w.AdvanceFloors(f.Context(), f.revision); err != nil {
		f.Fatal(err)
	}
}

// through checks how far the dataset is complete, before and after floors were
// advanced; the zero time with all: wholly.
func (f *fixture) through(want time.Time, all bool) sink.Completeness {
	f.Helper()
	var c sink.Completeness
	for range 2 {
		var err error
		if c, err = f.w.Completeness(f.Context(), f.revision, 0); err != nil {
			f.Fatal(err)
		}
		if !c.Through.Equal(want) || c.All != all {
			f.Errorf("complete through %v (all: %v), want %v (%v)", c.Through, c.All, want, all)
		}
		f.floors()
	}
	return c
}

// announced finds the holes of a stream that announces as it goes.
func announced(f *fixture) {
	s := f.stream()
	f.through(time.Time{}, false)
	s.announce(nil, s.says(0, 0, false))
	f.through(at(0), false)
	one, two, three := s.element(1), s.element(2), s.element(3)
	s.load(one, three)
	s.announce(nil, s.says(1, 1, false), s.says(3, 3, false))
	f.missing(sink.Missing{Incarnation: s.incarnation, First: 2, Last: 2})
	if c := f.through(at(1), false); c.Missing != 1 || c.Open != 1 || len(c.Holds) != 1 || c.Holds[0].Covered != 1 || c.Holds[0].Announced != 3 || c.Oldest.IsZero() {
		f.Errorf("completeness %+v", c)
	}
	// What nobody announced yet is not missing; what came before it was, is no hole either.
	s.load(s.element(6))
	s.announce(nil, s.says(7, 4, false))
	f.missing(sink.Missing{Incarnation: s.incarnation, First: 2, Last: 2}, sink.Missing{Incarnation: s.incarnation, First: 4, Last: 5},
		sink.Missing{Incarnation: s.incarnation, First: 7, Last: 7})
	two.Offset = s.next
	s.next++
	s.load(two, s.element(4), s.element(5), s.element(7))
	f.missing()
	f.through(at(4), false)
	s.announce(nil, s.says(7, 9, false))
	f.through(at(9), false)
	s.announce(nil, s.says(7, 10, true))
	if c := f.through(time.Time{}, true); c.Streams != 1 || c.Open != 0 || c.Missing != 0 || len(c.Holds) != 0 {
		f.Errorf("completeness %+v", c)
	}
}

// announcedInGrace calls nothing missing before the grace period is over.
func announcedInGrace(f *fixture) {
	s := f.stream()
	s.announce(nil, s.says(3, 1, true))
	got, err := f.w.Missing(f.Context(), f.revision.Manifest.Dataset.String(), time.Hour)
	if err != nil || len(got) != 0 {
		f.Errorf("missing %v, %v", got, err)
	}
	if c, err := f.w.Completeness(f.Context(), f.revision, time.Hour); err != nil || c.Missing != 0 || c.All {
		f.Errorf("completeness %+v, %v", c, err)
	}
	f.missing(sink.Missing{Incarnation: s.incarnation, First: 1, Last: 3})
}

// announcedElsewhere accounts for a batch that the ledger has under another
// stream's number, in the same group and in a later one.
func announcedElsewhere(f *fixture) {
	s, other := f.stream(), f.stream()
	one, two := s.element(1), s.element(2)
	again := other.renumber(one, 1)
	again.Offset, s.next = s.next, s.next+1
	s.load(one, two, again)
	for n, e := range []sink.Element{two, one} { // its number 2 is the first one's batch, number 3 the second's
		more := other.renumber(e, uint64(n+2))
		more.Offset, s.next = s.next, s.next+1
		s.load(more)
	}
	s.announce(nil, s.says(2, 1, true), other.says(4, 1, true))
	f.missing(sink.Missing{Incarnation: other.incarnation, First: 4, Last: 4})
	f.rows(one.Batch.ID, 1)
}

// announcedQuarantined does not call missing what is in quarantine, but holds
// the dataset back for it; and what can't be believed accounts for nothing.
func announcedQuarantined(f *fixture) {
	s := f.stream()
	one, two, three, four := s.element(1), s.element(2), s.element(3), s.element(4)
	g := f.group(s.next, one, four)
	g.Dead = []sink.Dead{bury(two, batch.Rejected), bury(three, batch.BadRows)}
	s.commit(g, nil)
	s.announce(nil, s.says(1, 1, false), s.says(2, 2, false), s.says(4, 4, false))
	f.missing(sink.Missing{Incarnation: s.incarnation, First: 3, Last: 3})
	three.Offset, s.next = s.next, s.next+1
	s.load(three)
	f.missing()
	f.through(at(1), false)
	q := f.w.NewQuarantine()
	l, err := q.List(f.Context(), sink.Selection{ID: two.Batch.ID, State: sink.Open}, 1)
	if err != nil || len(l.Kept) != 1 {
		f.Fatalf("%+v, %v", l, err)
	}
	if _, err := q.Discard(f.Context(), l.Kept[0].Key, sink.Discard{By: "somebody", Why: "a test"}); err != nil {
		f.Fatal(err)
	}
	f.missing()
	f.through(at(4), false)
}

// announcedTwice takes announcements that are read again, or late, as nothing
// new, and none that contradicts what was announced.
func announcedTwice(f *fixture) {
	s := f.stream()
	s.load(s.element(1), s.element(2))
	s.announce(nil, s.says(2, 5, false), s.says(1, 1, false), s.says(2, 5, false), s.says(0, 0, true))
	f.through(at(5), false)
	s.announce(nil, s.says(1, 1, false), s.says(0, 0, true), s.says(2, 5, false))
	f.through(at(5), false)
	stranger := s.says(2, 6, false)
	stranger.Source = "another"
	s.announce([]sink.RefusedAnnouncement{{Index: 0, Why: sink.OtherSource}}, stranger)
	s.announce([]sink.RefusedAnnouncement{{Index: 1, Why: sink.WentBack}}, s.says(2, 7, false), s.says(1, 8, false))
	if c := f.through(at(7), false); c.Refused != 2 || c.Holds[0].Fault != string(sink.WentBack) || !c.Holds[0].Open {
		f.Errorf("completeness %+v", c)
	}
	// The end of a stream is taken back by whoever goes on with it.
	s.announce(nil, s.says(2, 9, true))
	f.through(time.Time{}, true)
	s.announce(nil, s.says(2, 10, false))
	f.through(at(10), false)
}

// announcedAbsurdly makes no phantom holes by the million, whoever says so.
func announcedAbsurdly(f *fixture) {
	s, fresh := f.stream(), f.stream()
	s.load(s.element(1))
	s.announce(nil, s.says(1, 1, false))
	const absurd = 1_000_002
	for i, n := range []uint64{absurd, 1 << 40, 1<<63 - 2, 1<<63 - 1} {
		s.announce([]sink.RefusedAnnouncement{{Index: 0, Why: sink.TooManyMissing}}, s.says(n, 2+i, i > 1))
	}
	fresh.next = s.next
	fresh.announce([]sink.RefusedAnnouncement{{Index: 0, Why: sink.TooManyMissing}}, fresh.says(1<<62, 2, true))
	f.missing()
	c := f.through(time.Time{}, false) // of the new one nothing is known yet
	if c.Missing != 0 || c.Refused != 5 || !slices.ContainsFunc(c.Holds, func(h sink.Hold) bool {
		return h.Incarnation == s.incarnation && h.Announced == 1 && h.Open && h.Fault == string(sink.TooManyMissing) && h.Through.Equal(at(1))
	}) {
		f.Errorf("completeness %+v", c)
	}
	// A true one still counts.
	fresh.announce(nil, s.says(1, 9, false), fresh.says(0, 9, false))
	f.through(at(9), false)
}

// accepted ends a range that is nowhere, and only that.
func accepted(f *fixture) {
	s := f.stream()
	s.load(s.element(2))
	s.announce(nil, s.says(5, 1, true))
	accept := func(first, last uint64, want int64) {
		f.Helper()
		n, err := f.w.AcceptMissing(f.Context(), sink.Acceptance{Revision: f.revision.ID, Incarnation: s.incarnation, First: first, Last: last, By: "somebody", Why: "a test"})
		if err != nil || n != want {
			f.Errorf("accepted %d, %v, want %d", n, err, want)
		}
	}
	accept(1, 3, 2)
	accept(1, 3, 0)
	f.missing(sink.Missing{Incarnation: s.incarnation, First: 4, Last: 5})
	accept(4, 1<<40, 2)
	f.missing()
	f.through(time.Time{}, true)
}

// announcedByTooMany takes no stream more than 10,000 that are open, and still
// takes what those announce and what a closed one makes room for.
func announcedByTooMany(f *fixture) {
	const most = 10_000
	s := f.stream()
	s.announce(nil, s.says(0, 1, false))
	var forged []batch.Announcement
	for range most {
		a := s.says(0, 2, false)
		a.Incarnation = uuid.New()
		forged = append(forged, a)
	}
	// The warehouse goes through them by incarnation, so any of them may be the one too many.
	var refused []sink.RefusedAnnouncement
	for some := range slices.Chunk(forged, most/2) {
		g := f.group(s.next + 1)
		g.Announcements, s.next = some, s.next+1
		res, err := f.committer().Commit(f.Context(), g)
		if err != nil {
			f.Fatal(err)
		}
		refused = append(refused, res.Refused...)
	}
	if len(refused) != 1 || refused[0].Why != sink.TooManyStreams {
		f.Fatalf("refused %v", refused)
	}
	f.missing()
	c, err := f.w.Completeness(f.Context(), f.revision, 0)
	if err != nil || c.Streams != most || c.Open != most || c.Missing != 0 || len(c.Holds) != 10 || !c.Through.Equal(at(1)) {
		f.Errorf("%+v, %v", c, err)
	}
	late := f.stream()
	late.next = s.next
	late.announce([]sink.RefusedAnnouncement{{Index: 0, Why: sink.TooManyStreams}}, late.says(0, 3, false))
	s.next = late.next
	s.announce(nil, s.says(0, 4, true))
	late.next = s.next
	late.announce(nil, late.says(0, 5, false))
}

// announcedByTooManyClosed takes no more than 10,000 streams that are closed and
// lack something: a flood of them, each with a million batches, is phantom holes
// without end. What lacks nothing is taken, and so is what goes on.
func announcedByTooManyClosed(f *fixture) {
	const most, each = 10_000, 1_000_000
	s := f.stream()
	s.load(s.element(1))
	s.announce(nil, s.says(1, 1, false))
	forged := make([]batch.Announcement, most+1)
	for i := range forged {
		forged[i] = s.says(each, 2, true)
		forged[i].Incarnation = uuid.New()
	}
	var refused []sink.RefusedAnnouncement
	for some := range slices.Chunk(forged, most/2) {
		g := f.group(s.next + 1)
		g.Announcements, s.next = some, s.next+1
		res, err := f.committer().Commit(f.Context(), g)
		if err != nil {
			f.Fatal(err)
		}
		refused = append(refused, res.Refused...)
	}
	if len(refused) != 1 || refused[0].Why != sink.TooManyStreams {
		f.Fatalf("refused %v", refused)
	}
	whole := f.stream()
	whole.next = s.next
	whole.load(whole.element(1), whole.element(2))
	whole.announce(nil, whole.says(2, 3, true))
	f.floors()
	whole.announce([]sink.RefusedAnnouncement{{Index: 0, Why: sink.TooManyStreams}}, whole.says(3, 4, true))
	s.next = whole.next
	s.announce(nil, s.says(3, 5, false))
	c, err := f.w.Completeness(f.Context(), f.revision, 0)
	if err != nil || c.Streams != most+2 || c.Open != 1 || c.Missing != most*each+2 || c.Refused != 1 {
		f.Errorf("%+v, %v", c, err)
	}
}

// announcedFarAhead still takes, at once, what a stream announces of which one
// batch is missing and more than a million after it are loaded elsewhere; and
// refuses it as soon as a million are missing in all.
func announcedFarAhead(f *fixture) {
	const most = 1_000_000
	s := f.stream()
	s.announce(nil, s.says(most, 1, false))
	s.announce([]sink.RefusedAnnouncement{{Index: 0, Why: sink.TooManyMissing}}, s.says(most+1, 2, false))
	s.load(s.element(most), s.element(most+1))
	s.announce(nil, s.says(most, 3, false), s.says(most+1, 4, false), s.says(most+2, 5, false))
	s.announce([]sink.RefusedAnnouncement{{Index: 1, Why: sink.TooManyMissing}}, s.says(most+2, 6, false), s.says(most+3, 7, false))
	f.missing(sink.Missing{Incarnation: s.incarnation, First: 1, Last: most - 1}, sink.Missing{Incarnation: s.incarnation, First: most + 2, Last: most + 2})
}
