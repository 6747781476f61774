package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

// october is a moment at which warehouses of these tests are prepared.
func october() time.Time { return time.Date(2026, time.October, 31, 23, 30, 0, 0, time.UTC) }

// bare opens the warehouse at dsn as it is.
func bare(t *testing.T, dsn string, c postgres.Config) *postgres.Warehouse {
	t.Helper()
	c.URL = dsn
	w, err := postgres.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// session opens a plain connection.
func session(t testing.TB, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func execute(t *testing.T, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// mustInit prepares the warehouse as it would have been at a moment.
func mustInit(t *testing.T, w *postgres.Warehouse, now time.Time) postgres.InitReport {
	t.Helper()
	report, err := w.Init(t.Context(), postgres.InitOptions{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// refusal checks that err stops a dataset for a reason and says something.
func refusal(t *testing.T, err error, reason, says string) {
	t.Helper()
	var e *sink.Error
	if !errors.As(err, &e) || e.Class != sink.Misconfigured || string(e.Reason) != reason || !strings.Contains(e.Error(), says) {
		t.Errorf("%v\nwant a refusal for %s that says %q", err, reason, says)
	}
}

func TestInitIsRepeatable(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := bare(t, sandboxtest.Postgres(t, version), postgres.Config{Target: "prod"})
			first := mustInit(t, w, october())
			if first.From != 0 || first.To < 1 || first.Target != "prod" || len(first.Partitions) != 27 {
				t.Errorf("the first init reports %+v", first)
			}
			window := sink.Window{End: time.Date(2028, time.November, 1, 0, 0, 0, 0, time.UTC)}
			want := postgres.InitReport{Target: "prod", From: first.To, To: first.To, Partitions: []string{}, Window: window, Retention: "off"}
			if diff := cmp.Diff(want, mustInit(t, w, october())); diff != "" {
				t.Error(diff)
			}
			if got, err := w.Window(t.Context()); err != nil || got != window {
				t.Errorf("window %v, %v, want %v", got, err, window)
			}
		})
	}
}

func TestInitsAtTheSameTime(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			dsn := sandboxtest.Postgres(t, version)
			reports := make([]postgres.InitReport, 10)
			var group errgroup.Group
			for i := range reports {
				w := bare(t, dsn, postgres.Config{})
				group.Go(func() (err error) {
					reports[i], err = w.Init(t.Context(), postgres.InitOptions{Now: october})
					return err
				})
			}
			if err := group.Wait(); err != nil {
				t.Fatal(err)
			}
			firsts, partitions := 0, 0
			for _, r := range reports {
				if r.From == 0 {
					firsts++
				}
				partitions += len(r.Partitions)
			}
			if firsts != 1 || partitions != 27 {
				t.Errorf("%d of them created the schema, together they made %d partitions", firsts, partitions)
			}
		})
	}
}

// A wait for another init is no dead connection, however long nothing is heard.
func TestInitWaitsForAnother(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t, "18")
	other := session(t, dsn)
	execute(t, other, "SELECT pg_advisory_lock(x'74616c6c796d616e'::bigint)")
	w := bare(t, dsn, postgres.Config{StallTimeout: 50 * time.Millisecond})
	done := make(chan error, 1)
	go func() {
		_, err := w.Init(t.Context(), postgres.InitOptions{})
		done <- err
	}()
	const waited = `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
		AND wait_event = 'advisory' AND clock_timestamp() > query_start + interval '150 ms'`
	for n := 0; n == 0; {
		select {
		case err := <-done:
			t.Fatalf("init ended while another held the lock: %v", err)
		default:
		}
		if err := other.QueryRow(t.Context(), waited).Scan(&n); err != nil {
			t.Fatal(err)
		}
	}
	execute(t, other, "SELECT pg_advisory_unlock_all()")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestInitRefusesANewerSchema(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t, "15")
	w := bare(t, dsn, postgres.Config{})
	mustInit(t, w, october())
	execute(t, session(t, dsn), "INSERT INTO tallyman.schema_version (version_id, is_applied) VALUES (900, true)")
	_, err := w.Init(t.Context(), postgres.InitOptions{})
	refusal(t, err, "newer_schema", "version 900")
}

