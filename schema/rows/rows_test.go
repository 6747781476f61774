package rows_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema"
	"tallyman/schema/rows"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

var batchID = uuid.MustParse("0192f0c1-2b3c-7d4e-8f50-617283940a1b")

// everyType has a nullable column of each type and of some arrays, named like
// its type, and a required one named n. Decimals have the digits of money.
func everyType() schema.Manifest {
	m := schema.Manifest{
		Dataset: schema.Dataset{Namespace: "a", Name: "every-type"},
		BatchID: true,
		Columns: []schema.Column{{Name: "n", Type: schema.Int64}},
	}
	for _, t := range append(schema.Types(), "int64[]", "text[]", "decimal[]", "json[]") {
		typ := schema.Type(strings.Replace(string(t), "decimal", "decimal(12,2)", 1))
		m.Columns = append(m.Columns, schema.Column{Name: string(t), Type: typ, Nullable: true})
	}
	return m
}

func newCodec(t testing.TB, m schema.Manifest) *rows.Codec {
	t.Helper()
	c, err := rows.NewCodec(m)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// refused checks that err is an Error with this text, and that dst came back.
func refused(t *testing.T, dst []byte, err error, want string) {
	t.Helper()
	var e *rows.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want a *rows.Error: %s", err, want)
	}
	if got := e.Error(); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	if string(dst) != "before" {
		t.Errorf("dst came back as %q", dst)
	}
}

