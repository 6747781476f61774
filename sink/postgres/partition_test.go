package postgres_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema/batch"
	"tallyman/schema/rows"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

// visits is a dataset whose table is partitioned.
const visits = `
dataset: test/visits
table: {partition: {by: at, every: month}, primary_key: [n, at], indexes: [{columns: [note]}]}
columns:
  - {name: n, type: int64}
  - {name: at, type: timestamptz}
  - {name: note, type: text, nullable: true}
`

// month is the start of the month that is so many after this one, in UTC.
func month(n int) time.Time {
	now := time.Now().UTC()
	return time.Date(now.Year(), now.Month()+time.Month(n), 1, 0, 0, 0, 0, time.UTC)
}

// partOf is the partition of visits for that month, as regclass writes it.
func partOf(n int) string { return "visits__r1_" + month(n).Format("2006_01") }

// where returns how many rows each partition of visits has.
func (w *warehouse) where() map[string]int64 {
	w.t.Helper()
	found, err := w.conn.Query(w.t.Context(), "SELECT tableoid::regclass::text, count(*) FROM visits__r1 GROUP BY 1")
	if err != nil {
		w.t.Fatal(err)
	}
	defer found.Close()
	all := map[string]int64{}
	for found.Next() {
		var name string
		var n int64
		if err := found.Scan(&name, &n); err != nil {
			w.t.Fatal(err)
		}
		all[name] = n
	}
	if err := found.Err(); err != nil {
		w.t.Fatal(err)
	}
	return all
}

// Rows of one batch go to the partition of their time, and to the one for the
// rest if there is none: no time is refused. A batch that breaks a key is at
// fault, although the server names the partition.
func TestPartitionedTableLoads(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := open(t, sandboxtest.Postgres(t, version), visits, postgres.Config{})
			if n := w.count("SELECT count(*) FROM pg_inherits WHERE inhparent = 'visits__r1'::regclass"); n != 1+1+1+24 {
				t.Errorf("%d partitions", n)
			}
			c, p := w.committer(), w.partition(0)
			good := w.element(batch.NewID(), p, 0, []any{int64(1), month(0), "a"}, []any{int64(2), month(-1), nil}, []any{int64(3), month(1).Add(-time.Microsecond), nil},
				[]any{int64(4), month(24), nil}, []any{int64(5), month(25), nil}, []any{int64(6), time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), nil}, []any{int64(7), month(-1).Add(-time.Microsecond), nil})
			broken := verdict{class: sink.BadData, reason: batch.Constraint}
			for where, at := range map[string]time.Time{partOf(0): month(0), "visits__r1_default": month(25)} {
				twice := w.element(batch.NewID(), p, 1, []any{int64(9), at, nil}, []any{int64(9), at, nil})
				err := w.refused(c, w.group(p, 2, good, twice), broken)
				if !strings.Contains(err.Error(), where) {
					t.Errorf("%v does not name %s", err, where)
				}
			}
			w.loads(c, w.group(p, 1, good))
			want := map[string]int64{partOf(-1): 1, partOf(0): 2, partOf(24): 1, "visits__r1_default": 3}
			if diff := cmp.Diff(want, w.where()); diff != "" {
				t.Error(diff)
			}
			if n := w.count("SELECT sum(n) FROM visits"); n != 1+2+3+4+5+6+7 {
				t.Errorf("the view's rows sum up to %d", n)
			}
			other := manifest(t, strings.Replace(visits, "every: month", "every: day", 1))
			_, err := w.Apply(t.Context(), other)
			refusal(t, err, "manifest_refused", `table.partition by "at" every day instead of by "at" every month: keep it`)
		})
	}
}

// later prepares the warehouse as if so many months had passed.
func later(t *testing.T, w *postgres.Warehouse, n int) postgres.InitReport {
	t.Helper()
	report := mustInit(t, w, month(n).Add(time.Hour))
	for i, name := range report.TablePartitions {
		report.TablePartitions[i] = strings.ReplaceAll(strings.TrimPrefix(name, `"public".`), `"`, "")
	}
	return report
}

