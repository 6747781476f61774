package rows

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"reflect"

	"tallyman/schema"
)

// array is the type of lists of one dimension.
type array struct {
	element encoders
	size    int    // of an element, or schema.Variable
	oid     uint32 // of the elements' type
}

func (a array) encoders() encoders {
	return encoders{value: a.value, text: a.text, json: a.json, fault: a.fault}
}

// PostgreSQL's arrays on the wire: the number of dimensions, whether one
// element is NULL, the OID of the elements' type; then, unless the array is
// empty and of no dimension, the number of elements and the index of the first,
// all of 32 bits; then each element as a field. array_send in
// src/backend/utils/adt/arrayfuncs.c.
const (
	arrayEmpty = 12 // bytes of an array without elements
	arrayHead  = 20 // bytes before the first element
)

// begin appends the head of an array; end completes it.
func (a array) begin(dst []byte) []byte {
	return append(dst, make([]byte, 4+arrayHead)...)
}

// end completes the array that begins at start and has n elements.
func (a array) end(dst []byte, start, n int, nulls bool) ([]byte, error) {
	if n == 0 {
		dst = dst[:start+4+arrayEmpty]
	}
	if err := checkLength(len(dst) - start - 4); err != nil {
		return dst, err
	}
	head := dst[start:]
	binary.BigEndian.PutUint32(head, uint32(len(head)-4))
	binary.BigEndian.PutUint32(head[12:], a.oid)
	if n > 0 {
		head[7] = 1 // dimension
		if nulls {
			head[11] = 1
		}
		binary.BigEndian.PutUint32(head[16:], uint32(n))
		head[23] = 1 // the index of the first
	}
	return dst, nil
}

// value appends any slice of what the elements' type is encoded from.
func (a array) value(dst []byte, v any) ([]byte, error) {
	slice := reflect.ValueOf(v)
	if slice.Kind() != reflect.Slice || slice.Type().Elem().Kind() == reflect.Uint8 {
		return dst, errType(v, "a slice of elements")
	}
	start, nulls := len(dst), false
	dst = a.begin(dst)
	for i := range slice.Len() {
		element := slice.Index(i).Interface()
		if element == nil {
			dst, nulls = append(dst, null...), true
			continue
		}
		var err error
		if dst, err = a.element.value(dst, element); err != nil {
			return dst, fmt.Errorf("element %d: %w", i+1, err)
		}
	}
	return a.end(dst, start, slice.Len(), nulls)
}

// text appends the array that a text field spells as JSON.
func (a array) text(dst, text []byte) ([]byte, error) {
	if err := checkJSON(text); err != nil {
		return dst, err
	}
	return a.json(dst, bytes.Trim(text, jsonSpace))
}

// jsonSpace is what JSON allows around values.
const jsonSpace = " \t\r\n"

// json appends a JSON array. It is valid, so that a comma outside of strings
// and inner brackets ends an element.
func (a array) json(dst, raw []byte) ([]byte, error) {
	if raw[0] != '[' {
		return dst, errKind(raw, "an array")
	}
	start, nulls, n := len(dst), false, 0
	dst = a.begin(dst)
	for rest := raw[1:]; len(rest) > 0; {
		end := elementEnd(rest)
		element := bytes.Trim(rest[:end], jsonSpace)
		rest = rest[end+1:]
		if len(element) == 0 {
			break // of an empty array
		}
		n++
		if element[0] == 'n' {
			dst, nulls = append(dst, null...), true
			continue
		}
		var err error
		if dst, err = a.element.json(dst, element); err != nil {
			return dst, fmt.Errorf("element %d: %w", n, err)
		}
	}
	return a.end(dst, start, n, nulls)
}

// elementEnd returns where the comma or bracket is that ends the first element
// of what follows an array's opening bracket, or the comma before.
func elementEnd(rest []byte) int {
	depth, inString := 0, false
	for i := 0; i < len(rest); i++ {
		switch c := rest[i]; {
		case inString:
			switch c {
			case '\\':
				i++
			case '"':
				inString = false
			}
		case c == '"':
			inString = true
		case c == '[' || c == '{':
			depth++
		case depth == 0 && (c == ',' || c == ']'):
			return i
		case c == ']' || c == '}':
			depth--
		}
	}
	return len(rest) - 1 // not in valid JSON
}

// fault checks that a native array is one of the type: one dimension that
// counts from 1, elements of their length that end with the field.
func (a array) fault(field []byte) string {
	if len(field) < arrayEmpty {
		return fmt.Sprintf("%d bytes, an array has at least %d", len(field), arrayEmpty)
	}
	dimensions, flags, oid := binary.BigEndian.Uint32(field), binary.BigEndian.Uint32(field[4:]), binary.BigEndian.Uint32(field[8:])
	switch {
	case dimensions > 1:
		return fmt.Sprintf("an array of %d dimensions, want one", dimensions)
	case flags > 1:
		return fmt.Sprintf("an array with the flags %#x, want 0 or 1", flags)
	case oid != a.oid:
		return fmt.Sprintf("an array of elements of type %d, want %d", oid, a.oid)
	case dimensions == 0 && len(field) > arrayEmpty:
		return fmt.Sprintf("%d bytes follow an array without elements", len(field)-arrayEmpty)
	case dimensions == 0:
		return ""
	case len(field) < arrayHead:
		return fmt.Sprintf("%d bytes, an array with elements has at least %d", len(field), arrayHead)
	}
	count, first := binary.BigEndian.Uint32(field[12:]), binary.BigEndian.Uint32(field[16:])
	rest := field[arrayHead:]
	if first != 1 || count == 0 {
		return fmt.Sprintf("an array of %d elements counted from %d: want them counted from 1, and no dimension if there are none", count, int32(first))
	}
	for n := uint32(1); n <= count; n++ {
		if len(rest) < 4 {
			return fmt.Sprintf("the array ends after %d of %d elements", n-1, count)
		}
		length := int32(binary.BigEndian.Uint32(rest))
		rest = rest[4:]
		if length == -1 {
			continue
		}
		if detail := a.elementFault(rest, length); detail != "" {
			return fmt.Sprintf("element %d: %s", n, detail)
		}
		rest = rest[length:]
	}
	if len(rest) > 0 {
		return fmt.Sprintf("%d bytes follow the last of %d elements", len(rest), count)
	}
	return ""
}

// elementFault checks the element of that length with which rest begins.
func (a array) elementFault(rest []byte, length int32) string {
	switch {
	case length < 0:
		return fmt.Sprintf("a length of %d", length)
	case a.size != schema.Variable && int(length) != a.size:
		return fmt.Sprintf("%d bytes, want %d", length, a.size)
	case int(length) > len(rest):
		return fmt.Sprintf("%d bytes, but only %d are left in the array", length, len(rest))
	case a.element.fault != nil:
		return a.element.fault(rest[:length])
	}
	return ""
}