func TestInitKeepsTheName(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t, "18")
	mustInit(t, bare(t, dsn, postgres.Config{Target: "prod"}), october())
	clone := bare(t, dsn, postgres.Config{Target: "staging"})
	_, err := clone.Init(t.Context(), postgres.InitOptions{})
	refusal(t, err, "target_mismatch", `calls itself "prod", but warehouse.target is "staging"`)
	if name, err := clone.Target(t.Context()); err != nil || name != "prod" {
		t.Errorf("after a refused init the name is %q, %v", name, err)
	}
	report, err := clone.Init(t.Context(), postgres.InitOptions{RenameTarget: true})
	if err != nil || report.Target != "staging" {
		t.Errorf("renamed to %q, %v", report.Target, err)
	}
	if name, err := clone.Target(t.Context()); err != nil || name != "staging" {
		t.Errorf("renamed to %q, %v", name, err)
	}
}

// Every time has one partition, in whatever zone and style the database prints.
func TestLedgerPartitions(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		for name, settings := range map[string]string{"plain": "", "elsewhere": "Asia/Kolkata", "west": "America/New_York"} {
			t.Run(version+"/"+name, func(t *testing.T) {
				t.Parallel()
				dsn := sandboxtest.Postgres(t, version)
				if settings != "" {
					database := session(t, dsn).Config().Database
					execute(t, session(t, dsn),
						fmt.Sprintf("ALTER DATABASE %s SET timezone = '%s'", pgx.Identifier{database}.Sanitize(), settings),
						fmt.Sprintf("ALTER DATABASE %s SET datestyle = 'SQL, DMY'", pgx.Identifier{database}.Sanitize()))
				}
				w := bare(t, dsn, postgres.Config{})
				mustInit(t, w, october())
				if again := mustInit(t, w, october()); len(again.Partitions) != 0 {
					t.Errorf("a second init made %v", again.Partitions)
				}
				window, err := w.Window(t.Context())
				if err != nil || !window.Horizon.IsZero() || !window.End.Equal(time.Date(2028, time.November, 1, 0, 0, 0, 0, time.UTC)) {
					t.Errorf("window %v, %v", window, err)
				}
				checkPartitions(t, session(t, dsn), window.End)
			})
		}
	}
}

func checkPartitions(t *testing.T, conn *pgx.Conn, end time.Time) {
	t.Helper()
	const insert = `
INSERT INTO tallyman.loaded_elements (revision_id, batch_time, unique_id, outcome, row_count, byte_count, digest)
VALUES (1, $1, $2, 'loaded', 1, 1, sha256('')) RETURNING tableoid::regclass::text`
	for _, tc := range []struct {
		at   time.Time
		want string
	}{
		{time.Time{}, "tallyman.loaded_elements_derived"},                                                // v8
		{time.Date(1582, time.October, 15, 0, 0, 0, 0, time.UTC), "tallyman.loaded_elements_older"},      // v1's first
		{time.Unix(0, 0), "tallyman.loaded_elements_older"},                                              // v7's first
		{time.Date(2026, time.September, 30, 23, 59, 59, 0, time.UTC), "tallyman.loaded_elements_older"}, // before this month
		{time.Date(2026, time.October, 1, 0, 0, 0, 0, time.UTC), "tallyman.loaded_elements_2026_10"},
		{october(), "tallyman.loaded_elements_2026_10"},
		{time.Date(2027, time.February, 28, 23, 59, 59, 0, time.UTC), "tallyman.loaded_elements_2027_02"},
		{end.Add(-time.Microsecond), "tallyman.loaded_elements_2028_10"},
	} {
		var got string
		if err := conn.QueryRow(t.Context(), insert, tc.at, uuid.New()).Scan(&got); err != nil || got != tc.want {
			t.Errorf("%v went to %s, %v, want %s", tc.at, got, err, tc.want)
		}
	}
	for _, at := range []time.Time{end, end.AddDate(10, 0, 0), time.Date(-1, time.January, 1, 0, 0, 0, 0, time.UTC)} {
		var pg *pgconn.PgError
		if _, err := conn.Exec(t.Context(), insert, at, uuid.New()); !errors.As(err, &pg) || pg.Code != "23514" {
			t.Errorf("%v has a partition: %v", at, err)
		}
	}
}

