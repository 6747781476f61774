package rows_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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

// What goes in by any form is what PostgreSQL returns.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		dsn := sandboxtest.Postgres(t, version)
		for _, typ := range valueTypes() {
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
				checkTable(t, dsn, typ, tuples, want)
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
	element, isArray := strings.CutSuffix(string(typ), "[]")
	if name, ok := map[string]string{
		"int16": "smallint", "int32": "integer", "int64": "bigint", "float32": "real", "float64": "double precision", "bytes": "bytea",
	}[element]; ok {
		element = name
	}
	if isArray {
		element += "[]"
	}
	return strings.Replace(element, "decimal", "numeric", 1)
}

// copyIn makes a table of pairs, for one connection to the database at dsn, and
// copies tuples into it.
func copyIn(ctx context.Context, t *testing.T, dsn string, typ schema.Type, tuples []byte) (*pgx.Conn, error) {
	t.Helper()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	if _, err := conn.Exec(ctx, "SET timezone = 'UTC'; CREATE TEMPORARY TABLE t (n bigint NOT NULL, v "+postgresType(typ)+", b uuid NOT NULL)"); err != nil {
		t.Fatal(err)
	}
	stream := append([]byte(copyHead), tuples...)
	_, err = conn.PgConn().CopyFrom(ctx, bytes.NewReader(append(stream, 0xff, 0xff)), "COPY t FROM STDIN (FORMAT binary)")
	return conn, err
}

// checkTable copies tuples, numbered from 0, and compares what is printed of
// them, and that PostgreSQL sends them as the very bytes that it got.
func checkTable(t *testing.T, dsn string, typ schema.Type, tuples []byte, want []any) {
	t.Helper()
	conn, err := copyIn(t.Context(), t, dsn, typ, tuples)
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
	var sent bytes.Buffer
	if _, err := conn.PgConn().CopyTo(t.Context(), &sent, "COPY (SELECT n, v, b FROM t ORDER BY n) TO STDOUT (FORMAT binary)"); err != nil {
		t.Fatal(err)
	}
	if got := sent.Bytes()[len(copyHead) : sent.Len()-2]; !bytes.Equal(got, tuples) {
		at := 0
		for at < min(len(got), len(tuples)) && got[at] == tuples[at] {
			at++
		}
		t.Errorf("PostgreSQL encodes it in another way, from byte %d on:\n got %.200x\nwant %.200x", at, got[max(at-20, 0):], tuples[max(at-20, 0):])
	}
}

// copyHead is what a binary COPY begins with.
const copyHead = "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"

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
	checkTable(t, sandboxtest.Postgres(t, "15"), schema.JSON, tuples, want)
	checkTable(t, sandboxtest.Postgres(t, "18"), schema.JSON, tuples, want)

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
	dsn := sandboxtest.Postgres(t, "18")
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
		_, err := copyIn(t.Context(), t, dsn, typ, tuple)
		var refusal *pgconn.PgError
		if !errors.As(err, &refusal) || !strings.HasPrefix(refusal.Code, "22") {
			t.Errorf("%s: got %v, want an error of class 22", typ, err)
		}
	}
}
