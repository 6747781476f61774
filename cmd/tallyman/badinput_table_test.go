package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"tallyman/schema/batch"
)

// What the user's table has against rows, and what is wrong with the table.
func TestBadInputTables(t *testing.T) {
	t.Parallel()
	s := newBadSite(t, nil)
	s.exec("CREATE TABLE parents (name text PRIMARY KEY)")
	s.exec("GRANT SELECT ON parents TO " + pgx.Identifier{s.role}.Sanitize()) // else PostgreSQL keeps the key to itself
	constraints, orphans, names := s.constrained(), s.orphaned(), s.named()
	stops := s.stopped()
	healthy := s.stream(everyType("bad/healthy"), lines(`{"k":"good"}`))
	healthy.produce("healthy", good("k", "good"))
	p := s.load()
	orphans.adopt(p) // first: a parent is not waited for for long
	for _, st := range []*stream{constraints, names, healthy, orphans} {
		st.passed(p)
		st.check(p)
	}
	constraints.checkRedrive()
	orphans.checkRedrive()
	for _, stop := range stops {
		stop.holds(p)
	}
	healthy.produce("beside the stopped", good("k", "good"))
	healthy.passed(p)
	for _, stop := range stops {
		s.exec(stop.mend)
	}
	for _, stop := range stops {
		stop.passed(p)
		stop.check(p)
	}
	p.until("readiness", func() bool { return p.ready() == "ok\n" })
	p.checkLog()
}

// fresh gives the batch another id than the case's other messages have.
func fresh() change {
	return edit(func(b *batch.Batch) {
		b.ID = batch.NewID()
		b.Time, _ = batch.TimeOf(b.ID)
	})
}

// constrained is a table with constraints that Tallyman knows nothing of.
func (s *badSite) constrained() *stream {
	st := s.stream(`dataset: bad/constraints
columns:
  - {name: amount, type: int64, nullable: true}
  - {name: email, type: text, nullable: true}
  - {name: number, type: int64, nullable: true}
  - {name: note, type: text, nullable: true}
`, lines(`{"amount":1}`, `{"amount":2}`))
	s.exec(fmt.Sprintf(`ALTER TABLE %s ALTER amount SET NOT NULL, ADD CONSTRAINT positive CHECK (amount > 0),
		ADD CONSTRAINT one_email UNIQUE (email), ADD CONSTRAINT one_number UNIQUE (number) DEFERRABLE INITIALLY DEFERRED`, st.table()))
	s.exec(`CREATE FUNCTION complain() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no: %', NEW.note; END $$`)
	s.exec(fmt.Sprintf("CREATE TRIGGER complain BEFORE INSERT ON %s FOR EACH ROW WHEN (NEW.note IS NOT NULL) EXECUTE FUNCTION complain()", st.table()))
	first := func(text string) send { return good("", "", lines(text))[0] }
	st.produceCases([]badCase{
		{"NULL", bad(batch.Constraint, `column "amount" of relation "constraints__r1" violates not-null constraint (SQLSTATE 23502)`, lines(`{"email":"null"}`))},
		{"CHECK", bad(batch.Constraint, `violates check constraint "positive" (SQLSTATE 23514)`, lines(`{"amount":-1}`))},
		{"one row of many", bad(batch.Constraint, "SQLSTATE 23514", lines(`{"amount":1}`, `{"amount":0}`, `{"amount":1}`))},
		{"unique", []send{first(`{"amount":1,"email":"a@b"}`),
			bad(batch.Constraint, `"one_email" (SQLSTATE 23505); Key (email)=(a@b) already exists.`, fresh(), lines(`{"amount":1,"email":"a@b"}`))[0]}},
		{"unique in itself", bad(batch.Constraint, "SQLSTATE 23505", lines(`{"amount":1,"email":"c@d"}`, `{"amount":1,"email":"c@d"}`))},
		{"unique of controls", []send{first(`{"amount":1,"email":"\u001b[31m\n<b>"}`),
			bad(batch.Constraint, `Key (email)=(\x1b[31m\n<b>) already exists.`, fresh(), lines(`{"amount":1,"email":"\u001b[31m\n<b>"}`))[0]}},
		{"unique at COMMIT", []send{first(`{"amount":1,"number":7}`),
			bad(batch.Constraint, "commit: duplicate key", fresh(), lines(`{"amount":1,"number":7}`))[0]}},
		{"a trigger", bad(batch.Rejected, `no: \x1b]0;title\a (SQLSTATE P0001)`, lines(`{"amount":1,"note":"\u001b]0;title\u0007"}`))},
	})
	return st
}

