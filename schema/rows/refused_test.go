package rows_test

import (
	"fmt"
	"math"
	"math/big"
	"strings"
	"testing"
	"time"

	"tallyman/schema"
	"tallyman/schema/rows"
)

// refusal is a value of a type that is refused in each of the forms given, and why.
type refusal struct {
	typ  schema.Type
	goes []any
	json []string
	text []string
	want string // %s stands for the value in quotes
}

// What does not fit a type exactly is refused, whatever the form it comes in.
func TestValuesRefused(t *testing.T) {
	t.Parallel()
	for _, tc := range append(numbersRefused(), othersRefused()...) {
		m := schema.Manifest{Columns: []schema.Column{{Name: "v", Type: tc.typ, Nullable: true}}}
		codec := newCodec(t, m)
		check := func(row, shown string, dst []byte, err error) {
			t.Helper()
			want := tc.want
			if strings.Contains(want, "%s") {
				want = strings.ReplaceAll(want, "%s", fmt.Sprintf("%q", shown))
			}
			refused(t, dst, err, row+`column "v": `+want)
		}
		for _, v := range tc.goes {
			dst, err := codec.Append([]byte("before"), batchID, []any{v})
			check("", fmt.Sprint(v), dst, err)
		}
		for _, raw := range tc.json {
			dst, _, err := codec.AppendNDJSON([]byte("before"), batchID, []byte(`{"v": `+raw+`}`))
			check("row 1, ", strings.Trim(raw, `"`), dst, err)
		}
		for _, text := range tc.text {
			dst, err := codec.AppendText([]byte("before"), batchID, []rows.Field{{Value: []byte(text)}})
			check("", text, dst, err)
		}
	}
}

// inQuotes refuses texts in each form, in JSON and in Go as strings.
func inQuotes(typ schema.Type, want string, texts ...string) refusal {
	r := refusal{typ: typ, text: texts, want: want}
	for _, text := range texts {
		r.json = append(r.json, `"`+text+`"`)
		r.goes = append(r.goes, text)
	}
	return r
}

func numbersRefused() []refusal {
	money, whole, part := schema.MakeDecimal(12, 2), schema.MakeDecimal(3, 0), schema.MakeDecimal(3, 3)
	var noNumber *big.Int
	both := func(typ schema.Type, want string, texts ...string) refusal {
		return refusal{typ: typ, json: texts, text: texts, want: want}
	}
	return []refusal{
		both(schema.Int16, "%s does not fit int16", "32768", "-32769", "99999999999999999999"),
		{typ: schema.Int16, goes: []any{32768, uint16(32768)}, want: "32768 does not fit int16"},
		{typ: schema.Int16, goes: []any{uint64(math.MaxUint64)}, want: "18446744073709551615 does not fit int16"},
		{typ: schema.Int16, goes: []any{uint16(40000)}, want: "40000 does not fit int16"},
		{typ: schema.Int16, goes: []any{-32769}, want: "-32769 does not fit int16"},
		{typ: schema.Int16, goes: []any{"1"}, want: "a Go value of type string, want int16 or another integer"},
		{typ: schema.Int16, json: []string{"1.0"}, want: `the JSON value %s, want a number without point and exponent`},
		both(schema.Int32, "%s does not fit int32", "2147483648", "-2147483649"),
		{typ: schema.Int32, goes: []any{int64(math.MaxInt32) + 1, uint32(math.MaxInt32 + 1)}, want: "2147483648 does not fit int32"},
		{typ: schema.Int32, goes: []any{int64(math.MinInt64)}, want: "-9223372036854775808 does not fit int32"},
		{typ: schema.Int32, text: []string{"", "1.5", "0x1"}, want: "%s is not a whole decimal number"},

		both(schema.Float32, "%s does not fit float32", "3.5e38", "-1e39", "1e400000"),
		both(schema.Float32, "%s is too small for float32: it would become 0", "1e-46", "-0.1e-400000"),
		{typ: schema.Float32, goes: []any{0.1}, want: "0.1 is not a float32: convert it, if it may lose digits"},
		{typ: schema.Float32, goes: []any{math.MaxFloat64}, want: "1.7976931348623157e+308 is not a float32: convert it, if it may lose digits"},
		{typ: schema.Float32, goes: []any{1}, want: "a Go value of type int, want float32"},
		{typ: schema.Float32, json: []string{`"1.5"`}, want: `the JSON value "\"1.5\"", want a number, "NaN", "Infinity" or "-Infinity"`},

		inQuotes(money, "%s is not a decimal number", "", ".", "+", "1e", "e1", "1,5", "1_000", "0x1", " 1", "1 ", "--1", "1.2.3", "NaN", "Infinity", "-Infinity", "١"),
		both(money, "%s does not fit decimal(12,2): it has more than 2 digits after the point", "0.001", "1.005", "-1e-3", "1e-99999999999999999999"),
		both(money, "%s does not fit decimal(12,2): it has more than 10 digits before the point", "10000000000", "-10000000000.00", "1e10", "1e400000", "1e99999999999999999999"),
		{typ: money, goes: []any{"0.001"}, want: "%s does not fit decimal(12,2): it has more than 2 digits after the point"},
		{typ: money, goes: []any{int64(math.MaxInt64)}, want: "%s does not fit decimal(12,2): it has more than 10 digits before the point"},
		{typ: money, goes: []any{uint64(math.MaxUint64)}, want: "%s does not fit decimal(12,2): it has more than 10 digits before the point"},
		{typ: money, goes: []any{1.5}, want: "a Go value of type float64, want a string, json.Number, *big.Int or an integer, which are exact"},
		{typ: money, goes: []any{noNumber, new(big.Int).Lsh(big.NewInt(1), 1<<20)}, want: "a *big.Int that is nil or far too large for decimal(12,2)"},
		{typ: money, json: []string{"true"}, want: "the JSON value %s, want a number, or a string with one"},
		both(whole, "%s does not fit decimal(3,0): it has more than 3 digits before the point", "1000", "-1000", "1e3"),
		both(whole, "%s does not fit decimal(3,0): it has more than 0 digits after the point", "0.1", "999.9"),
		both(part, "%s does not fit decimal(3,3): it has more than 0 digits before the point", "1", "1.000"),
		both(part, "%s does not fit decimal(3,3): it has more than 3 digits after the point", "0.0001", "1e-4"),
	}
}

