package rows

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
)

// minExpansion and maxExpansion bound the tuples of an NDJSON value, in bytes
// and as a multiple of its size, whichever is more: a line of {} makes a NULL of
// every column, so a message of a few kilobytes could fill any memory.
const (
	minExpansion = 64 << 20
	maxExpansion = 4
)

// decoder reads the lines of an NDJSON value.
type decoder struct {
	codec  *Codec
	source bytes.Buffer
	json   *jsontext.Decoder
	quoted [][]byte // the columns' names as they are usually spelled, in quotes
	order  []int    // the column of each key in the row before; most producers keep to one order
	fields [][]byte // the raw value of each column in the current row; nil: missing
}

func newDecoder(c *Codec) *decoder {
	d := &decoder{codec: c, fields: make([][]byte, len(c.columns))}
	d.json = jsontext.NewDecoder(&d.source)
	for i, col := range c.columns {
		quoted := []byte(`"` + col.Name + `"`)
		if bytes.IndexByte(quoted, '\\') >= 0 {
			quoted = nil // as JSON it would be another name
		}
		d.quoted = append(d.quoted, quoted)
		d.order = append(d.order, i)
	}
	return d
}

// AppendNDJSON appends the native tuples of an NDJSON value and returns how many.
//
// Each line is one JSON object (RFC 8259) whose keys are the manifest's
// columns, in any order; the last newline may be missing, and a carriage
// return before one is ignored. A key that is missing or null is NULL.
// Unknown keys are refused, and so are repeated keys at any depth, lone
// surrogates, \u0000, a value nested deeper than 1,000 levels, and more than 64
// MiB of tuples that are also more than four times the value. By column type a
// value is: true or false; a number without point and exponent; a number, or
// one of the strings NaN, Infinity and -Infinity; a number or a string with one,
// for decimals; a string; a string of base64 for bytes; a string with a date, a
// time of day or a time of RFC 3339, without its zone for timestamp; a string
// with any spelling of a UUID; any value but null, kept as it is spelled; an
// array of these, in which null is NULL. The error is *Error, and dst then comes
// back as it was.
func (c *Codec) AppendNDJSON(dst []byte, id uuid.UUID, value []byte) ([]byte, int, error) {
	d := c.decoder.Get().(*decoder)
	defer d.release()
	d.source = *bytes.NewBuffer(value)
	d.json.Reset(&d.source)
	out, n := dst, 0
	limit := len(dst) + max(minExpansion, maxExpansion*len(value))
	for pos := 0; pos < len(value); {
		end, next := len(value), len(value)
		if i := bytes.IndexByte(value[pos:], '\n'); i >= 0 {
			end, next = pos+i, pos+i+1
		}
		n++
		e := d.read(value, pos, end)
		if e == nil {
			out, e = d.encode(out, id)
		}
		if e == nil && len(out) > limit {
			e = &Error{Detail: fmt.Sprintf("the rows are too sparse: %d bytes of JSON make more than %d bytes of tuples", len(value), limit-len(dst))}
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

// read reads the object in value[pos:end], the next line, into fields, which
// then point into value.
func (d *decoder) read(value []byte, pos, end int) *Error {
	if isBlank(value[pos:end]) {
		return &Error{Detail: "a blank line"}
	}
	if err := checkDepth(value[pos:end], 1+maxDepth); err != nil {
		return &Error{Detail: err.Error()}
	}
	if e := d.object(value); e != nil {
		return e
	}
	if at := int(d.json.InputOffset()); at > end || !isBlank(value[at:end]) {
		return &Error{Detail: "want one JSON object a line"}
	}
	return nil
}

// object reads the next JSON object of value into fields.
func (d *decoder) object(value []byte) *Error {
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

// find returns the column that a row's i-th key, in quotes, names.
func (d *decoder) find(quoted []byte, i int) (int, bool) {
	if i < len(d.order) && bytes.Equal(quoted, d.quoted[d.order[i]]) {
		return d.order[i], true
	}
	name, err := unquote(quoted)
	if err != nil {
		return 0, false
	}
	at, ok := d.codec.byName[string(name)]
	if ok && i < len(d.order) {
		d.order[i] = at
	}
	return at, ok
}

// encode appends the tuple of the row that read left in fields.
func (d *decoder) encode(dst []byte, id uuid.UUID) ([]byte, *Error) {
	dst = d.codec.begin(dst)
	for i, raw := range d.fields {
		col := &d.codec.columns[i]
		var err error
		switch {
		case raw == nil && !col.Nullable:
			err = errors.New("the key is missing, and the column is required")
		case raw == nil || raw[0] == 'n':
			dst, err = appendNull(dst, col)
		default:
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
