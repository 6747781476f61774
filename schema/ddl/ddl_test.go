package ddl_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema"
	"tallyman/schema/ddl"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

var update = flag.Bool("update", false, "write the golden files")

// manifests are what the golden files were made from, by name.
func manifests(t *testing.T) map[string]schema.Manifest {
	t.Helper()
	all := map[string]schema.Manifest{}
	for name, text := range map[string]string{
		"every-type": "dataset: a/every-type\ncolumns:\n" + everyType(),
		"no-batch-id": "dataset: a/b\nbatch_id: false\ntable: {schema: marketing}\n" +
			"columns: [{name: x, type: int64}]\n",
		"keys": "dataset: a/b\ntable: {primary_key: [id, 'a\"b;--'], indexes: [{columns: [at, id]}, {columns: ['a\"b;--', prices], unique: true}, {columns: [_batch_id]}]}\n" +
			"columns: [{name: id, type: int64}, {name: 'a\"b;--', type: text}, {name: at, type: timestamp, nullable: true}, {name: prices, type: 'decimal(12,2)[]'}]\n",
		"partition-by-day": "dataset: a/b\ntable: {partition: {by: day, every: day}, primary_key: [day, id]}\ncolumns: [{name: id, type: int64}, {name: day, type: date}]\n",
		"partition-by-month": "dataset: a/b\ntable: {name: 'it''s \"b\"', partition: {by: 'a\"t', every: month}, indexes: [{columns: [id]}, {columns: [id, 'a\"t'], unique: true}]}\n" +
			"columns: [{name: id, type: int64}, {name: 'a\"t', type: timestamptz}]\n",
		"partition-by-year": "dataset: a/b\nbatch_id: false\ntable: {partition: {by: at, every: year}}\ncolumns: [{name: at, type: timestamp}]\n",
		"names": "dataset: a/b\ntable: {schema: \"Größe; DROP\", name: \"it's \\\"quoted\\\" \\\\ \"}\n" +
			"columns: [{name: 'a\"b;--', type: text}, {name: select, type: bool, nullable: true}]\n",
	} {
		m, err := schema.ParseManifest([]byte(text))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all[name] = m
	}
	return all
}

func everyType() string {
	var b strings.Builder
	for _, t := range everyTypeThere() {
		fmt.Fprintf(&b, "- {name: 'a_%s', type: '%s'}\n", t, t)
	}
	return b.String()
}

// everyTypeThere is each type and the array of it, with some digits of decimals.
func everyTypeThere() []schema.Type {
	var all []schema.Type
	for _, t := range schema.Types() {
		variants := []schema.Type{t}
		if t == schema.Decimal {
			variants = []schema.Type{schema.MakeDecimal(12, 2), schema.MakeDecimal(1, 0), schema.MakeDecimal(1000, 1000)}
		}
		for _, v := range variants {
			all = append(all, v, schema.ArrayOf(v))
		}
	}
	return all
}

func statements(t *testing.T, m schema.Manifest) []string {
	t.Helper()
	physical := ddl.Physical(m, 1)
	table, err := ddl.PostgresTable(m, physical)
	if err != nil {
		t.Fatal(err)
	}
	all := append(table, ddl.PostgresView(m, physical)...)
	if m.Partition != nil {
		parts := ddl.Parts(m.Partition.Every, physical, time.Date(2024, time.February, 29, 23, 30, 0, 0, time.FixedZone("", -3600)), 1, 2)
		all = append(all, ddl.PostgresParts(m, physical, parts[:3])...)
		all = append(all, ddl.PostgresAttach(m, physical, parts[3])...)
	}
	add, err := ddl.PostgresAddColumns(physical, added())
	if err != nil {
		t.Fatal(err)
	}
	return append(all, add, ddl.PostgresWidenView(m, physical, added()))
}

// added is a nullable column of every type, and one of an odd name.
func added() []schema.Column {
	columns := []schema.Column{{Name: `it's "new"`, Type: schema.Text, Nullable: true}}
	for _, t := range everyTypeThere() {
		columns = append(columns, schema.Column{Name: "new_" + string(t), Type: t, Nullable: true})
	}
	return columns
}

func TestGolden(t *testing.T) {
	t.Parallel()
	for name, m := range manifests(t) {
		got := strings.Join(statements(t, m), ";\n\n") + ";\n"
		file := filepath.Join("testdata", name+".sql")
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// PostgreSQL takes every statement, and has the columns that the manifest says.
func TestPostgresTakesIt(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		for name, m := range manifests(t) {
			t.Run(version+"/"+name, func(t *testing.T) {
				t.Parallel()
				conn, err := pgx.Connect(t.Context(), sandboxtest.Postgres(t, version))
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = conn.Close(t.Context()) }()
				all := append([]string{"CREATE SCHEMA IF NOT EXISTS " + pgx.Identifier{m.Table.Schema}.Sanitize()}, statements(t, m)...)
				for _, s := range all {
					if _, err := conn.Exec(t.Context(), s); err != nil {
						t.Fatalf("%s: %v", s, err)
					}
				}
				checkColumns(t, conn, m)
			})
		}
	}
}

func checkColumns(t *testing.T, conn *pgx.Conn, m schema.Manifest) {
	t.Helper()
	type column struct {
		Name     string
		OID      uint32
		Modifier int32
		Type     string
		Null     bool
	}
	var want []column
	for _, c := range m.Columns {
		k, _ := ddl.Postgres(c.Type)
		want = append(want, column{c.Name, k.OID, k.Modifier, k.Name, c.Nullable})
	}
	if m.BatchID {
		want = append(want, column{schema.BatchIDColumn, 2950, ddl.NoModifier, "uuid", false})
	}
	for _, c := range added() {
		k, _ := ddl.Postgres(c.Type)
		want = append(want, column{c.Name, k.OID, k.Modifier, k.Name, true})
	}
	rows, err := conn.Query(t.Context(), `
SELECT attname, atttypid, atttypmod, format_type(atttypid, atttypmod), NOT attnotnull FROM pg_attribute
WHERE attrelid = $1::regclass AND attnum > 0 ORDER BY attnum`, ddl.PostgresName(ddl.Physical(m, 1)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowToStructByPos[column])
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestEveryTypeIsBound(t *testing.T) {
	t.Parallel()
	for _, k := range everyTypeThere() {
		if c, ok := ddl.Postgres(k); !ok || c.Name == "" || c.OID == 0 {
			t.Errorf("%s is bound to %+v", k, c)
		}
	}
	if c, ok := ddl.Postgres(schema.Decimal); ok {
		t.Errorf("a decimal without digits is bound to %+v", c)
	}
	if _, err := ddl.PostgresTable(schema.Manifest{Columns: []schema.Column{{Name: "x", Type: "none"}}}, schema.Table{}); err == nil {
		t.Error("a type that nobody knows was given a column")
	}
}

// The longest names of partitions are as long as PostgreSQL allows.
func TestNamesOfPartitions(t *testing.T) {
	t.Parallel()
	m := schema.Manifest{Table: schema.Table{Schema: "public", Name: strings.Repeat("n", 46)}}
	physical := ddl.Physical(m, 999)
	names := []string{ddl.Rest(physical).Name}
	for _, p := range ddl.Parts(schema.Day, physical, time.Now(), 1, 1) {
		names = append(names, p.Table.Name)
	}
	for _, name := range names {
		if len(name) > 63 {
			t.Errorf("%s has %d bytes", name, len(name))
		}
	}
}
