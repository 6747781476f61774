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
		"existing table":    {"  existing: true\n  primary_key: [id]\n", "", `line 8: table: primary_key and indexes are for tables that Tallyman makes, and this one is existing: leave them out`},
		"existing, indexes": {"  existing: true\n  indexes: [{columns: [id]}]\n", "", `line 8: table: primary_key and indexes are for tables that Tallyman makes, and this one is existing: leave them out`},
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