// In each case the second of two lines is bad.
func TestAppendNDJSONRefuses(t *testing.T) {
	t.Parallel()
	codec := newCodec(t, everyType())
	deep := strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000)
	for name, tc := range map[string]struct{ line, want string }{
		// the row as a whole
		"number row":       {`5`, `row 2: want a JSON object`},
		"array row":        {`[{"n": 1}]`, `row 2: want a JSON object`},
		"null row":         {`null`, `row 2: want a JSON object`},
		"blank line":       {" \t", `row 2: a blank line`},
		"not JSON":         {`n=1`, `row 2: invalid JSON: invalid character '=' in literal null (expecting 'u')`},
		"truncated":        {`{"n": 1, "text": "x`, `row 2, column "text": invalid JSON: it ends too early`},
		"two on a line":    {`{"n": 1} {"n": 2}`, `row 2: want one JSON object a line`},
		"over two lines":   {"{\"n\":\n1}", `row 2: want one JSON object a line`},
		"something after":  {`{"n": 1},`, `row 2: want one JSON object a line`},
		"byte-order mark":  {"\ufeff" + `{"n": 1}`, `row 2: invalid JSON: invalid character '\ufeff' at start of value`},
		"key not a string": {`{n: 1}`, `row 2: invalid JSON: invalid character ':' in literal null (expecting 'u')`},
		// columns
		"missing column":        {`{"int64": 1}`, `row 2, column "n": the key is missing, and the column is required`},
		"null for required":     {`{"n": null}`, `row 2, column "n": NULL in a required column`},
		"extra column":          {`{"n": 1, "more": 2}`, `row 2: key "more" is not a column`},
		"renamed column":        {`{"N": 1}`, `row 2: key "N" is not a column`},
		"_batch_id":             {`{"n": 1, "_batch_id": null}`, `row 2: key "_batch_id" is not a column`},
		"hostile key":           {`{"n": 1, "\u001b[31m<b>": 2}`, `row 2: key "\\u001b[31m<b>" is not a column`},
		"repeated key":          {`{"n": 1, "n": 1}`, `row 2: invalid JSON: the key "n" is repeated`},
		"repeated key, escaped": {`{"n": 1, "\u006e": 1}`, `row 2: invalid JSON: the key "n" is repeated`},
		// text
		"NUL":                        {"{\"n\": 1, \"text\": \"a\x00b\"}", `row 2, column "text": invalid JSON: invalid character '\x00' in string (expecting non-control character)`},
		"escaped NUL":                {`{"n": 1, "text": "a\u0000b"}`, `row 2, column "text": "a\x00b" contains U+0000, which text can't hold`},
		"invalid UTF-8":              {"{\"n\": 1, \"text\": \"a\xffb\"}", `row 2, column "text": invalid JSON: invalid UTF-8`},
		"surrogate in UTF-8":         {"{\"n\": 1, \"text\": \"\xed\xa0\x80\"}", `row 2, column "text": invalid JSON: invalid UTF-8`},
		"lone surrogate":             {`{"n": 1, "text": "\ud800"}`, `row 2, column "text": invalid JSON: invalid surrogate pair ` + "`\\ud800\"}`" + ` in string`},
		"surrogates in wrong order":  {`{"n": 1, "text": "\udc00\ud800"}`, `row 2, column "text": invalid JSON: invalid surrogate pair ` + "`\\udc00\\ud800`" + ` in string`},
		"number for text":            {`{"n": 1, "text": 5}`, `row 2, column "text": the JSON value "5", want a string`},
		"invalid UTF-8 in a key":     {"{\"n\": 1, \"te\xffxt\": 1}", `row 2: invalid JSON: invalid UTF-8`},
		"unknown escape in a string": {`{"n": 1, "text": "\x41"}`, `row 2, column "text": invalid JSON: invalid escape sequence ` + "`\\x`" + ` in string`},
		// numbers
		"int64 overflow":          {`{"n": 9223372036854775808}`, `row 2, column "n": "9223372036854775808" does not fit int64`},
		"int64 underflow":         {`{"n": -9223372036854775809}`, `row 2, column "n": "-9223372036854775809" does not fit int64`},
		"int64 1e400000":          {`{"n": 1e400000}`, `row 2, column "n": the JSON value "1e400000", want a number without point and exponent`},
		"int64 with point":        {`{"n": 1.0}`, `row 2, column "n": the JSON value "1.0", want a number without point and exponent`},
		"int64 in quotes":         {`{"n": "1"}`, `row 2, column "n": the JSON value "\"1\"", want a number without point and exponent`},
		"leading zero":            {`{"n": 01}`, `row 2: invalid JSON: invalid character '1' after object value (expecting ',' or '}')`},
		"plus sign":               {`{"n": +1}`, `row 2, column "n": invalid JSON: invalid character '+' at start of value`},
		"float64 1e400000":        {`{"n": 1, "float64": 1e400000}`, `row 2, column "float64": "1e400000" does not fit float64`},
		"float64 -1e309":          {`{"n": 1, "float64": -1e309}`, `row 2, column "float64": "-1e309" does not fit float64`},
		"float64 becomes 0":       {`{"n": 1, "float64": 1E-400000}`, `row 2, column "float64": "1E-400000" is too small for float64: it would become 0`},
		"float64 bare NaN":        {`{"n": 1, "float64": NaN}`, `row 2, column "float64": invalid JSON: invalid character 'N' at start of value`},
		"float64 other word":      {`{"n": 1, "float64": "nan"}`, `row 2, column "float64": the JSON value "\"nan\"", want a number, "NaN", "Infinity" or "-Infinity"`},
		"float64 number in text":  {`{"n": 1, "float64": "1.5"}`, `row 2, column "float64": the JSON value "\"1.5\"", want a number, "NaN", "Infinity" or "-Infinity"`},
		"bool as number":          {`{"n": 1, "bool": 1}`, `row 2, column "bool": the JSON value "1", want true or false`},
		"bool as string":          {`{"n": 1, "bool": "true"}`, `row 2, column "bool": the JSON value "\"true\"", want true or false`},
		"bool in capitals":        {`{"n": 1, "bool": True}`, `row 2, column "bool": invalid JSON: invalid character 'T' at start of value`},
		"infinity for an integer": {`{"n": "Infinity"}`, `row 2, column "n": the JSON value "\"Infinity\"", want a number without point and exponent`},
		// UUIDs
		"not a UUID":       {`{"n": 1, "uuid": "x"}`, `row 2, column "uuid": "x" is not a UUID`},
		"UUID in brackets": {`{"n": 1, "uuid": "[0192f0c1-2b3c-7d4e-8f50-617283940a1b]"}`, `row 2, column "uuid": "[0192f0c1-2b3c-7d4e-8f50-617283940a1b]" is not a UUID`},
		"UUID as number":   {`{"n": 1, "uuid": 5}`, `row 2, column "uuid": the JSON value "5", want a string with a UUID`},
		// JSON
		"deep":                  {`{"n": 1, "json": ` + deep + `}`, `row 2: the JSON nests deeper than 1000 levels`},
		"deep, not a column":    {`{"n": ` + deep + `}`, `row 2: the JSON nests deeper than 1000 levels`},
		"deep, unclosed":        {deep[:100_000], `row 2: the JSON nests deeper than 1000 levels`},
		"a level too deep":      {`{"n": 1, "json": ` + nested(1001) + `}`, `row 2: the JSON nests deeper than 1000 levels`},
		"repeated key, inside":  {`{"n": 1, "json": [{"a": {"b": 1, "b": 1}}]}`, `row 2, column "json": invalid JSON: the key "b" is repeated`},
		"escaped NUL, inside":   {`{"n": 1, "json": ["\\\\\u0000"]}`, `row 2, column "json": the JSON contains \u0000, which text can't hold`},
		"escaped NUL in a key":  {`{"n": 1, "json": {"\u0000": 1}}`, `row 2, column "json": the JSON contains \u0000, which text can't hold`},
		"surrogate, inside":     {`{"n": 1, "json": ["\udfff"]}`, `row 2, column "json": invalid JSON: invalid surrogate pair ` + "`\\udfff\"]}`" + ` in string`},
		"invalid UTF-8, inside": {"{\"n\": 1, \"json\": [\"\xc0\x80\"]}", `row 2, column "json": invalid JSON: invalid UTF-8`},
		"bad number, inside":    {`{"n": 1, "json": [1.]}`, `row 2, column "json": invalid JSON: invalid character ']' in number (expecting digit)`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dst, n, err := codec.AppendNDJSON([]byte("before"), batchID, []byte("{\"n\": 1}\n"+tc.line))
			refused(t, dst, err, tc.want)
			if n != 0 {
				t.Errorf("%d rows beside an error", n)
			}
		})
	}
}

