package rows

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
)

// maxDepth bounds the nesting of a JSON value, in arrays and objects.
// PostgreSQL's parser runs out of stack a few thousand levels further down.
const maxDepth = 256

// decoder reads the lines of an NDJSON value.
type decoder struct {
	codec  *Codec
	source bytes.Buffer
	json   *jsontext.Decoder
	quoted [][]byte // the columns' names as they are usually spelled, in quotes
	fields [][]byte // the raw value of each column in the current row; nil: missing
}

func newDecoder(c *Codec) *decoder {
	d := &decoder{codec: c, fields: make([][]byte, len(c.columns))}
	d.json = jsontext.NewDecoder(&d.source)
	for _, col := range c.columns {
		d.quoted = append(d.quoted, []byte(`"`+col.Name+`"`))
	}
	return d
}

// AppendNDJSON appends the native tuples of an NDJSON value and returns how many.
//
// Each line is one JSON object (RFC 8259) whose keys are the manifest's
// columns, in any order; the last newline may be missing, and a carriage
// return before one is ignored. A key that is missing or null is NULL.
// Unknown and repeated keys, at any depth, lone surrogates, \u0000 and more
// than 256 levels of nesting are refused. By column type a value is: true or
// false; a number without point and exponent; a number, or one of the strings
// NaN, Infinity and -Infinity; a string; a string with a time of RFC 3339; a
// string with any spelling of a UUID; any value but null, kept as it is
// spelled. The error is *Error, and dst then comes back as it was.
func (c *Codec) AppendNDJSON(dst []byte, id uuid.UUID, value []byte) ([]byte, int, error) {
	d := c.decoder.Get().(*decoder)
	defer d.release()
	d.source = *bytes.NewBuffer(value)
	d.json.Reset(&d.source)
	out, n := dst, 0
	for pos := 0; pos < len(value); {
		end, next := len(value), len(value)
		if i := bytes.IndexByte(value[pos:], '\n'); i >= 0 {
			end, next = pos+i, pos+i+1
		}
		n++
		if isBlank(value[pos:end]) {
			return dst, 0, &Error{Row: n, Detail: "a blank line"}
		}
		e := d.read(value)
		if e == nil {
			if at := int(d.json.InputOffset()); at > end || !isBlank(value[at:end]) {
				e = &Error{Detail: "want one JSON object a line"}
			} else {
				out, e = d.encode(out, id)
			}
		}
		if e != nil {
			e.Row = n
			return dst, 0, e
		}
		pos = next
	}
	return out, n, nil
}

// release forgets the value and gives the decoder back.
func (d *decoder) release() {
	clear(d.fields)
	d.source = bytes.Buffer{}
	d.json.Reset(&d.source)
	d.codec.decoder.Put(d)
}

// read reads one object into fields, which then point into value.
func (d *decoder) read(value []byte) *Error {
	clear(d.fields)
	if d.json.PeekKind() != jsontext.KindBeginObject {
		if _, err := d.json.ReadValue(); err != nil {
			return &Error{Detail: jsonError(err).Error()}
		}
		return &Error{Detail: "want a JSON object"}
	}
	if _, err := d.json.ReadToken(); err != nil {
		return &Error{Detail: jsonError(err).Error()}
	}
	for i := 0; d.json.PeekKind() == jsontext.KindString; i++ {
		name, err := d.json.ReadValue()
		if err != nil {
			return &Error{Detail: jsonError(err).Error()}
		}
		at, ok := d.find(name, i)
		if !ok {
			return &Error{Detail: fmt.Sprintf("key %s is not a column", quote(bytes.Trim(name, `"`)))}
		}
		raw, err := d.json.ReadValue()
		if err != nil {
			return &Error{Column: d.codec.columns[at].Name, Detail: jsonError(err).Error()}
		}
		end := int(d.json.InputOffset())
		d.fields[at] = value[end-len(raw) : end]
	}
	if _, err := d.json.ReadToken(); err != nil {
		return &Error{Detail: jsonError(err).Error()}
	}
	return nil
}

// find returns the column that a key in quotes names; guess is the likely one,
// because most producers write keys in the manifest's order.
func (d *decoder) find(quoted []byte, guess int) (int, bool) {
	if guess < len(d.quoted) && bytes.Equal(quoted, d.quoted[guess]) {
		return guess, true
	}
	name, err := unquote(quoted)
	if err != nil {
		return 0, false
	}
	at, ok := d.codec.byName[string(name)]
	return at, ok
}

// encode appends the tuple of the row that read left in fields.
func (d *decoder) encode(dst []byte, id uuid.UUID) ([]byte, *Error) {
	dst = d.codec.begin(dst)
	for i, raw := range d.fields {
		col := &d.codec.columns[i]
		var err error
		if len(raw) == 0 || raw[0] == 'n' {
			dst, err = appendNull(dst, col)
		} else {
			dst, err = col.json(dst, raw)
		}
		if err != nil {
			return nil, &Error{Column: col.Name, Detail: err.Error()}
		}
	}
	return d.codec.end(dst, id), nil
}

func isBlank(b []byte) bool {
	for _, c := range b {
		if c != ' ' && c != '\t' && c != '\r' {
			return false
		}
	}
	return true
}

// jsonError makes an error of the JSON parser fit for a person.
func jsonError(err error) error {
	var syntax *jsontext.SyntacticError
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("invalid JSON: it ends too early")
	case errors.Is(err, jsontext.ErrDuplicateName) && errors.As(err, &syntax):
		return fmt.Errorf("invalid JSON: the key %s is repeated", quote(syntax.JSONPointer.LastToken()))
	case errors.As(err, &syntax):
		return fmt.Errorf("invalid JSON: %w", syntax.Err)
	default:
		return fmt.Errorf("invalid JSON: %w", err)
	}
}
