package rows_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema"
	"tallyman/schema/rows"
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
	id := uuid.MustParse("0192f0c1-2b3c-7d4e-8f50-617283940a1b")
	utc := func(year int, rest string) time.Time { // in years that RFC 3339 can't write, too
		t, err := time.Parse(time.RFC3339Nano, "2000-"+rest)
		if err != nil {
			panic(err)
		}
		return time.Date(year, t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
	}
	const tricky = "\ttab\nnewline\r\\back\\N \\. \"quote\" 'x'; -- é 漢 🎉 \u2028 \x01\x7f"
	const odd = ` { "b" : 1e400000, "a":[ 1.00, -0, 18446744073709551616, "\u00e9\/\ud83c\udf89", "\\u0000", null ] } `
	return []value{
		{schema.Bool, []any{true}, []string{"true"}, []string{"true", "TRUE", "True", "t", "T", "1"}, "true"},
		{schema.Bool, []any{false}, []string{"false"}, []string{"false", "FALSE", "f", "F", "0"}, "false"},

		{schema.Int64, []any{int64(0), 0, uint8(0)}, []string{"0", "-0"}, []string{"0", "-0", "+0", "000"}, "0"},
		{schema.Int64, []any{int8(-5), int16(-5), int32(-5)}, []string{"-5"}, []string{"-5", "-005"}, "-5"},
		{schema.Int64, []any{uint8(200), uint16(200), uint32(200), uint64(200), uint(200)}, []string{"200"}, []string{"200", "+200"}, "200"},
		{schema.Int64, []any{1<<53 + 1}, []string{"9007199254740993"}, []string{"9007199254740993"}, "9007199254740993"},
		{schema.Int64, []any{int64(math.MaxInt64), uint64(math.MaxInt64)}, []string{"9223372036854775807"}, []string{"9223372036854775807"}, "9223372036854775807"},
		{schema.Int64, []any{int64(math.MinInt64)}, []string{"-9223372036854775808"}, []string{"-9223372036854775808"}, "-9223372036854775808"},

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

		{schema.Text, []any{""}, []string{`""`}, []string{""}, ""},
		{schema.Text, []any{" x "}, []string{`" x "`}, []string{" x "}, " x "},
		{schema.Text, []any{"NULL"}, []string{`"NULL"`}, []string{"NULL"}, "NULL"},
		{schema.Text, []any{tricky}, []string{
			`"\ttab\nnewline\r\\back\\N \\. \"quote\" 'x'; -- é 漢 🎉 ` + "\u2028" + ` \u0001` + "\x7f\"",
			`"\u0009tab\u000anewline\u000D\u005cback\\N \u005c. \u0022quote\u0022 'x'; -- \u00e9 \u6F22 \ud83c\udf89 \u2028 \u0001\u007f"`,
		}, []string{tricky}, tricky},
		{schema.Text, []any{"\ufeff\uffff\U0010ffff"}, []string{`"` + "\ufeff\uffff\U0010ffff" + `"`, `"\ufeff\uffff\udbff\udfff"`}, []string{"\ufeff\uffff\U0010ffff"}, "\ufeff\uffff\U0010ffff"},
		{schema.Text, []any{strings.Repeat("é", 1<<20)}, []string{`"` + strings.Repeat("é", 1<<20) + `"`}, []string{strings.Repeat("é", 1<<20)}, strings.Repeat("é", 1<<20)},

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

// What goes in by any form is what PostgreSQL returns.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		for _, typ := range schema.Types() {
			t.Run(version+"/"+string(typ), func(t *testing.T) {
				t.Parallel()
				codec := newCodec(t, pairs(typ))
				var tuples []byte
				var want []any // what PostgreSQL prints; nil: NULL
				add := func(form string, sql any, appended []byte, err error) {
					t.Helper()
					if err != nil {
						t.Fatalf("%s: %v", form, err)
					}
					if err := codec.Walk(appended[len(tuples):], 1, batchID); err != nil {
						t.Errorf("%s does not walk: %v", form, err)
					}
					tuples = appended
					want = append(want, sql)
				}
				fromJSON := func(raw string) ([]byte, error) {
					dst, _, err := codec.AppendNDJSON(tuples, batchID, fmt.Appendf(nil, `{"n": %d, "v": %s}`, len(want), raw))
					return dst, err
				}
				fromText := func(f rows.Field) ([]byte, error) {
					return codec.AppendText(tuples, batchID, []rows.Field{{Value: fmt.Append(nil, len(want))}, f})
				}
				for _, v := range values() {
					if v.typ != typ {
						continue
					}
					for _, g := range v.goes {
						appended, err := codec.Append(tuples, batchID, []any{len(want), g})
						add(fmt.Sprintf("Go %T %v", g, g), v.sql, appended, err)
					}
					for _, raw := range v.json {
						appended, err := fromJSON(raw)
						add("JSON "+raw, v.sql, appended, err)
					}
					for _, text := range v.text {
						appended, err := fromText(rows.Field{Value: []byte(text)})
						add("text "+text, v.sql, appended, err)
					}
				}
				if len(want) < 3 {
					t.Fatalf("%d values: the table lacks the type", len(want))
				}
				appended, err := codec.Append(tuples, batchID, []any{len(want), nil})
				add("Go nil", nil, appended, err)
				appended, err = fromJSON("null")
				add("JSON null", nil, appended, err)
				appended, err = fromText(rows.Field{Null: true})
				add("text NULL", nil, appended, err)
				checkTable(t, version, typ, tuples, want)
			})
		}
	}
}

