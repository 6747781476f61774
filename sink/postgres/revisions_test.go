package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema/batch"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

// second makes a further revision, as a warehouse whose harness works on it.
func (w *warehouse) second(table string) *warehouse {
	w.t.Helper()
	r, err := w.CreateRevision(w.t.Context(), postgres.NewRevision{Dataset: w.revision.Manifest.Dataset, Table: table})
	if err != nil {
		w.t.Fatal(err)
	}
	other := *w
	other.revision = r
	return &other
}

// activates activates a revision, which must succeed.
func (w *warehouse) activates(r sink.Revision, uncovered bool) {
	w.t.Helper()
	if _, err := w.Activate(w.t.Context(), postgres.Activation{Dataset: r.Manifest.Dataset, Revision: r.ID, Uncovered: uncovered}); err != nil {
		w.t.Fatal(err)
	}
}

// Two revisions of a dataset are loaded side by side: each has its own rows,
// positions and ledger entries, and readers see the active one.
func TestRevisionsSideBySide(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := open(t, sandboxtest.Postgres(t, version), events, postgres.Config{})
			if _, err := w.Apply(t.Context(), manifest(t, wider)); err != nil {
				t.Fatal(err)
			}
			n := w.second("")
			if n.revision.State != sink.Building || n.revision.Physical.Name != "events__r2" {
				t.Fatalf("%+v", n.revision)
			}
			if diff := cmp.Diff(columnsOf(t, w.conn, "events__r1"), columnsOf(t, w.conn, "events__r2")); diff != "" {
				t.Error(diff)
			}
			p, q := w.partition(0), n.partition(0)
			e := w.element(batch.NewID(), p, 0, []any{int64(1), "x"})
			w.loads(w.committer(), w.group(p, 1, e, w.by(manifest(t, wider), p, 0, []any{time.Now(), int64(2), "y"})))
			n.loads(n.committer(), n.group(q, 7, e))
			for sql, want := range map[string]int64{
				"SELECT count(*) FROM events":                                         2,
				"SELECT count(*) FROM events__r1":                                     2,
				"SELECT count(*) FROM events__r2":                                     1,
				"SELECT sum(n) FROM events__r2":                                       1,
				"SELECT next_offset FROM tallyman.positions WHERE revision_id = 1":    1,
				"SELECT next_offset FROM tallyman.positions WHERE revision_id = 2":    7,
				"SELECT count(*) FROM tallyman.loaded_elements WHERE revision_id = 2": 1,
			} {
				if got := w.count(sql); got != want {
					t.Errorf("%s: %d, want %d", sql, got, want)
				}
			}
			// A column that is added comes to both.
			if _, err := w.Apply(t.Context(), manifest(t, strings.Replace(wider, "columns:\n", "columns:\n  - {name: more, type: bool, nullable: true}\n", 1))); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(columnsOf(t, w.conn, "events__r1"), columnsOf(t, w.conn, "events__r2")); diff != "" {
				t.Error(diff)
			}
			w.activates(n.revision, true)
			if diff := cmp.Diff(columnsOf(t, w.conn, "events__r2"), columnsOf(t, w.conn, "events")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What can't be made, activated or dropped is refused, and nothing is written.
func TestRevisionsRefused(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{})
	d := w.revision.Manifest.Dataset
	n := w.second("")
	other := d
	other.Name = "other"
	execute(t, w.conn, "CREATE TYPE taken AS ENUM ()")
	create := func(table string) func() error {
		return func() error {
			_, err := w.CreateRevision(t.Context(), postgres.NewRevision{Dataset: d, Table: table})
			return err
		}
	}
	for name, tc := range map[string]struct {
		do   func() error
		kind error
		says string
	}{
		"of no dataset": {func() error {
			_, err := w.CreateRevision(t.Context(), postgres.NewRevision{Dataset: other})
			return err
		}, postgres.ErrNoRevision, "no dataset test/other"},
		"with the table of another": {create("events__r1"), postgres.ErrWrongRevision, "a revision of test/events with the table"},
		"with the view's name":      {create("events"), postgres.ErrWrongRevision, "there is a relation called"},
		"with a type's name":        {create("taken"), postgres.ErrWrongRevision, "there is a type called"},
		"with too long a name":      {create(strings.Repeat("x", 64)), postgres.ErrWrongRevision, "longer than the 63 bytes"},
		"activate nothing": {func() error {
			_, err := w.Activate(t.Context(), postgres.Activation{Dataset: d, Revision: 9})
			return err
		}, postgres.ErrNoRevision, "no revision 9"},
		"activate a foreign one": {func() error {
			_, err := w.Activate(t.Context(), postgres.Activation{Dataset: other, Revision: n.revision.ID})
			return err
		}, postgres.ErrWrongRevision, "belongs to test/events"},
		"drop nothing":      {func() error { return w.DropRevision(t.Context(), d, 9) }, postgres.ErrNoRevision, "no revision 9"},
		"drop a foreign":    {func() error { return w.DropRevision(t.Context(), other, n.revision.ID) }, postgres.ErrWrongRevision, "belongs to"},
		"drop what is read": {func() error { return w.DropRevision(t.Context(), d, w.revision.ID) }, postgres.ErrWrongRevision, "activate another first"},
	} {
		if err := tc.do(); !errors.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, want %v with %q", name, err, tc.kind, tc.says)
		}
	}
	if got := w.count("SELECT count(*) FROM tallyman.revisions"); got != 2 {
		t.Errorf("%d revisions", got)
	}
}

