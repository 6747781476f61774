package sinktest

import (
	"slices"
	"time"

	"tallyman/schema/batch"
	"tallyman/sink"
)

// loaded asks the ledger outside of a transaction: it knows what was loaded as
// it comes, and nothing else.
func loaded(f *fixture) {
	there := []sink.Element{
		f.element(batch.NewID(), 0, 0, 1),
		f.element(batch.NewID(), 0, 1, 2, 3),
	}
	stream := batch.NewID()
	for i := range there[1:] {
		b := there[1+i].Batch
		b.Incarnation, b.Sequence = stream, uint64(i+1)
		b.Seal()
		there[1+i].Message = f.message(b, 0, int64(i+1))
	}
	c := f.committer()
	f.commit(c, f.group(2, there...), sink.Loaded, sink.Loaded)
	given := f.element(batch.NewID(), 0, 2, 4)
	f.commit(c, f.deadGroup(3, bury(given, batch.NoManifest)))
	q := f.w.NewQuarantine()
	if _, err := q.Discard(f.Context(), f.byOffset()[2].Key, sink.Discard{By: "suite", Why: "no use"}); err != nil {
		f.Fatal(err)
	}

	elsewhere := *there[1].Batch // the number of another batch of the stream
	elsewhere.Sequence = 2
	later := *there[1].Batch
	later.Time = later.Time.Add(time.Millisecond)
	other := *there[0].Batch
	other.Source = "another"
	other.Seal()
	unsealed := *there[0].Batch
	unsealed.Digest = batch.Digest{}
	absent := f.element(batch.NewID(), 0, 3, 5)
	asked := []*batch.Batch{absent.Batch, there[1].Batch, &elsewhere, &later, &other, &unsealed, given.Batch, there[0].Batch, there[0].Batch}
	want := []bool{false, true, false, false, false, false, false, true, true}
	if got, err := f.w.Loaded(f.Context(), f.revision, asked); err != nil || !slices.Equal(got, want) {
		f.Errorf("loaded: %v, %v, want %v", got, err, want)
	}
	if got, err := f.w.Loaded(f.Context(), f.revision, nil); err != nil || len(got) > 0 {
		f.Errorf("nothing asked: %v, %v", got, err)
	}
}
