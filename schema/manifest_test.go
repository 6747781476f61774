package schema_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"tallyman/schema"
)

const conversions = `dataset: ads/conversions-eu
topic: ads.conversions
table: {schema: marketing, name: conversions}
columns:
  - {name: click_id, type: uuid}
  - name: note
    type: text
    nullable: true
batch_id: false
`

func TestParseManifest(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		yaml string
		want schema.Manifest
	}{
		"everything said": {conversions, schema.Manifest{
			Dataset: schema.Dataset{Namespace: "ads", Name: "conversions-eu"},
			Topic:   "ads.conversions",
			Table:   schema.Table{Schema: "marketing", Name: "conversions"},
			Columns: []schema.Column{{Name: "click_id", Type: schema.UUID}, {Name: "note", Type: schema.Text, Nullable: true}},
		}},
		"defaults": {"dataset: ads/conversions-eu\ncolumns: [{name: 'Größe \"; drop', type: json}]\n", schema.Manifest{
			Dataset: schema.Dataset{Namespace: "ads", Name: "conversions-eu"},
			Topic:   "ads.conversions-eu",
			Table:   schema.Table{Schema: "public", Name: "conversions_eu"},
			Columns: []schema.Column{{Name: `Größe "; drop`, Type: schema.JSON}},
			BatchID: true,
		}},
		"a table that is there": {"dataset: a/b\ntable: {name: " + strings.Repeat("t", 63) + ", existing: true}\ncolumns: [{name: x, type: bool}]\n", schema.Manifest{
			Dataset:  schema.Dataset{Namespace: "a", Name: "b"},
			Topic:    "a.b",
			Table:    schema.Table{Schema: "public", Name: strings.Repeat("t", 63)},
			Columns:  []schema.Column{{Name: "x", Type: schema.Bool}},
			Existing: true,
		}},
		"half a table": {"dataset: a/b\ntable: {schema: s}\ncolumns: [{name: x, type: bool}]\n", schema.Manifest{
			Dataset: schema.Dataset{Namespace: "a", Name: "b"},
			Topic:   "a.b",
			Table:   schema.Table{Schema: "s", Name: "b"},
			Columns: []schema.Column{{Name: "x", Type: schema.Bool}},
			BatchID: true,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := schema.ParseManifest([]byte(tc.yaml))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseManifestFaults(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 64)
	for name, tc := range map[string]struct{ yaml, want string }{
		"empty":        {"", "the manifest is empty"},
		"only comment": {"# nothing\n", "the manifest is empty"},
		"syntax":       {"dataset: [\n", "line 1: did not find expected node content"},
		"not a map":    {"- a\n", "line 1: is a list, want a mapping with the keys batch_id, columns, dataset, sources, table, topic"},
		"two":          {"dataset: a/b\n---\nx: 1\n", "line 2: a second document: one manifest a file"},
		"unknown keys, all of them": {"datasett: a/b\ncolumns:\n- {name: a, type: bool, nullabel: true}\ntable: {nam: b}\n", `
line 1: unknown key "datasett": known are batch_id, columns, dataset, sources, table, topic
line 1: dataset: is required: namespace/name
line 3: columns[0]: unknown key "nullabel": known are name, nullable, type
line 4: table: unknown key "nam": known are existing, indexes, name, partition, primary_key, schema`},
		"repeated key":  {"dataset: a/b\ndataset: a/c\ncolumns: [{name: x, type: bool}]\n", `line 2: key "dataset" is already in line 1`},
		"dataset":       {"dataset: Ads/x y\ncolumns: [{name: x, type: bool}]\n", `line 1: dataset: dataset "Ads/x y" is not namespace/name: each part is a lower-case letter or digit, then lower-case letters, digits, _ or - (at most 100)`},
		"wrong kinds":   {"dataset: 1\ntopic:\ntable: []\ncolumns: {}\nbatch_id: yes\n", "\nline 1: dataset: is \"1\", want a string (put it in quotes if it is meant to be one)\nline 2: topic: is empty, want a string (put it in quotes if it is meant to be one)\nline 3: table: is a list, want a mapping with the keys existing, indexes, name, partition, primary_key, schema\nline 4: columns: is a mapping, want a list of {name, type, nullable}\nline 5: batch_id: is \"yes\", want true or false"},
		"no columns":    {"dataset: a/b\n", "line 1: columns: a dataset needs at least one column"},
		"empty columns": {"dataset: a/b\ncolumns: []\n", "line 2: columns: a dataset needs at least one column"},
		"column kinds":  {"dataset: a/b\ncolumns:\n- x\n- {name: 1, type: [bool]}\n", "\nline 3: columns[0]: is \"x\", want a mapping with the keys name, nullable, type\nline 4: columns[1].name: is \"1\", want a string (put it in quotes if it is meant to be one)\nline 4: columns[1].type: is a list, want a string (put it in quotes if it is meant to be one)"},
		"column faults": {"dataset: a/b\ncolumns:\n- {name: a, type: int}\n- {name: a, type: bool}\n- {name: _batch_id, type: uuid}\n- {type: bool}\n- {name: b}\n- {name: xmin, type: bool}\n", "\nline 3: columns[0].type: unknown type \"int\": one of bool, bytes, date, decimal(P,S), float32, float64, int16, int32, int64, json, text, time, timestamp, timestamptz, uuid, or an array of one as in int64[]\nline 4: columns[1].name: column \"a\" is already columns[0]\nline 5: columns[2].name: the name \"_batch_id\" is reserved\nline 6: columns[3].name: is required\nline 7: columns[4].type: is required: one of bool, bytes, date, decimal(P,S), float32, float64, int16, int32, int64, json, text, time, timestamp, timestamptz, uuid, or an array of one as in int64[]\nline 8: columns[5].name: the name \"xmin\" is reserved"},
		"decimals": {"dataset: a/b\ncolumns:\n- {name: a, type: decimal}\n- {name: b, type: 'decimal(12, 2)'}\n- name: c\n  type: decimal(1001,2)\n- name: d\n  type: decimal(2,3)[]\n", strings.Join([]string{"",
			decimalFault(3, "columns[0]", "decimal"), decimalFault(4, "columns[1]", "decimal(12, 2)"), decimalFault(6, "columns[2]", "decimal(1001,2)"), decimalFault(8, "columns[3]", "decimal(2,3)[]"),
		}, "\n")},
		"decimal cut by a brace": {"dataset: a/b\ncolumns: [{name: a, type: decimal(12,2)}]\n", `line 2: columns[0]: unknown key "2)": known are name, nullable, type` + "\n" + decimalFault(2, "columns[0]", "decimal(12")},
		"long names":             {"dataset: a/b\ntable: {name: " + long[:51] + ", schema: " + long + "}\ncolumns: [{name: " + long + ", type: bool}]\n", "\nline 2: table.schema: the name \"" + long + "\" has 64 bytes, at most 63 are possible\nline 2: table.name: the name \"" + long[:51] + "\" has 51 bytes, at most 50 are possible\nline 3: columns[0].name: the name \"" + long + "\" has 64 bytes, at most 63 are possible"},
		"long by default":        {"dataset: a/" + long + "\ncolumns: [{name: x, type: bool}]\n", "line 1: table.name: the name \"" + long + "\" has 64 bytes, at most 50 are possible"},
		"NUL":                    {"dataset: a/b\ncolumns: [{name: \"x\\0\", type: bool}]\n", `line 2: columns[0].name: the name "x\x00" contains a NUL`},
		"invalid UTF-8":          {"dataset: \"a/b\xff\"\n", "invalid leading UTF-8 octet"},
		"topic":                  {"dataset: a/b\ntopic: a/b\ncolumns: [{name: x, type: bool}]\n", `line 2: topic: topic "a/b" is not 1 to 249 of the letters a-z, A-Z, digits, '.', '_' and '-'`},
		"reserved topic":         {"dataset: tallyman/receipts\ncolumns: [{name: x, type: bool}]\n", `line 1: topic: topic "tallyman.receipts" is reserved: names that begin with "tallyman." or "__" are not for datasets`},
		"no lineage there":       {"dataset: a/b\ntable: {existing: true}\nbatch_id: true\ncolumns: [{name: x, type: bool}]\n", `line 3: batch_id: must be false: a table that was there before has no column _batch_id`},
		"reserved schemas":       {"dataset: a/b\ntable: {schema: pg_temp}\ncolumns: [{name: x, type: bool}]\n", `line 2: table.schema: schema "pg_temp" is reserved`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, err := schema.ParseManifest([]byte(tc.yaml))
			if err == nil {
				t.Fatalf("accepted as %+v", m)
			}
			if diff := cmp.Diff(strings.TrimPrefix(tc.want, "\n"), err.Error()); diff != "" {
				t.Error(diff)
			}
			if fs := (schema.Faults)(nil); !errors.As(err, &fs) {
				t.Errorf("error is a %T, want schema.Faults", err)
			}
		})
	}
}

func decimalFault(line int, column, typ string) string {
	return fmt.Sprintf("line %d: %s.type: %q is not a decimal with its digits: want decimal(P,S) with P from 1 to 1000 digits in all and S from 0 to P after the point, "+
		"as in decimal(12,2), without blanks, and in quotes if it is inside braces", line, column, typ)
}

// Of each type there is one spelling.
func TestTypes(t *testing.T) {
	t.Parallel()
	for typ, want := range map[schema.Type]schema.Facts{
		"int64":              {Name: schema.Int64, Size: 8},
		"int64[]":            {Name: schema.Int64, Size: schema.Variable, ElementSize: 8, Array: true},
		"text[]":             {Name: schema.Text, Size: schema.Variable, ElementSize: schema.Variable, Array: true},
		"decimal(1,0)":       {Name: schema.Decimal, Size: schema.Variable, Precision: 1},
		"decimal(1000,1000)": {Name: schema.Decimal, Size: schema.Variable, Precision: 1000, Scale: 1000},
		"decimal(12,2)[]":    {Name: schema.Decimal, Size: schema.Variable, ElementSize: schema.Variable, Precision: 12, Scale: 2, Array: true},
	} {
		if got, ok := typ.Facts(); !ok || got != want {
			t.Errorf("%s: got %+v, %t, want %+v", typ, got, ok, want)
		}
	}
	for _, typ := range []schema.Type{
		"", "[]", "Int64", "int64 ", "int", "int64[][]", "int64[3]", "int64()", "int64(8)", "text(10)",
		"decimal", "decimal[]", "decimal(", "decimal()", "decimal(12)", "decimal(12,)", "decimal(,2)", "decimal(12,2", "decimal(12,2))", "decimal(12,2,1)", "decimal(12, 2)", "decimal (12,2)",
		"decimal(012,2)", "decimal(+12,2)", "decimal(12,-2)", "decimal(0,0)", "decimal(1001,0)", "decimal(2,3)", "decimal(99999999999999999999,0)", "decimal(12,2)[][]", "DECIMAL(12,2)",
	} {
		if facts, ok := typ.Facts(); ok {
			t.Errorf("%q is taken for %+v", typ, facts)
		}
	}
}

func TestCanonicalIsFrozen(t *testing.T) {
	t.Parallel()
	m, err := schema.ParseManifest([]byte("dataset: ads/conversions\ncolumns: [{name: click_id, type: uuid}, {name: \"a<b>\\u2028é\\n\", type: text, nullable: true}]"))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"batch_id":true,"columns":[{"name":"click_id","nullable":false,"type":"uuid"},` +
		`{"name":"a<b>` + "\u2028" + `é\n","nullable":true,"type":"text"}],"dataset":"ads/conversions",` +
		`"table":{"name":"conversions","schema":"public"},"topic":"ads.conversions"}`
	if got := string(m.Canonical()); got != want {
		t.Errorf("canonical form changed\n got %s\nwant %s", got, want)
	}
	if got, want := m.Ref(), "ads/conversions@cba95510eab7a101c53c1ca16fa29e077bb56058e679aa8bc6f3f3f57a54c61c"; got != want {
		t.Errorf("ref changed\n got %s\nwant %s", got, want)
	}
}

func TestParseCanonicalIsStrict(t *testing.T) {
	t.Parallel()
	const good = `{"topic": "a.b", "table": {"name": "b", "schema": "public"}, "columns": [{"name": "x", "type": "bool", "nullable": false}], "dataset": "a/b", "batch_id": true}`
	if _, err := schema.ParseCanonical([]byte(good)); err != nil {
		t.Fatalf("as a database prints it: %v", err)
	}
	for name, bad := range map[string]string{
		"default left out": strings.Replace(good, `, "batch_id": true`, "", 1),
		"null":             strings.Replace(good, `true`, "null", 1),
		"default said":     strings.Replace(good, `"name": "b"`, `"name": "b", "existing": false`, 1),
		"unknown key":      strings.Replace(good, `"batch_id"`, `"extra": 1, "batch_id"`, 1),
		"other case":       strings.Replace(good, `"batch_id"`, `"Batch_ID"`, 1),
		"repeated key":     strings.Replace(good, `"topic"`, `"topic": "a.b", "topic"`, 1),
		"invalid":          strings.Replace(good, `"bool"`, `"int"`, 1),
		"bad dataset":      strings.Replace(good, `"a/b"`, `"a"`, 1),
		"trailing":         good + "{}",
		"not JSON":         "dataset: a/b",
		"empty":            "",
	} {
		if m, err := schema.ParseCanonical([]byte(bad)); err == nil {
			t.Errorf("%s: accepted as %+v", name, m)
		}
	}
}

func TestCanonicalRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := manifests().Draw(t, "manifest")
		if err := m.Validate(); err != nil {
			t.Fatalf("the generator made an invalid manifest: %v", err)
		}
		got, err := schema.ParseCanonical(m.Canonical())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

// manifests generates valid manifests with every kind of name.
func manifests() *rapid.Generator[schema.Manifest] {
	part := rapid.StringMatching(`[a-z0-9][a-z0-9_-]{0,20}`)
	name := rapid.StringOfN(rapid.Rune().Filter(func(r rune) bool { return r != 0 }), 1, 12, 50).
		Filter(func(s string) bool { return s != schema.BatchIDColumn })
	types := rapid.Custom(func(t *rapid.T) schema.Type {
		typ := rapid.SampledFrom(schema.Types()).Draw(t, "name")
		if typ == schema.Decimal {
			precision := rapid.IntRange(1, schema.MaxPrecision).Draw(t, "precision")
			typ = schema.MakeDecimal(precision, rapid.IntRange(0, precision).Draw(t, "scale"))
		}
		if rapid.Bool().Draw(t, "array") {
			typ = schema.ArrayOf(typ)
		}
		return typ
	})
	return rapid.Custom(func(t *rapid.T) schema.Manifest {
		m := schema.Manifest{
			Dataset: schema.Dataset{Namespace: part.Draw(t, "namespace"), Name: part.Draw(t, "name")},
			Topic:   rapid.StringMatching(`[a-zA-Z0-9][a-zA-Z0-9._-]{0,40}`).Draw(t, "topic"),
			Table:   schema.Table{Schema: "s" + part.Draw(t, "schema"), Name: name.Draw(t, "table")},
			BatchID: rapid.Bool().Draw(t, "batch_id"),
		}
		m.Existing = !m.BatchID && rapid.Bool().Draw(t, "existing")
		for _, n := range rapid.SliceOfNDistinct(name, 1, 10, func(s string) string { return s }).Draw(t, "columns") {
			m.Columns = append(m.Columns, schema.Column{
				Name:     n,
				Type:     types.Draw(t, "type"),
				Nullable: rapid.Bool().Draw(t, "nullable"),
			})
		}
		for _, n := range rapid.SliceOfNDistinct(part, 0, 3, func(s string) string { return s }).Draw(t, "sources") {
			m.Sources = append(m.Sources, schema.Source{Name: n, Continuous: rapid.Bool().Draw(t, "continuous")})
		}
		if c := m.Columns[0]; !m.Existing && !c.Nullable && !strings.HasPrefix(string(c.Type), "json") && rapid.Bool().Draw(t, "keys") {
			m.PrimaryKey = []string{c.Name}
			m.Indexes = []schema.Index{{Columns: []string{c.Name}, Unique: rapid.Bool().Draw(t, "unique")}}
		}
		return m
	})
}

func TestParseRef(t *testing.T) {
	t.Parallel()
	hash := strings.Repeat("0a", 32)
	for _, s := range []string{"a/b", "a-1/b_2@" + hash} {
		r, err := schema.ParseRef(s)
		if err != nil || r.String() != s {
			t.Errorf("ParseRef(%q) = %v, %v", s, r, err)
		}
	}
	for _, s := range []string{"", "a", "a/", "/b", "a/b/c", "a/b@", "a/b@" + hash[1:], "a/b@" + strings.ToUpper(hash), "-a/b", "a/b\n"} {
		if r, err := schema.ParseRef(s); err == nil {
			t.Errorf("ParseRef(%q) = %v, want an error", s, r)
		}
	}
}

// FuzzParseManifest: it never panics; what it accepts is valid, and its
// canonical form reads back to the same manifest.
func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(conversions))
	f.Add([]byte("dataset: &a a/b\ncolumns: [&c {name: x, type: bool}, *c]\n"))
	f.Add([]byte("a: &a [*a]\n? {x: y}\n: 1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := schema.ParseManifest(text)
		if err != nil {
			return
		}
		if err := m.Validate(); err != nil {
			t.Fatalf("accepted, but invalid: %v", err)
		}
		got, err := schema.ParseCanonical(m.Canonical())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m, got); diff != "" {
			t.Fatal(diff)
		}
	})
}