// A revision that lacks a batch is not activated, and the batch is named; unless
// somebody says so.
func TestActivationIsGated(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{LockTimeout: 200 * time.Millisecond})
	n := w.second("")
	p := w.partition(0)
	a, b := w.element(batch.NewID(), p, 0, []any{int64(1), "a"}), w.element(batch.NewID(), p, 1, []any{int64(2), "b"}, []any{int64(3), "b"})
	b.Batch.Incarnation, b.Batch.Sequence = uuid.New(), 17
	w.loads(w.committer(), w.group(p, 2, a, b))
	n.loads(n.committer(), n.group(n.partition(0), 2, a))
	_, err := w.Activate(t.Context(), postgres.Activation{Dataset: w.revision.Manifest.Dataset, Revision: n.revision.ID, Wait: time.Millisecond})
	var lacks *postgres.UncoveredError
	if !errors.As(err, &lacks) || lacks.Uncovered.Batches != 1 || lacks.Uncovered.Rows != 2 || !strings.Contains(err.Error(), "batches 17 to 17 of source \"\", stream "+b.Batch.Incarnation.String()) {
		t.Fatalf("%v", err)
	}
	if got := w.count("SELECT sum(n) FROM events"); got != 6 {
		t.Errorf("readers see %d", got)
	}
	// It comes while it is waited for.
	done := make(chan error, 1)
	go func() {
		_, err := w.Activate(context.WithoutCancel(t.Context()), postgres.Activation{Dataset: w.revision.Manifest.Dataset, Revision: n.revision.ID})
		done <- err
	}()
	q := n.partition(0)
	b.Offset = q.Next
	n.loads(n.committer(), n.group(q, q.Next+1, b))
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for sql, want := range map[string]int64{
		"SELECT revision_id FROM tallyman.revisions WHERE state = 'active'":  n.revision.ID,
		"SELECT revision_id FROM tallyman.revisions WHERE state = 'standby'": w.revision.ID,
		"SELECT sum(n) FROM events":                                          6,
		"SELECT min(era) FROM tallyman.positions":                            2, // whatever was in flight meanwhile is refused
	} {
		if got := w.count(sql); got != want {
			t.Errorf("%s: %d, want %d", sql, got, want)
		}
	}
	// Again, it is success and nothing.
	was, err := w.Activate(t.Context(), postgres.Activation{Dataset: w.revision.Manifest.Dataset, Revision: n.revision.ID})
	if err != nil || was != n.revision.ID {
		t.Errorf("again: %d, %v", was, err)
	}
}

// A reader in a tight loop, over a view of the view and with the grants that it
// had, sees the old table or the new one through a hundred activations under load:
// never neither, never fewer rows than before.
func TestReadersThroughActivations(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := open(t, sandboxtest.Postgres(t, version), events, postgres.Config{})
			n := w.second("")
			execute(t, w.conn, "CREATE VIEW report AS SELECT count(*) AS rows FROM events", "GRANT SELECT ON events TO pg_monitor")
			ctx, stop := context.WithCancel(t.Context())
			var group sync.WaitGroup
			var reads, seen atomic.Int64
			for _, one := range []*warehouse{w, n} {
				group.Go(func() { one.loadOn(ctx) })
			}
			reader := session(t, w.dsn)
			group.Go(func() {
				for ctx.Err() == nil {
					var rows int64
					if err := reader.QueryRow(context.WithoutCancel(ctx), "SELECT rows FROM report").Scan(&rows); err != nil {
						t.Errorf("a reader: %v", err)
						return
					}
					if before := seen.Swap(rows); rows < before {
						t.Errorf("a reader saw %d rows, and then %d", before, rows)
					}
					reads.Add(1)
				}
			})
			for seen.Load() == 0 {
				time.Sleep(time.Millisecond)
			}
			for i := range 100 {
				to := []sink.Revision{n.revision, w.revision}[i%2]
				if _, err := w.Activate(t.Context(), postgres.Activation{Dataset: to.Manifest.Dataset, Revision: to.ID}); err != nil {
					t.Error(err)
					break
				}
			}
			stop()
			group.Wait()
			if reads.Load() < 200 {
				t.Errorf("only %d reads", reads.Load())
			}
			if got := w.count("SELECT count(*) FROM information_schema.table_privileges WHERE table_name = 'events' AND grantee = 'pg_monitor'"); got != 1 {
				t.Errorf("the grant is gone")
			}
			t.Logf("%d reads, %d rows at the end", reads.Load(), seen.Load())
		})
	}
}

