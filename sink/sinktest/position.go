package sinktest

import (
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"tallyman/schema/batch"
	"tallyman/sink"
)

// assign makes positions where there are none, and keeps the order asked.
func assign(f *fixture) {
	f.commit(f.committer(), f.group(9, f.element(batch.NewID(), 0, 3, 1)), sink.Loaded)
	asked := []sink.Partition{f.partition(2), f.partition(0), f.partition(1)}
	asked[2].Cluster = "another"
	want := []sink.Position{
		{Partition: asked[0], Era: 1, LogStart: -1},
		{Partition: asked[1], Next: 9, Era: 1, LogStart: -1},
		{Partition: asked[2], Era: 1, LogStart: -1},
	}
	for range 2 {
		got, err := f.w.Assign(f.Context(), f.revision, asked)
		if diff := gocmp.Diff(want, got); err != nil || diff != "" {
			f.Errorf("%v\n%s", err, diff)
		}
	}
}

// move places a position by compare-and-set; a rewind raises the era.
func move(f *fixture) {
	g := f.group(5)
	g.Advances[0].Anchor = &sink.Anchor{Offset: 4, Timestamp: moment(), SHA256: batch.Digest{1}}
	f.commit(f.committer(), g)
	p := f.partition(0)
	for _, m := range []sink.Move{
		{Partition: p, Era: 1, From: 4, To: 0, Rewind: true},
		{Partition: p, Era: 2, From: 5, To: 0, Rewind: true},
		{Partition: f.partition(9), Era: 1, To: 1},
	} {
		if _, err := f.w.Move(f.Context(), f.revision, m); sink.ClassOf(err) != sink.Fenced {
			f.Errorf("%+v: %v, want it fenced", m, err)
		}
	}
	for _, step := range []struct {
		move sink.Move
		want sink.Position
	}{
		{sink.Move{Partition: p, Era: 1, From: 5, To: 8, LogStart: 8, Gap: "expired"}, sink.Position{Partition: p, Next: 8, Era: 1, LogStart: 8}},
		{sink.Move{Partition: p, Era: 1, From: 8, To: 2, LogStart: 2, Rewind: true}, sink.Position{Partition: p, Next: 2, Era: 2, LogStart: 2}},
	} {
		got, err := f.w.Move(f.Context(), f.revision, step.move)
		if diff := gocmp.Diff(step.want, got); err != nil || diff != "" {
			f.Errorf("%v\n%s", err, diff)
		}
		if diff := gocmp.Diff(step.want, f.position(0)); diff != "" {
			f.Error(diff)
		}
	}
}

// positions move exactly to where the group says, whatever lies before; a
// missing anchor or log start keeps the stored one.
func positions(f *fixture) {
	c := f.committer()
	one := &sink.Anchor{Offset: 3, Timestamp: moment(), SHA256: batch.Digest{1}}
	two := &sink.Anchor{Offset: 17, Timestamp: moment().Add(time.Millisecond), SHA256: batch.Digest{2}}
	p := f.partition(0)
	for _, step := range []struct {
		to, logStart int64
		anchor       *sink.Anchor
		want         sink.Position
	}{
		{2, -1, nil, sink.Position{Partition: p, Next: 2, Era: 1, LogStart: -1}},
		{4, 1, one, sink.Position{Partition: p, Next: 4, Era: 1, LogStart: 1, Anchor: one}},
		{11, -1, nil, sink.Position{Partition: p, Next: 11, Era: 1, LogStart: 1, Anchor: one}},
		{18, 5, two, sink.Position{Partition: p, Next: 18, Era: 1, LogStart: 5, Anchor: two}},
	} {
		from := f.position(0)
		g := f.group(step.to, f.element(batch.NewID(), 0, from.Next, 1))
		g.Advances[0].LogStart, g.Advances[0].Anchor = step.logStart, step.anchor
		f.commit(c, g, sink.Loaded)
		if diff := gocmp.Diff(step.want, f.position(0)); diff != "" {
			f.Error(diff)
		}
	}
}

// positionOnly moves several positions with nothing to load, and no others.
func positionOnly(f *fixture) {
	first, second := f.position(0), f.position(1)
	f.position(2)
	g := &sink.Group{Revision: f.revision, Advances: []sink.Advance{advance(second, 7), advance(first, 3)}}
	f.commit(f.committer(), g)
	f.next(0, 3)
	f.next(1, 7)
	f.next(2, 0)
}

func fencedByEra(f *fixture) {
	c := f.committer()
	f.commit(c, f.group(4, f.element(batch.NewID(), 0, 0, 1)), sink.Loaded)
	stale := f.position(0)
	if _, err := f.w.Move(f.Context(), f.revision, sink.Move{Partition: stale.Partition, Era: 1, From: 4, To: 4, LogStart: -1, Rewind: true}); err != nil {
		f.Fatal(err)
	}
	a := f.element(batch.NewID(), 0, 4, 2)
	_ = f.refused(c, f.groupAt(stale, 5, a), sink.Fenced)
	f.commit(c, f.group(5, a), sink.Loaded)
	f.rows(a.Batch.ID, 1)
}

func fencedByOffset(f *fixture) {
	c := f.committer()
	stale := f.position(0)
	f.commit(f.committer(), f.group(2, f.element(batch.NewID(), 0, 0, 1)), sink.Loaded)
	a := f.element(batch.NewID(), 0, 1, 2)
	_ = f.refused(c, f.groupAt(stale, 2, a), sink.Fenced)
	ahead := f.position(0)
	ahead.Next = 3
	_ = f.refused(c, f.groupAt(ahead, 4, a), sink.Fenced)
	f.commit(c, f.group(3, a), sink.Loaded)
}

// fencedInPart refuses the whole of a group of which one partition has moved.
func fencedInPart(f *fixture) {
	first, second := f.position(0), f.position(1)
	f.commit(f.committer(), f.groupAt(second, 1))
	a, b := f.element(batch.NewID(), 0, 0, 1), f.element(batch.NewID(), 1, 1, 2)
	g := &sink.Group{Revision: f.revision, Elements: []sink.Element{a, b},
		Advances: []sink.Advance{advance(first, 1), advance(second, 2)},
		Dead:     []sink.Dead{bury(f.element(batch.NewID(), 0, 0, 3), batch.BadRows)}}
	c := f.committer()
	_ = f.refused(c, g, sink.Fenced)
	g.Advances[1] = advance(f.position(1), 2)
	f.commit(c, g, sink.Loaded, sink.Loaded)
	if q := f.quarantine(); len(q) != 1 {
		f.Errorf("%d messages in quarantine, want 1", len(q))
	}
}
