package postgres_test

import (
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/sink/postgres"
)

// deploy writes what the deployment of a job about the revision writes, in a
// transaction that is open.
func (w *warehouse) deploy(tx pgx.Tx) error {
	w.t.Helper()
	const job = `INSERT INTO tallyman.jobs (idempotency_key, kind, dataset, revision_id) VALUES ('legacy:' || $1::bigint, 'load', 'test/events', $1) RETURNING job_id`
	var id int64
	if err := tx.QueryRow(w.t.Context(), job, w.revision.ID).Scan(&id); err != nil {
		return err
	}
	const event = `INSERT INTO tallyman.job_events (job_id, epoch, type, worker, detail) VALUES ($1, 1, 'scheduled', '', '{}')`
	if _, err := tx.Exec(w.t.Context(), event, id); err != nil {
		return err
	}
	const status = `INSERT INTO tallyman.job_status (job_id, status, epoch, worker, attempts, detail, updated_at) VALUES ($1, 'scheduled', 1, '', 0, '{}', now())`
	_, err := tx.Exec(w.t.Context(), status, id)
	return err
}

// waits waits until a session waits for a lock in a statement.
func (w *warehouse) waits(conn *pgx.Conn, like string) {
	w.t.Helper()
	for n := 0; n == 0; {
		const sql = `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE $1 AND datname = current_database()`
		if err := conn.QueryRow(w.t.Context(), sql, like).Scan(&n); err != nil {
			w.t.Fatal(err)
		}
	}
}

// A job that is deployed while its revision is dropped keeps it from being dropped,
// or is refused itself, whichever comes first.
func TestDropRacesDeployment(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := open(t, sandboxtest.Postgres(t, version), events, postgres.Config{})
			d, watcher, dropped := w.revision.Manifest.Dataset, session(t, w.dsn), make(chan error, 1)

			first := w.second("")
			tx, err := w.conn.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := first.deploy(tx); err != nil {
				t.Fatal(err)
			}
			go func() { dropped <- w.DropRevision(t.Context(), d, first.revision.ID) }()
			w.waits(watcher, "%FROM tallyman.revisions WHERE revision_id = $1 FOR UPDATE%")
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := <-dropped; !errors.Is(err, postgres.ErrWrongRevision) {
				t.Errorf("dropped behind a deployment: %v", err)
			}

			next := w.second("")
			next.partition(0)
			holder := session(t, w.dsn) // in a commit that is in flight
			execute(t, holder, "BEGIN", "SELECT FROM tallyman.positions FOR NO KEY UPDATE")
			go func() { dropped <- w.DropRevision(t.Context(), d, next.revision.ID) }()
			w.waits(watcher, "%UPDATE tallyman.positions%")
			deployed := make(chan error, 1)
			go func() { deployed <- pgx.BeginFunc(t.Context(), w.conn, next.deploy) }()
			w.waits(watcher, "INSERT INTO tallyman.job_events%")
			execute(t, holder, "ROLLBACK")
			if err := <-dropped; err != nil {
				t.Error(err)
			}
			var pg *pgconn.PgError
			if err := <-deployed; !errors.As(err, &pg) || pg.Code != "23001" {
				t.Errorf("deployed behind a drop: %v", err)
			}
			if n := w.count("SELECT count(*) FROM tallyman.jobs WHERE revision_id = $1", next.revision.ID); n != 0 {
				t.Errorf("%d jobs about a revision that is gone", n)
			}
		})
	}
}

// A session that is frozen in a commit to a revision does not keep it from being dropped.
func TestDropEndsFrozen(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{LockTimeout: 300 * time.Millisecond})
	n := w.second("")
	w.activates(n.revision, true)
	_, d, copied := w.copying(w.partition(0), "tallyman/frozen", 0)
	if err := w.DropRevision(t.Context(), w.revision.Manifest.Dataset, w.revision.ID); err != nil {
		t.Error(err)
	}
	close(d.end)
	if err := <-copied; err == nil {
		t.Error("the frozen COPY went through")
	}
}

// BenchmarkDropRevision drops a revision with a million batches, beside another that
// has as many.
func BenchmarkDropRevision(b *testing.B) {
	w := open(b, sandboxtest.Postgres(b, "18"), events, postgres.Config{})
	w.grow(1_000_000)
	for b.Loop() {
		b.StopTimer()
		n := w.second("")
		w.run(`INSERT INTO tallyman.loaded_elements (revision_id, batch_time, unique_id, outcome, incarnation, sequence, row_count, byte_count, digest)
			SELECT $1, batch_time, unique_id, outcome, incarnation, sequence, row_count, byte_count, digest FROM tallyman.loaded_elements WHERE revision_id = 1`, n.revision.ID)
		b.StartTimer()
		if err := w.DropRevision(b.Context(), n.revision.Manifest.Dataset, n.revision.ID); err != nil {
			b.Fatal(err)
		}
		if left := w.count("SELECT count(*) FROM tallyman.loaded_elements WHERE revision_id = $1", n.revision.ID); left != 0 {
			b.Fatalf("%d entries are left", left)
		}
	}
}
