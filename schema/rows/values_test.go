package rows_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"math"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyman/schema"
)

// value is a value of one type in each of its forms; an empty form is not
// tried. sql is what PostgreSQL prints of it, in the zone UTC.
type value struct {
	typ  schema.Type
	goes []any // Go values
	json []string
	text []string
	sql  string
}

// values is the specification of the types: each edge of each, in each form.
func values() []value {
	return slices.Concat(plainValues(), numberValues(), calendarValues(), arrayValues())
}

// valueTypes returns every type in the table, once.
func valueTypes() []schema.Type {
	var types []schema.Type
	for _, v := range values() {
		if !slices.Contains(types, v.typ) {
			types = append(types, v.typ)
		}
	}
	return types
}

// Every type is in the table, and an array of every type.
func TestValuesHaveEveryType(t *testing.T) {
	t.Parallel()
	plain, arrays := map[schema.Type]bool{}, map[schema.Type]bool{}
	for _, typ := range valueTypes() {
		facts, ok := typ.Facts()
		if !ok {
			t.Fatalf("no type %s", typ)
		}
		plain[facts.Name] = plain[facts.Name] || !facts.Array
		arrays[facts.Name] = arrays[facts.Name] || facts.Array
	}
	for _, typ := range schema.Types() {
		if !plain[typ] || !arrays[typ] {
			t.Errorf("%s: values %t, arrays %t", typ, plain[typ], arrays[typ])
		}
	}
}

// plainValues are those of the types that need no more explanation.
func plainValues() []value {
	id := uuid.MustParse("0192f0c1-2b3c-7d4e-8f50-617283940a1b")
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	const tricky = "\ttab\nnewline\r\\back\\N \\. \"quote\" 'x'; -- é 漢 🎉 \u2028 \x01\x7f"
	const odd = ` { "b" : 1e400000, "a":[ 1.00, -0, 18446744073709551616, "\u00e9\/\ud83c\udf89", "\\u0000", null ] } `
	return []value{
		{schema.Bool, []any{true}, []string{"true"}, []string{"true", "TRUE", "True", "t", "T", "1"}, "true"},
		{schema.Bool, []any{false}, []string{"false"}, []string{"false", "FALSE", "f", "F", "0"}, "false"},

		{schema.Text, []any{""}, []string{`""`}, []string{""}, ""},
		{schema.Text, []any{" x "}, []string{`" x "`}, []string{" x "}, " x "},
		{schema.Text, []any{"NULL"}, []string{`"NULL"`}, []string{"NULL"}, "NULL"},
		{schema.Text, []any{tricky}, []string{
			`"\ttab\nnewline\r\\back\\N \\. \"quote\" 'x'; -- é 漢 🎉 ` + "\u2028" + ` \u0001` + "\x7f\"",
			`"\u0009tab\u000anewline\u000D\u005cback\\N \u005c. \u0022quote\u0022 'x'; -- \u00e9 \u6F22 \ud83c\udf89 \u2028 \u0001\u007f"`,
		}, []string{tricky}, tricky},
		{schema.Text, []any{"\ufeff\uffff\U0010ffff"}, []string{`"` + "\ufeff\uffff\U0010ffff" + `"`, `"\ufeff\uffff\udbff\udfff"`}, []string{"\ufeff\uffff\U0010ffff"}, "\ufeff\uffff\U0010ffff"},
		{schema.Text, []any{strings.Repeat("é", 1<<20)}, []string{`"` + strings.Repeat("é", 1<<20) + `"`}, []string{strings.Repeat("é", 1<<20)}, strings.Repeat("é", 1<<20)},

		{schema.Bytes, []any{[]byte{}, []byte(nil)}, []string{`""`}, []string{`\x`}, `\x`},
		{schema.Bytes, []any{[]byte{0}}, []string{`"AA=="`, `"\u0041A=="`}, []string{`\x00`}, `\x00`},
		{schema.Bytes, []any{[]byte{0xfb, 0xff, 0xef}}, []string{`"+//v"`, `"+\/\/v"`}, []string{`\xfbffef`, `\xFBffEF`}, `\xfbffef`},
		{schema.Bytes, []any{all}, []string{`"` + base64.StdEncoding.EncodeToString(all) + `"`}, []string{`\x` + hex.EncodeToString(all)}, `\x` + hex.EncodeToString(all)},

		{schema.UUID, []any{id}, []string{
			`"0192f0c1-2b3c-7d4e-8f50-617283940a1b"`, `"0192F0C1-2B3C-7D4E-8F50-617283940A1B"`, `"{0192f0c1-2b3c-7d4e-8f50-617283940a1b}"`,
			`"urn:uuid:0192f0c1-2b3c-7d4e-8f50-617283940a1b"`, `"URN:UUID:0192f0c1-2b3c-7d4e-8f50-617283940a1b"`,
			`"0192f0c12b3c7d4e8f50617283940a1b"`, `"\u0030192f0c1-2b3c-7d4e-8f50-617283940a1b"`,
		}, []string{"0192f0c1-2b3c-7d4e-8f50-617283940a1b", "{0192F0C1-2b3c-7d4e-8f50-617283940a1b}"}, id.String()},
		{schema.UUID, []any{uuid.Nil}, []string{`"00000000-0000-0000-0000-000000000000"`}, []string{uuid.Nil.String()}, uuid.Nil.String()},
		{schema.UUID, []any{uuid.Max}, []string{`"ffffffff-ffff-ffff-ffff-ffffffffffff"`}, []string{uuid.Max.String()}, uuid.Max.String()},

		{schema.JSON, []any{json.RawMessage("{}"), []byte("{}"), "{}"}, []string{"{}"}, []string{"{}"}, "{}"},
		{schema.JSON, []any{odd}, nil, []string{odd}, odd},
		{schema.JSON, []any{strings.TrimSpace(odd)}, []string{strings.TrimSpace(odd), odd}, nil, strings.TrimSpace(odd)},
		{schema.JSON, []any{"null"}, nil, []string{"null"}, "null"},
		{schema.JSON, []any{`""`}, []string{`""`}, []string{`""`}, `""`},
		{schema.JSON, []any{"-0.0E+1"}, []string{"-0.0E+1"}, []string{"-0.0E+1"}, "-0.0E+1"},
		{schema.JSON, []any{"\"\u2028\x7f\""}, []string{"\"\u2028\x7f\""}, []string{"\"\u2028\x7f\""}, "\"\u2028\x7f\""},
		{schema.JSON, []any{nested(1000)}, []string{nested(1000)}, []string{nested(1000)}, nested(1000)},
	}
}

