package postgres_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/schema/rows"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

// wider is the manifest events with a nullable column more, in front.
var wider = strings.Replace(events, "columns:\n", "columns:\n  - {name: at, type: timestamptz, nullable: true}\n", 1)

// by returns an element of rows by another manifest than the revision's own.
func (w *warehouse) by(m schema.Manifest, at sink.Position, offset int64, values ...[]any) sink.Element {
	w.t.Helper()
	codec, err := rows.NewCodec(m)
	if err != nil {
		w.t.Fatal(err)
	}
	own := w.codec
	w.codec = codec
	e := w.element(batch.NewID(), at, offset, values...)
	w.codec = own
	e.Manifest = &m
	return e
}

// Rows by the old and the new manifest load in one transaction; a column that a
// row's manifest lacks is null. The view shows it after _batch_id.
func TestWiden(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := open(t, sandboxtest.Postgres(t, version), events, postgres.Config{})
			c, p := w.committer(), w.partition(0)
			w.loads(c, w.group(p, 1, w.element(batch.NewID(), p, 0, []any{int64(1), "before"})))
			m := manifest(t, wider)
			if got, err := w.Manifest(t.Context(), w.revision, m.Hash()); err != nil || got != nil {
				t.Fatalf("%v, %v before it is applied", got, err)
			}
			want := postgres.Applied{Revision: w.revision, Hash: m.Hash(), Widened: true,
				Changes: []schema.Difference{{Subject: `column "at"`, Change: "is new: timestamptz, nullable", Fits: true}}}
			plan, err := w.Plan(t.Context(), m)
			if diff := cmp.Diff(want, plan); err != nil || diff != "" {
				t.Fatalf("%v\n%s", err, diff)
			}
			if n := w.count("SELECT count(*) FROM tallyman.datasets"); n != 1 {
				t.Fatalf("a plan left %d manifests", n)
			}
			applied, err := w.Apply(t.Context(), m)
			if diff := cmp.Diff(want, applied); err != nil || diff != "" {
				t.Fatalf("%v\n%s", err, diff)
			}
			for _, same := range []string{events, wider} {
				again, err := w.Apply(t.Context(), manifest(t, same))
				if err != nil || again.Widened || again.Created || again.Changes != nil {
					t.Errorf("again: %+v, %v", again, err)
				}
			}
			got, err := w.Manifest(t.Context(), w.revision, m.Hash())
			if err != nil || cmp.Diff(&m, got) != "" {
				t.Errorf("%v, %v", got, err)
			}
			p = w.partition(0)
			moment := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
			w.loads(c, w.group(p, 5,
				w.by(m, p, 1, []any{moment, int64(2), "new"}, []any{nil, int64(4), nil}), w.element(batch.NewID(), p, 2, []any{int64(8), "old"}),
				w.by(m, p, 3, []any{moment, int64(16), "new"}), w.by(w.revision.Manifest, p, 4, []any{int64(32), "old"})))
			const sql = `SELECT sum(n) FILTER (WHERE at IS NULL) * 1000 + sum(n) FILTER (WHERE at = '2026-03-04 05:06:07Z' AND note = 'new') FROM events`
			if n := w.count(sql); n != (1+4+8+32)*1000+2+16 {
				t.Errorf("old rows and new ones sum up to %d", n)
			}
			if diff := cmp.Diff([]string{"n", "note", "_batch_id", "at"}, columnsOf(t, w.conn, "events")); diff != "" {
				t.Error(diff)
			}
			checkFurther(t, w, m)
		})
	}
}

// checkFurther adds two more columns, of which an operator made one before.
func checkFurther(t *testing.T, w *warehouse, m schema.Manifest) {
	t.Helper()
	m.Columns = append(m.Columns[:len(m.Columns):len(m.Columns)],
		schema.Column{Name: "flag", Type: schema.Bool, Nullable: true}, schema.Column{Name: "doc", Type: schema.JSON, Nullable: true})
	for _, unfit := range []string{"text", "boolean GENERATED ALWAYS AS (true) STORED", "boolean NOT NULL DEFAULT false"} {
		execute(t, w.conn, "ALTER TABLE events__r1 ADD flag "+unfit)
		_, err := w.Apply(t.Context(), m)
		if strings.Contains(unfit, "DEFAULT") { // it has a value for everybody
			if err != nil {
				t.Error(err)
			}
			continue
		}
		refusal(t, err, "manifest_refused", `has a column "flag" already`)
		execute(t, w.conn, "ALTER TABLE events__r1 DROP flag")
	}
	infos, err := w.Datasets(t.Context())
	if err != nil || len(infos) != 1 || len(infos[0].Manifests) != 3 || infos[0].Manifests[2].Hash != m.Hash() || infos[0].Hash != w.revision.Manifest.Hash() {
		t.Errorf("%+v, %v", infos, err)
	}
	if diff := cmp.Diff([]string{"n", "note", "_batch_id", "at", "flag", "doc"}, columnsOf(t, w.conn, "events")); diff != "" {
		t.Error(diff)
	}
	// What the newest has, the next has too.
	_, err = w.Apply(t.Context(), manifest(t, strings.Replace(events, "columns:\n", "columns:\n  - {name: other, type: bool, nullable: true}\n", 1)))
	refusal(t, err, "manifest_refused", `column "at" is gone: keep it`)
}