// nested returns JSON of that many levels, with brackets in a string that are none.
func nested(levels int) string {
	return strings.Repeat("[", levels-1) + `{"[{\"[[": 1}` + strings.Repeat("]", levels-1)
}

// A time is refused for the same reasons in JSON and as text.
func TestTimesRefused(t *testing.T) {
	t.Parallel()
	const form = "want YYYY-MM-DDTHH:MM:SS, perhaps a fraction, and Z or ±HH:MM"
	m := schema.Manifest{Columns: []schema.Column{{Name: "at", Type: schema.TimestampTZ}}}
	codec := newCodec(t, m)
	for s, want := range map[string]string{
		"":                                 form,
		"2024-02-29":                       form,
		"now":                              form,
		"infinity":                         form,
		"1730000000":                       form,
		"10000-01-01T00:00:00Z":            form,
		"-0044-03-15T00:00:00Z":            form,
		"+2024-02-29T00:00:00Z":            form,
		"2024-02-29_00:00:00Z":             form,
		"2024-2-29T000:00:00Z":             form,
		"0000-12-31T23:59:59Z":             "calendars disagree on the year 0",
		"2024-02-30T00:00:00Z":             "there is no such day",
		"2023-02-29T00:00:00Z":             "there is no such day",
		"1900-02-29T00:00:00Z":             "there is no such day",
		"2024-04-31T00:00:00Z":             "there is no such day",
		"2024-13-01T00:00:00Z":             "there is no such day",
		"2024-00-01T00:00:00Z":             "there is no such day",
		"2024-01-00T00:00:00Z":             "there is no such day",
		"2016-12-31T23:59:60Z":             "leap seconds can't be stored",
		"2024-01-01T24:00:00Z":             "there is no such time of day",
		"2024-01-01T00:60:00Z":             "there is no such time of day",
		"2024-01-01T00:00:61Z":             "there is no such time of day",
		"2024-01-01T00:00:00":              "the zone is missing: want Z or ±HH:MM",
		"2024-01-01T00:00:00.5":            "the zone is missing: want Z or ±HH:MM",
		"2024-01-01T00:00:00 UTC":          "the zone is not Z or ±HH:MM",
		"2024-01-01T00:00:00+0200":         "the zone is not Z or ±HH:MM",
		"2024-01-01T00:00:00+2:00":         "the zone is not Z or ±HH:MM",
		"2024-01-01T00:00:00+24:00":        "the zone is not Z or ±HH:MM",
		"2024-01-01T00:00:00+02:60":        "the zone is not Z or ±HH:MM",
		"2024-01-01T00:00:00Z ":            "the zone is not Z or ±HH:MM",
		"2024-01-01T00:00:00,5Z":           "the zone is not Z or ±HH:MM",
		"2024-01-01T00:00:00.Z":            "the fraction is empty or finer than a microsecond",
		"2024-01-01T00:00:00.0000001Z":     "the fraction is empty or finer than a microsecond",
		"2024-01-01T00:00:00.12345670001Z": "the fraction is empty or finer than a microsecond",
	} {
		want = `column "at": "` + s + `" is not a time: ` + want
		dst, err := codec.AppendText([]byte("before"), batchID, []rows.Field{{Value: []byte(s)}})
		refused(t, dst, err, want)
		dst, _, err = codec.AppendNDJSON([]byte("before"), batchID, []byte(`{"at": "`+s+`"}`))
		refused(t, dst, err, "row 1, "+want)
	}
	for _, relaxed := range []string{"2024-01-01 00:00:00Z", "2024-01-01T00:00:00+02"} {
		if dst, n, err := codec.AppendNDJSON(nil, batchID, []byte(`{"at": "`+relaxed+`"}`)); err == nil {
			t.Errorf("JSON: %s gave %d rows: %x", relaxed, n, dst)
		}
	}
}

