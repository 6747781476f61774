package rows_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"math"
	"math/big"
	"regexp"
	"slices"
	"strconv"
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

var decimalDigits = regexp.MustCompile(`\([0-9,]*\)`)

// FuzzAppendNDJSON: it never panics; what it refuses, it refuses with an Error
// and leaves dst alone; what it accepts walks as that many rows; each row is
// JSON to the standard library too, which reads the same value of each column;
// and reading a value twice gives the same.
func FuzzAppendNDJSON(f *testing.F) {
	codec := newCodec(f, everyType())
	for _, v := range values() {
		for _, raw := range v.json {
			if len(raw) < 10_000 {
				name := decimalDigits.ReplaceAllString(string(v.typ), "")
				f.Add([]byte(`{"n": 1, "` + name + `": ` + raw + "}\r\n{\"n\": 2}"))
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
	facts, _ := typ.Facts()
	if facts.Array {
		checkArray(t, facts.Name, raw, field)
		return
	}
	if want := wantField(t, facts, raw, s); !bytes.Equal(field, want) {
		t.Fatalf("%s: %x for %q, want %x", typ, field, raw, want)
	}
}

// checkArray checks each element of an array. Decimals in it have the digits
// that everyType gives them.
func checkArray(t *testing.T, name schema.Type, raw json.RawMessage, field []byte) {
	t.Helper()
	var elements []json.RawMessage
	if err := json.Unmarshal(raw, &elements); err != nil {
		t.Fatalf("array: accepted %q: %v", raw, err)
	}
	if len(elements) == 0 {
		if len(field) != 12 || field[3] != 0 {
			t.Fatalf("%x for an empty array", field)
		}
		return
	}
	if n := binary.BigEndian.Uint32(field[12:]); int(n) != len(elements) {
		t.Fatalf("%d elements for %q", n, raw)
	}
	field = field[20:]
	if name == schema.Decimal {
		name = "decimal(12,2)"
	}
	for _, element := range elements {
		length := int32(binary.BigEndian.Uint32(field))
		field = field[4:]
		if length < 0 {
			checkField(t, name, element, nil)
			continue
		}
		checkField(t, name, element, field[:length:length])
		field = field[length:]
	}
	if len(field) > 0 {
		t.Fatalf("%x follows the elements of %q", field, raw)
	}
}

// wantField is the field that a value is; s is its text if it is a string.
func wantField(t *testing.T, facts schema.Facts, raw json.RawMessage, s string) []byte {
	t.Helper()
	switch facts.Name {
	case schema.Bool:
		if string(raw) == "true" {
			return []byte{1}
		}
		return []byte{0}
	case schema.Int16, schema.Int32, schema.Int64:
		n, ok := new(big.Int).SetString(string(raw), 10)
		if bits := 8*facts.Size - 1; !ok || n.BitLen() > bits && new(big.Int).Not(n).BitLen() > bits {
			t.Fatalf("%s: accepted %q", facts.Name, raw)
		}
		return bigEndian(uint64(n.Int64()))[8-facts.Size:]
	case schema.Float32, schema.Float64:
		return wantFloat(t, 8*facts.Size, raw, s)
	case schema.Decimal:
		return wantNumeric(t, facts, raw, s)
	case schema.Text:
		return []byte(s)
	case schema.Bytes:
		var b []byte
		if err := json.Unmarshal(raw, &b); err != nil {
			t.Fatalf("bytes: accepted %q: %v", raw, err)
		}
		return b
	case schema.Date, schema.Time, schema.Timestamp, schema.TimestampTZ:
		return wantTime(t, facts.Name, s)
	case schema.UUID:
		id, err := uuid.Parse(s)
		if err != nil {
			t.Fatalf("uuid: accepted %q", raw)
		}
		return id[:]
	default:
		return raw
	}
}

func wantFloat(t *testing.T, bits int, raw json.RawMessage, s string) []byte {
	t.Helper()
	n, ok := map[string]float64{"NaN": math.NaN(), "Infinity": math.Inf(1), "-Infinity": math.Inf(-1)}[s]
	if !ok {
		var err error
		if n, err = strconv.ParseFloat(string(raw), bits); err != nil {
			t.Fatalf("float%d: accepted %q: %v", bits, raw, err)
		}
	}
	if bits == 32 {
		return bigEndian(uint64(math.Float32bits(float32(n))))[4:]
	}
	return bigEndian(math.Float64bits(n))
}

// wantNumeric makes PostgreSQL's numeric from a rational number.
func wantNumeric(t *testing.T, facts schema.Facts, raw json.RawMessage, s string) []byte {
	t.Helper()
	if s == "" {
		s = string(raw)
	}
	mantissa, _, _ := strings.Cut(strings.ToLower(s), "e")
	r := new(big.Rat)
	if strings.ContainsAny(mantissa, "123456789") {
		if _, ok := r.SetString(s); !ok {
			t.Fatalf("decimal: accepted %q", raw)
		}
	}
	units := new(big.Rat).Mul(r, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(facts.Scale)), nil)))
	limit := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(facts.Precision)), nil)
	if !units.IsInt() || units.Num().CmpAbs(limit) >= 0 {
		t.Fatalf("decimal: accepted %q, which does not fit", raw)
	}
	text := new(big.Rat).Abs(r).FloatString(facts.Scale)
	whole, part, _ := strings.Cut(text, ".")
	for len(whole)%4 != 0 {
		whole = "0" + whole
	}
	for len(part)%4 != 0 {
		part += "0"
	}
	weight, groups := len(whole)/4-1, whole+part
	for strings.HasPrefix(groups, "0000") {
		groups = groups[4:]
		weight--
	}
	for strings.HasSuffix(groups, "0000") && len(groups)%4 == 0 {
		groups = groups[:len(groups)-4]
	}
	if groups == "" {
		weight = 0
	}
	want := binary.BigEndian.AppendUint16(nil, uint16(len(groups)/4))
	want = binary.BigEndian.AppendUint16(want, uint16(int16(weight)))
	want = binary.BigEndian.AppendUint16(want, map[bool]uint16{true: 0x4000}[r.Sign() < 0])
	want = binary.BigEndian.AppendUint16(want, uint16(facts.Scale))
	for ; groups != ""; groups = groups[4:] {
		group, _ := strconv.Atoi(groups[:4])
		want = binary.BigEndian.AppendUint16(want, uint16(group))
	}
	return want
}

