package infer_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"tallyman/source/intake"
	"tallyman/source/intake/infer"
)

// cells are values that types differ about.
func cells() []string {
	return []string{
		"", `""`, "0", "1", "-1", "-0", "00", "007", "+1", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "1e3", "1E400", "1e-400",
		"1.5", ".5", "5.", "0.1", "1_000", "0x1p3", "123456789012345678.5", "NaN", "nan", "Infinity", "-Infinity", "inf", "NA", `\N`, "null",
		"t", "f", "T", "true", "FALSE", "tr", "0b5e6b4c-6d1c-4a47-8f2e-0d2ab9b6c001", "0B5E6B4C-6D1C-4A47-8F2E-0D2AB9B6C001",
		"{0b5e6b4c-6d1c-4a47-8f2e-0d2ab9b6c001}", "11111111-2222-3333-4444-555555555555", "2024-02-29T12:00:00Z", "2024-02-29 12:00:00+01",
		"2023-02-29T12:00:00Z", "0000-01-01T00:00:00Z", "2024-02-29T12:00:60Z", "2024-02-29T12:00:00.1234567Z", "2024-02-29", "29.02.2024",
		"2023-02-29", "0000-01-01", "9999-12-31", "2024-02-29 12:00:00", "2024-02-29T12:00:00.25", "2024-02-29 24:00:00", "12:30:00", "24:00:00", "12:30:60", "12:30:00.1234567",
		"0.000000000000000000000000000000000000000000001", "123456789012345678901234567890123456789012", "-0.0", "-.5",
		"12:30", "{}", "[]", `"{""a"":[1]}"`, `"{""a"":""\u0000""}"`, `"{""a"":1,""a"":2}"`, "[1", `"a,b"`, "\"a\nb\"", "\"a\r\nb\"", `"say ""hi"""`, "ü", "\u2028", " 1", "1 ", `\.`,
	}
}

// members are values of JSON.
func members() []string {
	return []string{
		"null", "true", "false", "0", "-1", "-0", "1.5", "1e5", "1E400", "9223372036854775808", "123456789012345678.5", `""`, `"a"`, `"\u00e9"`, `"\\u0000"`, `"1"`, `"NaN"`,
		`"0b5e6b4c-6d1c-4a47-8f2e-0d2ab9b6c001"`, `"{0b5e6b4c-6d1c-4a47-8f2e-0d2ab9b6c001}"`, `"2024-02-29T12:00:00Z"`, `"2024-02-29 12:00:00Z"`,
		`"2024-02-29 12:00:00"`, `"2024-02-29T12:00:00"`, `"12:30:00"`, `"12:30:0\u0030"`, `"2024-02-3\u0030"`, `123456789012345678901234567890123456789012`, `0.00000000000000000000000001`, `-0.0`,
		`[1]`, `[1,null, 2 ]`, `[9223372036854775808]`, `[1.0]`, `["a","\u0041\\"]`, `[true]`, `[[1]]`, `[null]`, `["\n"]`,
		`"2024-02-29T12:00:00+01"`, `"2024-02-29T12:00:00\u005a"`, `"2024-02-29T12:00:00\\u005a"`, `"2024-02-29"`, `[]`, `[1,"a"]`, `{"a":{"b":null}}`, `{ }`,
	}
}

// Whatever a file holds, its manifest takes every row of it.
func TestInferAnyCSV(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		width := rapid.IntRange(1, 4).Draw(r, "width")
		pools := make([]*rapid.Generator[string], width)
		var header []string
		for i := range pools {
			few := rapid.SliceOfN(rapid.SampledFrom(cells()), 1, 4).Draw(r, "values of a column")
			pools[i] = rapid.SampledFrom(few)
			header = append(header, strings.Repeat("c", i+1))
		}
		lines := []string{strings.Join(header, ",")}
		for range rapid.IntRange(1, 30).Draw(r, "rows") {
			var row []string
			for _, p := range pools {
				row = append(row, p.Draw(r, "cell"))
			}
			lines = append(lines, strings.Join(row, ","))
		}
		newline := rapid.SampledFrom([]string{"\n", "\r\n"}).Draw(r, "newline")
		if _, err := inferred(r, intake.CSV, strings.Join(lines, newline)+newline); err != nil {
			r.Fatal(err)
		}
	})
}

func TestInferAnyNDJSON(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		var text strings.Builder
		few := rapid.SliceOfN(rapid.SampledFrom(members()), 1, 5).Draw(r, "values")
		for range rapid.IntRange(1, 30).Draw(r, "rows") {
			var row []string
			for _, key := range rapid.Permutation([]string{`"a"`, `"\u0062"`, `"c d"`}).Draw(r, "keys") {
				if rapid.Bool().Draw(r, "present") || key == `"a"` {
					row = append(row, key+": "+rapid.SampledFrom(few).Draw(r, "value"))
				}
			}
			text.WriteString(" {" + strings.Join(row, " , ") + "}\n")
		}
		if _, err := inferred(r, intake.NDJSON, text.String()); err != nil {
			r.Fatal(err)
		}
	})
}

// FuzzInfer: bytes either make a manifest that takes every row of them, or an
// error that a person can read; nothing panics.
func FuzzInfer(f *testing.F) {
	for _, c := range cells() {
		f.Add([]byte("a,b\n"+c+",1\n,"+c+"\n"), false)
	}
	for _, m := range members() {
		f.Add([]byte(`{"a":`+m+"}\n{\"b\":"+m+"}"), true)
	}
	f.Fuzz(func(t *testing.T, text []byte, isJSON bool) {
		l := intake.Layout{Format: intake.CSV}
		if isJSON {
			l.Format = intake.NDJSON
		}
		r, err := infer.Infer(t.Context(), bytes.NewReader(text), infer.Config{Dataset: dataset(), Layout: l})
		if err != nil {
			var e *intake.RowError
			if errors.As(err, &e) && e.Line < 1 {
				t.Errorf("%v names no line", err)
			}
			return
		}
		checkManifest(t, r)
		if err := encode(t, text, l, r.Manifest); err != nil {
			t.Errorf("%v\n%s", err, r.YAML("test"))
		}
	})
}