func TestAppendTextRefuses(t *testing.T) {
	t.Parallel()
	m := everyType()
	codec := newCodec(t, m)
	for _, tc := range []struct {
		column schema.Type
		text   string
		want   string
	}{
		{schema.Bool, "yes", `"yes" is not a bool: want true, false, t, f, 1 or 0`},
		{schema.Bool, "", `"" is not a bool: want true, false, t, f, 1 or 0`},
		{schema.Bool, "fal\u017fe", `"falſe" is not a bool: want true, false, t, f, 1 or 0`},
		{schema.Bool, "truetrue", `"truetrue" is not a bool: want true, false, t, f, 1 or 0`},
		{schema.Int64, "", `"" is not a whole decimal number`},
		{schema.Int64, " 1", `" 1" is not a whole decimal number`},
		{schema.Int64, "1_000", `"1_000" is not a whole decimal number`},
		{schema.Int64, "0x10", `"0x10" is not a whole decimal number`},
		{schema.Int64, "1.0", `"1.0" is not a whole decimal number`},
		{schema.Int64, "9223372036854775808", `"9223372036854775808" does not fit int64`},
		{schema.Float64, "", `"" is not a decimal number, NaN, Infinity or -Infinity`},
		{schema.Float64, "inf", `"inf" is not a decimal number, NaN, Infinity or -Infinity`},
		{schema.Float64, "0x1p-2", `"0x1p-2" is not a decimal number, NaN, Infinity or -Infinity`},
		{schema.Float64, "1_0.5", `"1_0.5" is not a decimal number, NaN, Infinity or -Infinity`},
		{schema.Float64, ".", `"." is not a decimal number, NaN, Infinity or -Infinity`},
		{schema.Float64, "1e", `"1e" is not a decimal number, NaN, Infinity or -Infinity`},
		{schema.Float64, "1,5", `"1,5" is not a decimal number, NaN, Infinity or -Infinity`},
		{schema.Float64, "1e400000", `"1e400000" does not fit float64`},
		{schema.Float64, "-0.001e-330", `"-0.001e-330" is too small for float64: it would become 0`},
		{schema.Text, "a\x00b", `"a\x00b" contains U+0000, which text can't hold`},
		{schema.Text, "a\xffb", `"a\xffb" is not valid UTF-8`},
		{schema.Text, strings.Repeat("\x1b", 70) + "\xff", `"` + strings.Repeat(`\x1b`, 64) + `"… is not valid UTF-8`},
		{schema.UUID, "", `"" is not a UUID`},
		{schema.UUID, "(0192f0c1-2b3c-7d4e-8f50-617283940a1b)", `"(0192f0c1-2b3c-7d4e-8f50-617283940a1b)" is not a UUID`},
		{schema.JSON, "", `invalid JSON: it ends too early`},
		{schema.JSON, "{", `invalid JSON: it ends too early`},
		{schema.JSON, "1 2", `"1 2" is not one JSON value: something follows it`},
		{schema.JSON, `{"a": 1, "a": 1}`, `invalid JSON: the key "a" is repeated`},
		{schema.JSON, `"\u0000"`, `the JSON contains \u0000, which text can't hold`},
		{schema.JSON, `"\ud800"`, "invalid JSON: invalid surrogate pair `\\ud800\"` in string"},
		{schema.JSON, "\"\xff\"", "invalid JSON: invalid UTF-8"},
		{schema.JSON, nested(1001), `the JSON nests deeper than 1000 levels`},
		{schema.JSON, strings.Repeat("[", 100_000), `the JSON nests deeper than 1000 levels`},
	} {
		fields := make([]rows.Field, len(m.Columns))
		for i, c := range m.Columns {
			fields[i].Null = true
			if c.Name == string(tc.column) {
				fields[i] = rows.Field{Value: []byte(tc.text)}
			}
		}
		fields[0] = rows.Field{Value: []byte("1")}
		dst, err := codec.AppendText([]byte("before"), batchID, fields)
		refused(t, dst, err, `column "`+string(tc.column)+`": `+tc.want)
	}
	dst, err := codec.AppendText([]byte("before"), batchID, make([]rows.Field, 3))
	refused(t, dst, err, "3 fields for 20 columns")
	dst, err = codec.AppendText([]byte("before"), batchID, append([]rows.Field{{Null: true}}, make([]rows.Field, 19)...))
	refused(t, dst, err, `column "n": NULL in a required column`)
}