// A ledger whose partitions ran out long ago gets the months in between too:
// batches wait for them. What was dropped stays gone.
func TestInitGoesOnWhereTheLedgerEnds(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t, "18")
	w := bare(t, dsn, postgres.Config{})
	mustInit(t, w, october())
	report := mustInit(t, w, october().AddDate(3, 0, 0))
	if n := len(report.Partitions); n != 36 || report.Partitions[0] != "loaded_elements_2028_11" || report.Partitions[n-1] != "loaded_elements_2031_10" {
		t.Errorf("made %v", report.Partitions)
	}
	if !report.Window.Horizon.IsZero() {
		t.Errorf("what was before the months in between is refused now: %v", report.Window)
	}
	execute(t, session(t, dsn), "DROP TABLE tallyman.loaded_elements_older, tallyman.loaded_elements_2026_10")
	report = mustInit(t, w, october().AddDate(3, 0, 1))
	want := sink.Window{
		Horizon: time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC),
		End:     time.Date(2031, time.December, 1, 0, 0, 0, 0, time.UTC),
	}
	if !slices.Equal(report.Partitions, []string{"loaded_elements_2031_11"}) || report.Window != want {
		t.Errorf("made %v, window %v, want %v", report.Partitions, report.Window, want)
	}
}

// Partitions are made while a load holds its locks on the ledger.
func TestInitBesideAnOpenLoad(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "15"), events, postgres.Config{})
	execute(t, w.conn, "BEGIN", `INSERT INTO tallyman.loaded_elements (revision_id, batch_time, unique_id, outcome, row_count, byte_count, digest)
		VALUES (1, now(), gen_random_uuid(), 'loaded', 1, 1, sha256(''))`, "LOCK TABLE public.events__r1 IN ROW EXCLUSIVE MODE")
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("it waits for the open load"))
	defer cancel()
	report, err := w.Init(ctx, postgres.InitOptions{MonthsAhead: 27})
	if err != nil || len(report.Partitions) != 3 {
		t.Errorf("made %v, %v, %v", report.Partitions, err, context.Cause(ctx))
	}
	execute(t, w.conn, "COMMIT")
}

func TestBeforeInit(t *testing.T) {
	t.Parallel()
	w := bare(t, sandboxtest.Postgres(t, "18"), postgres.Config{})
	m, err := schema.ParseManifest([]byte(events))
	if err != nil {
		t.Fatal(err)
	}
	for name, try := range map[string]func() error{
		"Apply":    func() error { _, err := w.Apply(t.Context(), m); return err },
		"Window":   func() error { _, err := w.Window(t.Context()); return err },
		"Status":   func() error { _, err := w.Status(t.Context()); return err },
		"Target":   func() error { _, err := w.Target(t.Context()); return err },
		"Datasets": func() error { _, err := w.Datasets(t.Context()); return err },
	} {
		t.Run(name, func(t *testing.T) { refusal(t, try(), "not_initialised", "run tallyman init first") })
	}
}

// A role that may create nothing in the database can use schemas made for it,
// and is told how they are made.
func TestInitWithoutRights(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			role := `loader "` + uuid.NewString() + `"`
			quoted := pgx.Identifier{role}.Sanitize()
			admin := session(t, sandboxtest.SharedServer(t, version).DSN("postgres"))
			execute(t, admin, "CREATE ROLE "+quoted+" LOGIN")
			t.Cleanup(func() { _, _ = admin.Exec(context.Background(), "DROP ROLE "+quoted) })
			dsn := sandboxtest.Postgres(t, version)
			owner := session(t, dsn)
			c := owner.Config().Copy()
			w := bare(t, fmt.Sprintf("host=%s port=%d dbname=%s user='%s'", c.Host, c.Port, c.Database, role), postgres.Config{})

			_, err := w.Init(t.Context(), postgres.InitOptions{})
			refusal(t, err, "no_privilege", `CREATE SCHEMA "tallyman" AUTHORIZATION `+quoted)
			execute(t, owner, "CREATE SCHEMA tallyman AUTHORIZATION "+quoted)
			mustInit(t, w, october())

			m, err := schema.ParseManifest([]byte("dataset: a/b\ntable: {schema: Mart}\ncolumns: [{name: x, type: bool}]"))
			if err != nil {
				t.Fatal(err)
			}
			_, err = w.Apply(t.Context(), m)
			refusal(t, err, "no_privilege", `CREATE SCHEMA "Mart" AUTHORIZATION `+quoted)
			execute(t, owner, `CREATE SCHEMA "Mart" AUTHORIZATION `+quoted)
			if _, err := w.Apply(t.Context(), m); err != nil {
				t.Error(err)
			}
		})
	}
}