// Init makes partitions ahead, beside loads; it leaves out what is there in
// another form, what has rows in the partition for the rest, and what is past.
func TestPartitionsAhead(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			// A zone and a style in which bounds are printed otherwise.
			dsn := sandboxtest.Postgres(t, version) + "&timezone=America/St_Johns&datestyle=German,DMY"
			w := open(t, dsn, visits, postgres.Config{})
			if report := later(t, w.Warehouse, 0); report.TablePartitions != nil || report.Skipped != nil {
				t.Errorf("nothing was lacking, and yet: %+v", report)
			}
			execute(t, w.conn, "DROP TABLE "+partOf(-1), "DROP TABLE "+partOf(0),
				"CREATE TABLE "+partOf(28)+" ()",
				fmt.Sprintf("CREATE TABLE far PARTITION OF visits__r1 FOR VALUES FROM ('%s') TO (MAXVALUE)", month(29).Format(time.RFC3339)))
			c, p := w.committer(), w.partition(0)
			w.loads(c, w.group(p, 1, w.element(batch.NewID(), p, 0, []any{int64(1), month(26), nil}, []any{int64(2), month(27).Add(-1000), nil})))
			loader := session(t, dsn)
			execute(t, loader, "BEGIN", fmt.Sprintf("INSERT INTO visits__r1 VALUES (3, '%s', NULL, gen_random_uuid())", month(2).Format(time.RFC3339)))
			report := later(t, w.Warehouse, 6)
			execute(t, loader, "COMMIT")
			if diff := cmp.Diff([]string{partOf(25), partOf(27)}, report.TablePartitions); diff != "" {
				t.Error(diff)
			}
			want := []postgres.SkippedPartition{
				{Dataset: "test/visits", Partition: `"public"."` + partOf(26) + `"`, From: month(26), To: month(27), Reason: `"public"."visits__r1_default" has rows of that time already`},
				{Dataset: "test/visits", Partition: `"public"."` + partOf(28) + `"`, From: month(28), To: month(29), Reason: "there is a relation of that name already"},
			}
			if diff := cmp.Diff(want, report.Skipped); diff != "" {
				t.Error(diff)
			}
			checkMove(t, w, 26)
			execute(t, w.conn, "DROP TABLE "+partOf(28))
			if report := later(t, w.Warehouse, 6); !slices.Equal(report.TablePartitions, []string{partOf(28)}) || report.Skipped != nil {
				t.Errorf("%+v", report)
			}
			p = w.partition(0)
			w.loads(c, w.group(p, 2, w.element(batch.NewID(), p, 1, []any{int64(4), month(25), "x"}, []any{int64(5), month(40), nil}, []any{int64(6), month(0), nil})))
			if diff := cmp.Diff(map[string]int64{partOf(2): 1, partOf(25): 1, partOf(26): 2, "far": 1, "visits__r1_default": 1}, w.where()); diff != "" {
				t.Error(diff)
			}
			const alike = `SELECT count(DISTINCT n) FROM (SELECT count(*) AS n FROM pg_index x JOIN pg_inherits i ON i.inhrelid = x.indrelid WHERE i.inhparent = 'visits__r1'::regclass GROUP BY x.indrelid) each`
			if n := w.count(alike); n != 1 {
				t.Error("some partitions have other indexes than the rest")
			}
		})
	}
}

// A table's partitions end where the first hole after now is.
func TestTableEnd(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			dsn := sandboxtest.Postgres(t, version) + "&timezone=America/St_Johns&datestyle=German,DMY"
			w := open(t, dsn, visits, postgres.Config{})
			for _, tc := range []struct {
				drop string
				want time.Time
			}{{"", month(25)}, {partOf(3), month(3)}, {partOf(0), month(0)}} {
				if tc.drop != "" {
					execute(t, w.conn, "DROP TABLE "+tc.drop)
				}
				if end, err := w.TableEnd(t.Context(), w.revision); err != nil || !end.Equal(tc.want) {
					t.Errorf("without %s they end at %v, %v, want %v", tc.drop, end, err, tc.want)
				}
			}
			plain := w.revision
			plain.Manifest.Partition = nil
			if end, err := w.TableEnd(t.Context(), plain); err != nil || !end.IsZero() {
				t.Errorf("a table without partitions: %v, %v", end, err)
			}
		})
	}
}

