package rows_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"

	"tallyman/schema"
	"tallyman/schema/rows"
)

// walkCodec is of two columns, text (nullable) and int64, and _batch_id.
func walkCodec(t testing.TB) *rows.Codec {
	return newCodec(t, schema.Manifest{BatchID: true, Columns: []schema.Column{
		{Name: "note", Type: schema.Text, Nullable: true}, {Name: "n", Type: schema.Int64},
	}})
}

// The layout is frozen: these bytes are written out by hand.
func TestWalk(t *testing.T) {
	t.Parallel()
	codec := walkCodec(t)
	const (
		fields = "\x00\x03"
		note   = "\x00\x00\x00\x02hi"
		null   = "\xff\xff\xff\xff"
		n      = "\x00\x00\x00\x08\xff\xff\xff\xff\xff\xff\xff\xfe"
		id     = "\x00\x00\x00\x10\x01\x92\xf0\xc1\x2b\x3c\x7d\x4e\x8f\x50\x61\x72\x83\x94\x0a\x1b"
		one    = fields + note + n + id
		two    = fields + null + n + id
	)
	appended, err := codec.Append(nil, batchID, []any{"hi", -2})
	if err != nil || string(appended) != one {
		t.Fatalf("Append gave %x, %v, want %x", appended, err, one)
	}
	for name, tc := range map[string]struct {
		value string
		n     int
		want  string // empty: it walks
	}{
		"none":           {"", 0, ``},
		"one":            {one, 1, ``},
		"two":            {one + two, 2, ``},
		"count too low":  {one + two, 1, `38 bytes follow the last of 1 rows`},
		"count too high": {one + two, 3, `row 3: the value ends after 2 of 3 rows`},
		"count negative": {one, -1, `40 bytes follow the last of -1 rows`},
		"a byte more":    {one + "\x00", 1, `1 bytes follow the last of 1 rows`},
		"half a head":    {one + "\x00", 2, `row 2: the value ends after 1 of 2 rows`},
		"COPY's header":  {"PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00" + one, 1, `row 1: 20551 fields, want 3`},
		"COPY's trailer": {one + "\xff\xff", 1, `2 bytes follow the last of 1 rows`},
		"trailer inside": {one + "\xff\xff" + two, 3, `row 2: 65535 fields, want 3`},
		"fields missing": {"\x00\x02" + note + id, 1, `row 1: 2 fields, want 3`},
		"fields added":   {"\x00\x04" + note + n + id + null, 1, `row 1: 4 fields, want 3`},
		"no fields":      {"\x00\x00", 1, `row 1: 0 fields, want 3`},

		"NULL in a required column":     {one + fields + note + null + id, 2, `row 2, column "n": NULL in a required column`},
		"NULL for _batch_id":            {fields + note + n + null, 1, `row 1, column "_batch_id": NULL in a required column`},
		"negative length":               {fields + "\xff\xff\xff\xfe" + n + id, 1, `row 1, column "note": a length of -2`},
		"least length":                  {fields + "\x80\x00\x00\x00" + n + id, 1, `row 1, column "note": a length of -2147483648`},
		"negative length, of a size":    {fields + note + "\xff\xff\xff\xf8" + id, 1, `row 1, column "n": a length of -8`},
		"greatest length":               {fields + "\x7f\xff\xff\xff" + n + id, 1, `row 1, column "note": 2147483647 bytes, but only 32 are left in the value`},
		"length a byte too great":       {fields + note + n + "\x00\x00\x00\x11" + id[4:], 1, `row 1, column "_batch_id": 17 bytes, want 16`},
		"int64 of four bytes":           {fields + note + "\x00\x00\x00\x04\x00\x00\x00\x01" + id, 1, `row 1, column "n": 4 bytes, want 8`},
		"int64 of no bytes":             {fields + note + "\x00\x00\x00\x00" + id, 1, `row 1, column "n": 0 bytes, want 8`},
		"last text swallows the number": {fields + "\x00\x00\x00\x0ehi" + n + id, 1, `row 1, column "n": 16 bytes, want 8`},
		"other _batch_id":               {one + strings.Replace(one, "\x0a\x1b", "\x0a\x1c", 1), 2, `row 2, column "_batch_id": the id 0192f0c1-2b3c-7d4e-8f50-617283940a1c is not the batch's, 0192f0c1-2b3c-7d4e-8f50-617283940a1b`},
	} {
		err := codec.Walk([]byte(tc.value), tc.n, batchID)
		if tc.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		var e *rows.Error
		if !errors.As(err, &e) || e.Error() != tc.want {
			t.Errorf("%s:\n got %v\nwant %s", name, err, tc.want)
		}
	}
	for end := range len(one + two) {
		if err := codec.Walk([]byte(one + two)[:end], 2, batchID); err == nil {
			t.Errorf("cut to %d of %d bytes, it walks", end, len(one+two))
		}
	}
}

