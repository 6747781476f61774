// Package rows encodes and decodes rows by a manifest: native (the tuples of
// PostgreSQL's binary COPY), NDJSON and text fields.
//
// A native value is a sequence of tuples without header, trailer or padding.
// A tuple is the number of fields as a 16-bit integer, then each field as a
// 32-bit length (-1: NULL) and that many bytes, all integers signed and
// big-endian. Fields are the manifest's columns in order, then, where the
// manifest has _batch_id, the 16 bytes of the batch's unique id. A field is
//
//	bool         1 byte, 0 or 1
//	int16        2 bytes; int32 4, int64 8
//	float32      4 bytes, IEEE 754; float64 8
//	decimal      PostgreSQL's numeric: head and digits of base 10,000
//	text         UTF-8 without U+0000
//	bytes        as they are
//	date         4 bytes, days since 2000-01-01
//	time         8 bytes, microseconds since midnight
//	timestamp    8 bytes, microseconds since 2000-01-01T00:00:00
//	timestamptz  8 bytes, microseconds since 2000-01-01T00:00:00Z
//	uuid         16 bytes
//	json         the JSON text as it was given
//	T[]          PostgreSQL's array: head and elements, each as a field
//
// schema/batch/FORMAT.md has all of it for other languages.
//
// The encoders are strict: nothing is trimmed, normalised or repaired, but for
// two things: a decimal number becomes the nearest float of its type, and Append
// cuts a time to its microsecond, and to what its type has of it. A row that
// they refuse leaves no trace in dst.
package rows

import (
	"encoding/binary"
	"fmt"
	"strings"
	"sync"

	"github.com/google/uuid"

	"tallyman/schema"
)

// Error is a row that can't be encoded or decoded; it names row and column.
type Error struct {
	Row    int    // from 1; 0: the value as a whole, or the one row of the call
	Column string // empty: the row as a whole
	Detail string
}

// Error returns "row N, column "C": detail", without the parts that are not known.
func (e *Error) Error() string {
	var where []string
	if e.Row > 0 {
		where = append(where, fmt.Sprintf("row %d", e.Row))
	}
	if e.Column != "" {
		where = append(where, fmt.Sprintf("column %q", e.Column))
	}
	if len(where) == 0 {
		return e.Detail
	}
	return strings.Join(where, ", ") + ": " + e.Detail
}

// Codec encodes and decodes the rows of one manifest. It is safe for concurrent use.
type Codec struct {
	columns []column
	byName  map[string]int // index in columns
	batchID bool
	fields  int      // of a native tuple: the columns, and _batch_id
	names   []string // of those fields
	sizes   []int32  // the length of each field, or schema.Variable
	decoder sync.Pool
}

// column is a column with its encoders.
type column struct {
	schema.Column
	encoders
}

// NewCodec builds the codec of a manifest.
func NewCodec(m schema.Manifest) (*Codec, error) {
	if len(m.Columns) == 0 {
		return nil, fmt.Errorf("dataset %s has no columns", m.Dataset)
	}
	c := &Codec{byName: make(map[string]int, len(m.Columns)), batchID: m.BatchID}
	for i, col := range m.Columns {
		facts, _ := col.Type.Facts()
		enc, ok := encodersOf(facts)
		if !ok {
			return nil, fmt.Errorf("dataset %s, column %q: rows can't hold the type %q", m.Dataset, col.Name, col.Type)
		}
		if _, again := c.byName[col.Name]; again || col.Name == schema.BatchIDColumn {
			return nil, fmt.Errorf("dataset %s, column %q: the name is taken", m.Dataset, col.Name)
		}
		c.byName[col.Name] = i
		c.columns = append(c.columns, column{Column: col, encoders: enc})
		c.names = append(c.names, col.Name)
		c.sizes = append(c.sizes, int32(facts.Size))
	}
	if m.BatchID {
		c.names = append(c.names, schema.BatchIDColumn)
		c.sizes = append(c.sizes, int32(len(uuid.UUID{})))
	}
	c.fields = len(c.names)
	c.decoder.New = func() any { return newDecoder(c) }
	return c, nil
}