// orphaned is a table with a foreign key. Of its messages the second refers to
// what comes late, the fourth to what never comes.
func (s *badSite) orphaned() *stream {
	st := s.stream("dataset: bad/orphans\ncolumns:\n  - {name: parent, type: text, nullable: true}\n", lines(`{"parent":null}`))
	s.exec("ALTER TABLE " + st.table() + " ADD CONSTRAINT has_parent FOREIGN KEY (parent) REFERENCES parents")
	st.produceCases([]badCase{
		{"late", good("parent", "late", lines(`{"parent":"late"}`))},
		{"never", bad(batch.Constraint, `"has_parent" (SQLSTATE 23503); Key (parent)=(never\x1b[31m\n) is not present`, lines(`{"parent":"never\u001b[31m\n"}`))},
	})
	return st
}

// adopt waits until a parent is missed and sends it.
func (st *stream) adopt(p *process) {
	t := st.site.t
	t.Helper()
	missed := func(key string) {
		p.until("wait for "+key, func() bool {
			page := p.ready()
			return strings.Contains(page, "bad/orphans") && strings.Contains(page, key)
		})
	}
	missed("Key (parent)=(late)")
	if next := st.position(); next != 1 {
		t.Errorf("the position is %d while a parent is waited for, want 1", next)
	}
	st.site.exec("INSERT INTO parents VALUES ('late')")
	missed(`Key (parent)=(never\x1b[31m\n)`)
}

// named is a table whose names are as odd as PostgreSQL has them.
func (s *badSite) named() *stream {
	s.t.Helper()
	columns := []string{`a"b`, `c;d`, `e f`, "Größe", "%s", "select", "it's", `back\slash`, "new\nline\x1b[31m", "$1", "--", "ctid ", strings.Repeat("é", 31) + "x"}
	manifest := "dataset: bad/names\ntable: {schema: \"s; DROP SCHEMA tallyman --\", name: \"T \\\"1\\\"; é'\\\\ %d $1\"}\ncolumns:\n"
	var values []any
	var row, query []string
	for i, c := range columns {
		manifest += fmt.Sprintf("  - {name: %q, type: text}\n", c)
		values = append(values, fmt.Sprint(i))
		key := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\x1b", `\u001b`).Replace(c)
		row = append(row, fmt.Sprintf(`"%s":"%d"`, key, i))
		query = append(query, pgx.Identifier{c}.Sanitize())
	}
	st := s.stream(manifest, native(values...))
	s.exec(fmt.Sprintf(`ALTER TABLE %s ADD CONSTRAINT "odd; \ "" --" CHECK ("a""b" <> 'bad')`, st.table()))
	all := strings.Join(query, "||")
	line := "{" + strings.Join(row, ",") + "}"
	st.produceCases([]badCase{
		{"native", good(all, "0123456789101112")},
		{"NDJSON", good(all, "0123456789101112", lines(line))},
		{"CHECK", bad(batch.Constraint, "SQLSTATE 23514", lines(strings.Replace(line, `"0"`, `"bad"`, 1)))},
	})
	refused := func(manifest string, says ...string) {
		s.t.Helper()
		fail(s.t, exitUsage, s.env, []string{"dataset", "apply", file(s.t, "refused.yaml", manifest)}, says...)
	}
	refused("dataset: bad/long\ncolumns: [{name: "+strings.Repeat("x", 64)+", type: text}]", "columns[0].name", "has 64 bytes, at most 63 are possible")
	refused("dataset: bad/long\ncolumns: [{name: "+strings.Repeat("é", 32)+", type: text}]", "has 64 bytes, at most 63 are possible")
	refused("dataset: bad/long\ntable: {name: "+strings.Repeat("x", 51)+"}\ncolumns: [{name: x, type: text}]", "has 51 bytes, at most 50 are possible")
	refused("dataset: bad/nul\ncolumns: [{name: \"a\\0b\", type: text}]", "contains a NUL")
	return st
}