// Bounds of every type are those of UTC, wherever the session is.
func TestPartitionsAheadOfEveryType(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t, "18") + "&timezone=America/St_Johns&datestyle=German,DMY"
	w := open(t, dsn, events, postgres.Config{})
	kinds := []string{"date", "timestamp", "timestamptz"}
	now := month(0).AddDate(0, 0, time.Now().UTC().Day()-1)
	for every, next := range map[string]time.Time{"day": now.AddDate(0, 0, 1), "month": month(1), "year": month(12)} {
		for _, kind := range kinds {
			text := strings.NewReplacer("type: timestamptz", "type: "+kind, "every: month", "every: "+every, "visits", every+"_"+kind).Replace(visits)
			if _, err := w.Apply(t.Context(), manifest(t, text)); err != nil {
				t.Fatal(err)
			}
		}
		for _, moment := range []time.Time{now, now.Add(24*time.Hour - 1)} {
			if report := mustInit(t, w.Warehouse, moment); report.TablePartitions != nil || report.Skipped != nil {
				t.Errorf("%s: nothing was lacking, and yet: %+v", every, report)
			}
		}
		if report := mustInit(t, w.Warehouse, next); len(report.TablePartitions) != len(kinds) || report.Skipped != nil {
			t.Errorf("%s: %+v, want one for each type", every, report)
		}
		for _, kind := range kinds {
			execute(t, w.conn, "DROP VIEW "+every+"_"+kind, "DROP TABLE "+every+"_"+kind+"__r1", "DELETE FROM tallyman.revisions WHERE dataset <> 'test/events'")
		}
	}
}

// checkMove gives rows that are in the partition for the rest one of their own,
// as README tells.
func checkMove(t *testing.T, w *warehouse, n int) {
	t.Helper()
	name, from, to := partOf(n), month(n).Format(time.RFC3339), month(n+1).Format(time.RFC3339)
	execute(t, w.conn, "BEGIN", fmt.Sprintf("CREATE TABLE %s (LIKE visits__r1 INCLUDING ALL)", name),
		fmt.Sprintf("WITH moved AS (DELETE FROM visits__r1_default WHERE at >= '%s' AND at < '%s' RETURNING *) INSERT INTO %s SELECT * FROM moved", from, to, name),
		fmt.Sprintf("ALTER TABLE visits__r1 ATTACH PARTITION %s FOR VALUES FROM ('%s') TO ('%s')", name, from, to), "COMMIT")
}

// Who holds the partition for the rest is waited for, a moment at a time, and
// named if that does not help; the ledger has got its partitions by then.
func TestPartitionsAheadOfATableInUse(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), visits, postgres.Config{LockTimeout: 150 * time.Millisecond})
	reader := session(t, w.dsn)
	execute(t, reader, "SET application_name = 'a long report'", "BEGIN", "SELECT FROM visits")
	ahead := postgres.InitOptions{MonthsAhead: 25, Now: func() time.Time { return month(1) }}
	_, err := w.Init(t.Context(), ahead)
	if err == nil || !strings.Contains(err.Error(), "the table of test/visits is in use: held by session") || !strings.Contains(err.Error(), "It lacks partitions still") {
		t.Error(err)
	}
	execute(t, reader, "COMMIT")
	report, err := w.Init(t.Context(), ahead)
	if err != nil || len(report.TablePartitions) != 1 || len(report.Partitions) != 0 {
		t.Errorf("%+v, %v", report, err)
	}
}

// A load does not wait for a partition that somebody else keeps for himself.
func TestPartitionKeptByAnother(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), visits, postgres.Config{LockTimeout: 150 * time.Millisecond})
	execute(t, session(t, w.dsn), "BEGIN", "LOCK TABLE "+partOf(5)+" IN ACCESS EXCLUSIVE MODE")
	c, p := w.committer(), w.partition(0)
	w.loads(c, w.group(p, 1, w.element(batch.NewID(), p, 0, []any{int64(1), month(0), nil})))
	p = w.partition(0)
	_ = w.refused(c, w.group(p, 2, w.element(batch.NewID(), p, 1, []any{int64(1), month(5), nil})), verdict{class: sink.Retryable, reason: "locked"})
}