// numberValues are those of integers, floats and decimals.
func numberValues() []value {
	money, whole, part, small := schema.MakeDecimal(12, 2), schema.MakeDecimal(1000, 0), schema.MakeDecimal(1000, 1000), schema.MakeDecimal(9, 9)
	nines := strings.Repeat("9", 1000)
	mixed, digits := schema.MakeDecimal(40, 20), "12345678901234567890.09876543210987654321"
	return []value{
		{schema.Int16, []any{int16(0), 0}, []string{"0", "-0"}, []string{"0", "-0", "+0"}, "0"},
		{schema.Int16, []any{int16(math.MaxInt16), uint16(math.MaxInt16), 32767}, []string{"32767"}, []string{"32767"}, "32767"},
		{schema.Int16, []any{int16(math.MinInt16), int64(math.MinInt16)}, []string{"-32768"}, []string{"-32768"}, "-32768"},

		{schema.Int32, []any{int32(0), 0}, []string{"0"}, []string{"0"}, "0"},
		{schema.Int32, []any{int32(math.MaxInt32), uint64(math.MaxInt32)}, []string{"2147483647"}, []string{"2147483647"}, "2147483647"},
		{schema.Int32, []any{int32(math.MinInt32), math.MinInt32}, []string{"-2147483648"}, []string{"-2147483648"}, "-2147483648"},

		{schema.Int64, []any{int64(0), 0, uint8(0)}, []string{"0", "-0"}, []string{"0", "-0", "+0", "000"}, "0"},
		{schema.Int64, []any{int8(-5), int16(-5), int32(-5)}, []string{"-5"}, []string{"-5", "-005"}, "-5"},
		{schema.Int64, []any{uint8(200), uint16(200), uint32(200), uint64(200), uint(200)}, []string{"200"}, []string{"200", "+200"}, "200"},
		{schema.Int64, []any{1<<53 + 1}, []string{"9007199254740993"}, []string{"9007199254740993"}, "9007199254740993"},
		{schema.Int64, []any{int64(math.MaxInt64), uint64(math.MaxInt64)}, []string{"9223372036854775807"}, []string{"9223372036854775807"}, "9223372036854775807"},
		{schema.Int64, []any{int64(math.MinInt64)}, []string{"-9223372036854775808"}, []string{"-9223372036854775808"}, "-9223372036854775808"},

		{schema.Float32, []any{float32(0), 0.0}, []string{"0", "0e400000"}, []string{"0", "+.0"}, "0"},
		{schema.Float32, []any{math.Copysign(0, -1)}, []string{"-0.0"}, []string{"-0"}, "-0"},
		{schema.Float32, []any{float32(0.1)}, []string{"0.1", "0.100000001"}, []string{".1"}, "0.1"},
		{schema.Float32, []any{float32(1 << 24), float64(1 << 24)}, []string{"16777217"}, []string{"16777217"}, "1.6777216e+07"},
		{schema.Float32, []any{float32(math.MaxFloat32), math.MaxFloat32}, []string{"3.4028235e38", "3.40282349e38"}, []string{"3.4028235E+38"}, "3.4028235e+38"},
		{schema.Float32, []any{float32(-math.MaxFloat32)}, []string{"-3.4028235e38"}, []string{"-3.4028235e38"}, "-3.4028235e+38"},
		{schema.Float32, []any{float32(math.SmallestNonzeroFloat32)}, []string{"1e-45", "1.4e-45"}, []string{"1e-45"}, "1e-45"},
		{schema.Float32, []any{math.NaN(), float32(math.NaN())}, []string{`"NaN"`}, []string{"NaN"}, "NaN"},
		{schema.Float32, []any{math.Inf(1), float32(math.Inf(1))}, []string{`"Infinity"`}, []string{"Infinity"}, "Infinity"},
		{schema.Float32, []any{math.Inf(-1)}, []string{`"-Infinity"`}, []string{"-Infinity"}, "-Infinity"},

		{schema.Float64, []any{0.0}, []string{"0", "0.0", "0e400000"}, []string{"0", "+.0", "0.e9"}, "0"},
		{schema.Float64, []any{math.Copysign(0, -1)}, []string{"-0", "-0.0"}, []string{"-0"}, "-0"},
		{schema.Float64, []any{0.1}, []string{"0.1", "1e-1", "1E-01", "0.1000000000000000055511151231257827"}, []string{"0.1", ".1", "+.1"}, "0.1"},
		{schema.Float64, []any{float64(1 << 53)}, []string{"9007199254740993", "9007199254740992"}, []string{"9007199254740992."}, "9.007199254740992e+15"},
		{schema.Float64, []any{math.MaxFloat64}, []string{"1.7976931348623157e308", "1.7976931348623157e+308"}, []string{"1.7976931348623157E+308"}, "1.7976931348623157e+308"},
		{schema.Float64, []any{-math.MaxFloat64}, []string{"-1.7976931348623157e308"}, []string{"-1.7976931348623157e308"}, "-1.7976931348623157e+308"},
		{schema.Float64, []any{math.SmallestNonzeroFloat64}, []string{"5e-324"}, []string{"5e-324"}, "5e-324"},
		{schema.Float64, []any{math.NaN()}, []string{`"NaN"`, `"\u004eaN"`}, []string{"NaN"}, "NaN"},
		{schema.Float64, []any{math.Inf(1)}, []string{`"Infinity"`}, []string{"Infinity"}, "Infinity"},
		{schema.Float64, []any{math.Inf(-1)}, []string{`"-Infinity"`}, []string{"-Infinity"}, "-Infinity"},
		{schema.Float64, []any{float32(0.1)}, []string{"0.10000000149011612"}, nil, "0.10000000149011612"},

		{money, []any{"0", "-0.000", 0, big.NewInt(0), json.Number("0e5")}, []string{"0", "-0", "0.00", "0e400000", `"0"`}, []string{"0", "+0", "-.0", "0e-99999999999999999999"}, "0.00"},
		{money, []any{"1.5", "+1.50", "01.5000", "15e-1", ".15e1", json.Number("1.5")}, []string{"1.5", "1.50", "1.5000", "15e-1", "0.015E+2", `"1.5"`, `"\u0031.5"`}, []string{"1.5", "1.500", "+15e-1"}, "1.50"},
		{money, []any{-1, int8(-1), big.NewInt(-1), "-1"}, []string{"-1", "-1.0", `"-1"`}, []string{"-1", "-1."}, "-1.00"},
		{money, []any{"0.01", "1e-2"}, []string{"0.01"}, []string{".01"}, "0.01"},
		{money, []any{"0.1"}, []string{"0.1"}, []string{"0.1"}, "0.10"},
		{money, []any{10_000, uint16(10_000), "1e4"}, []string{"10000", "1e4"}, []string{"10000.00"}, "10000.00"},
		{money, []any{"100010000"}, []string{"100010000"}, []string{"100010000"}, "100010000.00"},
		{money, []any{"9999999999.99"}, []string{"9999999999.99", "999999999999e-2"}, []string{"9999999999.99"}, "9999999999.99"},
		{money, []any{"-9999999999.99"}, []string{"-9999999999.99"}, []string{"-9999999999.99"}, "-9999999999.99"},
		{money, []any{"1234567890.12"}, []string{"1234567890.12"}, []string{"1234567890.12"}, "1234567890.12"},
		{schema.MakeDecimal(1, 0), []any{9, "9.0"}, []string{"9"}, []string{"9"}, "9"},
		{schema.MakeDecimal(1, 0), []any{-9}, []string{"-9"}, []string{"-9"}, "-9"},
		{schema.MakeDecimal(1, 0), []any{0}, []string{"-0"}, []string{"0"}, "0"},
		{small, []any{"1e-9"}, []string{"0.000000001", "1e-9"}, []string{".000000001"}, "0.000000001"},
		{small, []any{"-1e-5"}, []string{"-0.00001"}, []string{"-.00001"}, "-0.000010000"},
		{small, []any{"0.0001"}, []string{"0.0001"}, []string{"0.0001"}, "0.000100000"},
		{small, []any{"0.999999999"}, []string{"0.999999999"}, []string{"0.999999999"}, "0.999999999"},
		{schema.MakeDecimal(20, 0), []any{uint64(math.MaxUint64), uint(math.MaxUint64)}, []string{"18446744073709551615"}, []string{"18446744073709551615"}, "18446744073709551615"},
		{schema.MakeDecimal(20, 0), []any{int64(math.MinInt64)}, []string{"-9223372036854775808"}, []string{"-9223372036854775808"}, "-9223372036854775808"},
		{schema.MakeDecimal(20, 0), []any{"9007199254740993"}, []string{"9007199254740993", "9007199254740993.0"}, []string{"9007199254740993"}, "9007199254740993"},
		{mixed, []any{digits}, []string{digits, `"` + digits + `"`}, []string{digits + "000"}, digits},
		{mixed, []any{"-" + digits}, []string{"-" + digits}, []string{"-0000" + digits}, "-" + digits},
		{mixed, []any{"1e19"}, []string{"1e19"}, []string{"1e+19"}, "10000000000000000000.00000000000000000000"},
		{whole, []any{nines, bigNumber(nines)}, []string{nines, `"` + nines + `"`}, []string{nines, "-" + nines}[:1], nines},
		{whole, []any{"-1e999"}, []string{"-1e999"}, []string{"-1E+0000000000000000000000999"}, "-1" + strings.Repeat("0", 999)},
		{whole, []any{strings.Repeat("0", 100_000) + "1." + strings.Repeat("0", 100_000)}, nil, []string{"1"}, "1"},
		{part, []any{"." + nines}, []string{"0." + nines}, []string{"." + nines}, "0." + nines},
		{part, []any{"-1e-1000"}, []string{"-1e-1000"}, []string{"-0.1e-999"}, "-0." + strings.Repeat("0", 999) + "1"},
	}
}

