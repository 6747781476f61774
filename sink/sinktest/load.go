package sinktest

import (
	"slices"

	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/sink"
)

// catalog finds the dataset, the name of the warehouse and a window around now.
func catalog(f *fixture) {
	active, err := f.w.ActiveRevisions(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	i := slices.IndexFunc(active, func(r sink.Revision) bool { return r.ID == f.revision.ID })
	if i < 0 {
		f.Fatalf("revision %d is not among %d active ones", f.revision.ID, len(active))
	}
	if r := active[i]; r.Manifest.Hash() != f.revision.Manifest.Hash() || r.Physical != f.revision.Physical || r.State != sink.Active {
		f.Errorf("revision %+v, want %+v", r, f.revision)
	}
	if name, err := f.w.Target(f.Context()); err != nil || name == "" {
		f.Errorf("the warehouse is called %q, %v", name, err)
	}
	now, err := batch.TimeOf(batch.NewID())
	if err != nil {
		f.Fatal(err)
	}
	if w, err := f.w.Window(f.Context()); err != nil || now.Before(w.Horizon) || !now.Before(w.End) {
		f.Errorf("window %v, %v, does not hold %v", w, err, now)
	}
}

func load(f *fixture) {
	a := f.element(batch.NewID(), 0, 0, 1, 2)
	b := f.element(batch.NewID(), 0, 1, 3)
	c := f.committer()
	f.commit(c, f.group(2, a, b), sink.Loaded, sink.Loaded)
	f.rows(a.Batch.ID, 2)
	f.rows(b.Batch.ID, 1)
	f.next(0, 2)
	// The same committer again.
	d := f.element(batch.NewID(), 0, 2, 4)
	f.commit(c, f.group(3, d), sink.Loaded)
	f.rows(d.Batch.ID, 1)
	f.next(0, 3)
	if q := f.quarantine(); len(q) != 0 {
		f.Errorf("quarantine holds %+v", q)
	}
}

// repeat loads a batch that comes again, on another partition too, just once.
func repeat(f *fixture) {
	a := f.element(batch.NewID(), 0, 0, 1, 2)
	f.commit(f.committer(), f.group(1, a), sink.Loaded)
	c := f.committer()
	a.Offset = 1
	fresh := f.element(batch.NewID(), 0, 2, 3)
	f.commit(c, f.group(3, a, fresh), sink.Duplicate, sink.Loaded)
	a.Offset, a.Partition = 0, f.partition(1)
	f.commit(c, f.groupAt(f.position(1), 1, a), sink.Duplicate)
	f.rows(a.Batch.ID, 2)
	f.rows(fresh.Batch.ID, 1)
	f.next(0, 3)
	f.next(1, 1)
	if q := f.quarantine(); len(q) != 0 {
		f.Errorf("quarantine holds %+v", q)
	}
}

// repeatInGroup loads the first of the copies in a group.
func repeatInGroup(f *fixture) {
	a := f.element(batch.NewID(), 0, 0, 1, 2)
	b := f.element(batch.NewID(), 0, 1, 3)
	again, more := a, a
	again.Offset, more.Offset = 2, 3
	f.commit(f.committer(), f.group(4, a, b, again, more), sink.Loaded, sink.Loaded, sink.Duplicate, sink.Duplicate)
	f.rows(a.Batch.ID, 2)
	f.rows(b.Batch.ID, 1)
	f.next(0, 4)
}

// conflict quarantines other content under an id that is taken, in the same
// group and later, and loads what stands beside it.
func conflict(f *fixture) {
	c := f.committer()
	a := f.element(batch.NewID(), 0, 0, 1)
	other := f.element(a.Batch.ID, 0, 1, 2)
	f.commit(c, f.group(2, a, other), sink.Loaded, sink.Conflict)
	later := f.element(a.Batch.ID, 0, 2, 3)
	fresh := f.element(batch.NewID(), 0, 3, 4)
	f.commit(c, f.group(4, later, fresh), sink.Conflict, sink.Loaded)
	f.rows(a.Batch.ID, 1)
	f.rows(fresh.Batch.ID, 1)
	f.next(0, 4)
	q := f.quarantine()
	if len(q) != 2 {
		f.Fatalf("%d messages in quarantine, want 2", len(q))
	}
	for i, offset := range []int64{1, 2} {
		if q[i].Offset != offset || q[i].Reason != batch.IDConflict || q[i].ID != a.Batch.ID || !q[i].Open || q[i].Detail == "" {
			f.Errorf("in quarantine: %+v, want the message at %d", q[i], offset)
		}
	}
}

// derivedIDs loads ids that carry no time, once, beside ids that do.
func derivedIDs(f *fixture) {
	derive := func(chunk uint64) sink.Element {
		id := batch.FileID(f.revision.Manifest.Dataset, "csv", batch.Digest{1}, chunk, "")
		return f.element(id, 0, int64(chunk), int64(chunk), 7)
	}
	c := f.committer()
	first, second := derive(0), derive(1)
	timed := f.element(batch.NewID(), 0, 2, 3)
	f.commit(c, f.group(3, first, second, timed), sink.Loaded, sink.Loaded, sink.Loaded)
	first.Offset, second.Offset = 3, 4
	other := f.element(first.Batch.ID, 0, 5, 1)
	f.commit(c, f.group(6, second, first, other), sink.Duplicate, sink.Duplicate, sink.Conflict)
	f.rows(first.Batch.ID, 2)
	f.rows(second.Batch.ID, 2)
	f.rows(timed.Batch.ID, 1)
}

// otherDataset keeps ids and positions of two datasets apart.
func otherDataset(f *fixture) {
	m := f.revision.Manifest
	m.Dataset = schema.Dataset{Namespace: m.Dataset.Namespace, Name: "sibling"}
	m.Topic, m.Table.Name = "suite.sibling", "suite_sibling"
	r, err := f.w.Apply(m)
	if err != nil {
		f.Fatal(err)
	}
	sibling := *f
	sibling.revision = r
	c := f.committer()
	id := batch.NewID()
	f.commit(c, f.group(1, f.element(id, 0, 0, 1)), sink.Loaded)
	sibling.commit(c, sibling.group(5, sibling.element(id, 0, 0, 1, 2)), sink.Loaded)
	f.rows(id, 1)
	sibling.rows(id, 2)
	f.next(0, 1)
	sibling.next(0, 5)
}
