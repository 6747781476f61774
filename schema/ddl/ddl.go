// Package ddl turns a manifest into the SQL of a warehouse's dialect. Its
// functions are pure: the same manifest gives the same text, which golden files
// hold fast. Every name is quoted and every relation has its schema.
package ddl

import (
	"fmt"
	"strings"

	"tallyman/schema"
)

// ColumnType is what a column's type is called in a warehouse.
type ColumnType struct {
	Name string // as in DDL
	OID  uint32 // of the type in PostgreSQL's catalog
	// Modifier is the type's, such as the digits of a numeric, as the catalog
	// keeps it (pg_attribute.atttypmod); NoModifier without.
	Modifier int32
}

// NoModifier is the modifier of a type that has none.
const NoModifier = -1

// postgresType is one of PostgreSQL's types and the array of it.
type postgresType struct {
	name       string
	oid, array uint32
}

// postgresTypes binds each type of a manifest to exactly one of PostgreSQL's,
// because binary COPY takes eight bytes of one type for another without a
// word. The OIDs are those of pg_type.dat.
var postgresTypes = map[schema.Type]postgresType{
	schema.Bool:        {"boolean", 16, 1000},
	schema.Int16:       {"smallint", 21, 1005},
	schema.Int32:       {"integer", 23, 1007},
	schema.Int64:       {"bigint", 20, 1016},
	schema.Float32:     {"real", 700, 1021},
	schema.Float64:     {"double precision", 701, 1022},
	schema.Decimal:     {"numeric", 1700, 1231},
	schema.Text:        {"text", 25, 1009},
	schema.Bytes:       {"bytea", 17, 1001},
	schema.Date:        {"date", 1082, 1182},
	schema.Time:        {"time without time zone", 1083, 1183},
	schema.Timestamp:   {"timestamp without time zone", 1114, 1115},
	schema.TimestampTZ: {"timestamp with time zone", 1184, 1185},
	schema.UUID:        {"uuid", 2950, 2951},
	schema.JSON:        {"json", 114, 199},
}

// Postgres returns what PostgreSQL calls a type; false: it has none for it.
func Postgres(t schema.Type) (ColumnType, bool) {
	facts, known := t.Facts()
	p, bound := postgresTypes[facts.Name]
	if !known || !bound {
		return ColumnType{}, false
	}
	c := ColumnType{Name: p.name, OID: p.oid, Modifier: NoModifier}
	if facts.Name == schema.Decimal {
		// make_numeric_typmod of src/backend/utils/adt/numeric.c; 4 is VARHDRSZ.
		c.Modifier = int32(facts.Precision<<16|facts.Scale) + 4
		c.Name = fmt.Sprintf("%s(%d,%d)", p.name, facts.Precision, facts.Scale)
	}
	if facts.Array {
		c.OID = p.array
		c.Name += "[]"
	}
	return c, true
}

// PostgresName quotes a table's name with its schema.
func PostgresName(t schema.Table) string { return quote(t.Schema) + "." + quote(t.Name) }

// Physical returns the table behind a dataset's view for the revision with
// that number within the dataset, from 1. A table that was there before is its
// own.
func Physical(m schema.Manifest, number int) schema.Table {
	if m.Existing {
		return m.Table
	}
	return schema.Table{Schema: m.Table.Schema, Name: fmt.Sprintf("%s__r%d", m.Table.Name, number)}
}

