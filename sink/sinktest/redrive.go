package sinktest

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/sink"
)

// parsed judges a message as a loader does that has nothing against its time:
// by its envelope and its rows.
func (f *fixture) parsed(m sink.Message, _ *schema.Manifest) (*sink.Element, *sink.Dead) {
	b, err := batch.Parse(m.Key, m.Value, m.Headers)
	if err == nil {
		if err = f.codec.Walk(b.Value, b.Rows, b.ID); err == nil {
			return &sink.Element{Message: m, Batch: b, Content: b.Content(), Tuples: b.Value}, nil
		}
		err = &batch.Refusal{Reason: batch.BadRows, Detail: err.Error(), Batch: b}
	}
	var refusal *batch.Refusal
	errors.As(err, &refusal)
	return nil, &sink.Dead{Message: m, Reason: refusal.Reason, Detail: refusal.Detail, Batch: refusal.Batch}
}

// lies returns what quarantine lists of the dataset, in the order of offsets.
func (f *fixture) lies() []sink.Kept {
	f.Helper()
	l, err := f.w.NewQuarantine().List(f.Context(), sink.Selection{Dataset: f.revision.Manifest.Dataset.String()}, 0)
	if err != nil || l.Total != int64(len(l.Kept)) {
		f.Fatalf("%d of %d messages, %v", len(l.Kept), l.Total, err)
	}
	byOffset := make([]sink.Kept, 0, len(l.Kept))
	for i := range l.Kept {
		byOffset = append(byOffset, l.Kept[len(l.Kept)-1-i])
	}
	return byOffset
}

// redrive tries a message again and checks what became of it; reason is empty
// where it must not be refused.
func (f *fixture) redrive(k sink.Kept, outcome sink.Outcome, reason batch.Reason) {
	f.Helper()
	res, err := f.w.NewQuarantine().Redrive(f.Context(), f.revision, k.Key, "suite", f.parsed)
	if err != nil {
		f.Fatalf("redrive of the message at %d: %v", k.Offset, err)
	}
	refused := batch.Reason("")
	if res.Refusal != nil {
		refused = res.Refusal.Reason
	}
	if refused != reason || reason == "" && res.Outcome != outcome {
		f.Errorf("redrive of the message at %d: %v, refused %v, want %v and %q", k.Offset, res.Outcome, res.Refusal, outcome, reason)
	}
}

// listed finds what is in quarantine by every kind of selection, and gives it
// back byte for byte.
func listed(f *fixture) {
	e := f.element(batch.NewID(), 0, 0, 1, 2)
	e.Batch.Incarnation, e.Batch.Sequence = uuid.New(), 7
	first := bury(e, batch.Constraint)
	second := bury(f.element(batch.NewID(), 1, 3, 1), batch.BadRows)
	g := f.deadGroup(1, first)
	g.Advances = append(g.Advances, advance(f.position(1), 4))
	g.Dead = append(g.Dead, second)
	f.commit(f.committer(), g)
	q := f.w.NewQuarantine()
	name := f.revision.Manifest.Dataset.String()
	find := func(s sink.Selection, limit int) sink.Listing {
		f.Helper()
		s.Dataset = name
		l, err := q.List(f.Context(), s, limit)
		if err != nil {
			f.Fatal(err)
		}
		return l
	}
	all := find(sink.Selection{}, 0)
	if len(all.Kept) != 2 || all.Total != 2 {
		f.Fatalf("%d of %d messages, want 2", len(all.Kept), all.Total)
	}
	if l := find(sink.Selection{}, 1); len(l.Kept) != 1 || l.Total != 2 {
		f.Errorf("%d of %d messages, want the first of 2", len(l.Kept), l.Total)
	}
	one := find(sink.Selection{ID: first.Batch.ID}, 0).Kept[0]
	if one.Offset != 0 || one.Reason != first.Reason || one.Detail != first.Detail || one.Source != "suite" || one.Incarnation != e.Batch.Incarnation ||
		one.Sequence != 7 || one.Rows != 2 || one.Size != int64(len(e.Value)) || !one.Whole || one.State != sink.Open || !one.Published.Equal(moment()) {
		f.Errorf("listed is %+v", one)
	}
	for _, tc := range []struct {
		what string
		s    sink.Selection
		want int
	}{
		{"key", sink.Selection{Prefixes: []string{one.Key.SHA256.String()[:12], "zz"}}, 1},
		{"reason", sink.Selection{Reason: batch.BadRows}, 1},
		{"another reason", sink.Selection{Reason: batch.BadID}, 0},
		{"state", sink.Selection{State: sink.Open}, 2},
		{"another state", sink.Selection{State: sink.Redriven}, 0},
		{"since", sink.Selection{Since: one.Seen}, 2},
		{"until", sink.Selection{Until: one.Seen}, 0},
		{"another id", sink.Selection{ID: uuid.New()}, 0},
	} {
		if n := len(find(tc.s, 0).Kept); n != tc.want {
			f.Errorf("by %s: %d messages, want %d", tc.what, n, tc.want)
		}
	}
	got, err := q.Get(f.Context(), one.Key)
	if err != nil {
		f.Fatal(err)
	}
	if got.Message.Fingerprint() != first.Fingerprint() || got.Message.Offset != 0 || got.Message.Partition != first.Partition || got.Manifest == nil {
		f.Errorf("kept is %+v", got)
	}
	var gone *sink.ClosedError
	if _, err := q.Get(f.Context(), sink.KeptKey{Revision: f.revision.ID}); !errors.As(err, &gone) {
		f.Errorf("a message that is not there: %v", err)
	}
}