func bigNumber(digits string) *big.Int {
	n, ok := new(big.Int).SetString(digits, 10)
	if !ok {
		panic("not a number: " + digits)
	}
	return n
}

// utc makes times in years that RFC 3339 can't write, too.
func utc(year int, rest string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, "2000-"+rest)
	if err != nil {
		panic(err)
	}
	return time.Date(year, t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// calendarValues are those of dates and times.
func calendarValues() []value {
	east, west := time.FixedZone("", 14*3600), time.FixedZone("", -12*3600)
	return []value{
		{schema.Date, []any{"2000-01-01", utc(2000, "01-01T00:00:00Z"), utc(2000, "01-01T23:59:59.999999999Z")}, []string{`"2000-01-01"`, `"\u0032000-01-01"`}, []string{"2000-01-01"}, "2000-01-01"},
		{schema.Date, []any{"1999-12-31", utc(1999, "12-31T23:59:59.999999999Z"), utc(2000, "01-01T11:59:59Z").In(west), utc(1999, "12-30T10:00:00Z").In(east)},
			[]string{`"1999-12-31"`}, []string{"1999-12-31"}, "1999-12-31"},
		{schema.Date, []any{"1970-01-01", time.Unix(0, 0).UTC()}, []string{`"1970-01-01"`}, []string{"1970-01-01"}, "1970-01-01"},
		{schema.Date, []any{"2024-02-29", time.Date(2024, 2, 29, 12, 0, 0, 0, east)}, []string{`"2024-02-29"`}, []string{"2024-02-29"}, "2024-02-29"},
		{schema.Date, []any{"0001-01-01", time.Time{}}, []string{`"0001-01-01"`}, []string{"0001-01-01"}, "0001-01-01"},
		{schema.Date, []any{"9999-12-31", utc(9999, "12-31T00:00:00Z")}, []string{`"9999-12-31"`}, []string{"9999-12-31"}, "9999-12-31"},
		{schema.Date, []any{utc(0, "12-31T00:00:00Z")}, nil, nil, "0001-12-31 BC"},
		{schema.Date, []any{utc(-4713, "11-24T00:00:00Z")}, nil, nil, "4714-11-24 BC"},
		{schema.Date, []any{utc(5874897, "12-31T23:59:59Z")}, nil, nil, "5874897-12-31"},

		{schema.Time, []any{"00:00:00", utc(2024, "01-01T00:00:00Z"), "00:00:00.000000000"}, []string{`"00:00:00"`}, []string{"00:00:00"}, "00:00:00"},
		{schema.Time, []any{"12:34:56.123456", utc(1, "01-01T12:34:56.123456789Z"), utc(2024, "01-01T22:34:56.123456Z").In(east)}, []string{`"12:34:56.123456"`, `"12:34:56.1234560"`}, []string{"12:34:56.123456"}, "12:34:56.123456"},
		{schema.Time, []any{"12:34:56.5"}, []string{`"12:34:56.5"`}, []string{"12:34:56.50"}, "12:34:56.5"},
		{schema.Time, []any{"23:59:59.999999", utc(2024, "01-01T23:59:59.999999999Z")}, []string{`"23:59:59.999999"`}, []string{"23:59:59.999999"}, "23:59:59.999999"},

		{schema.Timestamp, []any{"2000-01-01T00:00:00", utc(2000, "01-01T00:00:00Z"), utc(2000, "01-01T12:00:00Z").In(west)}, []string{`"2000-01-01T00:00:00"`, `"2000-01-01t00:00:00.0"`},
			[]string{"2000-01-01T00:00:00", "2000-01-01 00:00:00"}, "2000-01-01 00:00:00"},
		{schema.Timestamp, []any{"2024-02-29T23:59:59.999999", time.Date(2024, 2, 29, 23, 59, 59, 999_999_999, east)}, []string{`"2024-02-29T23:59:59.999999"`}, []string{"2024-02-29 23:59:59.999999"}, "2024-02-29 23:59:59.999999"},
		{schema.Timestamp, []any{utc(1969, "12-31T23:59:59.500000999Z"), "1969-12-31T23:59:59.5"}, []string{`"1969-12-31T23:59:59.5"`}, []string{"1969-12-31T23:59:59.5"}, "1969-12-31 23:59:59.5"},
		{schema.Timestamp, []any{"0001-01-01T00:00:00", time.Time{}}, []string{`"0001-01-01T00:00:00"`}, []string{"0001-01-01 00:00:00"}, "0001-01-01 00:00:00"},
		{schema.Timestamp, []any{"9999-12-31T23:59:59"}, []string{`"9999-12-31T23:59:59"`}, []string{"9999-12-31 23:59:59"}, "9999-12-31 23:59:59"},
		{schema.Timestamp, []any{utc(-4713, "11-24T00:00:00Z")}, nil, nil, "4714-11-24 00:00:00 BC"},
		{schema.Timestamp, []any{utc(294276, "12-31T23:59:59.999999999Z")}, nil, nil, "294276-12-31 23:59:59.999999"},

		{schema.TimestampTZ, []any{utc(2000, "01-01T00:00:00Z")}, []string{`"2000-01-01T00:00:00Z"`, `"2000-01-01t00:00:00.000000000z"`, `"2000-01-01T00:00:00\u002b00:00"`},
			[]string{"2000-01-01T00:00:00Z", "2000-01-01 00:00:00+00", "2000-01-01 00:00:00-00:00"}, "2000-01-01 00:00:00+00"},
		{schema.TimestampTZ, []any{utc(2024, "02-29T23:59:59.999999999Z"), utc(2024, "02-29T23:59:59.999999Z").In(time.FixedZone("", -3600))},
			[]string{`"2024-02-29T23:59:59.999999Z"`, `"2024-03-01T05:29:59.999999+05:30"`, `"2024-02-29T00:00:59.9999990-23:59"`},
			[]string{"2024-02-29 15:59:59.999999-08", "2024-03-01 05:29:59.999999+05:30"}, "2024-02-29 23:59:59.999999+00"},
		{schema.TimestampTZ, []any{utc(1969, "12-31T23:59:59.500000999Z")}, []string{`"1969-12-31T23:59:59.5Z"`}, []string{"1969-12-31T23:59:59.5Z"}, "1969-12-31 23:59:59.5+00"},
		{schema.TimestampTZ, []any{utc(1900, "02-28T00:00:00.000001Z")}, []string{`"1900-02-28T00:00:00.000001Z"`}, []string{"1900-02-28T00:00:00.000001Z"}, "1900-02-28 00:00:00.000001+00"},
		{schema.TimestampTZ, []any{utc(1, "01-01T00:00:00Z"), time.Time{}}, []string{`"0001-01-01T00:00:00Z"`}, []string{"0001-01-01T00:00:00Z"}, "0001-01-01 00:00:00+00"},
		{schema.TimestampTZ, []any{utc(0, "12-31T22:00:00Z")}, []string{`"0001-01-01T00:00:00+02:00"`}, []string{"0001-01-01 00:00:00+02"}, "0001-12-31 22:00:00+00 BC"},
		{schema.TimestampTZ, []any{utc(-43, "03-15T12:00:00Z")}, nil, nil, "0044-03-15 12:00:00+00 BC"},
		{schema.TimestampTZ, []any{utc(-4713, "11-24T00:00:00Z")}, nil, nil, "4714-11-24 00:00:00+00 BC"},
		{schema.TimestampTZ, []any{utc(9999, "12-31T23:59:59Z")}, []string{`"9999-12-31T23:59:59Z"`}, []string{"9999-12-31 23:59:59Z"}, "9999-12-31 23:59:59+00"},
		{schema.TimestampTZ, []any{utc(10000, "01-01T00:00:00Z")}, []string{`"9999-12-31T23:00:00-01:00"`}, []string{"9999-12-31 23:00:00-01"}, "10000-01-01 00:00:00+00"},
		{schema.TimestampTZ, []any{utc(294276, "12-31T23:59:59.999999999Z")}, nil, nil, "294276-12-31 23:59:59.999999+00"},
	}
}

// arrayValues are those of arrays; the text of an array is its JSON.
func arrayValues() []value {
	array := func(typ schema.Type, sql, raw string, goes ...any) value {
		return value{schema.ArrayOf(typ), goes, []string{raw}, []string{raw, " " + raw + "\t\n"}, sql}
	}
	id := uuid.MustParse("0192f0c1-2b3c-7d4e-8f50-617283940a1b")
	many, manyRaw := make([]int32, 5_000), "["+strings.TrimSuffix(strings.Repeat("0, ", 5_000), ", ")+"]"
	return []value{
		array(schema.Int64, "{}", "[ ]", []int64{}, []int64(nil), []any{}),
		array(schema.Int64, "{1}", "[1]", []int64{1}, []int{1}, []uint32{1}, []any{uint8(1)}),
		array(schema.Int64, "{NULL}", "[null]", []any{nil}),
		array(schema.Int64, "{-9223372036854775808,NULL,9223372036854775807}", "[-9223372036854775808, null\t,9223372036854775807]", []any{int64(math.MinInt64), nil, int64(math.MaxInt64)}),
		array(schema.Int32, "{"+strings.TrimSuffix(strings.Repeat("0,", 5_000), ",")+"}", manyRaw, many),
		array(schema.Int16, "{-32768,32767}", "[-32768,32767]", []int16{math.MinInt16, math.MaxInt16}),
		array(schema.Float32, "{0.1,NaN,-Infinity,-0}", `[0.1,"NaN","-Infinity",-0]`, []float32{0.1, float32(math.NaN()), float32(math.Inf(-1)), float32(math.Copysign(0, -1))}),
		array(schema.Float64, "{0.1,NULL,Infinity}", `[0.1,null,"Infinity"]`, []any{0.1, nil, math.Inf(1)}),
		array(schema.MakeDecimal(12, 2), "{0.00,NULL,-9999999999.99,1.50}", `["0",null,-9999999999.99,1.5]`, []any{0, nil, "-9999999999.99", json.Number("1.5")}),
		array(schema.MakeDecimal(1000, 0), "{1,-2}", `[1,-2]`, []*big.Int{big.NewInt(1), big.NewInt(-2)}, []string{"1", "-2"}),
		array(schema.Bool, "{t,f,NULL}", "[true,false,null]", []any{true, false, nil}),
		array(schema.Text, `{"",NULL,"NULL","a,b]","\"\\","[{",é漢🎉}`, `["",null,"NULL","a,b]","\"\\","[{","é\u6f22🎉"]`, []any{"", nil, "NULL", "a,b]", `"\`, "[{", "é漢🎉"}),
		array(schema.Text, `{"null"}`, `["null"]`, []string{"null"}),
		array(schema.Bytes, `{"\\x","\\x00ff",NULL}`, `["","AP8=",null]`, []any{[]byte{}, []byte{0, 255}, nil}),
		array(schema.Bytes, `{"\\x","\\x01"}`, `["","AQ=="]`, [][]byte{nil, {1}}),
		array(schema.Date, "{2024-02-29,NULL}", `["2024-02-29",null]`, []any{utc(2024, "02-29T01:00:00Z"), nil}),
		array(schema.Time, "{12:34:56.5}", `["12:34:56.5"]`, []string{"12:34:56.5"}, []time.Time{utc(2024, "02-29T12:34:56.5Z")}),
		array(schema.Timestamp, `{"2024-02-29 12:34:56"}`, `["2024-02-29T12:34:56"]`, []time.Time{utc(2024, "02-29T12:34:56Z")}),
		array(schema.TimestampTZ, `{"2024-02-29 12:34:56+00",NULL}`, `["2024-02-29T13:34:56+01:00", null]`, []any{utc(2024, "02-29T12:34:56Z"), nil}),
		array(schema.UUID, "{"+id.String()+",NULL}", `["`+id.String()+`",null]`, []any{id, nil}),
		array(schema.UUID, "{"+id.String()+"}", `["`+id.String()+`"]`, []uuid.UUID{id}),
		array(schema.JSON, `{"{\"a\": [1, null, \"],\"]}",NULL,[],2}`, `[{"a": [1, null, "],"]},null, [] ,2]`,
			[]any{json.RawMessage(`{"a": [1, null, "],"]}`), nil, "[]", "2"}),
	}
}