// pairs is the manifest of a number and a value.
func pairs(typ schema.Type) schema.Manifest {
	return schema.Manifest{BatchID: true, Columns: []schema.Column{{Name: "n", Type: schema.Int64}, {Name: "v", Type: typ, Nullable: true}}}
}

// postgresType is what a column of the type is in PostgreSQL.
func postgresType(typ schema.Type) string {
	switch typ {
	case schema.Int64:
		return "bigint"
	case schema.Float64:
		return "double precision"
	default:
		return string(typ)
	}
}

// copyIn makes a table of pairs and copies tuples into it.
func copyIn(ctx context.Context, t *testing.T, version string, typ schema.Type, tuples []byte) (*pgx.Conn, error) {
	t.Helper()
	conn, err := pgx.Connect(ctx, sandboxtest.Postgres(t, version))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	if _, err := conn.Exec(ctx, "SET timezone = 'UTC'; CREATE TABLE t (n bigint NOT NULL, v "+postgresType(typ)+", b uuid NOT NULL)"); err != nil {
		t.Fatal(err)
	}
	stream := append([]byte("PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"), tuples...)
	_, err = conn.PgConn().CopyFrom(ctx, bytes.NewReader(append(stream, 0xff, 0xff)), "COPY t FROM STDIN (FORMAT binary)")
	return conn, err
}

