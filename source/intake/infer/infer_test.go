package infer_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"go.uber.org/goleak"

	"tallyman/schema"
	"tallyman/schema/rows"
	"tallyman/source/intake"
	"tallyman/source/intake/infer"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func dataset() schema.Dataset { return schema.Dataset{Namespace: "files", Name: "test"} }

// tb is what testing and rapid have in common.
type tb interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
	Context() context.Context
}

// inferred infers a text's manifest, which must be good for the text itself.
func inferred(t tb, format intake.Format, text string) (*infer.Result, error) {
	t.Helper()
	l := intake.Layout{Format: format}
	r, err := infer.Infer(t.Context(), strings.NewReader(text), infer.Config{Dataset: dataset(), Layout: l})
	if err == nil {
		checkManifest(t, r)
		if err := encode(t, []byte(text), l, r.Manifest); err != nil {
			t.Fatalf("%v\nthe manifest\n%s\ndoes not take\n%q", err, r.YAML("test"), text)
		}
	}
	return r, err
}

// checkManifest sees that the text of a manifest reads as the manifest.
func checkManifest(t tb, r *infer.Result) {
	t.Helper()
	text := r.YAML("a\nname: \x7f\u2028")
	m, err := schema.ParseManifest(text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if diff := cmp.Diff(r.Manifest, m); diff != "" {
		t.Fatalf("%s\nin\n%s", diff, text)
	}
}

// encode encodes every row of a text by a manifest, as a push does.
func encode(t tb, text []byte, l intake.Layout, m schema.Manifest) error {
	t.Helper()
	codec, err := rows.NewCodec(m)
	if err != nil {
		t.Fatal(err)
	}
	return intake.Read(t.Context(), bytes.NewReader(text), l, &encoder{codec: codec})
}

type encoder struct {
	codec *rows.Codec
	tuple []byte
}

func (e *encoder) Header([]string) error { return nil }

func (e *encoder) Fields(line int64, fields []rows.Field) (err error) {
	e.tuple, err = e.codec.AppendText(e.tuple[:0], uuid.Nil, fields)
	return err
}

func (e *encoder) Object(line int64, object []byte) (err error) {
	e.tuple, _, err = e.codec.AppendNDJSON(e.tuple[:0], uuid.Nil, object)
	return err
}

// Files as people have them; see testdata/README.md for where they come from.
func TestInferFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.*")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, name := range files {
		format, err := intake.FormatOf(name)
		if err != nil {
			continue // golden files
		}
		seen++
		t.Run(filepath.Base(name), func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			l := intake.Layout{Format: format}
			var got []byte
			r, err := infer.Infer(t.Context(), bytes.NewReader(text), infer.Config{Dataset: infer.DatasetOf(name), Layout: l})
			if err != nil {
				got = []byte("error: " + err.Error() + "\n")
			} else {
				checkManifest(t, r)
				if err := encode(t, text, l, r.Manifest); err != nil {
					t.Error(err)
				}
				got = r.YAML(filepath.Base(name))
			}
			golden := name + ".golden"
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
	if seen < 10 {
		t.Errorf("only %d files in testdata", seen)
	}
}

// types returns the columns' types.
func types(r *infer.Result) string {
	var all []string
	for _, c := range r.Manifest.Columns {
		all = append(all, string(c.Type))
	}
	return strings.Join(all, " ")
}

func TestInferTypesOfCSV(t *testing.T) {
	for _, tc := range []struct{ values, want, note string }{
		{"true\nFALSE", "bool", ""},
		{"t\nf", "bool", ""},
		{"F\nF", "text", ""},
		{"F\nM", "text", ""},
		{"1\n0", "int64", "only 0 and 1: bool would do"},
		{"-12\n9223372036854775807", "int64", ""},
		{"12\n9223372036854775808", "decimal(38,0)", ""},
		{"00123\n45", "text", "digits with a zero or a plus sign in front"},
		{"+4917\n+4918", "text", "digits with a zero or a plus sign in front"},
		{"1.5\n2", "decimal(18,1)", ""},
		{"-0.25\n1234567890123456.125", "decimal(38,3)", ""},
		{"-0.0\n1", "float64", ""},
		{"1e5\n123456789012345678", "text", "numbers that no type holds exactly"},
		{"1.5\nNaN\n-Infinity", "float64", ""},
		{"1e10\n.5", "float64", ""},
		{"0.1234567890123456\n1", "decimal(38,16)", ""},
		{"1234567890123456789012345678901234567890\n0.5", "decimal(41,1)", ""},
		{"1.5\nNA", "text", "decimal(18,1) if NA is NULL, as --null NA says"},
		{"\\N\n1", "text", `int64 if '\N' is NULL, as --null '\N' says`},
		{"NA\nNA", "text", ""},
		{"1.5\nn.a.", "text", `decimal(18,1) but for line 3, "n.a."`},
		{"007.5\n1", "text", ""},
		{"0x10\n1", "text", ""},
		{"0b5e6b4c-6d1c-4a47-8f2e-0d2ab9b6c001\n11111111-2222-3333-4444-555555555555", "uuid", ""},
		{"0B5E6B4C-6D1C-4A47-8F2E-0D2AB9B6C001\n11111111-2222-3333-4444-555555555555", "uuid", "upper case"},
		{"0b5e6b4c-6d1c-4a47-8f2e-0d2ab9b6c001\n0B5E6B4C-6D1C-4A47-8F2E-0D2AB9B6C001", "text", "UUIDs in several spellings"},
		{"d41d8cd98f00b204e9800998ecf8427e\nd41d8cd98f00b204e9800998ecf8427f", "text", ""},
		{"2024-02-29T12:00:00Z\n2024-02-29 12:00:00.5+01", "timestamptz", ""},
		{"2024-02-29T12:00:00Z\n2023-02-29T12:00:00Z", "text", `timestamptz but for line 3, "2023-02-29T12:00:00Z"`},
		{"2024-02-29T12:00:00.1234567Z\n2024-02-29T12:00:00Z", "text", ""},
		{"2024-02-29 12:00:00\n2024-03-01T12:00:00.25", "timestamp", ""},
		{"2024-02-29 12:00\n2024-03-01 12:00:00", "text", "times as YYYY-MM-DD HH:MM, not all with seconds"},
		{"2024-02-29T12:00:00Z\n2024-03-01T12:00:00", "text", ""},
		{"2024-02-29\n2024-03-01", "date", ""},
		{"2024-02-29\n2023-02-29", "text", `date but for line 3, "2023-02-29"`},
		{"29.02.2024\n1.3.2024", "text", "dates as DD.MM.YYYY"},
		{"01/02/2024\n03/04/2024", "text", "which these values leave open"},
		{"01/02/2024\n03/14/2024", "text", "dates as MM/DD/YYYY"},
		{"01/02/2024\n14/03/2024", "text", "dates as DD/MM/YYYY"},
		{"14-Mar-2024\n01-Feb-2024", "text", "dates with the month's name"},
		{"\"1,234.50\"\n12", "text", "numbers with commas between thousands"},
		{"\"1,5\"\n12", "text", "numbers with a decimal comma"},
		{`"{""a"":1}"` + "\n" + `"[1,2]"`, "json", ""},
		{`"{""a"":1}"` + "\n{broken", "text", `json but for line 3, "{broken"`},
		{"12:30:00\n07:15:01.5", "time", ""},
		{"12:30\n07:15:01", "text", "times of day"},
		{"\"\"\n1", "text", ""},
		{"\"one\ntwo\"\nthree", "text", ""},
	} {
		r, err := inferred(t, intake.CSV, "v,w\n"+strings.ReplaceAll(tc.values, "\n", ",x\n")+",x\n")
		if strings.Contains(tc.values, "one") { // the newline is in quotes
			r, err = inferred(t, intake.CSV, "v,w\n\"one\ntwo\",x\nthree,x\n")
		}
		if err != nil {
			t.Errorf("%q: %v", tc.values, err)
			continue
		}
		if got := string(r.Manifest.Columns[0].Type); got != tc.want || !strings.Contains(string(r.YAML("test")), tc.note) {
			t.Errorf("%q is %s, want %s with the note %q:\n%s", tc.values, got, tc.want, tc.note, r.YAML("test"))
		}
	}
}

func TestInferTypesOfNDJSON(t *testing.T) {
	for _, tc := range []struct{ values, want string }{
		{"true\nfalse", "bool"},
		{"1\n-2", "int64"},
		{"1\n1.0", "decimal(18,1)"},
		{"1\n1e2", "float64"},
		{"12345678901234567890\n1", "decimal(38,0)"},
		{`"a"` + "\n" + `"\u00e9"`, "text"},
		{`"1"` + "\n" + `"2"`, "text"},
		{`"a"` + "\n1", "json"},
		{"[1,2]\n[]", "int64[]"},
		{"[]\n[null]", "json"},
		{"[1.5]\n[1]", "json"},
		{"[true]\n[null,false]", "bool[]"},
		{`["a"]` + "\n" + `[null, "b\\"]`, "text[]"},
		{"[1]\n[[1]]", "json"},
		{`"2024-02-29"` + "\nnull", "date"},
		{`{"b":1}` + "\nnull", "json"},
		{"null\nnull", "text"},
		{`"2024-02-29T12:00:00Z"` + "\nnull", "timestamptz"},
		{`"2024-02-29 12:00:00Z"` + "\nnull", "text"},
		{`"0b5e6b4c-6d1c-4a47-8f2e-0d2ab9b6c001"` + "\nnull", "uuid"},
		{`"true"` + "\n" + `"false"`, "text"},
	} {
		var text string
		for v := range strings.Lines(tc.values) {
			text += `{"v":` + strings.TrimSuffix(v, "\n") + "}\n"
		}
		r, err := inferred(t, intake.NDJSON, text)
		if err != nil {
			t.Errorf("%q: %v", tc.values, err)
			continue
		}
		if got := types(r); got != tc.want {
			t.Errorf("%q is %s, want %s", tc.values, got, tc.want)
		}
	}
}

func TestInferRefuses(t *testing.T) {
	for _, tc := range []struct {
		format     intake.Format
		text, want string
	}{
		{intake.CSV, "", "line 1: the file is empty: CSV begins with a header that names the columns"},
		{intake.NDJSON, "", "the file is empty, so nothing tells columns and types"},
		{intake.CSV, "a,b\n", "there is a header and not one row, so nothing tells the types"},
		{intake.CSV, "a,b\n1,2\n3\n", "line 3: 1 fields, the header has 2"},
		{intake.CSV, "a,b\n1,2\n3,4,5\n", "line 3: more fields than the header's 2"},
		{intake.CSV, "a,b\n1,2\n\n", "line 3: a blank line"},
		{intake.CSV, ",a,a,_batch_id,ctid\n1,2,3,4,5\n", `line 1: header: column 1 has no name; column "a" comes more than once; column 4: the name "_batch_id" is reserved; ` +
			`column 5: the name "ctid" is reserved. A push finds columns by the header, so the file has to be changed`},
		{intake.CSV, strings.Repeat("n", 64) + ",b\n1,2\n", "at most 63 are possible"},
		{intake.CSV, "a;b\n1;2\n", `line 1: header: one column, as it seems separated by ";"; fields have to be separated by commas`},
		{intake.CSV, "\xff\xfea\x00,\x00b\x00\n\x00", "iconv -f UTF-16"},
		{intake.CSV, "a,b\n1,Zo\xeb\n", `line 2, column "b": "Zo\xeb" is not valid UTF-8`},
		{intake.CSV, "a,b\n1,x\x00\n", "contains U+0000"},
		{intake.CSV, "a,b\n1,\"x\n2,y\n", "line 2: a quote that is not closed"},
		{intake.CSV, strings.Repeat("c,", 1599) + "c\n", "1600 columns, and a table has room for 1599"},
		{intake.NDJSON, "{}\n{}\n", "no row has a key, so there are no columns"},
		{intake.NDJSON, "{\"a\":1}\n\n", "line 2: a blank line"},
		{intake.NDJSON, "{\"a\":1}\n[1]\n", "line 2: want a JSON object"},
		{intake.NDJSON, "{\"a\":1}{\"a\":2}\n", "line 1: want one JSON object a line"},
		{intake.NDJSON, "{\"a\":1\n", "line 1: invalid JSON: it ends too early"},
		{intake.NDJSON, "{\"a\":1,\"a\":2}\n", "line 1: invalid JSON: duplicate"},
		{intake.NDJSON, `{"a":"\u0000"}`, `line 1, column "a": `},
		{intake.NDJSON, `{"a":{"b":"\u0000"}}`, `line 1, column "a": the JSON contains \u0000`},
		{intake.NDJSON, `{"a":"\ud800"}`, "line 1: invalid JSON"},
		{intake.NDJSON, `{"":1}`, "line 1: key: "},
		{intake.NDJSON, `{"xmin":1}`, `the name "xmin" is reserved`},
	} {
		_, err := inferred(t, tc.format, tc.text)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%.60q: %v, want %s", tc.text, err, tc.want)
		}
	}
}

