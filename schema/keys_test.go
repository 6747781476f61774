package schema_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tallyman/schema"
)

// keyed is a manifest with keys of its table.
func keyed(table, rest string) string {
	return "dataset: a/b\n" + rest + `columns:
- {name: id, type: int64}
- {name: at, type: date, nullable: true}
- {name: doc, type: json}
- {name: docs, type: "json[]"}
table:
` + table
}

func TestParseKeys(t *testing.T) {
	t.Parallel()
	m, err := schema.ParseManifest([]byte(keyed("  primary_key: [id]\n  indexes:\n  - {columns: [at, id], unique: true}\n  - {columns: [_batch_id]}\n", "")))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"id"}, m.PrimaryKey); diff != "" {
		t.Error(diff)
	}
	want := []schema.Index{{Columns: []string{"at", "id"}, Unique: true}, {Columns: []string{"_batch_id"}}}
	if diff := cmp.Diff(want, m.Indexes); diff != "" {
		t.Error(diff)
	}
	const canonical = `"table":{"indexes":[{"columns":["at","id"],"unique":true},{"columns":["_batch_id"],"unique":false}],"name":"b","primary_key":["id"],"schema":"public"}`
	if got := string(m.Canonical()); !strings.Contains(got, canonical) {
		t.Errorf("canonical form changed: %s", got)
	}
	again, err := schema.ParseCanonical(m.Canonical())
	if diff := cmp.Diff(m, again); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	// What says nothing leaves the canonical form, and so the hash, as it was.
	none, err := schema.ParseManifest([]byte(keyed("  indexes: []\n", "")))
	if err != nil || strings.Contains(string(none.Canonical()), "indexes") {
		t.Errorf("%s, %v", none.Canonical(), err)
	}
}

