package postgres_test

import (
	"strings"
	"testing"

	"github.com/google/uuid"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema/batch"
	"tallyman/schema/rows"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

// own is a dataset whose rows go to a table of somebody's own.
const own = `
dataset: shop/orders
table: {schema: shop, name: orders, existing: true}
columns:
  - {name: id, type: int64}
  - {name: note, type: text, nullable: true}
  - {name: doc, type: json, nullable: true}
`

// fitting is a table that takes its rows.
const fitting = `CREATE SCHEMA IF NOT EXISTS shop; CREATE TABLE shop.orders (id bigint PRIMARY KEY, note text, doc json)`

// row is a row by own.
func row(id int64) []any { return []any{id, "Größe", `{"a": [1, null, "\u00e9"]}`} }

// What is refused when it is applied, each with its reason and what to do; and
// the same, in the same words, of a table that was changed underneath a load.
func TestExistingTableRefused(t *testing.T) {
	t.Parallel()
	const mismatch, unfit = "column_mismatch", "table_unfit"
	warehouses := each(t)
	for name, tc := range map[string]struct{ table, reason, says string }{
		"another number":       {"CREATE TABLE shop.orders (id integer, note text, doc json)", mismatch, `column "id" is integer, the manifest needs bigint, or a domain over bigint`},
		"numeric":              {"CREATE TABLE shop.orders (id numeric, note text, doc json)", mismatch, `column "id" is numeric, the manifest needs bigint`},
		"eight bytes too":      {"CREATE TABLE shop.orders (id timestamptz, note text, doc json)", mismatch, `column "id" is timestamp with time zone, the manifest needs bigint`},
		"domain over another":  {"CREATE DOMAIN shop.n AS integer; CREATE TABLE shop.orders (id shop.n, note text, doc json)", mismatch, `column "id" is shop.n, the manifest needs bigint`},
		"text with a length":   {"CREATE TABLE shop.orders (id bigint, note varchar(20), doc json)", mismatch, `column "note" is character varying(20), the manifest needs text, or character varying without a length, or citext, or an enum, or a domain over text`},
		"padded text":          {"CREATE TABLE shop.orders (id bigint, note char(20), doc json)", mismatch, `column "note" is character(20)`},
		"domain with a length": {"CREATE DOMAIN shop.t AS varchar(20); CREATE TABLE shop.orders (id bigint, note shop.t, doc json)", mismatch, `column "note" is shop.t`},
		"bytes":                {"CREATE TABLE shop.orders (id bigint, note bytea, doc json)", mismatch, `column "note" is bytea`},
		"json as text":         {"CREATE TABLE shop.orders (id bigint, note text, doc text)", mismatch, `column "doc" is text, the manifest needs json, or jsonb, or a domain over json`},
		"column missing":       {"CREATE TABLE shop.orders (id bigint, note text)", mismatch, `column "doc" is missing`},
		"generated":            {"CREATE TABLE shop.orders (id bigint, note text GENERATED ALWAYS AS ('x') STORED, doc json)", mismatch, `column "note" is generated and takes no value`},
		"identity always":      {"CREATE TABLE shop.orders (id bigint GENERATED ALWAYS AS IDENTITY, note text, doc json)", mismatch, `column "id" is generated and takes no value`},
		"required":             {"CREATE TABLE shop.orders (id bigint, note text, doc json, more int NOT NULL)", mismatch, `column "more" is required (NOT NULL, without a default) and not in the manifest`},
		"required by domain":   {"CREATE DOMAIN shop.r AS int NOT NULL; CREATE TABLE shop.orders (id bigint, note text, doc json, more shop.r)", mismatch, `column "more" is required`},
		"two at once":          {"CREATE TABLE shop.orders (id int, note bytea, doc json)", mismatch, `column "id" is integer, the manifest needs bigint, or a domain over bigint; column "note" is bytea`},
		"view":                 {"CREATE VIEW shop.orders AS SELECT 1::bigint AS id, ''::text AS note, '1'::json AS doc", unfit, "it is a view: name a table"},
		"row security":         {"CREATE TABLE shop.orders (id bigint, note text, doc json); ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY", unfit, "it has row security, which COPY can't pass: ALTER TABLE"},
		"rule":                 {"CREATE TABLE shop.orders (id bigint, note text, doc json); CREATE RULE r AS ON INSERT TO shop.orders DO INSTEAD NOTHING", unfit, "it has a rule ON INSERT, which COPY passes by: make it a trigger"},
		"unlogged":             {"CREATE UNLOGGED TABLE shop.orders (id bigint, note text, doc json)", unfit, "it is unlogged, so a crash empties it while the ledger says loaded"},
		"unlogged partition": {"CREATE TABLE shop.orders (id bigint, note text, doc json) PARTITION BY LIST (id); CREATE TABLE shop.p PARTITION OF shop.orders DEFAULT PARTITION BY LIST (id); " +
			"CREATE UNLOGGED TABLE shop.q PARTITION OF shop.p DEFAULT", unfit, "its partition shop.q is unlogged"},
		"foreign partition": {"CREATE TABLE shop.orders (id bigint, note text, doc json) PARTITION BY LIST (id); " + foreign("shop.f") +
			"; ALTER TABLE shop.orders ATTACH PARTITION shop.f DEFAULT", unfit, "its partition shop.f is a foreign table, which commits on its own: detach it"},
	} {
		for version, w := range warehouses {
			t.Run(name+"/"+version, func(t *testing.T) {
				w.t = t
				defer forget(t, w)
				execute(t, w.conn, "DROP SCHEMA IF EXISTS shop CASCADE; CREATE SCHEMA shop", tc.table)
				_, err := w.Apply(t.Context(), manifest(t, own))
				refusal(t, err, "manifest_refused", tc.says)
				if n := w.count("SELECT count(*) FROM tallyman.datasets WHERE dataset = 'shop/orders'"); n != 0 {
					t.Errorf("%d manifests are left behind", n)
				}
				execute(t, w.conn, "DROP SCHEMA shop CASCADE", fitting)
				use(t, w, own)
				execute(t, w.conn, "DROP TABLE shop.orders", tc.table)
				p := w.partition(0)
				err = w.refused(w.committer(), w.group(p, 1, w.element(batch.NewID(), p, 0, row(1))), verdict{class: sink.Misconfigured, reason: batch.Reason(tc.reason)})
				if err == nil || !strings.Contains(err.Error(), tc.says) {
					t.Errorf("%v does not say %q", err, tc.says)
				}
			})
		}
	}
}

// each opens a warehouse of every version.
func each(t *testing.T) map[string]*warehouse {
	t.Helper()
	all := map[string]*warehouse{}
	for _, version := range sandboxtest.Versions() {
		all[version] = open(t, sandboxtest.Postgres(t, version), events, postgres.Config{})
	}
	return all
}

// forget takes a dataset out of the warehouse, so that the next can have its name.
func forget(t *testing.T, w *warehouse) {
	t.Helper()
	execute(t, w.conn, "DELETE FROM tallyman.revisions WHERE physical_schema = 'shop'", "DELETE FROM tallyman.datasets WHERE dataset <> 'test/events'")
}

// foreign makes a foreign table of the shape of own.
func foreign(name string) string {
	return "DROP FOREIGN DATA WRAPPER IF EXISTS w CASCADE; CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE " + name + " (id bigint, note text, doc json) SERVER s"
}

// use applies a manifest and has w work on its dataset.
func use(t *testing.T, w *warehouse, text string) {
	t.Helper()
	m := manifest(t, text)
	applied, err := w.Apply(t.Context(), m)
	if err != nil || !applied.Created {
		t.Fatalf("%+v, %v", applied, err)
	}
	w.revision = applied.Revision
	if w.codec, err = rows.NewCodec(m); err != nil {
		t.Fatal(err)
	}
}

// Relations of a kind that PostgreSQL itself won't lock or copy to, and tables
// that aren't there.
func TestExistingTableIsNone(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{})
	for name, tc := range map[string]struct{ table, says string }{
		"nothing":           {"SELECT 1", `there is no table "shop"."orders": make it, or leave existing out`},
		"no schema":         {"DROP SCHEMA shop", `there is no table "shop"."orders"`},
		"materialized view": {"CREATE MATERIALIZED VIEW shop.orders AS SELECT 1::bigint AS id, ''::text AS note, '1'::json AS doc", "it is a materialized view: name a table"},
		"foreign table":     {foreign("shop.orders"), "it is a foreign table, which commits on its own: name a table"},
		"sequence":          {"CREATE SEQUENCE shop.orders", "it is a sequence"},
		"somebody's":        {fitting + "; INSERT INTO tallyman.datasets VALUES ('a/b', repeat('0', 64), '1', 't'); INSERT INTO tallyman.revisions (dataset, manifest_hash, physical_schema, physical_table, state) VALUES ('a/b', repeat('0', 64), 'shop', 'orders', 'retired')", `"shop"."orders" holds dataset a/b already`},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			execute(t, w.conn, "DROP SCHEMA IF EXISTS shop CASCADE; CREATE SCHEMA shop", tc.table)
			_, err := w.Apply(t.Context(), manifest(t, own))
			refusal(t, err, "manifest_refused", tc.says)
			defer forget(t, w)
			if strings.Contains(tc.table, "INSERT") || !strings.Contains(tc.table, "shop.orders") {
				return
			}
			execute(t, w.conn, "DROP SCHEMA shop CASCADE", fitting)
			use(t, w, own)
			execute(t, w.conn, "DROP TABLE shop.orders", tc.table)
			p := w.partition(0)
			_ = w.refused(w.committer(), w.group(p, 1, w.element(batch.NewID(), p, 0, row(1))), verdict{class: sink.Misconfigured, reason: "table_unfit"})
		})
	}
}