// Columns returns the names of a native tuple's fields in order: the
// manifest's columns, then _batch_id if it has one.
func (c *Codec) Columns() []string { return append([]string(nil), c.names...) }

// begin appends the head of a tuple.
func (c *Codec) begin(dst []byte) []byte {
	return binary.BigEndian.AppendUint16(dst, uint16(c.fields))
}

// end appends what follows a tuple's columns.
func (c *Codec) end(dst []byte, id uuid.UUID) []byte {
	if c.batchID {
		dst = appendField(dst, id[:])
	}
	return dst
}

// SetID gives the native tuple at the end of b another batch's id. Tuples of a
// manifest without _batch_id name none.
func (c *Codec) SetID(b []byte, id uuid.UUID) {
	if c.batchID {
		copy(b[len(b)-len(id):], id[:])
	}
}

// SetIDs gives all tuples of a value that this codec made another batch's id.
func (c *Codec) SetIDs(value []byte, id uuid.UUID) {
	if !c.batchID {
		return
	}
	for end := 0; end < len(value); {
		end += 2 // the number of fields
		for range len(c.columns) + 1 {
			size := int32(binary.BigEndian.Uint32(value[end:])) // of NULL: -1
			end += 4 + max(int(size), 0)
		}
		c.SetID(value[:end], id)
	}
}

// Append appends one native tuple. Values are, by column type: bool; any Go
// integer that fits; float64 or float32 that the type holds exactly; string,
// json.Number, *big.Int or any Go integer for decimals; string; []byte for bytes;
// time.Time, or the text that JSON has, for date, time and timestamp; time.Time
// for timestamptz; uuid.UUID; json.RawMessage, []byte or string for json; a slice
// of these for arrays, in which a nil is NULL; nil for NULL. A nil slice is empty.
//
// Date, time and timestamp take what a time.Time shows in its own zone, each its
// part of it. A time is cut to its microsecond, toward the past. The error is
// *Error, and dst then comes back as it was.
func (c *Codec) Append(dst []byte, id uuid.UUID, values []any) ([]byte, error) {
	if len(values) != len(c.columns) {
		return dst, &Error{Detail: fmt.Sprintf("%d values for %d columns", len(values), len(c.columns))}
	}
	out := c.begin(dst)
	for i, v := range values {
		col := &c.columns[i]
		var err error
		if v == nil {
			out, err = appendNull(out, col)
		} else {
			out, err = col.value(out, v)
		}
		if err != nil {
			return dst, &Error{Column: col.Name, Detail: err.Error()}
		}
	}
	return c.end(out, id), nil
}

// Field is one field of a text row, as in CSV.
type Field struct {
	Value []byte
	Null  bool
}

// AppendText appends one native tuple from text fields in manifest order. By
// column type a field is: true, false, t, f, 1 or 0 in any case; a decimal
// integer; a decimal number, for floats also NaN, Infinity or -Infinity; any
// text; \x and hexadecimal digits for bytes; YYYY-MM-DD; HH:MM:SS[.f]; a time of
// RFC 3339, without its zone for timestamp, or one with a blank for T or with
// the hour alone as its zone; any spelling of a UUID; JSON, with the limits of
// AppendNDJSON; a JSON array. The error is *Error, and dst then comes back as it was.
func (c *Codec) AppendText(dst []byte, id uuid.UUID, fields []Field) ([]byte, error) {
	if len(fields) != len(c.columns) {
		return dst, &Error{Detail: fmt.Sprintf("%d fields for %d columns", len(fields), len(c.columns))}
	}
	out := c.begin(dst)
	for i := range fields {
		col := &c.columns[i]
		var err error
		if fields[i].Null {
			out, err = appendNull(out, col)
		} else {
			out, err = col.text(out, fields[i].Value)
		}
		if err != nil {
			return dst, &Error{Column: col.Name, Detail: err.Error()}
		}
	}
	return c.end(out, id), nil
}