// Inside of decimals and arrays it is told what PostgreSQL would bend without a
// word, or refuse in a way that is not the batch's fault. Whatever walks,
// PostgreSQL takes as it is: TestWhatWalksIsTaken.
func TestWalkLooksInside(t *testing.T) {
	t.Parallel()
	const one = "\x00\x01\x00\x00\x00\x00\x00\x02" + "\x00\x01"     // 1.00
	const head = "\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x17" // one dimension, no NULL, of int4
	const two = head + "\x00\x00\x00\x02\x00\x00\x00\x01" + "\x00\x00\x00\x04\x00\x00\x00\x05" + "\xff\xff\xff\xff"
	for _, tc := range []struct {
		typ         schema.Type
		field, want string // empty: it walks
	}{
		{"decimal(3,2)", one, ``},
		{"decimal(3,2)", "\x00\x00\x00\x00\x00\x00\x00\x00", ``},
		{"decimal(3,2)", "\x00\x02\x00\x00\x40\x00\x00\x02" + "\x00\x09\x26\xac", ``},         // -9.99
		{"decimal(3,2)", "\x00\x03\x00\x01\x00\x00\x3f\xff" + "\x00\x00\x00\x01\x00\x00", ``}, // zeros around it
		{"decimal(3,2)", "", `0 bytes, a decimal has at least 8`},
		{"decimal(3,2)", one[:7], `7 bytes, a decimal has at least 8`},
		{"decimal(3,2)", one[:9], `9 bytes, want 10 for 1 digits of base 10,000`},
		{"decimal(3,2)", one + "\x00", `11 bytes, want 10 for 1 digits of base 10,000`},
		{"decimal(3,2)", "\xff\xff" + one[2:], `10 bytes, want 131078 for 65535 digits of base 10,000`},
		{"decimal(3,2)", "\x00\x00\x00\x00\xc0\x00\x00\x00", `a sign of 0xc000: a decimal is positive or negative, no NaN or infinity`},
		{"decimal(3,2)", "\x00\x00\x00\x00\xd0\x00\x00\x20", `a sign of 0xd000: a decimal is positive or negative, no NaN or infinity`},
		{"decimal(3,2)", one[:6] + "\x40\x00" + one[8:], `a scale of 16384, at most 16383 is possible`},
		{"decimal(3,2)", one[:8] + "\x27\x10", `the digit 10000 of base 10,000`},
		{"decimal(3,2)", one[:8] + "\x00\x0a", `a number that does not fit decimal(3,2): it has more than 1 digits before the point`},
		{"decimal(3,2)", "\x00\x01\x7f\xff" + one[4:], `a number that does not fit decimal(3,2): it has more than 1 digits before the point`},
		{"decimal(3,2)", "\x00\x01\x80\x00" + one[4:], `a number that does not fit decimal(3,2): it has more than 2 digits after the point`},
		{"decimal(3,2)", "\x00\x01\xff\xff\x00\x00\x00\x04" + "\x00\x0a", `a number that does not fit decimal(3,2): it has more than 2 digits after the point`}, // 0.0010 would be rounded
		{"decimal(3,2)", "\x00\x01\xff\xff\x00\x00\x00\x01" + "\x00\x64", `a number that does not fit decimal(3,2): it has more than 1 digits after the point`}, // 0.01 shown as 0.0 would be cut
		{"decimal(3,3)", "\x00\x01\x00\x00\x00\x00\x00\x00" + "\x00\x01", `a number that does not fit decimal(3,3): it has more than 0 digits before the point`},
		{"decimal(3,3)", "\x00\x01\xff\xff\x00\x00\x00\x03" + "\x27\x06", ``}, // 0.999

		{"int32[]", two, ``},
		{"int32[]", "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x17", ``},
		{"int32[]", "", `0 bytes, an array has at least 12`},
		{"int32[]", head, `12 bytes, an array with elements has at least 20`},
		{"int32[]", "\x00\x00\x00\x00" + head[4:] + "\x00", `1 bytes follow an array without elements`},
		{"int32[]", "\x00\x00\x00\x02" + two[4:], `an array of 2 dimensions, want one`},
		{"int32[]", "\xff\xff\xff\xff" + two[4:], `an array of 4294967295 dimensions, want one`},
		{"int32[]", head[:7] + "\x02" + two[8:], `an array with the flags 0x2, want 0 or 1`},
		{"int32[]", head[:11] + "\x15" + two[12:], `an array of elements of type 21, want 23`},
		{"int32[]", head + "\x00\x00\x00\x00\x00\x00\x00\x01", `an array of 0 elements counted from 1: want them counted from 1, and no dimension if there are none`},
		{"int32[]", head + "\x00\x00\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff", `an array of 1 elements counted from -1: want them counted from 1, and no dimension if there are none`},
		{"int32[]", head + "\xff\xff\xff\xff" + two[16:], `the array ends after 2 of 4294967295 elements`},
		{"int32[]", two[:len(two)-1], `the array ends after 1 of 2 elements`},
		{"int32[]", two + "\x00", `1 bytes follow the last of 2 elements`},
		{"int32[]", two[:len(two)-1] + "\xfe", `element 2: a length of -2`},
		{"int32[]", head + "\x00\x00\x00\x01\x00\x00\x00\x01" + "\x00\x00\x00\x02\x00\x05", `element 1: 2 bytes, want 4`},
		{"text[]", head[:11] + "\x19\x00\x00\x00\x01\x00\x00\x00\x01" + "\x00\x00\x00\x02\x41", `element 1: 2 bytes, but only 1 are left in the array`},
		{"text[]", head[:11] + "\x19\x00\x00\x00\x01\x00\x00\x00\x01" + "\x7f\xff\xff\xff\x41", `element 1: 2147483647 bytes, but only 1 are left in the array`},
		{"decimal(3,2)[]", head[:10] + "\x06\xa4\x00\x00\x00\x01\x00\x00\x00\x01" + "\x00\x00\x00\x08\x00\x00\x00\x00\xc0\x00\x00\x00",
			`element 1: a sign of 0xc000: a decimal is positive or negative, no NaN or infinity`},
	} {
		codec := newCodec(t, schema.Manifest{Columns: []schema.Column{{Name: "v", Type: tc.typ}}})
		tuple := binary.BigEndian.AppendUint32([]byte{0, 1}, uint32(len(tc.field)))
		err := codec.Walk(append(tuple, tc.field...), 1, batchID)
		if tc.want == "" {
			if err != nil {
				t.Errorf("%s %x: %v", tc.typ, tc.field, err)
			}
			continue
		}
		var e *rows.Error
		if !errors.As(err, &e) || e.Error() != `row 1, column "v": `+tc.want {
			t.Errorf("%s %x:\n got %v\nwant %s", tc.typ, tc.field, err, tc.want)
		}
	}
}