func othersRefused() []refusal {
	const dateForm, clockForm = "%s is not a date: want YYYY-MM-DD", "%s is not a time of day: want HH:MM:SS and perhaps a fraction"
	const stampForm = "%s is not a timestamp: want YYYY-MM-DDTHH:MM:SS and perhaps a fraction"
	beyond := time.Date(294277, 1, 1, 0, 0, 0, 0, time.UTC)
	return []refusal{
		{typ: schema.Bytes, goes: []any{"x"}, want: "a Go value of type string, want []byte"},
		{typ: schema.Bytes, json: []string{`"A"`, `"AA"`, `"AA="`, `"AB=="`, `"AA==AA=="`, `"-_8="`, `" AA=="`}, want: "%s is not base64 with its padding, without line breaks"},
		{typ: schema.Bytes, json: []string{`"AA\n=="`}, want: `"AA\n==" is not base64 with its padding, without line breaks`},
		{typ: schema.Bytes, json: []string{`5`, `[0]`}, want: "the JSON value %s, want a string with base64"},
		{typ: schema.Bytes, text: []string{"", "AA==", "00", `\X00`}, want: `%s does not begin with \x and hexadecimal digits`},
		{typ: schema.Bytes, text: []string{`\x0`, `\xzz`, `\x 00`, `\x00 `}, want: `%s is not \x and pairs of hexadecimal digits`},

		inQuotes(schema.Date, dateForm, "", "2024-2-29", "20240229", "2024-02-29 ", "2024-02-29T00:00:00", "10000-01-01", "-0044-03-15", "infinity", "today", "0044-03-15 BC", "2024/02/29"),
		inQuotes(schema.Date, "%s is not a date: there is no such day", "2024-02-30", "2023-02-29", "1900-02-29", "2024-00-01", "2024-13-01", "2024-01-00"),
		inQuotes(schema.Date, "%s is not a date: calendars disagree on the year 0", "0000-01-01"),
		{typ: schema.Date, json: []string{"19782"}, want: "the JSON value %s, want a string with a date"},
		{typ: schema.Date, goes: []any{19782}, want: "a Go value of type int, want time.Time or string"},
		{typ: schema.Date, goes: []any{time.Date(5874898, 1, 1, 0, 0, 0, 0, time.UTC)}, want: "the time 185331707078400 s from 1970 is outside of date: 4714 BC to 5874897"},
		{typ: schema.Date, goes: []any{time.Date(-4713, 11, 23, 23, 59, 59, 0, time.UTC)}, want: "the time -210866803201 s from 1970 is outside of date: 4714 BC to 5874897"},
		{typ: schema.Date, goes: []any{time.Unix(math.MaxInt64, 0).In(time.FixedZone("", 3600))}, want: "the time 9223372036854775807 s from 1970 is outside of date: 4714 BC to 5874897"},

		inQuotes(schema.Time, clockForm, "", "12:34", "1:02:03", "12.34.56", "12:34:5x", "noon", "12-34-56"),
		inQuotes(schema.Time, "%s is not a time of day: there is no such time of day", "24:00:00", "12:60:00", "12:00:61"),
		inQuotes(schema.Time, "%s is not a time of day: leap seconds can't be stored", "23:59:60"),
		inQuotes(schema.Time, "%s is not a time of day: the fraction is empty or finer than a microsecond", "12:34:56.", "12:34:56.1234567"),
		inQuotes(schema.Time, "%s is not a time of day: something follows it; it has no zone", "12:34:56Z", "12:34:56+01:00", "12:34:56 PM", "12:34:56,5"),
		{typ: schema.Time, json: []string{"45296"}, want: "the JSON value %s, want a string with a time of day"},
		{typ: schema.Time, goes: []any{time.Second}, want: "a Go value of type time.Duration, want time.Time or string"},

		inQuotes(schema.Timestamp, stampForm, "", "2024-02-29", "2024-02-29_00:00:00", "2024-2-29T00:00:000", "infinity", "-infinity", "10000-01-01T00:00:00"),
		inQuotes(schema.Timestamp, "%s is not a timestamp: there is no such day", "2024-02-30T00:00:00"),
		inQuotes(schema.Timestamp, "%s is not a timestamp: there is no such time of day", "2024-02-29T24:00:00"),
		inQuotes(schema.Timestamp, "%s is not a timestamp: leap seconds can't be stored", "2016-12-31T23:59:60"),
		inQuotes(schema.Timestamp, "%s is not a timestamp: calendars disagree on the year 0", "0000-12-31T00:00:00"),
		inQuotes(schema.Timestamp, "%s is not a timestamp: the fraction is empty or finer than a microsecond", "2024-02-29T00:00:00.0000001"),
		inQuotes(schema.Timestamp, "%s is not a timestamp: something follows it; it has no zone", "2024-02-29T00:00:00Z", "2024-02-29T00:00:00+00:00", "2024-02-29T00:00:00 BC"),
		{typ: schema.Timestamp, json: []string{`"2024-02-29 00:00:00"`}, want: stampForm},
		{typ: schema.Timestamp, json: []string{"0"}, want: "the JSON value %s, want a string with a timestamp"},
		{typ: schema.Timestamp, goes: []any{0}, want: "a Go value of type int, want time.Time or string"},
		{typ: schema.Timestamp, goes: []any{beyond, beyond.Add(-time.Hour).In(time.FixedZone("", 3600))}, want: "the time 9224318016000 s from 1970 is outside of timestamp: 4714 BC to 294276"},

		{typ: "int64[]", goes: []any{[2]int64{1, 2}}, want: "a Go value of type [2]int64, want a slice of elements"},
		{typ: "int64[]", goes: []any{[]byte("[1]")}, want: "a Go value of type []uint8, want a slice of elements"},
		{typ: "int64[]", goes: []any{[]any{1, "2"}}, want: "element 2: a Go value of type string, want int64 or another integer"},
		{typ: "int64[]", goes: []any{[][]int64{{1}}}, want: "element 1: a Go value of type []int64, want int64 or another integer"},
		{typ: "int16[]", goes: []any{[]int{1, 32768}}, want: "element 2: 32768 does not fit int16"},
		{typ: "int16[]", json: []string{"[1, 32768]"}, text: []string{"[1, 32768]"}, want: `element 2: "32768" does not fit int16`},
		{typ: "int64[]", json: []string{"1", "true"}, text: []string{"1"}, want: "the JSON value %s, want an array"},
		{typ: "int64[]", json: []string{"[null, [2]]"}, text: []string{"[null, [2]]"}, want: `element 2: the JSON value "[2]", want a number without point and exponent`},
		{typ: "int64[]", text: []string{"{1,2}"}, want: "invalid JSON: invalid character '1' at start of string (expecting '\"')"},
		{typ: "int64[]", text: []string{"", " "}, want: "invalid JSON: it ends too early"},
		{typ: "int64[]", text: []string{"[1] [2]"}, want: "%s is not one JSON value: something follows it"},
		{typ: "int64[]", text: []string{"[1,]"}, want: "invalid JSON: invalid character ']' at start of value"},
		{typ: "text[]", json: []string{`["a", 5]`}, want: `element 2: the JSON value "5", want a string`},
		{typ: "text[]", json: []string{`["\u0000"]`}, want: `element 1: "\x00" contains U+0000, which text can't hold`},
		{typ: "json[]", json: []string{`[1, {"a": "\u0000"}]`}, want: `element 2: the JSON contains \u0000, which text can't hold`},
		{typ: "decimal(3,1)[]", json: []string{`["1", 0.25]`}, want: `element 2: "0.25" does not fit decimal(3,1): it has more than 1 digits after the point`},
	}
}