// What takes rows, as it is: types beside the one of each manifest type, native
// rows and rows that were JSON alike, partitions, triggers and constraints.
func TestExistingTableLoads(t *testing.T) {
	t.Parallel()
	warehouses := each(t)
	const same = `doc::jsonb = '{"a": [1, null, "é"]}'`
	for name, tc := range map[string]struct{ table, check string }{
		"exact":             {"CREATE TABLE shop.orders (id bigint, note text, doc json)", `note = 'Größe' AND doc::text = '{"a": [1, null, "\u00e9"]}'`},
		"jsonb":             {"CREATE TABLE shop.orders (id bigint, note text, doc jsonb)", `note = 'Größe' AND ` + same},
		"jsonb first":       {"CREATE TABLE shop.orders (doc jsonb, id bigint, note text)", `note = 'Größe' AND ` + same},
		"varchar":           {"CREATE TABLE shop.orders (id bigint, note varchar, doc json)", "note = 'Größe'"},
		"citext":            {"CREATE EXTENSION citext SCHEMA public; CREATE TABLE shop.orders (id bigint, note public.citext, doc json)", "note = 'GRÖSSE' OR note::text = 'Größe'"},
		"enum":              {"CREATE TYPE shop.e AS ENUM ('x', 'Größe'); CREATE TABLE shop.orders (id bigint, note shop.e, doc json)", "note = 'Größe'"},
		"domains":           {"CREATE DOMAIN shop.a AS bigint CHECK (VALUE < 100); CREATE DOMAIN shop.b AS shop.a NOT NULL; CREATE DOMAIN shop.t AS text; CREATE TABLE shop.orders (id shop.b, note shop.t, doc json)", "note = 'Größe'"},
		"more columns":      {"CREATE TABLE shop.orders (z int NOT NULL DEFAULT 7, y int GENERATED ALWAYS AS IDENTITY, x int GENERATED ALWAYS AS (1) STORED, id bigint GENERATED BY DEFAULT AS IDENTITY, note text, doc json, w serial, v int)", "z = 7 AND y > 0 AND x = 1 AND w > 0 AND v IS NULL"},
		"default of domain": {"CREATE DOMAIN shop.d AS int NOT NULL DEFAULT 3; CREATE TABLE shop.orders (id bigint, note text, doc json, more shop.d)", "more = 3"},
		"partitions": {"CREATE TABLE shop.orders (id bigint PRIMARY KEY, note text, doc json) PARTITION BY RANGE (id); CREATE TABLE shop.p1 PARTITION OF shop.orders FOR VALUES FROM (0) TO (3); " +
			"CREATE TABLE shop.p2 PARTITION OF shop.orders DEFAULT", "tableoid = CASE WHEN id < 3 THEN 'shop.p1' ELSE 'shop.p2' END::regclass"},
		"trigger": {"CREATE TABLE shop.orders (id bigint, note text, doc json, seen text); CREATE FUNCTION shop.f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.seen = upper(NEW.note); RETURN NEW; END $$; " +
			"CREATE TRIGGER t BEFORE INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.f()", "seen = upper('Größe')"},
		"constraints": {"CREATE TABLE shop.c (id bigint PRIMARY KEY); INSERT INTO shop.c SELECT generate_series(1, 9); CREATE TABLE shop.orders (id bigint REFERENCES shop.c UNIQUE CHECK (id > 0), note text, doc json)", "note = 'Größe'"},
		"collation":   {"CREATE TABLE shop.orders (id bigint, note text COLLATE \"C\", doc json)", "note = 'Größe'"},
	} {
		for version, w := range warehouses {
			t.Run(name+"/"+version, func(t *testing.T) {
				w.t = t
				defer forget(t, w)
				execute(t, w.conn, "DROP SCHEMA IF EXISTS shop CASCADE; CREATE SCHEMA shop", tc.table)
				use(t, w, own)
				p := w.partition(0)
				lines := []byte(`{"id":3,"note":"Größe","doc":{"a": [1, null, "\u00e9"]}}` + "\n" + `{"doc":{"a": [1, null, "\u00e9"]},"note":"Größe","id":4}`)
				ndjson := w.element(batch.NewID(), p, 1, row(3), row(4))
				tuples, n, err := w.codec.AppendNDJSON(nil, uuid.Nil, lines)
				if err != nil || n != 2 {
					t.Fatal(err)
				}
				ndjson.Tuples = tuples
				w.loads(w.committer(), w.group(p, 2, w.element(batch.NewID(), p, 0, row(1), row(2)), ndjson))
				if n := w.count("SELECT coalesce(sum(id), 0) FROM shop.orders WHERE " + tc.check); n != 1+2+3+4 {
					t.Errorf("the ids of rows that are right sum up to %d", n)
				}
			})
		}
	}
}