func TestAppendRefuses(t *testing.T) {
	t.Parallel()
	m := everyType()
	codec := newCodec(t, m)
	type celsius float64
	for _, tc := range []struct {
		column schema.Type
		value  any
		want   string
	}{
		{schema.Bool, "true", "a Go value of type string, want bool"},
		{schema.Int64, 1.0, "a Go value of type float64, want int64 or another integer"},
		{schema.Int64, "1", "a Go value of type string, want int64 or another integer"},
		{schema.Int64, uint64(math.MaxInt64 + 1), "9223372036854775808 does not fit int64"},
		{schema.Int64, uint(math.MaxUint64), "18446744073709551615 does not fit int64"},
		{schema.Float64, 1, "a Go value of type int, want float64"},
		{schema.Float64, celsius(1), "a Go value of type rows_test.celsius, want float64"},
		{schema.Text, []byte("x"), "a Go value of type []uint8, want string"},
		{schema.Text, "a\x00", `"a\x00" contains U+0000, which text can't hold`},
		{schema.Text, "\xff", `"\xff" is not valid UTF-8`},
		{schema.TimestampTZ, "2024-01-01T00:00:00Z", "a Go value of type string, want time.Time"},
		{schema.TimestampTZ, time.Date(294277, 1, 1, 0, 0, 0, 0, time.UTC), "the time 9224318016000 s from 1970 is outside of timestamptz: 4714 BC to 294276"},
		{schema.TimestampTZ, time.Date(-4713, 11, 23, 23, 59, 59, 999_999_999, time.UTC), "the time -210866803201 s from 1970 is outside of timestamptz: 4714 BC to 294276"},
		{schema.TimestampTZ, time.Unix(math.MaxInt64, 0), "the time 9223372036854775807 s from 1970 is outside of timestamptz: 4714 BC to 294276"},
		{schema.UUID, batchID.String(), "a Go value of type string, want uuid.UUID"},
		{schema.UUID, [16]byte(batchID), "a Go value of type [16]uint8, want uuid.UUID"},
		{schema.JSON, map[string]any{}, "a Go value of type map[string]interface {}, want json.RawMessage, []byte or string"},
		{schema.JSON, json.RawMessage(nil), "invalid JSON: it ends too early"},
		{schema.JSON, "nil", "invalid JSON: invalid character 'i' in literal null (expecting 'u')"},
	} {
		values := make([]any, len(m.Columns))
		values[0] = 1
		for i, c := range m.Columns {
			if c.Name == string(tc.column) {
				values[i] = tc.value
			}
		}
		dst, err := codec.Append([]byte("before"), batchID, values)
		refused(t, dst, err, `column "`+string(tc.column)+`": `+tc.want)
	}
	dst, err := codec.Append([]byte("before"), batchID, nil)
	refused(t, dst, err, "0 values for 20 columns")
	dst, err = codec.Append([]byte("before"), batchID, make([]any, 20))
	refused(t, dst, err, `column "n": NULL in a required column`)
}