func columnsOf(t *testing.T, conn *pgx.Conn, table string) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 ORDER BY attnum", table)
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// Another order of the columns is another manifest, and changes no table.
func TestWidenByOrder(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{})
	m := manifest(t, "dataset: test/events\ncolumns:\n- {name: note, type: text, nullable: true}\n- {name: n, type: int64}\n")
	execute(t, session(t, w.dsn), "BEGIN", "LOCK TABLE events IN ACCESS SHARE MODE")
	if applied, err := w.Apply(t.Context(), m); err != nil || !applied.Widened || !schema.Fit(applied.Changes) {
		t.Fatalf("%+v, %v", applied, err)
	}
	p := w.partition(0)
	w.loads(w.committer(), w.group(p, 2, w.by(m, p, 0, []any{"x", int64(7)}), w.element(batch.NewID(), p, 1, []any{int64(8), "x"})))
	if n := w.count("SELECT sum(n) FROM events WHERE note = 'x'"); n != 15 {
		t.Errorf("the rows sum up to %d", n)
	}
}

// A reader that holds the view is waited for, a moment at a time: neither the
// loader nor other readers stand behind the change for long, and it happens
// once the reader is gone. A reader that came for the view first can't deadlock.
func TestWidenBesideReaders(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{})
	reader := session(t, w.dsn)
	execute(t, reader, "BEGIN", "SELECT FROM events")
	done := make(chan error, 1)
	go func() {
		_, err := w.Apply(t.Context(), manifest(t, wider))
		done <- err
	}()
	const waits = `SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'events'::regclass AND mode = 'AccessExclusiveLock'`
	until(t, w, waits, 1)
	p := w.partition(0)
	w.loads(w.committer(), w.group(p, 1, w.element(batch.NewID(), p, 0, []any{int64(1), "x"})))
	execute(t, reader, "SELECT FROM events__r1", "COMMIT")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Who keeps a table for himself is named, and nothing is changed.
func TestWidenOfATableInUse(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{LockTimeout: 150 * time.Millisecond})
	reader := session(t, w.dsn)
	execute(t, reader, "SET application_name = 'a long report'", "BEGIN", "SELECT FROM events")
	_, err := w.Apply(t.Context(), manifest(t, wider))
	var e *sink.Error
	if !errors.As(err, &e) || e.Class != sink.Retryable || e.Reason != "locked" {
		t.Fatal(err)
	}
	for _, says := range []string{"the table of test/events is in use", fmt.Sprintf("session %d (a long report", reader.PgConn().PID()), "Nothing was changed"} {
		if !strings.Contains(err.Error(), says) {
			t.Errorf("%v does not say %q", err, says)
		}
	}
	if n := w.count("SELECT count(*) FROM tallyman.datasets"); n != 1 {
		t.Errorf("%d manifests", n)
	}
}

// until waits for a count in the database.
func until(t *testing.T, w *warehouse, sql string, want int64) {
	t.Helper()
	for w.count(sql) != want {
		if err := t.Context().Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// Applying a manifest again says what somebody has dropped or changed since,
// and not that all is there.
func TestApplyAgainOverWhatIsGone(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "15"), events, postgres.Config{})
	m := manifest(t, wider)
	if _, err := w.Apply(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	refused := func(says string) string {
		t.Helper()
		_, err := w.Apply(t.Context(), m)
		refusal(t, err, "manifest_refused", says)
		_, err = w.Plan(t.Context(), manifest(t, strings.Replace(wider, "name: at,", "name: more,", 1)))
		if sink.ClassOf(err) != sink.Misconfigured {
			t.Errorf("another manifest: %v", err)
		}
		_, err = w.Apply(t.Context(), manifest(t, events))
		refusal(t, err, "manifest_refused", says)
		return err.Error()
	}
	execute(t, w.conn, "DROP VIEW public.events")
	_, statement, _ := strings.Cut(refused(`the view "public"."events" is gone`), "granted it: ")
	execute(t, w.conn, statement)
	if _, err := w.Apply(t.Context(), m); err != nil {
		t.Errorf("after the statement that it told: %v", err)
	}
	if n := w.count("SELECT count(at) + count(_batch_id) FROM public.events"); n != 0 {
		t.Error(n)
	}
	execute(t, w.conn, "ALTER TABLE public.events__r1 ADD must int NOT NULL")
	refused(`column "must" is required`)
	execute(t, w.conn, "DROP TABLE public.events__r1 CASCADE")
	refused(`the table "public"."events__r1" is gone`)
}
