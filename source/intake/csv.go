package intake

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"tallyman/schema"
	"tallyman/schema/rows"
)

// header says which field of a CSV file is which column.
type header struct {
	columns []int // by position in the file, the index in the manifest
	width   int   // the manifest's columns
}

// parseHeader reads the header of a CSV file by a manifest. Every fault of it is told.
func parseHeader(record []byte, m schema.Manifest) (*header, error) {
	h := &header{width: len(m.Columns)}
	names, err := fieldNames(record)
	if err != nil {
		return nil, err
	}
	var faults []string
	seen := map[string]bool{}
	for _, name := range names {
		at := slices.IndexFunc(m.Columns, func(c schema.Column) bool { return c.Name == name })
		switch {
		case seen[name]:
			faults = append(faults, fmt.Sprintf("column %q comes more than once", name))
		case at < 0:
			faults = append(faults, fmt.Sprintf("column %q is not one of the manifest's", name))
		}
		seen[name] = true
		h.columns = append(h.columns, at)
	}
	for _, c := range m.Columns {
		if !c.Nullable && !seen[c.Name] {
			faults = append(faults, fmt.Sprintf("column %q is missing, and the manifest requires it", c.Name))
		}
	}
	if faults != nil {
		return nil, &RowError{Line: 1, Detail: "header: " + strings.Join(faults, "; ")}
	}
	return h, nil
}

// fieldNames reads a header's fields.
func fieldNames(record []byte) (names []string, err error) {
	if len(record) == 0 {
		return nil, &RowError{Line: 1, Detail: "the file is empty: CSV begins with a header that names the columns"}
	}
	r := recordReader{data: record, line: 1}
	var field rows.Field
	for more := true; more; {
		if more, err = r.field(&field); err != nil {
			return nil, err
		}
		names = append(names, string(field.Value))
	}
	return names, nil
}

// rowReader reads the rows of CSV into fields in the manifest's order.
type rowReader struct {
	header *header
	null   []byte // what means NULL, without quotes
	fields []rows.Field
}

func newRowReader(h *header, null string) *rowReader {
	r := &rowReader{header: h, null: []byte(null), fields: make([]rows.Field, h.width)}
	for i := range r.fields {
		r.fields[i].Null = true // and stays so where the file has no such column
	}
	return r
}

// read reads the next row. The fields are good until the next call.
func (r *rowReader) read(in *recordReader) error {
	line, n, unquoted := in.line, 0, false
	in.scratch = in.scratch[:0]
	for more := true; more; n++ {
		if n == len(r.header.columns) {
			return &RowError{Line: line, Detail: fmt.Sprintf("more fields than the header's %d", n)}
		}
		field := &r.fields[r.header.columns[n]]
		var err error
		if more, err = in.field(field); err != nil {
			return err
		}
		unquoted = field.Null
		field.Null = unquoted && bytes.Equal(field.Value, r.null)
	}
	if n < len(r.header.columns) {
		detail := fmt.Sprintf("%d fields, the header has %d", n, len(r.header.columns))
		if n == 1 && unquoted && len(r.fields[r.header.columns[0]].Value) == 0 {
			detail = "a blank line"
		}
		return &RowError{Line: line, Detail: detail}
	}
	return nil
}

// recordReader reads CSV by RFC 4180, with LF for CRLF as well: fields by
// commas, quotes only around a whole field and doubled inside, a carriage
// return without quotes only before the newline.
type recordReader struct {
	data    []byte
	at      int    // of the next field
	line    int64  // of data[at]
	scratch []byte // the text of fields that have doubled quotes
}

// ended says that no record follows.
func (r *recordReader) ended() bool { return r.at == len(r.data) }

// field reads one field into f. Null then says that it had no quotes. more is
// false for the last field of a row; the row's newline is then passed.
func (r *recordReader) field(f *rows.Field) (more bool, err error) {
	rest := r.data[r.at:]
	if len(rest) > 0 && rest[0] == '"' {
		f.Null = false
		return r.quoted(f, rest[1:])
	}
	f.Null = true
	for i, c := range rest {
		switch c {
		case ',':
			r.at += i + 1
			f.Value = rest[:i]
			return true, nil
		case '\n', '\r':
			r.at += i
			f.Value = rest[:i]
			return r.delimiter()
		case '"':
			return false, r.fault("a quote inside a field that does not begin with one")
		}
	}
	r.at = len(r.data)
	f.Value = rest
	return false, nil
}

// quoted reads a field that began with a quote; rest is what follows that.
func (r *recordReader) quoted(f *rows.Field, rest []byte) (more bool, err error) {
	end := bytes.IndexByte(rest, '"')
	if end >= 0 {
		f.Value = rest[:end]
		if end+1 < len(rest) && rest[end+1] == '"' {
			f.Value, end = r.doubled(rest, end)
		}
	}
	if end < 0 {
		return false, r.fault("a quote that is not closed")
	}
	r.at += len(`""`) + end
	r.line += int64(bytes.Count(rest[:end], []byte{'\n'}))
	return r.delimiter()
}

// doubled returns the text of a field with each pair of quotes as one, and its
// closing quote's place in rest; -1: there is none. The first pair is at i.
func (r *recordReader) doubled(rest []byte, i int) (text []byte, end int) {
	start := len(r.scratch)
	r.scratch = slices.Grow(r.scratch, len(rest)) // once for a chunk
	out := r.scratch[start:cap(r.scratch)]
	n := copy(out, rest[:i])
	for ; i < len(rest); i++ {
		c := rest[i]
		if c == '"' {
			if i++; i == len(rest) || rest[i] != '"' {
				r.scratch = r.scratch[:start+n]
				return out[:n:n], i - 1
			}
		}
		out[n] = c
		n++
	}
	return nil, -1
}

// delimiter passes what ends a field: a comma (more fields follow), a newline
// or the end of the input.
func (r *recordReader) delimiter() (more bool, err error) {
	switch rest := r.data[r.at:]; {
	case len(rest) == 0:
		return false, nil
	case rest[0] == ',':
		r.at++
		return true, nil
	case rest[0] == '\n':
		r.at++
	case len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n':
		r.at += 2
	case rest[0] == '\r':
		return false, r.fault("a carriage return that is neither in quotes nor before a newline")
	default:
		return false, r.fault("something between a closing quote and the next comma")
	}
	r.line++
	return false, nil
}

func (r *recordReader) fault(detail string) error { return &RowError{Line: r.line, Detail: detail} }

// csv encodes a chunk of CSV and returns its rows.
func (w *encoder) csv(c chunk, id uuid.UUID) (n int, err error) {
	w.value = w.value[:0]
	w.records.data, w.records.at, w.records.line = c.data, 0, c.line
	for ; !w.records.ended(); n++ {
		line := w.records.line
		if err := w.reader.read(&w.records); err != nil {
			return 0, err
		}
		if w.value, err = w.codec.AppendText(w.value, id, w.reader.fields); err != nil {
			return 0, explainRow(w.manifest, w.reader, line, err)
		}
	}
	return n, nil
}

// explainRow gives an error of the codec its line.
func explainRow(m schema.Manifest, r *rowReader, line int64, err error) error {
	var e *rows.Error
	if !errors.As(err, &e) {
		return err
	}
	told := &RowError{Line: line, Column: e.Column, Detail: e.Detail}
	at := slices.IndexFunc(m.Columns, func(c schema.Column) bool { return c.Name == e.Column })
	if at >= 0 && r.fields[at].Null {
		told.Detail += fmt.Sprintf(" (%q without quotes is NULL)", r.null)
	}
	return told
}