// redriven loads what can be loaded by now, once, moves no position, and keeps
// the new reason of what can't.
func redriven(f *fixture) {
	c := f.committer()
	good, bad, damaged := f.element(batch.NewID(), 0, 0, 1), f.element(batch.NewID(), 0, 1, -1), f.element(batch.NewID(), 0, 2, 3)
	damaged.Value = []byte("damaged")
	taken := f.element(batch.NewID(), 0, 4, 5)
	other := f.element(taken.Batch.ID, 0, 3, 4)
	f.commit(c, f.deadGroup(4, bury(good, batch.Constraint), bury(bad, batch.NoManifest), bury(damaged, batch.TooLarge), bury(other, batch.NoManifest)))
	f.commit(c, f.group(5, taken), sink.Loaded)
	if err := f.w.Act(f.revision, Constrain); err != nil {
		f.Fatal(err)
	}
	lies := f.byOffset()
	f.redrive(lies[0], sink.Loaded, "")
	f.redrive(lies[1], 0, batch.Constraint)
	f.redrive(lies[2], 0, batch.BadDigest)
	f.redrive(lies[3], 0, batch.IDConflict)
	for offset, want := range map[int64]batch.Reason{1: batch.Constraint, 2: batch.BadDigest, 3: batch.IDConflict} {
		if k := f.byOffset()[offset]; k.Reason != want || k.State != sink.Open || strings.HasPrefix(k.Detail, "because of") {
			f.Errorf("still refused is %+v, want %s", k, want)
		}
	}
	if k := f.byOffset()[0]; k.State != sink.Redriven || k.ClosedBy != "suite" || k.Closed.IsZero() {
		f.Errorf("loaded is %+v", k)
	}
	f.rows(good.Batch.ID, 1)
	f.rows(bad.Batch.ID, 0)
	f.rows(taken.Batch.ID, 1)
	f.next(0, 5)
	var closed *sink.ClosedError
	if _, err := f.w.NewQuarantine().Redrive(f.Context(), f.revision, lies[0].Key, "", f.parsed); !errors.As(err, &closed) || closed.State != sink.Redriven {
		f.Errorf("redrive of what is loaded: %v", err)
	}
	// The cause is mended.
	if err := f.w.Act(f.revision, Relax); err != nil {
		f.Fatal(err)
	}
	f.redrive(lies[1], sink.Loaded, "")
	f.rows(bad.Batch.ID, 1)
	bad.Offset = 5
	f.commit(c, f.group(6, bad), sink.Duplicate)
}

// byOffset returns what lies in quarantine by its offset.
func (f *fixture) byOffset() map[int64]sink.Kept {
	f.Helper()
	kept := map[int64]sink.Kept{}
	for _, k := range f.lies() {
		kept[k.Offset] = k
	}
	return kept
}

