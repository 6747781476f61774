package postgres_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema/batch"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

// numbered loads batches of a stream without rows: what is loaded, by a
// condition on their number n up to a last one, and what is announced.
func (w *warehouse) numbered(incarnation uuid.UUID, last int, condition string, closed bool) {
	w.t.Helper()
	state := "open"
	if closed {
		state = "closed"
	}
	for _, sql := range []string{
		`INSERT INTO tallyman.loaded_elements (revision_id, batch_time, unique_id, outcome, incarnation, sequence, row_count, byte_count, digest)
		 SELECT $1, now(), gen_random_uuid(), 'loaded', $2, n, 0, 0, sha256('') FROM generate_series(1, $3::int) n
		 WHERE (` + condition + `) AND n NOT IN (SELECT sequence FROM tallyman.loaded_elements WHERE incarnation = $2)`,
		`INSERT INTO tallyman.streams (revision_id, incarnation, source, announced, state) VALUES ($1, $2, 'test', $3, '` + state + `')
		 ON CONFLICT (revision_id, incarnation) DO UPDATE SET announced = EXCLUDED.announced, state = EXCLUDED.state, seen_at = now()`,
		`INSERT INTO tallyman.announcements (revision_id, incarnation, sequence, at) VALUES ($1, $2, $3, now()) ON CONFLICT DO NOTHING`,
	} {
		if _, err := w.conn.Exec(w.t.Context(), sql, w.revision.ID, incarnation.String(), last); err != nil {
			w.t.Fatal(err)
		}
	}
}

// tells takes what is due and notes it as sent, by incarnation.
func (w *warehouse) tells(d sink.Due) map[uuid.UUID]batch.Receipt {
	w.t.Helper()
	d.Revision, d.Cluster, d.Limit = w.revision, "default", 1000
	taken, _, err := w.TakeReceipts(w.t.Context(), d)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.ReceiptsSent(w.t.Context(), d, taken); err != nil {
		w.t.Fatal(err)
	}
	all := map[uuid.UUID]batch.Receipt{}
	for _, r := range taken {
		all[r.Incarnation] = r
	}
	return all
}

// restore returns the warehouse as a backup of it is, taken before what is done
// by then and restored an hour later.
func (w *warehouse) restore(then func()) *warehouse {
	w.t.Helper()
	u, err := url.Parse(w.dsn)
	if err != nil {
		w.t.Fatal(err)
	}
	name := u.Path[1:]
	u.Path = "/postgres"
	admin := session(w.t, u.String())
	w.Close()
	_ = w.conn.Close(w.t.Context())
	execute(w.t.(*testing.T), admin, fmt.Sprintf("CREATE DATABASE %s TEMPLATE %s", pgx.Identifier{name + "_backup"}.Sanitize(), pgx.Identifier{name}.Sanitize()))
	w.reopen(w.dsn)
	then()
	u.Path = "/" + name + "_backup"
	other := *w
	other.reopen(u.String())
	if _, err := other.conn.Exec(w.t.Context(), "UPDATE tallyman.receipts SET sent_at = sent_at - interval '1 hour', looked_at = looked_at - interval '1 hour'"); err != nil {
		w.t.Fatal(err)
	}
	if _, err := other.conn.Exec(w.t.Context(), "UPDATE tallyman.streams SET seen_at = seen_at - interval '1 hour'"); err != nil {
		w.t.Fatal(err)
	}
	return &other
}

func (w *warehouse) reopen(dsn string) {
	w.t.Helper()
	var err error
	if w.Warehouse, err = postgres.Open(w.t.Context(), postgres.Config{URL: dsn}); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(w.Close)
	w.dsn, w.conn = dsn, session(w.t, dsn)
}

// After the warehouse was restored from a backup, the sources of all streams
// that lack something are told less than before, though what was told last, as
// that warehouse remembers it, says the same. Nothing is told of a stream that
// was over.
func TestReceiptsGoBackward(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := open(t, sandboxtest.Postgres(t, version), events, postgres.Config{})
			d := sink.Due{Again: 5 * time.Minute}
			running, holed, over, late := uuid.New(), uuid.New(), uuid.New(), uuid.New()
			w.numbered(running, 4, "n <= 2", false)
			w.numbered(holed, 4, "n <> 3", true)
			w.numbered(over, 4, "true", true)
			before := w.tells(d)
			if len(before) != 3 {
				t.Fatalf("%d receipts, want 3", len(before))
			}
			restored := w.restore(func() {
				w.numbered(running, 6, "true", false)
				w.numbered(holed, 4, "true", true)
				w.numbered(late, 2, "true", true)
				if told := w.tells(d); len(told) != 3 || told[running].Through != 6 || told[holed].Through != 4 || told[late].Through != 2 {
					t.Fatalf("told before the restore: %+v", told)
				}
			})
			want := map[uuid.UUID]batch.Receipt{running: before[running], holed: before[holed]}
			if diff := cmp.Diff(want, restored.tells(d), cmpopts.IgnoreFields(batch.Receipt{}, "At")); diff != "" {
				t.Errorf("told after the restore (-want +got):\n%s", diff)
			}
			if again := restored.tells(d); len(again) > 0 {
				t.Errorf("told at once again: %+v", again)
			}
			// A stream of which the backup knows nothing: its source has to announce it.
			restored.numbered(late, 2, "false", true)
			if r := restored.tells(d)[late]; r.Through != 0 || len(r.Missing) != 1 || r.Missing[0] != (batch.Range{First: 1, Last: 2}) {
				t.Errorf("told of a stream that was unknown: %+v", r)
			}
		})
	}
}

// However many holes a stream has, what is told of it is bounded, and so is the
// time that it takes. What is told later begins where the holes were closed.
func TestReceiptOfManyHoles(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			const holes = 100_000
			w := open(t, sandboxtest.Postgres(t, version), events, postgres.Config{})
			stream := uuid.New()
			w.numbered(stream, 2*holes, "n % 2 = 1", true)
			execute(t, w.conn, "ANALYZE tallyman.loaded_elements")
			began := time.Now()
			r := w.tells(sink.Due{})[stream]
			t.Logf("%d holes are looked at in %v", holes, time.Since(began))
			value, err := r.Value()
			if err != nil || !json.Valid(value) || len(value) > 64<<10 {
				t.Fatalf("%d bytes, %v", len(value), err)
			}
			if len(r.Missing) != batch.MaxReceiptRanges || r.Through != 1 || r.Considered != 2*batch.MaxReceiptRanges+1 || r.Announced != 2*holes {
				t.Errorf("%d ranges, through %d, considered %d", len(r.Missing), r.Through, r.Considered)
			}
			w.numbered(stream, 2*holes, fmt.Sprintf("n <= %d", r.Considered), true)
			if next := w.tells(sink.Due{})[stream]; next.Through != r.Considered || next.Missing[0].First != r.Considered+1 || len(next.Missing) != batch.MaxReceiptRanges {
				t.Errorf("then %d ranges, through %d, considered %d", len(next.Missing), next.Through, next.Considered)
			}
		})
	}
}