// A table of somebody's own gets no column from here: who has added one applies
// the manifest that fills it, and rows by both load.
func TestExistingTableWidens(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "15"), events, postgres.Config{})
	execute(t, w.conn, fitting)
	use(t, w, own)
	m := manifest(t, own+"  - {name: paid, type: bool, nullable: true}\n")
	_, err := w.Apply(t.Context(), m)
	refusal(t, err, "manifest_refused", `column "paid" is missing`)
	execute(t, w.conn, "ALTER TABLE shop.orders ADD paid boolean NOT NULL")
	_, err = w.Apply(t.Context(), m)
	refusal(t, err, "manifest_refused", `column "paid" is required`) // by the old manifest no row would have a value
	execute(t, w.conn, "ALTER TABLE shop.orders ALTER paid DROP NOT NULL")
	if applied, err := w.Apply(t.Context(), m); err != nil || !applied.Widened {
		t.Fatalf("%+v, %v", applied, err)
	}
	p := w.partition(0)
	w.loads(w.committer(), w.group(p, 2, w.element(batch.NewID(), p, 0, row(1)), w.by(m, p, 1, append(row(2), true))))
	if n := w.count("SELECT sum(id) FROM shop.orders WHERE paid = (id = 2) OR paid IS NULL AND id = 1"); n != 3 {
		t.Errorf("the ids sum up to %d", n)
	}
}