func wantTime(t *testing.T, name schema.Type, s string) []byte {
	t.Helper()
	layout := map[schema.Type]string{
		schema.Date: time.DateOnly, schema.Time: "15:04:05", schema.Timestamp: "2006-01-02T15:04:05", schema.TimestampTZ: time.RFC3339Nano,
	}[name]
	at, err := time.Parse(layout, strings.ToUpper(s))
	if err != nil || at.Nanosecond()%1000 != 0 {
		t.Fatalf("%s: accepted %q: %v", name, s, err)
	}
	switch name {
	case schema.Date:
		return bigEndian(uint64(at.Unix()/86400 - 10957))[4:]
	case schema.Time:
		return bigEndian(uint64(at.Sub(at.Truncate(24 * time.Hour)).Microseconds()))
	default:
		return bigEndian(uint64(at.UnixMicro() - 946684800_000_000))
	}
}

func bigEndian(n uint64) []byte {
	return []byte{byte(n >> 56), byte(n >> 48), byte(n >> 40), byte(n >> 32), byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
}

// FuzzAppendText: for a field of any type it never panics; what it refuses, it
// refuses with an Error and leaves dst alone; what it accepts walks; and what
// JSON spells the same way has the same encoding.
func FuzzAppendText(f *testing.F) {
	types := valueTypes()
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
		facts, _ := typ.Facts()
		raw, same := asJSON(t, facts, text)
		if !same {
			return
		}
		other, n, err := codec.AppendNDJSON([]byte("before"), batchID, []byte(`{"v":`+string(raw)+`}`))
		if err == nil && (n != 1 || !bytes.Equal(other, dst)) {
			t.Fatalf("%s %q is %x, as JSON %x", typ, text, dst, other)
		}
		// As text a few spellings more are possible.
		relaxed := slices.Contains([]schema.Type{schema.Bool, schema.Int16, schema.Int32, schema.Int64, schema.Float32, schema.Float64, schema.Timestamp, schema.TimestampTZ}, facts.Name)
		if err != nil && (facts.Array || !relaxed) {
			t.Fatalf("%s %q is accepted, but not as JSON: %v", typ, text, err)
		}
	})
}

