package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/schema/ddl"
	"tallyman/sink"
)

const (
	// Partitions are looked up in the catalog alone: pg_partition_tree would lock each.
	selectTable = `
WITH RECURSIVE parts (oid) AS (
    SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhparent
    WHERE c.oid = $1::text::regclass AND c.relkind = 'p'
    UNION ALL
    SELECT i.inhrelid FROM parts JOIN pg_catalog.pg_inherits i ON i.inhparent = parts.oid
)
SELECT c.relkind::text, c.relpersistence::text, c.relrowsecurity,
       EXISTS (SELECT FROM pg_catalog.pg_rewrite w WHERE w.ev_class = c.oid AND w.ev_type = '3'),
       (SELECT min(p.oid::regclass::text) FROM parts JOIN pg_catalog.pg_class p USING (oid) WHERE p.relkind = 'f'),
       (SELECT min(p.oid::regclass::text) FROM parts JOIN pg_catalog.pg_class p USING (oid) WHERE p.relpersistence = 'u')
FROM pg_catalog.pg_class c
WHERE c.oid = $1::text::regclass`

	// A domain's last base decides, and so does the modifier that it is given.
	selectColumns = `
WITH RECURSIVE d (number, oid, modifier, required) AS (
    SELECT attnum, atttypid, atttypmod, false FROM pg_catalog.pg_attribute
    WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT d.number, b.typbasetype, b.typtypmod, d.required OR b.typnotnull
    FROM d JOIN pg_catalog.pg_type b ON b.oid = d.oid AND b.typtype = 'd'
)
SELECT a.attname, a.atttypid, format_type(a.atttypid, a.atttypmod), t.typtype::text, t.typname, d.oid, d.modifier,
       a.attgenerated <> '' OR a.attidentity = 'a',
       (a.attnotnull OR d.required) AND NOT a.atthasdef AND a.attidentity = '' AND t.typdefault IS NULL
FROM d
JOIN pg_catalog.pg_type b ON b.oid = d.oid AND b.typtype <> 'd'
JOIN pg_catalog.pg_attribute a ON a.attrelid = $1::text::regclass AND a.attnum = d.number
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
ORDER BY a.attnum`
)

// shape is a table as the catalog has it.
type shape struct {
	kind        string // pg_class.relkind
	persistence string // pg_class.relpersistence
	rowSecurity bool
	insertRule  bool
	foreign     *string // a partition that is a foreign table
	unlogged    *string // a partition that is unlogged
	columns     map[string]column
	order       []string // of the columns
}

// column is a column of a table as the catalog has it.
type column struct {
	oid      uint32
	text     string // the type as PostgreSQL writes it
	kind     string // pg_type.typtype
	typeName string
	base     uint32 // the type itself, or what a domain is over
	modifier int32  // of base, such as a length, or ddl.NoModifier
	computed bool   // generated, or an identity that takes no value
	required bool   // NOT NULL, and nothing gives it a value if no row does
}

// queue asks for the shape of a table.
func (s *shape) queue(b *pgx.Batch, table schema.Table) {
	name := ddl.PostgresName(table)
	b.Queue(selectTable, name).Query(func(rows pgx.Rows) error {
		into := []any{&s.kind, &s.persistence, &s.rowSecurity, &s.insertRule, &s.foreign, &s.unlogged}
		_, err := pgx.ForEachRow(rows, into, func() error { return nil })
		return err
	})
	b.Queue(selectColumns, name).Query(func(rows pgx.Rows) error {
		s.columns = map[string]column{}
		var (
			name string
			c    column
		)
		into := []any{&name, &c.oid, &c.text, &c.kind, &c.typeName, &c.base, &c.modifier, &c.computed, &c.required}
		_, err := pgx.ForEachRow(rows, into, func() error {
			s.columns[name] = c
			s.order = append(s.order, name)
			return nil
		})
		return err
	})
}

// read fills in the shape of a table within a transaction.
func (s *shape) read(ctx context.Context, tx pgx.Tx, table schema.Table) error {
	b := &pgx.Batch{}
	s.queue(b, table)
	return tx.SendBatch(ctx, b).Close()
}

// unfit lists why no rows can go to the table, whatever they are.
func (s *shape) unfit() []string {
	kinds := map[string]string{"v": "a view", "m": "a materialized view", "f": "a foreign table, which commits on its own",
		"S": "a sequence", "i": "an index", "I": "an index", "c": "a composite type", "t": "a TOAST table"}
	var faults []string
	add := func(wrong bool, format string, args ...any) {
		if wrong {
			faults = append(faults, fmt.Sprintf(format, args...))
		}
	}
	if kind, known := kinds[s.kind]; known {
		return []string{"it is " + kind + ": name a table"}
	}
	add(s.persistence == "u", "it is unlogged, so a crash empties it while the ledger says loaded: ALTER TABLE … SET LOGGED")
	add(s.rowSecurity, "it has row security, which COPY can't pass: ALTER TABLE … DISABLE ROW LEVEL SECURITY, or load another table")
	add(s.insertRule, "it has a rule ON INSERT, which COPY passes by: make it a trigger")
	if s.foreign != nil {
		add(true, "its partition %s is a foreign table, which commits on its own: detach it", *s.foreign)
	}
	if s.unlogged != nil {
		add(true, "its partition %s is unlogged, so a crash empties it while the ledger says loaded: ALTER TABLE … SET LOGGED", *s.unlogged)
	}
	return faults
}