// loadOn loads the same batches as every other that does so, one after the other,
// until ctx ends: batch n comes at offset n.
func (w *warehouse) loadOn(ctx context.Context) {
	c := w.NewCommitter()
	defer func() { _ = c.Close() }()
	part := sink.Partition{Cluster: "default", Topic: w.revision.Manifest.Topic}
	for ctx.Err() == nil {
		at, err := w.Assign(context.WithoutCancel(ctx), w.revision, []sink.Partition{part})
		if err != nil {
			w.t.Errorf("assign: %v", err)
			return
		}
		for p := at[0]; ctx.Err() == nil; p.Next++ {
			id := uuid.NewSHA1(uuid.NameSpaceOID, []byte{byte(p.Next), byte(p.Next >> 8)})
			id = uuid.UUID(append([]byte{0x01, 0x98, 0, 0, byte(p.Next >> 8), byte(p.Next), 0x70 | id[6]&0x0f, id[7]}, append([]byte{0x80}, id[9:]...)...))
			_, err := c.Commit(context.WithoutCancel(ctx), w.group(p, p.Next+1, w.element(id, p, p.Next, []any{p.Next, "x"})))
			if sink.ClassOf(err) == sink.Fenced || err != nil && sink.ClassOf(err) == sink.Retryable {
				break // an activation raised the era
			}
			if err != nil {
				w.t.Errorf("commit: %v", err)
				return
			}
		}
	}
}

// A process that is frozen in an open transaction over the old revision's position
// does not keep another from being activated, and comes to nothing.
func TestActivationOverAFrozenLoader(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{LockTimeout: 200 * time.Millisecond})
	n := w.second("")
	p := w.partition(0)
	_, d, copied := w.copying(p, "tallyman/frozen", 0)
	w.activates(n.revision, false)
	close(d.end)
	if err := <-copied; err == nil {
		t.Error("the frozen COPY went through")
	}
	if got := w.count("SELECT count(*) FROM events__r1"); got != 0 {
		t.Errorf("%d rows of it", got)
	}
}