// Names stay as they are: a push finds columns by them.
func TestInferKeepsNames(t *testing.T) {
	names := []string{"a b", "Größe", `say "hi"`, "two\nlines", "true", "no", "1", "a: b", "#", "x'y", "日本", "\u2028", "\x7f", "~", "\U0001F600", "{", " a "}
	var header []string
	for _, n := range names {
		header = append(header, `"`+strings.ReplaceAll(n, `"`, `""`)+`"`)
	}
	r, err := inferred(t, intake.CSV, "\ufeff"+strings.Join(header, ",")+"\r\n"+strings.Repeat("1,", len(names)-1)+"1\r\n")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range r.Manifest.Columns {
		got = append(got, c.Name)
	}
	if diff := cmp.Diff(names, got); diff != "" {
		t.Error(diff)
	}
}

// A sample says that it is one, unless it is the whole file.
func TestInferSample(t *testing.T) {
	text := "a\n1\n2\nx\n"
	for sample, want := range map[int64]string{2: "int64 true", 3: "text false", 4: "text false", 0: "text false"} {
		r, err := infer.Infer(t.Context(), strings.NewReader(text), infer.Config{
			Dataset: dataset(), Layout: intake.Layout{Format: intake.CSV}, Sample: sample,
		})
		if err != nil {
			t.Fatal(err)
		}
		got := types(r) + map[bool]string{true: " true", false: " false"}[r.Sampled]
		if told := strings.Contains(string(r.YAML("f")), "a later row may need a wider type"); got != want || told != r.Sampled {
			t.Errorf("a sample of %d: %s, want %s\n%s", sample, got, want, r.YAML("f"))
		}
	}
}

func TestInferNull(t *testing.T) {
	text := "a,b\n1,\nNA,\n"
	r, err := infer.Infer(t.Context(), strings.NewReader(text), infer.Config{
		Dataset: dataset(), Layout: intake.Layout{Format: intake.CSV, Null: "NA"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := types(r); got != "int64 text" {
		t.Error(got)
	}
	var e *intake.RowError
	if _, err := inferred(t, intake.CSV, "a\nx\xff\n"); !errors.As(err, &e) || e.Line != 2 || e.Column != "a" {
		t.Errorf("%v", err)
	}
}

func TestInferDatasetOf(t *testing.T) {
	for file, want := range map[string]string{
		"/data/Iris 2024.csv.gz": "files/iris_2024", "-": "files/rows", "ünï.csv": "files/n", "C:\\x\\a-b.ndjson": "files/a-b",
		strings.Repeat("x", 80) + ".csv": "files/" + strings.Repeat("x", 50),
	} {
		d := infer.DatasetOf(file)
		if _, err := schema.ParseDataset(d.String()); err != nil || d.String() != want {
			t.Errorf("%s: %s, want %s: %v", file, d, want, err)
		}
	}
}