// alternative is a type that takes what a manifest's type is written as.
type alternative struct {
	name  string // for a person
	takes func(c column) bool
}

// The OIDs of types that no manifest type is bound to as they are, as in pg_type.dat.
const (
	oidVarchar = 1043
	oidNumeric = 1700 // which decimals are bound to with their digits
	oidJSONB   = 3802
)

// alternatives is what a column of a table that was there before may be, beside
// the one type that ddl.Postgres names and a domain over it. Only a type whose
// binary form is the same, or that copyRows writes anew, can be here: COPY takes
// the bytes of one type for another without a word.
var alternatives = map[schema.Type][]alternative{
	schema.Text: {
		{"character varying without a length", func(c column) bool { return c.oid == oidVarchar && c.modifier == ddl.NoModifier }},
		{"citext", func(c column) bool { return c.kind == "b" && c.typeName == "citext" }},
		{"an enum", func(c column) bool { return c.kind == "e" }},
	},
	schema.JSON: {
		{"jsonb", func(c column) bool { return c.oid == oidJSONB }},
	},
	schema.Decimal: {
		{"numeric without digits", func(c column) bool { return c.base == oidNumeric && c.modifier == ddl.NoModifier }},
	},
}

// alternativesOf returns what else a column for t may be. A column for an array is nothing else.
func alternativesOf(t schema.Type) []alternative {
	facts, _ := t.Facts()
	if facts.Array {
		return nil
	}
	return alternatives[facts.Name]
}

// takes says that the column takes values of a type of the manifest.
func (c column) takes(t schema.Type, existing bool) bool {
	want, ok := ddl.Postgres(t)
	if !ok {
		return false
	}
	if c.base == want.OID && c.modifier == want.Modifier && (existing || c.kind != "d") {
		return true
	}
	return existing && slices.ContainsFunc(alternativesOf(t), func(a alternative) bool { return a.takes(c) })
}

// accepted names the types that a column for t can have.
func accepted(t schema.Type, existing bool) string {
	want, _ := ddl.Postgres(t)
	names := []string{want.Name}
	if existing {
		for _, a := range alternativesOf(t) {
			names = append(names, a.name)
		}
		names = append(names, "a domain over "+want.Name)
	}
	return strings.Join(names, ", or ")
}

// filled are the columns that a COPY by the manifest fills, in order.
func filled(m *schema.Manifest) []schema.Column {
	columns := slices.Clone(m.Columns)
	if m.BatchID {
		columns = append(columns, schema.Column{Name: schema.BatchIDColumn, Type: schema.UUID})
	}
	return columns
}

// misfits lists what keeps rows by the manifest from the table's columns.
func (s *shape) misfits(m *schema.Manifest) []string {
	var faults []string
	fills := map[string]bool{}
	for _, w := range filled(m) {
		fills[w.Name] = true
		c, ok := s.columns[w.Name]
		switch {
		case !ok:
			faults = append(faults, fmt.Sprintf("column %q is missing", w.Name))
		case c.computed:
			faults = append(faults, fmt.Sprintf("column %q is generated and takes no value", w.Name))
		case !c.takes(w.Type, m.Existing):
			faults = append(faults, fmt.Sprintf("column %q is %s, the manifest needs %s", w.Name, c.text, accepted(w.Type, m.Existing)))
		}
	}
	for _, name := range s.order {
		if s.columns[name].required && !fills[name] {
			faults = append(faults, fmt.Sprintf("column %q is required (NOT NULL, without a default) and not in the manifest", name))
		}
	}
	return faults
}

// The reason for a table that takes no rows at all.
const reasonTableUnfit batch.Reason = "table_unfit"

// check refuses a table that rows by one of the manifests can't go to.
func (s *shape) check(table schema.Table, manifests []*schema.Manifest) error {
	stop := func(reason batch.Reason, faults []string, next string) error {
		return &sink.Error{Class: sink.Misconfigured, Reason: reason, Err: fmt.Errorf("the table %s does not fit: %s%s",
			ddl.PostgresName(table), strings.Join(faults, "; "), next)}
	}
	if faults := s.unfit(); len(faults) > 0 {
		return stop(reasonTableUnfit, faults, "")
	}
	var faults []string
	for _, m := range manifests {
		for _, f := range s.misfits(m) {
			if !slices.Contains(faults, f) {
				faults = append(faults, f)
			}
		}
	}
	if len(faults) > 0 {
		return stop(reasonColumnMismatch, faults, ". Change the table so that it fits the manifest; then loading goes on by itself")
	}
	return nil
}
