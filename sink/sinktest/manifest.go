package sinktest

import (
	"slices"
	"strings"

	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/schema/rows"
	"tallyman/sink"
)

// twoManifests loads batches by two manifests in one group, and knows the second
// only once it is applied.
func twoManifests(f *fixture) {
	further := f.revision.Manifest
	further.Columns = slices.Concat([]schema.Column{{Name: "flag", Type: schema.Bool, Nullable: true}}, further.Columns)
	if m, err := f.w.Manifest(f.Context(), f.revision, further.Hash()); err != nil || m != nil {
		f.Fatalf("%v, %v: nobody has applied it", m, err)
	}
	if r, err := f.w.Apply(further); err != nil || r.ID != f.revision.ID {
		f.Fatalf("revision %d, %v, want revision %d to take the rows", r.ID, err, f.revision.ID)
	}
	for _, m := range []*schema.Manifest{&f.revision.Manifest, &further} {
		if got, err := f.w.Manifest(f.Context(), f.revision, m.Hash()); err != nil || got == nil || got.Hash() != m.Hash() {
			f.Fatalf("%v, %v, want manifest %s", got, err, m.Hash())
		}
	}
	unfit := further
	unfit.Columns = slices.Clone(further.Columns)
	unfit.Columns[1].Type = schema.Float64
	if _, err := f.w.Apply(unfit); err == nil || sink.ClassOf(err) != sink.Misconfigured || !strings.Contains(err.Error(), unfit.Columns[1].Name) {
		f.Errorf("%v, want a refusal that names the column", err)
	}
	if m, err := f.w.Manifest(f.Context(), f.revision, unfit.Hash()); err != nil || m != nil {
		f.Errorf("%v, %v: it was refused", m, err)
	}

	first := f.element(batch.NewID(), 0, 0, 1, 2)
	second := f.element(batch.NewID(), 0, 1, 3)
	third := f.element(batch.NewID(), 0, 2, 4, 5, 6)
	codec, err := rows.NewCodec(further)
	if err != nil {
		f.Fatal(err)
	}
	b := second.Batch
	b.Schema, b.Rows, b.Value = further.Hash(), 2, nil
	for _, row := range [][]any{{true, int64(7), "x"}, {nil, int64(8), nil}} {
		if b.Value, err = codec.Append(b.Value, b.ID, row); err != nil {
			f.Fatal(err)
		}
	}
	b.Seal()
	second = sink.Element{Message: f.message(b, 0, 1), Batch: b, Manifest: &further, Content: b.Content(), Tuples: b.Value}
	c := f.committer()
	f.commit(c, f.group(3, first, second, third), sink.Loaded, sink.Loaded, sink.Loaded)
	f.rows(first.Batch.ID, 2)
	f.rows(second.Batch.ID, 2)
	f.rows(third.Batch.ID, 3)
	f.commit(c, f.group(4, f.again(second, 3)), sink.Duplicate)
	f.rows(second.Batch.ID, 2)
}

// again is a copy of an element at another offset.
func (f *fixture) again(e sink.Element, offset int64) sink.Element {
	e.Offset = offset
	return e
}
