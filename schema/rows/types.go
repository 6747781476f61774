package rows

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"tallyman/schema"
)

// encoders append one field of a type, length included, from each of the forms
// that a value can have. Their errors say what is wrong with the value only.
type encoders struct {
	value func(dst []byte, v any) ([]byte, error) // from Go; never nil
	text  func(dst, text []byte) ([]byte, error)  // from a text field
	json  func(dst, raw []byte) ([]byte, error)   // from valid JSON text; never null
	// fault returns what is wrong with a native field of the right size, or "".
	// It is nil where a warehouse says by itself whatever there is to say.
	fault func(field []byte) string
}

// typeOf is a row of the table of types.
type typeOf struct {
	// oid is the type's in PostgreSQL's catalog, which native arrays name.
	oid uint32
	// encoders makes what encodes the type, by its facts.
	encoders func(f schema.Facts) encoders
}

// typesOf is the one table of types: a new type is one row.
var typesOf = map[schema.Type]typeOf{
	schema.Bool:        {16, always(encoders{value: boolValue, text: boolText, json: boolJSON})},
	schema.Int16:       {21, integers},
	schema.Int32:       {23, integers},
	schema.Int64:       {20, integers},
	schema.Float32:     {700, floats},
	schema.Float64:     {701, floats},
	schema.Decimal:     {1700, decimals},
	schema.Text:        {25, always(encoders{value: textValue, text: textText, json: textJSON})},
	schema.Bytes:       {17, always(encoders{value: bytesValue, text: bytesText, json: bytesJSON})},
	schema.Date:        {1082, always(encoders{value: dateValue, text: appendDate[[]byte], json: dateJSON})},
	schema.Time:        {1083, always(encoders{value: clockValue, text: appendClock[[]byte], json: clockJSON})},
	schema.Timestamp:   {1114, always(encoders{value: timestampValue, text: timestampText, json: timestampJSON})},
	schema.TimestampTZ: {1184, always(encoders{value: timeValue, text: timeText, json: timeJSON})},
	schema.UUID:        {2950, always(encoders{value: uuidValue, text: uuidText, json: uuidJSON})},
	schema.JSON:        {114, always(encoders{value: jsonValue, text: jsonText, json: jsonJSON})},
}

// always is for a type without variants.
func always(e encoders) func(schema.Facts) encoders {
	return func(schema.Facts) encoders { return e }
}

// encodersOf returns the encoders of a type; false: rows can't hold it.
func encodersOf(f schema.Facts) (encoders, bool) {
	t, ok := typesOf[f.Name]
	if !ok {
		return encoders{}, false
	}
	element := f
	if f.Array {
		element.Size = f.ElementSize
	}
	e := t.encoders(element)
	if f.Array {
		e = array{element: e, size: f.ElementSize, oid: t.oid}.encoders()
	}
	return e, true
}

var errRequired = errors.New("NULL in a required column")

// appendNull appends NULL, which only a nullable column can hold.
func appendNull(dst []byte, col *column) ([]byte, error) {
	if !col.Nullable {
		return dst, errRequired
	}
	return append(dst, null...), nil
}

// null is the length of a field that is NULL.
const null = "\xff\xff\xff\xff"

// appendField appends a field of any length below 2 GiB.
func appendField(dst, field []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(field)))
	return append(dst, field...)
}

// appendInt64 appends a field of eight bytes.
func appendInt64(dst []byte, n int64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, 0, 0, 0, 8), uint64(n))
}

// appendInt32 appends a field of four bytes.
func appendInt32(dst []byte, n int32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, 0, 0, 0, 4), uint32(n))
}

// appendInt16 appends a field of two bytes.
func appendInt16(dst []byte, n int16) []byte {
	return binary.BigEndian.AppendUint16(append(dst, 0, 0, 0, 2), uint16(n))
}

func appendFloat64(dst []byte, f float64) []byte { return appendInt64(dst, int64(math.Float64bits(f))) }

func appendFloat32(dst []byte, f float32) []byte { return appendInt32(dst, int32(math.Float32bits(f))) }

func appendBool(dst []byte, b bool) []byte {
	if b {
		return append(dst, 0, 0, 0, 1, 1)
	}
	return append(dst, 0, 0, 0, 1, 0)
}

// maxField bounds a field, in bytes: PostgreSQL holds no value of 1 GiB.
const maxField = 1<<30 - 1

// checkLength refuses a field that no warehouse row can hold.
func checkLength(n int) error {
	if n > maxField {
		return fmt.Errorf("the value has %d bytes, at most %d are possible", n, maxField)
	}
	return nil
}

// quote returns b in double quotes with everything unprintable escaped, cut to
// a length that fits a log line: values are written by strangers.
func quote[T ~[]byte | ~string](b T) string {
	const limit = 64
	if len(b) > limit {
		return fmt.Sprintf("%q…", b[:limit])
	}
	return fmt.Sprintf("%q", b)
}
