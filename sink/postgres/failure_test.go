package postgres_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema/batch"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

// verdict is what the loader acts on.
type verdict struct {
	class  sink.Class
	reason batch.Reason
	grace  bool
}

func (v verdict) String() string { return fmt.Sprintf("%v %q, grace %t", v.class, v.reason, v.grace) }

// refused commits a group that must be refused, and of which nothing may stay.
func (w *warehouse) refused(c sink.Committer, g *sink.Group, want verdict) error {
	w.t.Helper()
	const sum = `SELECT (SELECT count(*) FROM tallyman.loaded_elements) + (SELECT count(*) FROM tallyman.quarantine) + (SELECT sum(next_offset) FROM tallyman.positions)`
	before := w.count(sum)
	_, err := c.Commit(w.t.Context(), g)
	var e *sink.Error
	if !errors.As(err, &e) {
		w.t.Fatalf("%v, want %v", err, want)
	}
	if got := (verdict{e.Class, e.Reason, e.Grace}); got != want {
		w.t.Errorf("%v\nis %v, want %v", err, got, want)
	}
	if after := w.count(sum); after != before {
		w.t.Errorf("something stayed of a refused group: %d, before %d", after, before)
	}
	return err
}

// loads commits a group of which every element must load.
func (w *warehouse) loads(c sink.Committer, g *sink.Group) {
	w.t.Helper()
	res, err := c.Commit(w.t.Context(), g)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, o := range res.Outcomes {
		if o != sink.Loaded {
			w.t.Fatalf("outcomes %v", res.Outcomes)
		}
	}
}

// Every SQLSTATE that may come while rows are copied, and what it means. A
// trigger raises the one that a row asks for.
func TestErrorCodes(t *testing.T) {
	t.Parallel()
	const trigger = `
CREATE FUNCTION raise() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'planted' USING ERRCODE = NEW.note; END $$;
CREATE TRIGGER raise BEFORE INSERT ON public.events__r1 FOR EACH ROW EXECUTE FUNCTION raise()`
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{})
	execute(t, w.conn, trigger)
	var (
		outage     = verdict{class: sink.Retryable, reason: "outage"}
		rejected   = verdict{class: sink.BadData, reason: batch.Rejected}
		unexpected = verdict{class: sink.Misconfigured, reason: "unexpected"}
	)
	c, p := w.committer(), w.partition(0)
	for codes, want := range map[string]verdict{
		"08000 08006 53000 53100 53200 53300 57P01 57P02 57P03 57P04 25006 25P03 25P04": outage,
		"40001 40P01 55000 55006": outage,
		"55P03":                   {class: sink.Retryable, reason: "locked"},
		"57014":                   {class: sink.TooSlow},
		"28000 28P01":             {class: sink.Retryable, reason: "authorization"},
		"3D000":                   {class: sink.Retryable, reason: "database_missing"},
		"58000 58030 XX001 XX002": {class: sink.Retryable, reason: "server_fault"},
		"22000 22003 22012 22P02 22P03 54000 54001 P0001 08P01": rejected,
		"42P01 3F000": {class: sink.Misconfigured, reason: "table_missing"},
		"42703":       {class: sink.Misconfigured, reason: "column_missing"},
		"42501":       {class: sink.Misconfigured, reason: "no_privilege"},
		// No list names these; those of constraints name none of the table's.
		"42601 42804 0A000 XX000 21000 23000 23502 23503 23505 23514 23P01 2F003 P0000 P0002 P0004 ZZ999": unexpected,
	} {
		for code := range strings.FieldsSeq(codes) {
			err := w.refused(c, w.group(p, 1, w.element(batch.NewID(), p, 0, []any{int64(1), code})), want)
			var pg *pgconn.PgError
			if !errors.As(err, &pg) || pg.Code != code || !strings.Contains(err.Error(), code) {
				t.Errorf("%v does not tell of %s", err, code)
			}
		}
	}
}