// FuzzWalk: it never panics; what walks is exactly the tuples that it says it
// is, as told by a plain reader of the layout; it walks with no other count and
// no other id; and cut anywhere it does not walk.
func FuzzWalk(f *testing.F) {
	codec := walkCodec(f)
	for _, row := range [][]any{{"hi", 1}, {nil, -1}, {strings.Repeat("x", 300), 1 << 40}} {
		tuple, err := codec.Append(nil, batchID, row)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(tuple, 1)
		f.Add(append(bytes.Clone(tuple), tuple...), 2)
	}
	f.Add([]byte{}, 0)
	f.Add([]byte("\x00\x03\xff\xff\xff\xfe\x7f\xff\xff\xff"), 3)
	f.Fuzz(func(t *testing.T, value []byte, n int) {
		if codec.Walk(value, n, batchID) != nil {
			return
		}
		var again []byte
		count := 0
		for rest := value; len(rest) > 0; count++ {
			again = binary.BigEndian.AppendUint16(again, 3)
			rest = rest[2:]
			for i, size := range []int{-1, 8, 16} {
				length := int(int32(binary.BigEndian.Uint32(rest)))
				again = append(again, rest[:4]...)
				rest = rest[4:]
				if length == -1 && i == 0 {
					continue
				}
				if size != -1 && length != size || i == 2 && uuid.UUID(rest[:16]) != batchID {
					t.Fatalf("walks with field %d of %d bytes: %x", i, length, value)
				}
				again = append(again, rest[:length]...)
				rest = rest[length:]
			}
		}
		if len(value) == 0 {
			return
		}
		if n != count || !bytes.Equal(again, value) {
			t.Fatalf("walks as %d rows, but has %d: %x", n, count, value)
		}
		for _, other := range []int{n + 1, n - 1} {
			if codec.Walk(value, other, batchID) == nil {
				t.Fatalf("walks as %d rows too: %x", other, value)
			}
		}
		if codec.Walk(value, n, uuid.Nil) == nil || codec.Walk(value[:len(value)-1], n, batchID) == nil {
			t.Fatalf("walks under another id, or cut: %x", value)
		}
	})
}