// checkTable copies tuples, numbered from 0, and compares what is printed of them.
func checkTable(t *testing.T, version string, typ schema.Type, tuples []byte, want []any) {
	t.Helper()
	conn, err := copyIn(t.Context(), t, version, typ, tuples)
	if err != nil {
		t.Fatal(err)
	}
	printed, err := conn.Query(t.Context(), "SELECT n, v::text, b FROM t ORDER BY n")
	if err != nil {
		t.Fatal(err)
	}
	next := 0
	var n int
	var v *string
	var b uuid.UUID
	if _, err := pgx.ForEachRow(printed, []any{&n, &v, &b}, func() error {
		if n != next || n >= len(want) {
			return fmt.Errorf("row %d after %d rows of %d", n, next, len(want))
		}
		next++
		if w := want[n]; (v == nil) != (w == nil) || v != nil && *v != w || b != batchID {
			t.Errorf("row %d: got %.100v of batch %s, want %.100v", n, show(v), b, w)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if next != len(want) {
		t.Errorf("%d rows, want %d", next, len(want))
	}
}

func show(s *string) any {
	if s == nil {
		return nil
	}
	return *s
}

// Without the walk, a last length that is too great lets one batch swallow the
// rows of its neighbour in a group, and PostgreSQL is content: the bytes of a
// batch that does not walk must never reach it.
func TestSwallowedNeighbour(t *testing.T) {
	t.Parallel()
	m := pairs(schema.Text)
	m.BatchID = false
	codec := newCodec(t, m)
	var first, second []byte
	for n := range 4 {
		var err error
		if first, err = codec.Append(first, batchID, []any{n, "first"}); err != nil {
			t.Fatal(err)
		}
		if n == 3 {
			break
		}
		if second, err = codec.Append(second, batchID, []any{10 + n, "second"}); err != nil {
			t.Fatal(err)
		}
	}
	first[len(first)-len("first")-1] += byte(len(second) / 3) // of the last field's length
	if err := codec.Walk(second, 3, batchID); err != nil {
		t.Fatal(err)
	}
	// Together they are the six rows that they say they are, so it is each
	// batch by itself that has to walk.
	if err := codec.Walk(append(bytes.Clone(first), second...), 6, batchID); err != nil {
		t.Errorf("the premise is gone: %v", err)
	}
	for n, want := range map[int]string{
		3: `23 bytes follow the last of 3 rows`,
		4: `row 4, column "v": 29 bytes, but only 5 are left in the value`,
	} {
		var e *rows.Error
		if err := codec.Walk(first, n, batchID); !errors.As(err, &e) || e.Error() != want {
			t.Errorf("%d rows: got %v, want %s", n, err, want)
		}
	}
}

// Whatever is accepted, PostgreSQL takes, and it returns the very text.
// Whatever JSON is refused, PostgreSQL refuses too, but for what the codec
// says that it does not hold with.
func TestAgreesWithPostgresOnJSON(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	codec := newCodec(t, pairs(schema.JSON))
	var tuples []byte
	var want []any
	refusals := map[string]string{}
	for len(want) < 3_000 || len(refusals) < 3_000 {
		text := mutate(random, jsonSeeds[random.IntN(len(jsonSeeds))])
		appended, err := codec.AppendText(tuples, batchID, []rows.Field{{Value: fmt.Append(nil, len(want))}, {Value: text}})
		switch {
		case err == nil:
			tuples, want = appended, append(want, string(text))
		case len(refusals) < 100_000 && utf8.Valid(text):
			refusals[string(text)] = err.Error()
		}
	}
	checkTable(t, "15", schema.JSON, tuples, want)
	checkTable(t, "18", schema.JSON, tuples, want)

	conn, err := pgx.Connect(t.Context(), sandboxtest.Postgres(t, "18"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	var texts []string
	for text := range refusals {
		texts = append(texts, text)
	}
	taken, err := conn.Query(t.Context(), "SELECT x FROM unnest($1::text[]) x WHERE pg_input_is_valid(x, 'json')", texts)
	if err != nil {
		t.Fatal(err)
	}
	var text string
	known := 0
	if _, err := pgx.ForEachRow(taken, []any{&text}, func() error {
		why := refusals[text]
		if !strings.Contains(why, "is repeated") && !strings.Contains(why, "surrogate") && !strings.Contains(why, `\u0000`) {
			t.Errorf("PostgreSQL takes %q, refused: %s", text, why)
		}
		known++
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if known == 0 {
		t.Error("not one text was repeated, surrogate or NUL: the generator is broken")
	}
}

var jsonSeeds = []string{
	`{"a": 1, "b": [true, false, null], "c": {"a": -1.5e+3}}`, `[0, -0, 0.0, 1E9, 1e-9, 12345678901234567890]`,
	`"x\n\"\\\/\b\f\r\t\u00e9\ud83c\udf89"`, `["\u0001", "\u0000", "\ud800", "\udc00\ud800"]`, `{"a": 1, "a": 2}`,
	` { } `, `[[[[]]]]`, `""`, `-0.1`, `null`, `"é漢🎉"`,
}

// mutate changes a few bytes of a seed.
func mutate(random *rand.Rand, seed string) []byte {
	const alphabet = "{}[]:,\"\\/ \t\n\r0123456789abefnrtu.+-Eé\x01\x7f'_"
	text := []byte(seed)
	for range random.IntN(4) {
		at, c := random.IntN(len(text)+1), alphabet[random.IntN(len(alphabet))]
		switch {
		case random.IntN(3) == 0 || len(text) == 0:
			text = append(text[:at], append([]byte{c}, text[at:]...)...)
		case at == len(text):
			text = text[:at-1]
		case random.IntN(2) == 0:
			text[at] = c
		default:
			text = append(text[:at], text[at+1:]...)
		}
	}
	return text
}

// A value that walks, but holds what PostgreSQL does not, is PostgreSQL's to
// refuse, by an error of class 22, which is the batch's own fault.
func TestWalkLeavesValuesToPostgres(t *testing.T) {
	t.Parallel()
	for typ, field := range map[schema.Type]string{
		schema.Text:        "\xff",
		schema.JSON:        "{",
		schema.TimestampTZ: "\x80\x00\x00\x00\x00\x00\x00\x02",
	} {
		codec := newCodec(t, pairs(typ))
		tuple := []byte("\x00\x03\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
		tuple = append(append(tuple, byte(len(field))), field...)
		tuple = append(append(tuple, 0, 0, 0, 16), batchID[:]...)
		if err := codec.Walk(tuple, 1, batchID); err != nil {
			t.Errorf("%s: %v", typ, err)
		}
		_, err := copyIn(t.Context(), t, "18", typ, tuple)
		var refusal *pgconn.PgError
		if !errors.As(err, &refusal) || !strings.HasPrefix(refusal.Code, "22") {
			t.Errorf("%s: got %v, want an error of class 22", typ, err)
		}
	}
}
