package postgres_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema/batch"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

func TestCommitLoadsOnce(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := open(t, sandboxtest.Postgres(t, version), events, postgres.Config{})
			c := w.committer()
			p := w.partition(0)
			a := w.element(batch.NewID(), p, 0, []any{int64(1), "one"}, []any{int64(2), nil})
			b := w.element(batch.NewID(), p, 1, []any{int64(3), "three"})
			again := a
			again.Offset = 2
			other := w.element(a.Batch.ID, p, 3, []any{int64(4), "other"})
			res, err := c.Commit(t.Context(), w.group(p, 4, a, b, again, other))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]sink.Outcome{sink.Loaded, sink.Loaded, sink.Duplicate, sink.Conflict}, res.Outcomes); diff != "" {
				t.Error(diff)
			}
			if n := w.count("SELECT count(*) FROM public.events"); n != 3 {
				t.Errorf("%d rows, want 3", n)
			}
			if n := w.count("SELECT count(*) FROM tallyman.quarantine WHERE reason = 'id_conflict'"); n != 1 {
				t.Errorf("%d rows in quarantine, want 1", n)
			}
			if p = w.partition(0); p.Next != 4 {
				t.Errorf("position is %d, want 4", p.Next)
			}
			// Once more, in other transactions.
			a.Offset, other.Offset = 4, 5
			res, err = c.Commit(t.Context(), w.group(p, 6, a, other))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]sink.Outcome{sink.Duplicate, sink.Conflict}, res.Outcomes); diff != "" {
				t.Error(diff)
			}
			if n := w.count("SELECT count(*) FROM public.events"); n != 3 {
				t.Errorf("%d rows, want 3", n)
			}
			if _, err = c.Commit(t.Context(), w.group(p, 6)); sink.ClassOf(err) != sink.Fenced {
				t.Errorf("a group at a position that moved: %v", err)
			}
		})
	}
}