// The same row in any order of keys, spelled and framed in any way that JSON
// allows, is the same tuple.
func TestAppendNDJSONFraming(t *testing.T) {
	t.Parallel()
	names := []string{"n", `a"b`, `a\u0062`, "Größe 1", "x'; DROP"}
	m := schema.Manifest{BatchID: true}
	for _, name := range names {
		m.Columns = append(m.Columns, schema.Column{Name: name, Type: schema.Int64, Nullable: true})
	}
	codec := newCodec(t, m)
	tuple, err := codec.Append(nil, batchID, []any{1, 2, 3, 4, 5})
	if err != nil {
		t.Fatal(err)
	}
	sparse, err := codec.Append(nil, batchID, []any{nil, nil, 3, nil, nil})
	if err != nil {
		t.Fatal(err)
	}
	const row = `{"n": 1, "a\"b": 2, "a\\u0062": 3, "Größe 1": 4, "x'; DROP": 5}`
	for name, tc := range map[string]struct {
		ndjson string
		want   [][]byte
	}{
		"plain":           {row + "\n", [][]byte{tuple}},
		"no last newline": {row, [][]byte{tuple}},
		"CR LF":           {row + "\r\n" + row + "\r\n", [][]byte{tuple, tuple}},
		"spaces":          {"\t " + strings.ReplaceAll(row, ":", " :\r ") + " \t\n", [][]byte{tuple}},
		"escapes":         {`{"\u006e": 1, "\u0061\u0022b": 2, "a\u005Cu0062": 3, "Gr\u00f6\u00DFe 1": 4, "x'; DROP": 5}`, [][]byte{tuple}},
		"orders": {row + "\n" + `{"x'; DROP": 5, "a\\u0062": 3, "a\"b": 2, "n": 1, "Größe 1": 4}` + "\n" +
			`{"a\\u0062": 3}` + "\n" + `{"n": null, "a\\u0062": 3}` + "\n" + row, [][]byte{tuple, tuple, sparse, sparse, tuple}},
		"nothing": {"", nil},
	} {
		got, n, err := codec.AppendNDJSON([]byte("before"), batchID, []byte(tc.ndjson))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if want := append([]byte("before"), bytes.Join(tc.want, nil)...); n != len(tc.want) || !bytes.Equal(got, want) {
			t.Errorf("%s: %d rows\n got %x\nwant %x", name, n, got, want)
		}
	}
	// Spelled like the column a\u0062, it is another name.
	if _, _, err := codec.AppendNDJSON(nil, batchID, []byte(`{"n": 1, "a\u0062": 3}`)); err == nil {
		t.Error("a key was taken for a column that only looks like it")
	}
}

// A few kilobytes must not fill the memory.
func TestAppendNDJSONBoundsTuples(t *testing.T) {
	t.Parallel()
	m := schema.Manifest{}
	for i := range 1_000 {
		m.Columns = append(m.Columns, schema.Column{Name: "c" + strings.Repeat("x", i%50) + string(rune('A'+i/50)), Type: schema.Text, Nullable: true})
	}
	value := bytes.Repeat([]byte("{}\n"), 40_000)
	dst, _, err := newCodec(t, m).AppendNDJSON([]byte("before"), batchID, value)
	refused(t, dst, err, "row 16769: the rows are too sparse: 120000 bytes of JSON make more than 67108864 bytes of tuples")
}

func TestNewCodecRefuses(t *testing.T) {
	t.Parallel()
	d := schema.Dataset{Namespace: "a", Name: "b"}
	for _, tc := range []struct {
		columns []schema.Column
		want    string
	}{
		{nil, `dataset a/b has no columns`},
		{[]schema.Column{{Name: "x", Type: "int"}}, `dataset a/b, column "x": rows can't hold the type "int"`},
		{[]schema.Column{{Name: "x", Type: schema.Bool}, {Name: "x", Type: schema.Bool}}, `dataset a/b, column "x": the name is taken`},
		{[]schema.Column{{Name: schema.BatchIDColumn, Type: schema.UUID}}, `dataset a/b, column "_batch_id": the name is taken`},
	} {
		if _, err := rows.NewCodec(schema.Manifest{Dataset: d, Columns: tc.columns}); err == nil || err.Error() != tc.want {
			t.Errorf("got %v, want %s", err, tc.want)
		}
	}
	for _, c := range everyType().Columns {
		newCodec(t, schema.Manifest{Columns: []schema.Column{{Name: "x", Type: c.Type}}})
	}
}

// SetIDs makes of tuples what they would be with the other id from the first.
func TestSetIDs(t *testing.T) {
	t.Parallel()
	for _, named := range []bool{true, false} {
		c := newCodec(t, schema.Manifest{BatchID: named, Columns: []schema.Column{
			{Name: "n", Type: schema.Int64, Nullable: true}, {Name: "t", Type: schema.Text, Nullable: true},
		}})
		tuples := func(id uuid.UUID) (value []byte) {
			for _, row := range [][]any{{int64(1), "a"}, {nil, nil}, {int64(2), ""}, {nil, strings.Repeat("long", 100)}} {
				var err error
				if value, err = c.Append(value, id, row); err != nil {
					t.Fatal(err)
				}
			}
			return value
		}
		got := tuples(uuid.Nil)
		if c.SetIDs(got, batchID); !bytes.Equal(got, tuples(batchID)) {
			t.Errorf("with an id %t: %x", named, got)
		}
		c.SetIDs(nil, batchID)
	}
}