// redrivenDuplicate closes a message whose rows are there, by a copy that did
// not close it: its identity was not to be believed then.
func redrivenDuplicate(f *fixture) {
	c := f.committer()
	e := f.element(batch.NewID(), 0, 0, 1)
	f.commit(c, f.deadGroup(1, bury(e, batch.BadEnvelope)))
	e.Offset = 1
	f.commit(c, f.group(2, e), sink.Loaded)
	f.redrive(f.lies()[0], sink.Duplicate, "")
	if k := f.lies()[0]; k.State != sink.Redriven {
		f.Errorf("a duplicate is %s", k.State)
	}
	f.rows(e.Batch.ID, 1)
}

// redrivenGivenUp does not count as redriven what somebody gave up under
// another envelope.
func redrivenGivenUp(f *fixture) {
	e := f.element(batch.NewID(), 0, 0, 1)
	resent := e
	resent.Offset, resent.Headers = 1, append(resent.Headers, batch.Header{Key: "resent"})
	f.commit(f.committer(), f.deadGroup(2, bury(e, batch.NoManifest), bury(resent, batch.BadEnvelope)))
	if _, err := f.w.NewQuarantine().Discard(f.Context(), f.byOffset()[0].Key, sink.Discard{Why: "no use"}); err != nil {
		f.Fatal(err)
	}
	f.redrive(f.byOffset()[1], sink.Duplicate, "")
	if k := f.byOffset()[1]; k.State != sink.Discarded {
		f.Errorf("what was given up under another envelope is %s", k.State)
	}
	f.rows(e.Batch.ID, 0)
}

// redriveLarge does not try what is not kept whole.
func redriveLarge(f *fixture) {
	m := sink.Message{Partition: f.partition(0), Value: make([]byte, 8<<20+1)}
	f.commit(f.committer(), f.deadGroup(2, sink.Dead{Message: m, Reason: batch.BadRows},
		sink.Dead{Message: sink.Message{Partition: f.partition(0), Offset: 1}, Reason: batch.Unreadable}))
	for _, k := range f.lies() {
		f.redrive(k, 0, k.Reason)
	}
}

// discarded gives messages up: a later copy is a duplicate, whatever its
// envelope, unless the message's identity is not to be believed.
func discarded(f *fixture) {
	c := f.committer()
	q := f.w.NewQuarantine()
	for i, reason := range reasons() {
		at := 3 * int64(i)
		e := f.element(batch.NewID(), 0, at, 1)
		resent := e
		resent.Offset, resent.Headers = at+1, append(resent.Headers, batch.Header{Key: "resent"})
		f.commit(c, f.deadGroup(at+2, bury(e, reason), bury(resent, reason)))
		refused, want := true, sink.Duplicate
		switch reason {
		case batch.NoID, batch.BadID, batch.BadEnvelope, batch.BadDigest, batch.BadRows, batch.Unreadable, batch.IDConflict:
			refused, want = false, sink.Loaded
		}
		kept := f.byOffset()
		res, err := q.Discard(f.Context(), kept[at].Key, sink.Discard{By: "suite", Why: "no use"})
		if err != nil || res.Refused != refused {
			f.Errorf("%s: %+v, %v, want refused %t", reason, res, err, refused)
		}
		kept = f.byOffset()
		if k := kept[at]; k.State != sink.Discarded || k.ClosedBy != "suite" || k.ClosedWhy != "no use" || k.Closed.IsZero() {
			f.Errorf("%s: given up is %+v", reason, k)
		}
		if k := kept[at+1]; (k.State == sink.Discarded) != refused {
			f.Errorf("%s: the other copy is %s", reason, k.State)
		}
		var closed *sink.ClosedError
		if _, err := q.Discard(f.Context(), kept[at].Key, sink.Discard{}); !errors.As(err, &closed) || closed.State != sink.Discarded {
			f.Errorf("%s: given up twice: %v", reason, err)
		}
		e.Offset = at + 2
		f.commit(c, f.group(at+3, e), want)
		f.rows(e.Batch.ID, map[sink.Outcome]int64{sink.Loaded: 1}[want])
	}
}

