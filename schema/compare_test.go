package schema_test

import (
	"strings"
	"testing"

	"tallyman/schema"
)

func TestCompare(t *testing.T) {
	t.Parallel()
	const before = "dataset: a/b\ncolumns:\n- {name: n, type: int64}\n- {name: note, type: text, nullable: true}\n"
	for name, tc := range map[string]struct {
		change, by, want string
		fits             bool
	}{
		"nothing":        {"int64", "int64", "", true},
		"added":          {"- {name: note", "- {name: m, type: json, nullable: true}\n- {name: note", `column "m" is new: json, nullable`, true},
		"another order":  {"- {name: n, type: int64}\n- {name: note, type: text, nullable: true}", "- {name: note, type: text, nullable: true}\n- {name: n, type: int64}", "columns are in another order", true},
		"required":       {"- {name: note", "- {name: m, type: json}\n- {name: note", `column "m" is new: json, required: make it nullable`, false},
		"other type":     {"int64", "float64", `column "n" is float64 instead of int64: keep its type`, false},
		"now required":   {", nullable: true", "", `column "note" has nullable false instead of true: keep`, false},
		"now nullable":   {"int64", "int64, nullable: true", `column "n" has nullable true instead of false: keep`, false},
		"gone":           {"- {name: n, type: int64}\n", "", `column "n" is gone: keep it`, false},
		"another name":   {"name: note", "name: remark", `column "remark" is new: text, nullable; column "note" is gone: keep it`, false},
		"topic":          {"columns:", "topic: t\ncolumns:", "topic t instead of a.b: keep", false},
		"table":          {"columns:", "table: {name: t}\ncolumns:", `table "public"."t" instead of "public"."b": keep`, false},
		"batch id":       {"columns:", "batch_id: false\ncolumns:", "batch_id false instead of true: keep", false},
		"primary key":    {"columns:", "table: {primary_key: [n]}\ncolumns:", `table.primary_key ["n"] instead of []: keep`, false},
		"partition":      {"columns:", "table: {partition: {by: at, every: day}}\ncolumns:\n- {name: at, type: date}", `table.partition by "at" every day instead of none: keep`, false},
		"indexes":        {"columns:", "table: {indexes: [{columns: [n]}]}\ncolumns:", `table.indexes are others: keep`, false},
		"existing table": {"columns:", "table: {existing: true}\ncolumns:", "table.existing true instead of false: keep", false},
	} {
		earlier, err := schema.ParseManifest([]byte(before))
		if err != nil {
			t.Fatal(err)
		}
		later, err := schema.ParseManifest([]byte(strings.Replace(before, tc.change, tc.by, 1)))
		if err != nil {
			t.Fatal(err)
		}
		differences := schema.Compare(earlier, later)
		var said []string
		for _, d := range differences {
			said = append(said, d.String())
		}
		got := strings.Join(said, "; ")
		if !strings.HasPrefix(got, tc.want) || tc.want == "" && got != "" || schema.Fit(differences) != tc.fits {
			t.Errorf("%s: %q, fits %t, want %q, %t", name, got, schema.Fit(differences), tc.want, tc.fits)
		}
	}
}