// What a table's definition refuses. Only what names the table and a column of
// the manifest, or a constraint, is the content's fault.
func TestTableRefuses(t *testing.T) {
	t.Parallel()
	constraint := verdict{class: sink.BadData, reason: batch.Constraint}
	parent := verdict{class: sink.BadData, reason: batch.Constraint, grace: true}
	const trigger = `
CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN %s END $$;
CREATE TRIGGER act BEFORE INSERT ON events__r1 FOR EACH ROW EXECUTE FUNCTION act()`
	for name, tc := range map[string]struct {
		change string
		want   verdict
	}{
		"unique":               {"CREATE UNIQUE INDEX ON events__r1 ((n % 1))", constraint},
		"check":                {"ALTER TABLE events__r1 ADD CHECK (n < 0)", constraint},
		"not null":             {"ALTER TABLE events__r1 ALTER note SET NOT NULL", constraint},
		"no parent":            {"CREATE TABLE p (n bigint PRIMARY KEY); ALTER TABLE events__r1 ADD FOREIGN KEY (n) REFERENCES p", parent},
		"no parent at the end": {"CREATE TABLE p (n bigint PRIMARY KEY); ALTER TABLE events__r1 ADD FOREIGN KEY (n) REFERENCES p INITIALLY DEFERRED", parent},
		"unfilled column":      {"ALTER TABLE events__r1 ADD extra int NOT NULL", verdict{class: sink.Misconfigured, reason: "column_mismatch"}},
		"another's constraint": {"CREATE TABLE other (n bigint CHECK (n < 0));" + fmt.Sprintf(trigger, "INSERT INTO other VALUES (NEW.n); RETURN NEW;"),
			verdict{class: sink.Misconfigured, reason: "unexpected"}},
		"no partition": {"DROP VIEW events; ALTER TABLE events__r1 RENAME TO was; CREATE TABLE events__r1 (LIKE was) PARTITION BY LIST (n)",
			verdict{class: sink.Misconfigured, reason: "no_partition"}},
		"swallowed": {fmt.Sprintf(trigger, "RETURN nullif(NEW, NEW);"), verdict{class: sink.Misconfigured, reason: "fewer_rows_copied"}},
		"slow":      {fmt.Sprintf(trigger, "PERFORM pg_sleep(60); RETURN NEW;"), verdict{class: sink.TooSlow}},
		"gone":      {"DROP TABLE events__r1 CASCADE", verdict{class: sink.Misconfigured, reason: "table_missing"}},
	} {
		for _, version := range sandboxtest.Versions() {
			t.Run(name+"/"+version, func(t *testing.T) {
				t.Parallel()
				w := open(t, sandboxtest.Postgres(t, version), events, postgres.Config{CopyTimeout: 2 * time.Second})
				c, p := w.committer(), w.partition(0)
				w.loads(c, w.group(p, 1, w.element(batch.NewID(), p, 0, []any{int64(-1), "before"})))
				execute(t, w.conn, "TRUNCATE events__r1", tc.change)
				p = w.partition(0)
				_ = w.refused(c, w.group(p, 2, w.element(batch.NewID(), p, 1, []any{int64(1), nil}, []any{int64(1), nil})), tc.want)
			})
		}
	}
}

// Tuples that are none, or that no index takes, are the content's fault.
func TestTuplesRefused(t *testing.T) {
	t.Parallel()
	random := make([]byte, 20_000)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(random)
	for name, change := range map[string]func(tuples []byte) []byte{
		"narrow field": func(b []byte) []byte {
			return bytes.Replace(b, []byte("\x08\x00\x00\x00\x00\x00\x00\x00\x07"), []byte("\x04\x00\x00\x00\x07"), 1)
		},
		"NUL in text":       func(b []byte) []byte { return bytes.Replace(b, []byte("mark"), []byte("ma\x00k"), 1) },
		"no UTF-8":          func(b []byte) []byte { return bytes.Replace(b, []byte("mark"), []byte("ma\xffk"), 1) },
		"other column":      func(b []byte) []byte { return bytes.Replace(b, []byte("\x00\x03"), []byte("\x00\x02"), 1) },
		"cut off":           func(b []byte) []byte { return b[:len(b)-5] },
		"too long to index": func(b []byte) []byte { return b },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := open(t, sandboxtest.Postgres(t, "15"), events, postgres.Config{})
			execute(t, w.conn, "CREATE INDEX ON events__r1 (note)")
			note := "mark"
			if name == "too long to index" {
				note = fmt.Sprintf("%x", random)
			}
			p := w.partition(0)
			good, bad := w.element(batch.NewID(), p, 0, []any{int64(1), "good"}), w.element(batch.NewID(), p, 1, []any{int64(7), note})
			bad.Tuples = change(bytes.Clone(bad.Tuples))
			c := w.committer()
			_ = w.refused(c, w.group(p, 2, good, bad), verdict{class: sink.BadData, reason: batch.Rejected})
			w.loads(c, w.group(p, 1, good))
		})
	}
}

