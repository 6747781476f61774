package postgres_test

import (
	"slices"
	"testing"
	"time"

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

// Positions are locked in the order of their key, in whatever order a group
// names them and the planner finds them: two groups that wait for the same one
// must not hold what the other wants next.
func TestPositionsAreLockedInOrder(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			// With these an UPDATE goes through the positions as the group names them.
			dsn := sandboxtest.Postgres(t, version) + "&enable_hashjoin=off&enable_mergejoin=off&enable_seqscan=off"
			w := open(t, dsn, events, postgres.Config{LockTimeout: 30 * time.Second, ClaimTimeout: 30 * time.Second, StallTimeout: time.Minute})
			groups := []*sink.Group{{Revision: w.revision}, {Revision: w.revision}}
			for n := range int32(5) {
				p := w.partition(n)
				for _, g := range groups {
					g.Advances = append(g.Advances, sink.Advance{Partition: p.Partition, Era: p.Era, To: 1, LogStart: -1})
				}
			}
			slices.Reverse(groups[1].Advances)
			execute(t, w.conn, "BEGIN", "SELECT FROM tallyman.positions WHERE partition = 2 FOR UPDATE")
			errs := make(chan error, len(groups))
			for _, g := range groups {
				c := w.committer()
				go func() {
					_, err := c.Commit(t.Context(), g)
					errs <- err
				}()
			}
			watcher := session(t, dsn)
			for waiting := 0; waiting < len(groups); {
				const sql = `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`
				if err := watcher.QueryRow(t.Context(), sql).Scan(&waiting); err != nil {
					t.Fatal(err)
				}
				select {
				case err := <-errs:
					t.Fatal("a commit did not wait: ", err)
				default:
				}
			}
			execute(t, w.conn, "ROLLBACK")
			first, second := <-errs, <-errs
			if second == nil { // whoever committed first need not be heard of first
				first, second = second, first
			}
			if first != nil || sink.ClassOf(second) != sink.Fenced {
				t.Errorf("%v and %v, want one committed and then one fenced", first, second)
			}
		})
	}
}