func TestParsePartition(t *testing.T) {
	t.Parallel()
	const text = "dataset: a/b\ncolumns: [{name: at, type: timestamptz}, {name: id, type: int64}]\n" +
		"table: {partition: {every: month, by: at}, primary_key: [id, at], indexes: [{columns: [id]}, {columns: [at], unique: true}]}\n"
	m, err := schema.ParseManifest([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&schema.Partition{By: "at", Every: schema.Month}, m.Partition); diff != "" {
		t.Error(diff)
	}
	const canonical = `"name":"b","partition":{"by":"at","every":"month"},"primary_key":["id","at"]`
	if got := string(m.Canonical()); !strings.Contains(got, canonical) {
		t.Errorf("canonical form changed: %s", got)
	}
	again, err := schema.ParseCanonical(m.Canonical())
	if diff := cmp.Diff(m, again); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if _, err := schema.ParseCanonical([]byte(strings.Replace(string(m.Canonical()), `{"by":"at","every":"month"}`, "null", 1))); err == nil {
		t.Error("null is taken for a partition")
	}
	m.Table.Name = strings.Repeat("n", 47)
	if err := m.Validate(); err == nil || !strings.Contains(err.Error(), "has 47 bytes, at most 46 are possible for a table with partitions") {
		t.Error(err)
	}
}

func TestParsePartitionFaults(t *testing.T) {
	t.Parallel()
	const lacks = `must contain the column "day", by which the table is partitioned, because each partition keeps its keys to itself: add it, or leave partition out`
	for name, tc := range map[string]struct{ table, want string }{
		"nothing":        {"  partition: {}\n", "line 9: table.partition.by: is required: a column of dates or timestamps\nline 9: table.partition.every: is required: day, month or year"},
		"null":           {"  partition:\n", "line 9: table.partition: is empty, want a mapping with the keys by, every"},
		"wrong kinds":    {"  partition: {by: [day], every: 2}\n", "line 9: table.partition.by: is a list, want a string (put it in quotes if it is meant to be one)\nline 9: table.partition.every: is \"2\", want a string (put it in quotes if it is meant to be one)"},
		"unknown":        {"  partition:\n    by: Day\n    every: week\n", "line 10: table.partition.by: there is no column \"Day\"\nline 11: table.partition.every: is \"week\", want day, month or year"},
		"no time":        {"  partition: {by: id, every: day}\n", `line 9: table.partition.by: column "id" is int64: name one that is date, timestamp or timestamptz`},
		"nullable":       {"  partition: {by: at, every: day}\n", `line 9: table.partition.by: column "at" is nullable: make it required, or partition by another`},
		"primary key":    {"  primary_key: [id]\n  partition: {by: day, every: day}\n", "line 9: table.primary_key: " + lacks},
		"unique index":   {"  partition: {by: day, every: day}\n  indexes:\n  - {columns: [at]}\n  - unique: true\n    columns: [id]\n", "line 13: table.indexes[1].columns: " + lacks},
		"existing table": {"  existing: true\n  partition: {by: day, every: day}\n", "line 9: table: primary_key, indexes and partition are for tables that Tallyman makes, and this one is existing: leave them out"},
	} {
		m, err := schema.ParseManifest([]byte(strings.Replace(keyed(tc.table, ""), "columns:\n", "columns:\n- {name: day, type: date}\n", 1)))
		if err == nil {
			t.Errorf("%s: accepted as %+v", name, m)
			continue
		}
		if diff := cmp.Diff(tc.want, fmt.Sprint(err)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestParseKeysFaults(t *testing.T) {
	t.Parallel()
	many := strings.TrimSuffix(strings.Repeat("id, ", 33), ", ")
	for name, tc := range map[string]struct{ table, rest, want string }{
		"no columns": {"  primary_key: []\n  indexes: [{unique: true}]\n", "", `
line 8: table.primary_key: needs at least one column
line 9: table.indexes[0].columns: needs at least one column`},
		"wrong kinds": {"  primary_key: id\n  indexes: {columns: [id]}\n", "", `
line 8: table.primary_key: is "id", want a list of columns
line 9: table.indexes: is a mapping, want a list of {columns, unique}`},
		"wrong kinds inside": {"  primary_key: [1]\n  indexes: [{columns: id, unique: 2}, x]\n", "", `
line 8: table.primary_key[0]: is "1", want a string (put it in quotes if it is meant to be one)
line 9: table.indexes[0].columns: is "id", want a list of columns
line 9: table.indexes[0].unique: is "2", want true or false
line 9: table.indexes[1]: is "x", want a mapping with the keys columns, unique`},
		"unknown key":       {"  indexes:\n  - {columns: [id], name: x}\n", "", `line 9: table.indexes[0]: unknown key "name": known are columns, unique`},
		"no such column":    {"  primary_key: [id, ID]\n", "", `line 8: table.primary_key[1]: there is no column "ID"`},
		"no lineage":        {"  indexes: [{columns: [_batch_id]}]\n", "batch_id: false\n", `line 9: table.indexes[0].columns[0]: there is no column "_batch_id"`},
		"twice":             {"  primary_key: [id, id]\n", "", `line 8: table.primary_key[1]: column "id" is there already`},
		"nullable":          {"  primary_key: [at]\n", "", `line 8: table.primary_key[0]: column "at" is nullable, and a primary key has no NULL`},
		"JSON":              {"  indexes:\n  - {columns: [doc]}\n  - columns:\n    - docs\n", "", "\nline 9: table.indexes[0].columns[0]: column \"doc\" is json, which has no order to index it by\nline 11: table.indexes[1].columns[0]: column \"docs\" is json[], which has no order to index it by"},
		"the same again":    {"  indexes: [{columns: [id, at]}, {columns: [at, id]}, {columns: [id, at], unique: true}]\n", "", `line 8: table.indexes[2]: has the columns of table.indexes[0]`},
		"too many":          {"  primary_key: [" + many + "]\n", "", `line 8: table.primary_key: has 33 columns, at most 32 are possible`},
		"existing table":    {"  existing: true\n  primary_key: [id]\n", "", `line 8: table: primary_key, indexes and partition are for tables that Tallyman makes, and this one is existing: leave them out`},
		"existing, indexes": {"  existing: true\n  indexes: [{columns: [id]}]\n", "", `line 8: table: primary_key, indexes and partition are for tables that Tallyman makes, and this one is existing: leave them out`},
	} {
		m, err := schema.ParseManifest([]byte(keyed(tc.table, tc.rest)))
		if err == nil {
			t.Errorf("%s: accepted as %+v", name, m)
			continue
		}
		if diff := cmp.Diff(strings.TrimPrefix(tc.want, "\n"), fmt.Sprint(err)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}