// stop is a dataset whose loading stops because of its table.
type stop struct {
	*stream
	reason string
	says   string
	mend   string
}

// stopped makes tables that don't fit, each in another way.
func (s *badSite) stopped() []stop {
	s.exec(`CREATE FUNCTION hold_back() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$`)
	role := pgx.Identifier{s.role}.Sanitize()
	var stops []stop
	for _, c := range []struct{ name, table, reason, says, spoil, mend string }{
		{"gone", "gone", "table_missing", "does not exist", "ALTER TABLE %s RENAME TO elsewhere", "ALTER TABLE elsewhere RENAME TO gone__r1"},
		{"privilege", "privilege", "no_privilege", "permission denied", "REVOKE INSERT ON %s FROM " + role, "GRANT INSERT ON %s TO " + role},
		{"renamed", `"re\e[31mnamed"`, "column_mismatch", `column "k" is missing`, "ALTER TABLE %s RENAME k TO kk", "ALTER TABLE %s RENAME kk TO k"},
		{"retyped", "retyped", "column_mismatch", `column "n" is numeric(10,2), the manifest needs bigint`,
			"DROP VIEW retyped; ALTER TABLE %s ALTER n TYPE numeric(10,2)", "ALTER TABLE %s ALTER n TYPE bigint"},
		{"required", "required", "column_mismatch", `column "more" is required (NOT NULL, without a default)`, "ALTER TABLE %s ADD more text NOT NULL", "ALTER TABLE %s DROP more"},
		{"held", "held", "fewer_rows_copied", "took 0 of ", "CREATE TRIGGER hold_back BEFORE INSERT ON %s FOR EACH ROW EXECUTE FUNCTION hold_back()", "DROP TRIGGER hold_back ON %s"},
	} {
		st := s.stream(everyType("bad/"+c.name)+"table: {name: "+c.table+"}\n", lines(`{"k":"good"}`))
		st.produceCases([]badCase{{"kept waiting", good("k", "good")}})
		spoil := func(statement string) string { return strings.ReplaceAll(statement, "%s", st.table()) }
		s.exec(spoil(c.spoil))
		stops = append(stops, stop{st, c.reason, c.says, spoil(c.mend)})
	}
	return stops
}

// holds checks that the stop is told everywhere, and that nothing of the
// dataset moves or is given up.
func (s stop) holds(p *process) {
	t := s.site.t
	t.Helper()
	name := s.manifest.Dataset.String()
	p.until("stop of "+name, func() bool {
		page := p.ready()
		return strings.Contains(page, fmt.Sprintf("%s is stopped (%s): ", name, s.reason)) && strings.Contains(page, s.says) &&
			p.metric(fmt.Sprintf("tallyman_loader_stopped{dataset=%q,reason=%q}", name, s.reason)) == "1"
	})
	told := false
	for line := range strings.Lines(p.log.String()) {
		told = told || strings.Contains(line, "load stopped") && strings.Contains(line, "dataset="+name+" reason="+s.reason)
	}
	if !told {
		t.Errorf("the log doesn't tell of the stop of %s", name)
	}
	var given int
	if err := s.site.owner.QueryRow(t.Context(), "SELECT count(*) FROM tallyman.quarantine WHERE revision_id = $1", s.revision).Scan(&given); err != nil {
		t.Fatal(err)
	}
	if next := s.position(); next != 0 || given != 0 {
		t.Errorf("%s is stopped, its position is %d and %d messages are in quarantine", name, next, given)
	}
}