// Of activations at once each succeeds, and one revision is active at the end.
func TestActivationsAtOnce(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{MaxConns: 12})
	all := []sink.Revision{w.revision, w.second("").revision, w.second("third").revision}
	var group sync.WaitGroup
	for i := range 12 {
		group.Go(func() {
			r := all[i%3]
			if _, err := w.Activate(t.Context(), postgres.Activation{Dataset: r.Manifest.Dataset, Revision: r.ID}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if got := w.count("SELECT count(*) * 10 + count(*) FILTER (WHERE state = 'active') FROM tallyman.revisions WHERE state IN ('active', 'standby', 'building')"); got != 31 {
		t.Errorf("%d", got)
	}
}

// A revision is dropped with everything that is known of it, but not while a job
// about it may have a writer.
func TestDropRevision(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := open(t, sandboxtest.Postgres(t, version), events, postgres.Config{})
			n := w.second("")
			d := w.revision.Manifest.Dataset
			p, q := w.partition(0), n.partition(0)
			e := w.element(batch.NewID(), p, 0, []any{int64(1), "x"})
			w.loads(w.committer(), w.group(p, 1, e))
			n.loads(n.committer(), n.group(q, 1, e))
			execute(t, w.conn, "INSERT INTO tallyman.jobs (idempotency_key, kind, dataset, revision_id) VALUES (repeat('a', 64), 'load', 'test/events', 2)",
				"INSERT INTO tallyman.job_status SELECT job_id, 'scheduled', 1, '', 0, NULL, '{}', now() FROM tallyman.jobs WHERE revision_id = 2")
			for _, status := range []string{"scheduled", "running", "error", "stopping"} {
				execute(t, w.conn, "UPDATE tallyman.job_status SET status = '"+status+"'")
				if err := w.DropRevision(t.Context(), d, 2); !errors.Is(err, postgres.ErrWrongRevision) || !strings.Contains(err.Error(), status) {
					t.Errorf("with a job that is %s: %v", status, err)
				}
			}
			execute(t, w.conn, "UPDATE tallyman.job_status SET status = 'stopped'",
				"INSERT INTO tallyman.job_members SELECT job_id, 1, 'm', now() + interval '1 minute' FROM tallyman.jobs WHERE revision_id = 2")
			if err := w.DropRevision(t.Context(), d, 2); !errors.Is(err, postgres.ErrWrongRevision) {
				t.Errorf("with a member: %v", err)
			}
			execute(t, w.conn, "DELETE FROM tallyman.job_members")
			for range 2 {
				if err := w.DropRevision(t.Context(), d, 2); err != nil {
					t.Fatal(err)
				}
			}
			for sql, want := range map[string]int64{
				"SELECT count(*) FROM pg_class WHERE relname = 'events__r2'":          0,
				"SELECT count(*) FROM tallyman.loaded_elements WHERE revision_id = 2": 0,
				"SELECT count(*) FROM tallyman.positions WHERE revision_id = 2":       0,
				"SELECT count(*) FROM tallyman.loaded_elements":                       1,
				"SELECT count(*) FROM events":                                         1,
			} {
				if got := w.count(sql); got != want {
					t.Errorf("%s: %d, want %d", sql, got, want)
				}
			}
			// Who still works on it is fenced, and gets no position.
			if _, err := n.committer().Commit(t.Context(), n.group(q, 2, w.element(batch.NewID(), q, 1, []any{int64(2), "x"}))); sink.ClassOf(err) != sink.Fenced {
				t.Errorf("a commit: %v", err)
			}
			if _, err := n.Assign(t.Context(), n.revision, []sink.Partition{q.Partition}); err == nil {
				t.Error("it got a position")
			}
			if r := w.second(""); r.revision.Physical.Name != "events__r3" {
				t.Errorf("the next one is %s", r.revision.Physical.Name)
			}
		})
	}
}

// Batches that nobody can send any more are copied from the old revision, once,
// with their entries; interrupted and repeated, too.
func TestCopyUncovered(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := open(t, sandboxtest.Postgres(t, version), events, postgres.Config{})
			n := w.second("")
			p, q := w.partition(0), n.partition(0)
			var all []sink.Element
			for i := range int64(20) {
				id := batch.NewID()
				if i%5 == 0 {
					id = uuid.New() // of version 4
				}
				all = append(all, w.element(id, p, i, []any{i, "x"}, []any{i, "y"}))
			}
			w.loads(w.committer(), w.group(p, 20, all...))
			for i := range all[:4] {
				all[i].Offset = int64(i)
			}
			n.loads(n.committer(), n.group(q, 4, all[:4]...))
			execute(t, w.conn, "DELETE FROM events__r1 WHERE n = 11 AND note = 'x'")
			_, err := w.CopyUncovered(t.Context(), w.revision, n.revision, nil)
			if !errors.Is(err, postgres.ErrWrongRevision) || !strings.Contains(err.Error(), "31 rows of 16 batches for which the ledger says 32") {
				t.Fatalf("%v", err)
			}
			if got := w.count("SELECT count(*) FROM tallyman.loaded_elements WHERE revision_id = 2"); got != 4 {
				t.Fatalf("%d entries after a refusal", got)
			}
			execute(t, w.conn, "INSERT INTO events__r1 SELECT n, 'x', _batch_id FROM events__r1 WHERE n = 11")
			var group sync.WaitGroup
			for range 3 {
				group.Go(func() {
					if _, err := w.CopyUncovered(t.Context(), w.revision, n.revision, nil); err != nil {
						t.Error(err)
					}
				})
			}
			group.Wait()
			for _, sql := range []string{
				"SELECT count(*) FROM (SELECT * FROM events__r1 EXCEPT ALL SELECT * FROM events__r2) x",
				"SELECT count(*) FROM (SELECT * FROM events__r2 EXCEPT ALL SELECT * FROM events__r1) x",
			} {
				if got := w.count(sql); got != 0 {
					t.Errorf("%s: %d", sql, got)
				}
			}
			// What comes from Kafka after all is a duplicate.
			q = n.partition(0)
			for i := range all {
				all[i].Offset = q.Next + int64(i)
			}
			res, err := n.committer().Commit(t.Context(), n.group(q, q.Next+20, all...))
			if err != nil {
				t.Fatal(err)
			}
			for i, o := range res.Outcomes {
				if o != sink.Duplicate {
					t.Errorf("batch %d: %v", i, o)
				}
			}
			w.activates(n.revision, false)
			if got := w.count("SELECT count(*) FROM events"); got != 40 {
				t.Errorf("%d rows", got)
			}
		})
	}
}