// asJSON spells a text field of a type in JSON; false: as JSON it is another value.
func asJSON(t *testing.T, facts schema.Facts, text []byte) ([]byte, bool) {
	t.Helper()
	quoted, err := json.Marshal(string(text))
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case facts.Array || facts.Name == schema.JSON:
		raw := bytes.Trim(text, " \t\r\n")
		same := facts.Array || len(raw) == len(text) && string(raw) != "null"
		return raw, same && bytes.IndexByte(raw, '\n') < 0
	case facts.Name == schema.Bytes:
		b, err := hex.DecodeString(string(text[2:]))
		if err != nil {
			t.Fatalf("bytes: accepted %q: %v", text, err)
		}
		quoted, err = json.Marshal(b)
		return quoted, err == nil
	case facts.Name == schema.Bool || facts.Size > 0 && json.Valid(text):
		return text, true
	}
	return quoted, true
}

// FuzzWalkInside: whatever bytes a decimal or an array is, the walk never
// panics; what walks fits the type as told by a plain reader, and a byte more or
// less does not walk.
func FuzzWalkInside(f *testing.F) {
	types := []schema.Type{"decimal(9,4)", "int64[]", "text[]", "decimal(9,4)[]"}
	var codecs []*rows.Codec
	for i, typ := range types {
		codecs = append(codecs, newCodec(f, pairs(typ)))
		for _, v := range []any{"-12345.678", []any{1, nil, -1}, []string{"", "x"}, []any{"1.5", nil, 0}, []any{}} {
			if tuple, err := codecs[i].Append(nil, batchID, []any{1, v}); err == nil {
				f.Add(byte(i), tuple[18:len(tuple)-20])
			}
		}
	}
	f.Fuzz(func(t *testing.T, which byte, field []byte) {
		typ, codec := types[int(which)%len(types)], codecs[int(which)%len(types)]
		if codec.Walk(fieldTuple(1, field), 1, batchID) != nil {
			return
		}
		if codec.Walk(fieldTuple(1, append(bytes.Clone(field), 0)), 1, batchID) == nil || codec.Walk(fieldTuple(1, field[:len(field)-1]), 1, batchID) == nil {
			t.Fatalf("%s: walks with a byte more or less: %x", typ, field)
		}
		if typ == types[0] {
			checkNumeric(t, field)
			return
		}
		if len(field) == 12 {
			return
		}
		n := binary.BigEndian.Uint32(field[12:])
		for rest := field[20:]; len(rest) > 0; n-- {
			length := int32(binary.BigEndian.Uint32(rest))
			rest = rest[4:]
			if length < 0 {
				continue
			}
			if typ == "int64[]" && length != 8 {
				t.Fatalf("%s: walks with an element of %d bytes: %x", typ, length, field)
			}
			if typ == "decimal(9,4)[]" {
				checkNumeric(t, rest[:length])
			}
			rest = rest[length:]
		}
		if n != 0 {
			t.Fatalf("%s: walks with another number of elements: %x", typ, field)
		}
	})
}

// checkNumeric checks that a numeric fits decimal(9,4).
func checkNumeric(t *testing.T, field []byte) {
	t.Helper()
	r, ok := new(big.Rat).SetString(readNumeric(field))
	units := r.Mul(r, big.NewRat(10_000, 1))
	if !ok || !units.IsInt() || units.Num().CmpAbs(big.NewInt(1_000_000_000)) >= 0 {
		t.Fatalf("walks, but does not fit: %x", field)
	}
}