// Added columns are in every partition, and in those that are made afterwards.
func TestPartitionedTableWidens(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := open(t, sandboxtest.Postgres(t, version), visits, postgres.Config{})
			m := manifest(t, strings.Replace(visits, "columns:\n", "columns:\n  - {name: price, type: 'decimal(12,2)', nullable: true}\n", 1))
			if applied, err := w.Apply(t.Context(), m); err != nil || !applied.Widened {
				t.Fatalf("%+v, %v", applied, err)
			}
			if report := later(t, w.Warehouse, 1); !slices.Equal(report.TablePartitions, []string{partOf(25)}) {
				t.Fatalf("%+v", report)
			}
			p := w.partition(0)
			w.loads(w.committer(), w.group(p, 2,
				w.by(m, p, 0, []any{"1.50", int64(1), month(0), nil}, []any{"2.25", int64(2), month(25), nil}, []any{"3.00", int64(3), month(30), nil}),
				w.element(batch.NewID(), p, 1, []any{int64(4), month(25), nil})))
			if n := w.count("SELECT (sum(price) * 100)::bigint * 1000 + count(*) FROM visits"); n != 675*1000+4 {
				t.Errorf("prices and rows are %d", n)
			}
		})
	}
}

// Partitions belong to the owner, also those from before there were roles, and a
// loader needs nothing but to insert into the table.
func TestPartitionsAndRoles(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := open(t, sandboxtest.Server(t, version).DSN("postgres"), visits, postgres.Config{})
			if _, err := w.Init(t.Context(), postgres.InitOptions{Roles: true}); err != nil {
				t.Fatal(err)
			}
			execute(t, w.conn, "CREATE ROLE ana LOGIN IN ROLE tallyman_owner", "CREATE ROLE lo LOGIN IN ROLE tallyman_loader", "CREATE ROLE re LOGIN IN ROLE tallyman_reader")
			owner, loader, reader := w.as("ana"), w.as("lo"), w.as("re")
			if report := later(t, owner.Warehouse, 1); !slices.Equal(report.TablePartitions, []string{partOf(25)}) {
				t.Errorf("%+v", report)
			}
			m := manifest(t, strings.ReplaceAll(visits, "visits", "sales"))
			applied, err := owner.Apply(t.Context(), m)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range []sink.Revision{w.revision, applied.Revision} {
				if loader.revision = r; r.ID != w.revision.ID {
					if loader.codec, err = rows.NewCodec(m); err != nil {
						t.Fatal(err)
					}
				}
				p := loader.partition(0)
				loader.loads(loader.committer(), loader.group(p, 1, loader.element(batch.NewID(), p, 0, []any{int64(1), month(0), nil}, []any{int64(2), month(25), nil})))
			}
			if n := reader.count("SELECT (SELECT sum(n) FROM visits) + (SELECT sum(n) FROM sales)"); n != 6 {
				t.Errorf("the reader sees rows that sum up to %d", n)
			}
			const strangers = `SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relowner <> 'tallyman_owner'::regrole`
			if n := w.count(strangers); n != 0 {
				t.Errorf("%d relations belong to somebody else", n)
			}
			const granted = `SELECT count(*) FROM pg_class WHERE relispartition AND relnamespace = 'public'::regnamespace AND array_length(relacl, 1) > 1`
			if n := w.count(granted); n != 0 {
				t.Errorf("%d partitions are granted to somebody", n)
			}
		})
	}
}

// A revision's table has the partitions of the past, too.
func TestSecondHasPartitionsOfThePast(t *testing.T) {
	t.Parallel()
	text := "\ndataset: test/events\ncolumns:\n  - {name: n, type: int64}\n  - {name: at, type: timestamptz}\ntable:\n  partition: {by: at, every: month}\n"
	w := open(t, sandboxtest.Postgres(t, "18"), text, postgres.Config{})
	execute(t, w.conn, `SET TimeZone = UTC`, `CREATE TABLE events__r1_2026_01 PARTITION OF events__r1 FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')`)
	w.second("")
	if n := w.count("SELECT count(*) FROM pg_class WHERE relname = 'events__r2_2026_01'"); n != 1 {
		t.Error("rows of January go to the partition for the rest")
	}
}