// Only the active revision speaks to sources.
func TestOnlyTheActiveRevisionGivesReceipts(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{})
	n := w.second("")
	for _, one := range []*warehouse{w, n} {
		stream := uuid.New()
		one.announce(stream, 5, 1)
		d := sink.Due{Revision: one.revision, Cluster: "default", Limit: 10, Lease: time.Second, All: true}
		receipts, _, err := one.TakeReceipts(t.Context(), d)
		if err != nil || len(receipts) != map[*warehouse]int{w: 1, n: 0}[one] {
			t.Errorf("revision %d gives %d receipts: %v", one.revision.ID, len(receipts), err)
		}
	}
	w.activates(n.revision, false)
	receipts, _, err := n.TakeReceipts(t.Context(), sink.Due{Revision: n.revision, Cluster: "default", Limit: 10, Lease: time.Second, All: true})
	if err != nil || len(receipts) != 2 { // and what the other one had heard of
		t.Errorf("%d receipts: %v", len(receipts), err)
	}
}

// What people have decided of a dataset holds for its next revision: a batch that
// was given up is a duplicate there, a loss that was accepted is none.
func TestDecisionsCarryOver(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{})
	given := w.element(uuid.New(), w.partition(0), 0, []any{int64(1), "x"})
	key := w.bury(given, batch.Rejected)
	if _, err := w.Quarantine().Discard(t.Context(), key, sink.Discard{By: "me", Why: "a test"}); err != nil {
		t.Fatal(err)
	}
	stream := uuid.New()
	w.announce(stream, 5, 1)
	if n, err := w.AcceptMissing(t.Context(), sink.Acceptance{Revision: w.revision.ID, Incarnation: stream, First: 2, Last: 3, By: "me", Why: "a test"}); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	n := w.second("")
	q := n.partition(0)
	given.Offset = 0
	res, err := n.committer().Commit(t.Context(), n.group(q, 1, given))
	if err != nil || res.Outcomes[0] != sink.Duplicate {
		t.Errorf("%v, %v", res, err)
	}
	w.activates(n.revision, true)
	missing, err := w.Missing(t.Context(), "", 0)
	if err != nil {
		t.Fatal(err)
	}
	var ranges []string
	for _, m := range missing {
		ranges = append(ranges, fmt.Sprint(m.Revision, " ", m.First, "-", m.Last))
	}
	if diff := cmp.Diff([]string{"2 1-1", "2 4-5"}, ranges); diff != "" {
		t.Error(diff)
	}
}

// Rows that the ledger has forgotten would go with an activation: they are told of,
// and copied once when somebody says so.
func TestForgottenRowsAreCovered(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t, "18")
	mustInit(t, bare(t, dsn, postgres.Config{}), mid(0))
	w := open(t, dsn, events, postgres.Config{})
	p := w.partition(0)
	old, late := w.element(idAt(mid(0)), p, 0, []any{int64(1), "old"}, []any{int64(2), "old"}), w.element(idAt(mid(5)), p, 1, []any{int64(4), "late"})
	w.loads(w.committer(), w.group(p, 2, old, late))
	if _, err := w.Init(t.Context(), postgres.InitOptions{Retention: &postgres.Retention{Months: 3}, Now: func() time.Time { return mid(6) }}); err != nil {
		t.Fatal(err)
	}
	n := w.second("")
	n.loads(n.committer(), n.group(n.partition(0), 2, late))
	_, err := w.Activate(t.Context(), postgres.Activation{Dataset: w.revision.Manifest.Dataset, Revision: n.revision.ID, Wait: time.Second})
	var lacks *postgres.UncoveredError
	if !errors.As(err, &lacks) || lacks.Uncovered.Forgotten != 2 || lacks.Uncovered.Batches != 0 || !strings.Contains(err.Error(), "2 rows of batches that the ledger has forgotten") {
		t.Fatalf("%v", err)
	}
	for i, want := range []int64{2, 0} {
		copied, err := w.CopyUncovered(t.Context(), w.revision, n.revision, nil)
		if err != nil || copied.Rows != want {
			t.Errorf("copy %d: %+v, %v", i, copied, err)
		}
	}
	w.activates(n.revision, false)
	if got := w.count("SELECT sum(n) FROM events"); got != 7 {
		t.Errorf("readers see %d", got)
	}
}