// PostgresTable returns the statements that create the physical table of a
// revision: the manifest's columns, then _batch_id if the manifest has it; its
// primary key and indexes. One that is partitioned takes no rows until it has the
// partitions of PostgresParts.
func PostgresTable(m schema.Manifest, physical schema.Table) ([]string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE TABLE %s (", PostgresName(physical))
	for i, c := range m.Columns {
		t, ok := Postgres(c.Type)
		if !ok {
			return nil, fmt.Errorf("column %q: PostgreSQL has no type for %q", c.Name, c.Type)
		}
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "\n    %s %s", quote(c.Name), t.Name)
		if !c.Nullable {
			b.WriteString(" NOT NULL")
		}
	}
	if m.BatchID {
		fmt.Fprintf(&b, ",\n    %s uuid NOT NULL", quote(schema.BatchIDColumn))
	}
	if m.PrimaryKey != nil {
		fmt.Fprintf(&b, ",\n    PRIMARY KEY (%s)", quoteAll(m.PrimaryKey))
	}
	b.WriteString("\n)" + partitionBy(m))
	statements := []string{b.String()}
	for _, x := range m.Indexes {
		unique := ""
		if x.Unique {
			unique = "UNIQUE "
		}
		// PostgreSQL finds a name that is free.
		statements = append(statements, fmt.Sprintf("CREATE %sINDEX ON %s (%s)", unique, PostgresName(physical), quoteAll(x.Columns)))
	}
	statements = append(statements, comment("TABLE", physical, fmt.Sprintf("Rows of dataset %s, loaded by tallyman. Read them through %s.",
		m.Dataset, PostgresName(m.Table))))
	if m.BatchID {
		statements = append(statements, fmt.Sprintf("COMMENT ON COLUMN %s.%s IS %s", PostgresName(physical), quote(schema.BatchIDColumn),
			literal("The unique id of the batch that the row came with.")))
	}
	return statements, nil
}

// PostgresView returns the statements that put the dataset's name over the
// table of a revision.
func PostgresView(m schema.Manifest, physical schema.Table) []string {
	return []string{
		"CREATE VIEW " + view(m, physical, nil),
		comment("VIEW", m.Table, fmt.Sprintf("Dataset %s: its active revision.", m.Dataset)),
	}
}

// view is a view's definition, from its name on. Columns that were added since
// the revision was made come last, because a view that is replaced keeps the
// columns that it has.
func view(m schema.Manifest, physical schema.Table, added []schema.Column) string {
	var columns []string
	for _, c := range m.Columns {
		columns = append(columns, quote(c.Name))
	}
	if m.BatchID {
		columns = append(columns, quote(schema.BatchIDColumn))
	}
	for _, c := range added {
		columns = append(columns, quote(c.Name))
	}
	return fmt.Sprintf("%s AS\nSELECT %s\nFROM %s", PostgresName(m.Table), strings.Join(columns, ", "), PostgresName(physical))
}

// PostgresAddColumns returns the statement that adds nullable columns to the
// table of a revision.
func PostgresAddColumns(physical schema.Table, columns []schema.Column) (string, error) {
	clauses := make([]string, len(columns))
	for i, c := range columns {
		t, ok := Postgres(c.Type)
		switch {
		case !ok:
			return "", fmt.Errorf("column %q: PostgreSQL has no type for %q", c.Name, c.Type)
		case !c.Nullable:
			return "", fmt.Errorf("column %q is required: the rows that are there have no value for it", c.Name)
		}
		clauses[i] = fmt.Sprintf("\n    ADD COLUMN %s %s", quote(c.Name), t.Name)
	}
	return fmt.Sprintf("ALTER TABLE %s%s", PostgresName(physical), strings.Join(clauses, ",")), nil
}

// PostgresWidenView returns the statement that shows added columns in the view
// of the manifest m, by which the revision was made. added is all that were
// added since, in the order in which they were.
func PostgresWidenView(m schema.Manifest, physical schema.Table, added []schema.Column) string {
	return "CREATE OR REPLACE VIEW " + view(m, physical, added)
}

func comment(kind string, t schema.Table, text string) string {
	return fmt.Sprintf("COMMENT ON %s %s IS %s", kind, PostgresName(t), literal(text))
}

// quote quotes an identifier.
func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// quoteAll quotes a list of identifiers.
func quoteAll(names []string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = quote(name)
	}
	return strings.Join(quoted, ", ")
}

// literal quotes a string under standard_conforming_strings, which is
// PostgreSQL's default, whatever it is set to: one with a backslash is written
// as an escape string.
func literal(s string) string {
	s = strings.ReplaceAll(s, `'`, `''`)
	if strings.Contains(s, `\`) {
		return `E'` + strings.ReplaceAll(s, `\`, `\\`) + `'`
	}
	return `'` + s + `'`
}
