package sinktest

import (
	"context"
	"errors"

	"tallyman/schema/batch"
	"tallyman/sink"
)

// failure finds a row that the table refuses: bad data, of which nothing stays,
// neither the batches beside it nor a dead message. Without it all of it loads.
func failure(f *fixture) {
	c := f.committer()
	good, bad := f.element(batch.NewID(), 0, 0, 1), f.element(batch.NewID(), 0, 1, -1)
	g := f.group(3, good, bad)
	g.Dead = []sink.Dead{bury(f.element(batch.NewID(), 0, 2, 3), batch.BadRows)}
	if err := f.w.Act(f.revision, Constrain); err != nil {
		f.Fatal(err)
	}
	if e := f.refused(c, g, sink.BadData); e.Reason != batch.Constraint {
		f.Errorf("refused for %q, want %q", e.Reason, batch.Constraint)
	}
	// What the loader does then: the bad one alone, with its position.
	f.commit(c, f.group(1, good), sink.Loaded)
	f.commit(c, f.deadGroup(2, bury(bad, batch.Constraint)))
	f.rows(bad.Batch.ID, 0)
	if err := f.w.Act(f.revision, Relax); err != nil {
		f.Fatal(err)
	}
	good.Offset, bad.Offset = 2, 3
	f.commit(c, f.group(4, good, bad), sink.Duplicate, sink.Loaded)
	f.rows(good.Batch.ID, 1)
	f.rows(bad.Batch.ID, 1)
	if q := f.quarantine(); len(q) != 1 || q[0].Open {
		f.Errorf("quarantine holds %+v, want one closed row", q)
	}
}

// admit is asked with what would become of the group and may refuse it.
func admit(f *fixture) {
	c := f.committer()
	a, b := f.element(batch.NewID(), 0, 0, 1), f.element(batch.NewID(), 0, 1, 2)
	f.commit(c, f.group(1, a), sink.Loaded)
	a.Offset = 2
	g := f.group(4, b, a)
	g.Dead = []sink.Dead{bury(f.element(batch.NewID(), 0, 3, 3), batch.BadRows)}
	no := errors.New("not now")
	asked := 0
	g.Admit = func(res sink.Result) error {
		asked++
		if len(res.Outcomes) != 2 || res.Outcomes[0] != sink.Loaded || res.Outcomes[1] != sink.Duplicate {
			f.Errorf("asked about %v", res.Outcomes)
		}
		if asked == 1 {
			return no
		}
		return nil
	}
	before := f.snapshot()
	if _, err := c.Commit(f.Context(), g); !errors.Is(err, no) {
		f.Fatalf("commit: %v, want the error of Admit", err)
	}
	f.unchanged(before)
	f.commit(c, g, sink.Loaded, sink.Duplicate)
	if asked != 2 {
		f.Errorf("asked %d times in two commits", asked)
	}
	f.rows(b.Batch.ID, 1)
	f.next(0, 4)
}

// cancelled leaves nothing when the context ends in the middle, and the
// committer goes on with the next group.
func cancelled(f *fixture) {
	c := f.committer()
	a := f.element(batch.NewID(), 0, 0, 1)
	before := f.snapshot()
	for name, when := range map[string]func(context.CancelFunc, *sink.Group){
		"before": func(cancel context.CancelFunc, _ *sink.Group) { cancel() },
		"in the midst": func(cancel context.CancelFunc, g *sink.Group) {
			g.Admit = func(sink.Result) error { cancel(); return nil }
		},
		"with no answer": func(cancel context.CancelFunc, g *sink.Group) {
			g.Admit = func(sink.Result) error { cancel(); return context.Canceled }
		},
	} {
		ctx, cancel := context.WithCancel(f.Context())
		g := f.group(1, a)
		when(cancel, g)
		_, err := c.Commit(ctx, g)
		cancel()
		if !errors.Is(err, context.Canceled) {
			f.Errorf("cancelled %s: %v", name, err)
		}
		f.unchanged(before)
	}
	f.commit(c, f.group(1, a), sink.Loaded)
	f.rows(a.Batch.ID, 1)
}

// closed closes a committer that was never used, and one twice.
func closed(f *fixture) {
	if err := f.w.NewCommitter().Close(); err != nil {
		f.Error(err)
	}
	c := f.w.NewCommitter()
	f.commit(c, f.group(1, f.element(batch.NewID(), 0, 0, 1)), sink.Loaded)
	for range 2 {
		if err := c.Close(); err != nil {
			f.Error(err)
		}
	}
}