// redriveCrossing tries a message again while a committer loads a copy of it,
// and a second time at the same moment, or gives it up: whichever comes first,
// nothing loads twice and nothing is lost.
func redriveCrossing(f *fixture) {
	const rounds = 20
	c := f.committer()
	for round := range int64(rounds) {
		e := f.element(batch.NewID(), 0, 2*round, 1, 2)
		f.commit(c, f.deadGroup(2*round+1, bury(e, batch.NoManifest)))
		key := f.byOffset()[2*round].Key
		e.Offset = 2*round + 1
		g := f.group(2*round+2, e)
		var running errgroup.Group
		var loaded, given atomic.Int32
		running.Go(func() error {
			res, err := c.Commit(f.Context(), g)
			if err == nil && res.Outcomes[0] == sink.Loaded {
				loaded.Add(1)
			}
			return err
		})
		for range 2 {
			running.Go(func() error {
				res, err := f.w.NewQuarantine().Redrive(f.Context(), f.revision, key, "", f.parsed)
				if err == nil && res.Outcome == sink.Loaded {
					loaded.Add(1)
				}
				return unlessClosed(err)
			})
		}
		if round%2 == 1 {
			running.Go(func() error {
				res, err := f.w.NewQuarantine().Discard(f.Context(), key, sink.Discard{By: "suite", Why: "a race"})
				if err == nil && res.Refused && f.byOffset()[2*round].State == sink.Discarded {
					given.Add(1)
				}
				return unlessClosed(err)
			})
		}
		if err := running.Wait(); err != nil {
			f.Fatal(err)
		}
		if loaded.Load()+given.Load() != 1 {
			f.Errorf("round %d: loaded %d times, given up %d times", round, loaded.Load(), given.Load())
		}
		f.rows(e.Batch.ID, 2*int64(loaded.Load()))
		if k := f.byOffset()[2*round]; k.State == sink.Open {
			f.Errorf("round %d: the message is open", round)
		}
	}
}

// unlessClosed takes the answer of who came too late for none.
func unlessClosed(err error) error {
	var closed *sink.ClosedError
	if errors.As(err, &closed) {
		return nil
	}
	return err
}

// redriveCancelled leaves nothing when it ends before its commit, and the
// message as it was.
func redriveCancelled(f *fixture) {
	e := f.element(batch.NewID(), 0, 0, 1)
	f.commit(f.committer(), f.deadGroup(1, bury(e, batch.NoManifest)))
	before := f.snapshot()
	ctx, cancel := context.WithCancel(f.Context())
	defer cancel()
	_, err := f.w.NewQuarantine().Redrive(ctx, f.revision, f.lies()[0].Key, "", func(m sink.Message, by *schema.Manifest) (*sink.Element, *sink.Dead) {
		cancel()
		return f.parsed(m, by)
	})
	if !errors.Is(err, context.Canceled) {
		f.Errorf("redrive: %v", err)
	}
	f.unchanged(before)
	f.redrive(f.lies()[0], sink.Loaded, "")
	f.rows(e.Batch.ID, 1)
}

// redrivable finds what waits for a manifest that the warehouse has by now.
func redrivable(f *fixture) {
	named := func(offset int64, hash string) sink.Dead {
		e := f.element(batch.NewID(), 0, offset, 1)
		e.Batch.Schema = hash
		e.Batch.Seal()
		e.Headers = e.Batch.Headers()
		return bury(e, batch.NoManifest)
	}
	have := f.revision.Manifest.Hash()
	otherwise := named(2, have)
	otherwise.Reason = batch.BadRows
	f.commit(f.committer(), f.deadGroup(3, named(0, strings.Repeat("0", 64)), named(1, have), otherwise))
	q := f.w.NewQuarantine()
	keys, err := q.Redrivable(f.Context(), f.revision, 10)
	if err != nil || len(keys) != 1 || keys[0] != f.byOffset()[1].Key {
		f.Fatalf("%v, %v, want the message at 1", keys, err)
	}
	f.redrive(f.byOffset()[1], sink.Loaded, "")
	if keys, err = q.Redrivable(f.Context(), f.revision, 10); err != nil || len(keys) != 0 {
		f.Errorf("%v, %v, after it has loaded", keys, err)
	}
}