// Rows that jsonb does not take are the batch's fault.
func TestExistingJSONBRefusesValues(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{})
	execute(t, w.conn, "CREATE SCHEMA shop", "CREATE TABLE shop.orders (id bigint, note text, doc jsonb)")
	use(t, w, own)
	p := w.partition(0)
	huge := `{"n": 1e200000}` // JSON, and more than a numeric can hold
	_ = w.refused(w.committer(), w.group(p, 1, w.element(batch.NewID(), p, 0, []any{int64(1), nil, huge})), verdict{class: sink.BadData, reason: batch.Rejected})
	w.loads(w.committer(), w.group(p, 1, w.element(batch.NewID(), p, 0, []any{int64(1), nil, nil})))
}

// A row that violates a constraint is the batch's fault, also where the server
// names the partition that the row went to, or the domain of its column. What a
// trigger violates elsewhere is not.
func TestExistingTableConstraints(t *testing.T) {
	t.Parallel()
	warehouses := each(t)
	const parts = "CREATE TABLE shop.p1 PARTITION OF shop.orders FOR VALUES FROM (0) TO (100) PARTITION BY RANGE (id); CREATE TABLE shop.p11 PARTITION OF shop.p1 DEFAULT"
	constraint := verdict{class: sink.BadData, reason: batch.Constraint}
	late := verdict{class: sink.BadData, reason: batch.Constraint, grace: true}
	stop := verdict{class: sink.Misconfigured, reason: "unexpected"}
	for name, tc := range map[string]struct {
		tables string
		bad    []any
		want   verdict
	}{
		"check of partitions":    {"CREATE TABLE shop.orders (id bigint, note text CHECK (note <> 'bad'), doc json) PARTITION BY RANGE (id);" + parts, []any{int64(2), "bad", nil}, constraint},
		"not null of partitions": {"CREATE TABLE shop.orders (id bigint, note text NOT NULL, doc json) PARTITION BY RANGE (id);" + parts, []any{int64(2), nil, nil}, constraint},
		"key of partitions":      {"CREATE TABLE shop.orders (id bigint PRIMARY KEY, note text, doc json) PARTITION BY RANGE (id);" + parts, []any{int64(1), "twice", nil}, constraint},
		"foreign key of partitions": {"CREATE TABLE shop.c (id bigint PRIMARY KEY); INSERT INTO shop.c VALUES (1); CREATE TABLE shop.orders (id bigint REFERENCES shop.c, note text, doc json) PARTITION BY RANGE (id);" + parts,
			[]any{int64(2), "stray", nil}, late},
		"deferred key of partitions": {"CREATE TABLE shop.orders (id bigint PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, note text, doc json) PARTITION BY RANGE (id);" + parts,
			[]any{int64(1), "twice", nil}, constraint},
		"check of a domain":    {"CREATE DOMAIN shop.d AS text CHECK (VALUE <> 'bad'); CREATE DOMAIN shop.dd AS shop.d; CREATE TABLE shop.orders (id bigint, note shop.dd, doc json)", []any{int64(2), "bad", nil}, constraint},
		"not null of a domain": {"CREATE DOMAIN shop.d AS text NOT NULL; CREATE TABLE shop.orders (id bigint, note shop.d, doc json)", []any{int64(2), nil, nil}, constraint},
		"domain in a trigger": {"CREATE DOMAIN shop.d AS text CHECK (VALUE <> 'bad'); CREATE TABLE shop.orders (id bigint, note text, doc json); " +
			"CREATE FUNCTION shop.f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM NEW.note::shop.d; RETURN NEW; END $$; CREATE TRIGGER t BEFORE INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.f()",
			[]any{int64(2), "bad", nil}, stop},
		"another table in a trigger": {"CREATE TABLE shop.c (id bigint CHECK (id <> 2)); CREATE TABLE shop.orders (id bigint, note text, doc json); " +
			"CREATE FUNCTION shop.f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO shop.c VALUES (NEW.id); RETURN NEW; END $$; CREATE TRIGGER t BEFORE INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.f()",
			[]any{int64(2), "bad", nil}, stop},
	} {
		for version, w := range warehouses {
			t.Run(name+"/"+version, func(t *testing.T) {
				w.t = t
				defer forget(t, w)
				execute(t, w.conn, "DROP SCHEMA IF EXISTS shop CASCADE; CREATE SCHEMA shop", tc.tables)
				use(t, w, own)
				c, p := w.committer(), w.partition(0)
				w.loads(c, w.group(p, 1, w.element(batch.NewID(), p, 0, []any{int64(1), "good", nil})))
				p.Next = 1
				_ = w.refused(c, w.group(p, 2, w.element(batch.NewID(), p, 1, tc.bad)), tc.want)
				execute(t, w.conn, "DELETE FROM shop.orders")
				w.loads(c, w.group(p, 2, w.element(batch.NewID(), p, 1, []any{int64(1), "good", nil})))
			})
		}
	}
}
