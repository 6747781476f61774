package postgres_test

import (
	"context"
	"errors"
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

// What is copied into the active revision while another is activated is not lost
// to readers, however long the copy takes.
func TestActivationWaitsForCopies(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{LockTimeout: 300 * time.Millisecond})
	from, n := w.second(""), w.second("")
	p := from.partition(0)
	e := from.element(batch.NewID(), p, 0, []any{int64(1), "x"})
	from.loads(from.committer(), from.group(p, 1, e))
	// As of a copy that began five minutes ago.
	execute(t, w.conn, "ALTER TABLE tallyman.loaded_elements ALTER loaded_at SET DEFAULT now() - interval '5 minutes'")
	blocker := session(t, w.dsn)
	execute(t, blocker, "BEGIN", "LOCK TABLE events__r1 IN EXCLUSIVE MODE")
	copied, activated := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := w.CopyUncovered(t.Context(), from.revision, w.revision, nil)
		copied <- err
	}()
	w.waits(w.conn, "INSERT INTO%events__r1%")
	go func() {
		_, err := w.Activate(t.Context(), postgres.Activation{Dataset: n.revision.Manifest.Dataset, Revision: n.revision.ID, Wait: 3 * time.Second})
		activated <- err
	}()
	for w.count(`SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`) < 2 {
		if t.Context().Err() != nil {
			t.Fatal("nobody waits for the copy")
		}
	}
	execute(t, blocker, "ROLLBACK")
	if err := <-copied; err != nil {
		t.Error(err)
	}
	err := <-activated
	var lacks *postgres.UncoveredError
	if !errors.As(err, &lacks) || lacks.Uncovered.Batches != 1 {
		t.Errorf("behind a copy: %v", err)
	}
}