// Binary COPY takes the bytes of one type into another without an error, and a
// column's modifier bends values: a table that was changed takes no row.
func TestChangedColumns(t *testing.T) {
	t.Parallel()
	mismatch := verdict{class: sink.Misconfigured, reason: "column_mismatch"}
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := open(t, sandboxtest.Postgres(t, version), events, postgres.Config{})
			execute(t, w.conn, "DROP VIEW events") // it would hold the types
			c := w.committer()
			for i, tc := range []struct{ change, says, back string }{
				{"ALTER n TYPE double precision", `column "n" is double precision, the manifest needs bigint`, "ALTER n TYPE bigint"},
				{"ALTER n TYPE numeric(10,2)", `column "n" is numeric(10,2)`, "ALTER n TYPE bigint"},
				{"ALTER n TYPE timestamptz USING now()", `column "n" is timestamp with time zone`, "ALTER n TYPE bigint USING 1"},
				{"ALTER note TYPE varchar(20)", `column "note" is character varying(20)`, "ALTER note TYPE text"},
				{"RENAME note TO noted", `column "note" is missing`, "RENAME noted TO note"},
				{"DROP _batch_id", `column "_batch_id" is missing`, "ADD _batch_id uuid"},
				{"ALTER n SET NOT NULL, ALTER n ADD GENERATED ALWAYS AS IDENTITY", `column "n" is generated`, "ALTER n DROP IDENTITY"},
				{"ADD extra int", "", "ADD other int DEFAULT 1"},
			} {
				execute(t, w.conn, "ALTER TABLE events__r1 "+tc.change)
				p := w.partition(0)
				g := w.group(p, int64(i)+1, w.element(batch.NewID(), p, int64(i), []any{int64(42), "x"}))
				if tc.says != "" {
					if err := w.refused(c, g, mismatch); !strings.Contains(err.Error(), tc.says) {
						t.Errorf("%v does not say %q", err, tc.says)
					}
				}
				execute(t, w.conn, "ALTER TABLE events__r1 "+tc.back)
				w.loads(c, g)
			}
		})
	}
}

// The columns that were compared are those that the rows meet: until the end
// nobody changes the table.
func TestNoChangeBetweenCheckAndCopy(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{})
	execute(t, w.conn, "DROP VIEW events", "SET lock_timeout = '50ms'")
	p := w.partition(0)
	g := w.group(p, 1, w.element(batch.NewID(), p, 0, []any{int64(42), "x"}))
	g.Admit = func(sink.Result) error {
		var pg *pgconn.PgError
		if _, err := w.conn.Exec(t.Context(), "ALTER TABLE events__r1 ALTER n TYPE double precision"); !errors.As(err, &pg) || pg.Code != "55P03" {
			t.Errorf("the table was changed in the middle: %v", err)
		}
		return nil
	}
	w.loads(w.committer(), g)
}

// A time without a partition is waited for: the partition is late, not the batch wrong.
func TestOutsideTheLedgersWindow(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := open(t, sandboxtest.Postgres(t, version), events, postgres.Config{})
			window, err := w.Window(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var at [8]byte
			binary.BigEndian.PutUint64(at[:], uint64(window.End.UnixMilli()))
			id := batch.NewID() // a v7, whose first 48 bits are its time
			copy(id[:], at[2:])
			c, p := w.committer(), w.partition(0)
			g := w.group(p, 2, w.element(batch.NewID(), p, 0, []any{int64(1), nil}), w.element(id, p, 1, []any{int64(2), nil}))
			_ = w.refused(c, g, verdict{class: sink.Retryable, reason: "ledger_window"})
			mustInit(t, w.Warehouse, window.End)
			w.loads(c, g)
		})
	}
}

// A dataset's quarantine has a limit, and nothing moves past what would exceed it.
func TestQuarantineIsFull(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{QuarantineMaxBytes: 10})
	c, p := w.committer(), w.partition(0)
	dead := func(offset int64, value string) sink.Dead {
		return sink.Dead{Message: sink.Message{Partition: p.Partition, Offset: offset, Value: []byte(value)}, Reason: batch.NoID}
	}
	g := w.group(p, 2, w.element(batch.NewID(), p, 0, []any{int64(1), nil}))
	g.Dead = []sink.Dead{dead(1, "123456")}
	w.loads(c, g)
	p = w.partition(0)
	g = w.group(p, 4, w.element(batch.NewID(), p, 2, []any{int64(2), nil}))
	g.Dead = []sink.Dead{dead(3, "12345")}
	_ = w.refused(c, g, verdict{class: sink.Misconfigured, reason: "quarantine_full"})
	g.Dead[0] = dead(3, "1234")
	w.loads(c, g)
}
