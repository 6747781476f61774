package postgres_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema/batch"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

// for one batch.
func TestCopyLeavesV4IDsOfAnotherTime(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{})
	n := w.second("")
	p, q := w.partition(0), n.partition(0)
	id := uuid.New()
	a := w.element(id, p, 0, []any{int64(1), "x"})
	b := a
	other := *a.Batch
	other.Time = other.Time.Add(-time.Hour)
	other.Seal()
	b.Batch, b.Headers, b.Key = &other, other.Headers(), other.Key()
	w.loads(w.committer(), w.group(p, 1, a))
	n.loads(n.committer(), n.group(q, 1, b))
	lacks := func(want int64) {
		t.Helper()
		if u, err := w.Uncovered(t.Context(), 1, 2); err != nil || u.Batches != want {
			t.Errorf("%d batches are lacking, want %d, %v", u.Batches, want, err)
		}
	}
	lacks(0) // the same content is there
	execute(t, w.conn, "UPDATE tallyman.loaded_elements SET digest = sha256('') WHERE revision_id = 2")
	lacks(1)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	copied, err := w.CopyUncovered(ctx, w.revision, n.revision, nil)
	if got := w.count("SELECT count(*) FROM events__r2"); got != 1 {
		t.Errorf("%d rows of one batch; copied %+v, %v", got, copied, err)
	}
}

// What is copied is not in open quarantine any more.
func TestCopyClosesQuarantine(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{})
	n := w.second("")
	p, q := w.partition(0), n.partition(0)
	a := w.element(batch.NewID(), p, 0, []any{int64(1), "x"})
	w.loads(w.committer(), w.group(p, 1, a))
	g := n.group(q, 1)
	g.Dead = []sink.Dead{{Message: a.Message, Batch: a.Batch, Reason: batch.NoManifest, Detail: "none"}}
	if _, err := n.committer().Commit(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	if _, err := w.CopyUncovered(t.Context(), w.revision, n.revision, nil); err != nil {
		t.Fatal(err)
	}
	if got := w.count("SELECT count(*) FROM tallyman.quarantine WHERE state = 'open'"); got != 0 {
		t.Errorf("%d messages in open quarantine", got)
	}
}
