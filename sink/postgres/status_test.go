package postgres_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema/batch"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

func TestStatus(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := open(t, sandboxtest.Postgres(t, version), events, postgres.Config{})
			if _, err := w.Apply(t.Context(), manifest(t, "dataset: a/empty\ncolumns: [{name: x, type: bool}]")); err != nil {
				t.Fatal(err)
			}
			p := w.partition(0)
			a := w.element(batch.NewID(), p, 0, []any{int64(1), "one"}, []any{int64(2), nil})
			b := w.element(batch.NewID(), p, 1, []any{int64(3), "three"})
			conflict := w.element(a.Batch.ID, p, 2, []any{int64(4), "other"})
			g := w.group(p, 5, a, b, conflict)
			for offset := int64(3); offset < 5; offset++ {
				g.Dead = append(g.Dead, sink.Dead{Message: sink.Message{Partition: p.Partition, Offset: offset, Value: []byte("123")},
					Reason: batch.BadRows, Detail: "no rows"})
			}
			g.Dead[1].Value = []byte("4567")
			began := time.Now().Add(-time.Minute)
			if _, err := w.committer().Commit(t.Context(), g); err != nil {
				t.Fatal(err)
			}
			p = w.partition(0)
			p, err := w.Move(t.Context(), w.revision, sink.Move{Partition: p.Partition, Era: p.Era, From: 5, To: 12, LogStart: 12, Gap: "expired"})
			if err != nil {
				t.Fatal(err)
			}
			other := w.partition(1)

			got, err := w.Status(t.Context())
			if err != nil || len(got) != 2 {
				t.Fatalf("%+v, %v", got, err)
			}
			if at := got[1].LastLoad; at.Before(began) || at.After(time.Now().Add(time.Minute)) {
				t.Errorf("last load at %v, began at %v", at, began)
			}
			for _, q := range got[1].Quarantine {
				if q.Oldest.Before(began) {
					t.Errorf("the oldest for %s is of %v, began at %v", q.Reason, q.Oldest, began)
				}
			}
			if e := got[0]; e.Revision.Manifest.Dataset.String() != "a/empty" || e.Rows != 0 || e.Batches != 0 || !e.LastLoad.IsZero() || len(e.Positions)+len(e.Quarantine) != 0 {
				t.Errorf("a dataset of nothing: %+v", e)
			}
			want := postgres.DatasetStatus{
				Revision: w.revision, Rows: 3, Batches: 2, Bytes: int64(len(a.Value) + len(b.Value)),
				Positions: []sink.Position{p, other},
				Quarantine: []postgres.Quarantined{
					{Reason: "bad_rows", Messages: 2, Bytes: 7},
					{Reason: "id_conflict", Messages: 1, Bytes: int64(len(conflict.Value))},
				},
				Unread: 7,
			}
			if diff := cmp.Diff(want, got[1], cmpopts.IgnoreTypes(time.Time{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A rewind fences whoever still reads, and leaves a position that is below the
// log's start to its reader, who records the gap.
func TestRewind(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{})
	c := w.committer()
	p, low, still := w.partition(0), w.partition(1), w.partition(2)
	e := w.element(batch.NewID(), p, 9, []any{int64(1), "one"})
	g := w.group(p, 10, e)
	g.Advances[0].Anchor = &sink.Anchor{Offset: 9, Timestamp: e.Timestamp, SHA256: e.Fingerprint()}
	if _, err := c.Commit(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	p = w.partition(0)
	moved, err := w.Rewind(t.Context(), w.revision.ID, []postgres.Start{
		{Partition: low.Partition, Offset: 6}, {Partition: p.Partition, Offset: 4},
		{Partition: sink.Partition{Cluster: "default", Topic: p.Partition.Topic, Number: 3}, Offset: 1}, // never read
	})
	want := []sink.Position{
		{Partition: p.Partition, Next: 4, Era: 2, LogStart: 4},
		{Partition: low.Partition, Next: 0, Era: 2, LogStart: 6},
	}
	byNumber := cmpopts.SortSlices(func(a, b sink.Position) bool { return a.Partition.Number < b.Partition.Number })
	if diff := cmp.Diff(want, moved, byNumber); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if diff := cmp.Diff([]sink.Position{want[0], want[1], still}, []sink.Position{w.partition(0), w.partition(1), w.partition(2)}); diff != "" {
		t.Error(diff)
	}
	if _, err := c.Commit(t.Context(), w.group(p, 11)); sink.ClassOf(err) != sink.Fenced {
		t.Errorf("a commit from before the rewind: %v", err)
	}
}
