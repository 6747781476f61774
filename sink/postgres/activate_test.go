package postgres_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

// other has what came from there, if it has the ids.
func TestActivationAfterAMoveOfCluster(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{})
	n := w.second("")
	old, err := w.Assign(t.Context(), w.revision, []sink.Partition{{Cluster: "before", Topic: w.revision.Manifest.Topic}})
	if err != nil {
		t.Fatal(err)
	}
	e := w.element(batch.NewID(), old[0], 0, []any{int64(1), "x"})
	w.loads(w.committer(), w.group(old[0], 1000, e))
	q := n.partition(0)
	e.Partition = q.Partition
	n.loads(n.committer(), n.group(q, 1, e))
	for minutes, want := range []int64{1000, 0} { // what just begins may get that partition yet
		execute(t, w.conn, fmt.Sprintf("UPDATE tallyman.revisions SET created_at = now() - interval '%d minutes'", minutes))
		if got, err := w.Behind(t.Context(), w.revision.ID, n.revision.ID); err != nil || got != want {
			t.Errorf("%d messages behind, want %d, %v", got, want, err)
		}
	}
	_, err = w.Activate(t.Context(), postgres.Activation{Dataset: n.revision.Manifest.Dataset, Revision: n.revision.ID, Wait: 3 * time.Second})
	if err != nil {
		t.Error(err)
	}
}

// not lost to readers.
func TestActivationBesideARedrive(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{})
	n := w.second("")
	id := idAt(time.Now().Add(-48 * time.Hour))
	e := w.element(id, w.partition(0), 0, []any{int64(1), "x"})
	key := w.bury(e, batch.NoManifest)
	g := n.group(n.partition(0), 1)
	g.Dead = []sink.Dead{{Message: e.Message, Batch: e.Batch, Reason: batch.NoManifest}}
	if _, err := n.committer().Commit(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	// It comes between the first look and the second, which locks jobs before.
	execute(t, w.conn, "INSERT INTO tallyman.jobs (idempotency_key, kind, dataset, revision_id) VALUES ('legacy:1', 'load', 'test/events', 1)")
	holder := session(t, w.dsn)
	execute(t, holder, "BEGIN", "SELECT FROM tallyman.jobs FOR UPDATE")
	done := make(chan error, 1)
	go func() {
		_, err := w.Activate(t.Context(), postgres.Activation{Dataset: n.revision.Manifest.Dataset, Revision: n.revision.ID, Wait: 5 * time.Second})
		done <- err
	}()
	for w.count(`SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`) == 0 {
	}
	if _, err := w.Quarantine().Redrive(t.Context(), w.revision, key, "me", func(m sink.Message, _ *schema.Manifest) (*sink.Element, *sink.Dead) { return &e, nil }); err != nil {
		t.Fatal(err)
	}
	before := w.count("SELECT count(*) FROM events")
	execute(t, holder, "ROLLBACK")
	err := <-done
	if after := w.count("SELECT count(*) FROM events"); after < before {
		t.Errorf("readers saw %d rows, and now %d; activated: %v", before, after, err)
	}
}

// A second look that takes too long is given up, and tried again: loads go on meanwhile.
func TestActivationAfterASlowLook(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{LockTimeout: 30 * time.Second})
	n := w.second("")
	p, q := w.partition(0), n.partition(0)
	e := w.element(batch.NewID(), p, 0, []any{int64(1), "x"})
	w.loads(w.committer(), w.group(p, 1, e))
	e.Partition = q.Partition
	n.loads(n.committer(), n.group(q, 1, e))
	holder, slow := session(t, w.dsn), session(t, w.dsn)
	execute(t, holder, "BEGIN", "LOCK TABLE events__r1 IN ROW EXCLUSIVE MODE") // between the looks
	done := make(chan error, 1)
	go func() {
		_, err := w.Activate(t.Context(), postgres.Activation{Dataset: n.revision.Manifest.Dataset, Revision: n.revision.ID, Wait: 30 * time.Second})
		done <- err
	}()
	const waits = `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database() AND query LIKE '%' || $1 || '%'`
	for w.count(waits, "LOCK TABLE") == 0 {
	}
	execute(t, slow, "BEGIN", "LOCK TABLE tallyman.loaded_elements IN ACCESS EXCLUSIVE MODE")
	execute(t, holder, "ROLLBACK")
	for w.count(waits, "lacking") == 0 {
	}
	time.Sleep(3 * time.Second) // longer than loads are held up
	execute(t, slow, "ROLLBACK")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A backup or an analysis of the old table keeps nobody from activating another.
func TestActivationBesideABackup(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{})
	n := w.second("")
	dump := session(t, w.dsn)
	execute(t, dump, "BEGIN", "LOCK TABLE events__r1, events__r2 IN ACCESS SHARE MODE")
	if _, err := w.Activate(t.Context(), postgres.Activation{Dataset: n.revision.Manifest.Dataset, Revision: n.revision.ID, Wait: 5 * time.Second}); err != nil {
		t.Error(err)
	}
}

// What sources are told of streams that were silent while the revision stood by.
func TestReceiptsOfSilentStreamsAfterActivation(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{})
	n := w.second("")
	stream := uuid.New()
	n.announce(stream, 5, 1)
	n.partition(0)
	d := sink.Due{Revision: n.revision, Cluster: "default", Limit: 10, Lease: time.Second, All: true}
	if r, _, err := n.TakeReceipts(t.Context(), d); err != nil || len(r) != 0 {
		t.Fatal(r, err)
	}
	execute(t, w.conn, "UPDATE tallyman.streams SET seen_at = now() - interval '1 hour'")
	w.activates(n.revision, true)
	d.All = false // the loader has asked for all once
	if r, _, err := n.TakeReceipts(t.Context(), d); err != nil || len(r) != 1 {
		t.Errorf("%d receipts, %v", len(r), err)
	}
}
