package rows_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"math/big"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"tallyman/schema"
	"tallyman/schema/rows"
)

// tuple reads the fields of a native tuple; nil is NULL.
func tuple(t *testing.T, value []byte) (fields [][]byte, rest []byte) {
	t.Helper()
	n := int(value[0])<<8 | int(value[1])
	value = value[2:]
	for range n {
		length := int32(value[0])<<24 | int32(value[1])<<16 | int32(value[2])<<8 | int32(value[3])
		value = value[4:]
		if length < 0 {
			fields = append(fields, nil)
			continue
		}
		fields = append(fields, value[:length:length])
		value = value[length:]
	}
	return fields, value
}

// isError checks that a decoder said what is wrong in a typed way, left dst
// alone, and escaped what it quotes.
func isError(t *testing.T, dst []byte, err error) {
	t.Helper()
	var e *rows.Error
	if !errors.As(err, &e) || e.Detail == "" || string(dst) != "before" {
		t.Fatalf("%T %v, dst is %q", err, err, dst)
	}
	if s := e.Error(); !utf8.ValidString(s) || strings.ContainsAny(s, "\x00\x1b\n\r") || len(s) > 1_000 {
		t.Fatalf("not fit for a log: %q", s)
	}
}

// FuzzAppendNDJSON: it never panics; what it refuses, it refuses with an Error
// and leaves dst alone; what it accepts walks as that many rows; each row is
// JSON to the standard library too, which reads the same value of each column;
// and reading a value twice gives the same.
func FuzzAppendNDJSON(f *testing.F) {
	codec := newCodec(f, everyType())
	for _, v := range values() {
		for _, raw := range v.json {
			if len(raw) < 10_000 {
				f.Add([]byte(`{"n": 1, "` + string(v.typ) + `": ` + raw + "}\r\n{\"n\": 2}"))
			}
		}
	}
	f.Add([]byte("{\"n\":9007199254740993,\"\\u006e\":1}\n\n5\n[]"))
	f.Add([]byte(`{"n":1,"json":{"a":[{"a":"\u0000"}],"a":1},"text":"\ud800"}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		given := bytes.Clone(value)
		dst, n, err := codec.AppendNDJSON([]byte("before"), batchID, value)
		if !bytes.Equal(value, given) {
			t.Fatal("the value was changed")
		}
		if err != nil {
			isError(t, dst, err)
			return
		}
		tuples := dst[len("before"):]
		if err := codec.Walk(tuples, n, batchID); err != nil {
			t.Fatalf("%d rows of %q do not walk: %v", n, value, err)
		}
		dec := json.NewDecoder(bytes.NewReader(value))
		for range n {
			var row map[string]json.RawMessage
			if err := dec.Decode(&row); err != nil {
				t.Fatalf("%q: %v", value, err)
			}
			var fields [][]byte
			fields, tuples = tuple(t, tuples)
			for i, c := range everyType().Columns {
				checkField(t, c.Type, row[c.Name], fields[i])
			}
		}
		if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
			t.Fatalf("after %d rows of %q: %v", n, value, err)
		}
		if again, m, err := codec.AppendNDJSON([]byte("before"), batchID, value); err != nil || m != n || !bytes.Equal(again, dst) {
			t.Fatalf("read again, %q gives %d rows and %v", value, m, err)
		}
	})
}

// checkField checks a field against what the standard library makes of raw.
func checkField(t *testing.T, typ schema.Type, raw json.RawMessage, field []byte) {
	t.Helper()
	if raw == nil || string(raw) == "null" {
		if field != nil {
			t.Fatalf("%s: %x for %q", typ, field, raw)
		}
		return
	}
	var s string
	_ = json.Unmarshal(raw, &s)
	var want []byte
	switch typ {
	case schema.Bool:
		want = []byte{0}
		if string(raw) == "true" {
			want = []byte{1}
		}
	case schema.Int64:
		n, ok := new(big.Int).SetString(string(raw), 10)
		if !ok || !n.IsInt64() {
			t.Fatalf("int64: accepted %q", raw)
		}
		want = bigEndian(uint64(n.Int64()))
	case schema.Float64:
		switch s {
		case "NaN":
			want = bigEndian(math.Float64bits(math.NaN()))
		case "Infinity":
			want = bigEndian(math.Float64bits(math.Inf(1)))
		case "-Infinity":
			want = bigEndian(math.Float64bits(math.Inf(-1)))
		default:
			var n float64
			if err := json.Unmarshal(raw, &n); err != nil {
				t.Fatalf("float64: accepted %q: %v", raw, err)
			}
			want = bigEndian(math.Float64bits(n))
		}
	case schema.Text:
		want = []byte(s)
	case schema.TimestampTZ:
		at, err := time.Parse(time.RFC3339Nano, strings.ToUpper(s))
		if err != nil || at.Nanosecond()%1000 != 0 {
			t.Fatalf("timestamptz: accepted %q: %v", raw, err)
		}
		want = bigEndian(uint64(at.UnixMicro() - 946684800_000_000))
	case schema.UUID:
		id, err := uuid.Parse(s)
		if err != nil {
			t.Fatalf("uuid: accepted %q", raw)
		}
		want = id[:]
	case schema.JSON:
		want = raw
	}
	if !bytes.Equal(field, want) {
		t.Fatalf("%s: %x for %q, want %x", typ, field, raw, want)
	}
}

func bigEndian(n uint64) []byte {
	return []byte{byte(n >> 56), byte(n >> 48), byte(n >> 40), byte(n >> 32), byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
}

// FuzzAppendText: for a field of any type it never panics; what it refuses, it
// refuses with an Error and leaves dst alone; what it accepts walks; and what
// JSON spells the same way has the same encoding.
func FuzzAppendText(f *testing.F) {
	types := schema.Types()
	var codecs []*rows.Codec
	for i, typ := range types {
		codecs = append(codecs, newCodec(f, schema.Manifest{BatchID: true, Columns: []schema.Column{{Name: "v", Type: typ}}}))
		for _, v := range values() {
			for _, text := range v.text {
				if v.typ == typ && len(text) < 10_000 {
					f.Add(byte(i), []byte(text))
				}
			}
		}
	}
	f.Fuzz(func(t *testing.T, which byte, text []byte) {
		typ, codec := types[int(which)%len(types)], codecs[int(which)%len(types)]
		dst, err := codec.AppendText([]byte("before"), batchID, []rows.Field{{Value: text}})
		if err != nil {
			isError(t, dst, err)
			return
		}
		if err := codec.Walk(dst[len("before"):], 1, batchID); err != nil {
			t.Fatalf("%s %q does not walk: %v", typ, text, err)
		}
		raw := text
		switch typ {
		case schema.Text, schema.TimestampTZ, schema.UUID:
			if raw, err = json.Marshal(string(text)); err != nil {
				t.Fatal(err)
			}
		case schema.JSON:
			if raw = bytes.TrimSpace(text); len(raw) != len(text) || string(raw) == "null" || bytes.IndexByte(raw, '\n') >= 0 {
				return // in NDJSON it is another value
			}
		case schema.Float64:
			if !json.Valid(raw) {
				raw = []byte(`"` + string(raw) + `"`)
			}
		}
		other, n, err := codec.AppendNDJSON([]byte("before"), batchID, []byte(`{"v":`+string(raw)+`}`))
		if err == nil && (n != 1 || !bytes.Equal(other, dst)) {
			t.Fatalf("%s %q is %x, as JSON %x", typ, text, dst, other)
		}
		// As text a few spellings more are possible.
		if err != nil && (typ == schema.Text || typ == schema.UUID || typ == schema.JSON) {
			t.Fatalf("%s %q is accepted, but not as JSON: %v", typ, text, err)
		}
	})
}
