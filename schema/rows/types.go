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
}

// encodersOf is the one table of types: a new type is one row.
var encodersOf = map[schema.Type]encoders{
	schema.Bool:        {value: boolValue, text: boolText, json: boolJSON},
	schema.Int64:       {value: int64Value, text: int64Text, json: int64JSON},
	schema.Float64:     {value: float64Value, text: float64Text, json: float64JSON},
	schema.Text:        {value: textValue, text: textText, json: textJSON},
	schema.TimestampTZ: {value: timeValue, text: timeText, json: timeJSON},
	schema.UUID:        {value: uuidValue, text: uuidText, json: uuidJSON},
	schema.JSON:        {value: jsonValue, text: jsonText, json: jsonJSON},
}

var errRequired = errors.New("NULL in a required column")

// appendNull appends NULL, which only a nullable column can hold.
func appendNull(dst []byte, col *column) ([]byte, error) {
	if !col.Nullable {
		return dst, errRequired
	}
	return append(dst, 0xff, 0xff, 0xff, 0xff), nil
}

// appendField appends a field of any length below 2 GiB.
func appendField(dst, field []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(field)))
	return append(dst, field...)
}

// appendInt64 appends a field of eight bytes.
func appendInt64(dst []byte, n int64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, 0, 0, 0, 8), uint64(n))
}

func appendFloat64(dst []byte, f float64) []byte { return appendInt64(dst, int64(math.Float64bits(f))) }

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
