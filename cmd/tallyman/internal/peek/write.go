package peek

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"

	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/schema/rows"
)

// Writer writes the rows of batches of one dataset as text that can be pushed
// again: NDJSON or CSV, as schema/rows reads them.
type Writer struct {
	out      io.Writer
	manifest schema.Manifest
	codec    *rows.Codec
	types    *pgtype.Map
	csv      bool
	text     []byte       // of the batch
	fields   []rows.Field // of the row, in CSV
	again    []byte       // the row, read from the text
}

// NewWriter returns a writer of rows of a manifest. CSV begins with a header.
func NewWriter(out io.Writer, m schema.Manifest, csv bool) (*Writer, error) {
	codec, err := rows.NewCodec(m)
	if err != nil {
		return nil, err
	}
	w := &Writer{out: out, manifest: m, codec: codec, types: pgtype.NewMap(), csv: csv}
	if !csv {
		return w, nil
	}
	var header []byte
	for i, c := range m.Columns {
		if i > 0 {
			header = append(header, ',')
		}
		header = appendCSV(header, c.Name)
	}
	_, err = out.Write(append(header, '\n'))
	return w, err
}

// Batch writes the rows of a batch, or nothing of one whose rows are none of
// the manifest. Lines of NDJSON stay as they are. What it writes was read
// again and gave the same rows; an error of out ends it.
func (w *Writer) Batch(b *batch.Batch) error {
	native := b.Value
	if b.ContentType == batch.Native {
		if err := w.codec.Walk(native, b.Rows, b.ID); err != nil {
			return err
		}
	} else {
		converted, _, err := w.codec.AppendNDJSON(nil, b.ID, b.Value)
		if err != nil {
			return err
		}
		if !w.csv {
			return w.write(append(bytes.TrimSuffix(b.Value, []byte("\n")), '\n'))
		}
		native = converted
	}
	w.text = w.text[:0]
	for n := 1; len(native) > 0; n++ {
		rest, err := w.row(native, b.ID)
		if err != nil {
			return fmt.Errorf("row %d can't be written as text that reads the same: %w", n, err)
		}
		native = rest
	}
	return w.write(w.text)
}

func (w *Writer) write(text []byte) error {
	if _, err := w.out.Write(text); err != nil {
		return &OutError{err}
	}
	return nil
}

// OutError is an error of where rows are written to, not of a batch.
type OutError struct{ Err error }

// Error returns the error's text.
func (e *OutError) Error() string { return e.Err.Error() }

// Unwrap returns the error.
func (e *OutError) Unwrap() error { return e.Err }

// row writes the first tuple of value, which was walked, reads it again, and
// returns what follows it.
func (w *Writer) row(value []byte, id uuid.UUID) (rest []byte, err error) {
	start := len(w.text)
	w.fields = w.fields[:0]
	rest = value[2:]
	for i, c := range w.manifest.Columns {
		var field []byte
		field, rest = cutField(rest)
		if w.csv {
			w.appendField(i, c.Type, field)
		} else {
			w.appendKey(i, c.Name)
			w.text = append(w.text, w.json(c.Type, field)...)
		}
	}
	if w.manifest.BatchID {
		_, rest = cutField(rest)
	}
	if w.csv {
		w.again, err = w.codec.AppendText(w.again[:0], id, w.fields)
	} else {
		w.text = append(w.text, '}')
		w.again, _, err = w.codec.AppendNDJSON(w.again[:0], id, w.text[start:])
	}
	w.text = append(w.text, '\n')
	if err == nil && !bytes.Equal(w.again, value[:len(value)-len(rest)]) {
		err = errors.New("it would be another row")
	}
	return rest, err
}

// appendField writes column i as CSV; nil: NULL.
func (w *Writer) appendField(i int, t schema.Type, field []byte) {
	if i > 0 {
		w.text = append(w.text, ',')
	}
	if field == nil {
		w.fields = append(w.fields, rows.Field{Null: true})
		return
	}
	var text string
	if facts, _ := t.Facts(); facts.Array {
		text = w.json(t, field)
	} else {
		text = scalar(w.types, t, field)
	}
	w.text = appendCSV(w.text, text)
	w.fields = append(w.fields, rows.Field{Value: []byte(text)})
}

// appendKey writes what comes before the value of column i as JSON.
func (w *Writer) appendKey(i int, name string) {
	before := byte(',')
	if i == 0 {
		before = '{'
	}
	w.text, _ = jsontext.AppendQuote(append(w.text, before), name) // names are UTF-8
	w.text = append(w.text, ':')
}

// cutField cuts a field off; nil: NULL.
func cutField(value []byte) (field, rest []byte) {
	length := int(int32(binary.BigEndian.Uint32(value)))
	if length < 0 {
		return nil, value[4:]
	}
	return value[4 : 4+length : 4+length], value[4+length:]
}

// json writes a value as JSON; nil: null.
func (w *Writer) json(t schema.Type, field []byte) string {
	facts, _ := t.Facts()
	switch {
	case field == nil:
		return "null"
	case facts.Array:
		return w.array(schema.Type(strings.TrimSuffix(string(t), "[]")), field)
	}
	text := scalar(w.types, t, field)
	switch facts.Name {
	case schema.Bool, schema.Int16, schema.Int32, schema.Int64, schema.JSON:
		return text
	case schema.Float32, schema.Float64:
		if text[len(text)-1] <= '9' { // else NaN and the infinities
			return text
		}
	case schema.Bytes:
		text = base64.StdEncoding.EncodeToString(field)
	}
	quoted, _ := jsontext.AppendQuote(nil, text) // if it is not UTF-8, it does not read the same
	return string(quoted)
}

// array writes the elements of PostgreSQL's array: its dimensions, whether
// there are NULLs, the elements' type, and if there are any, how many and the
// first one's number, then each as a field.
func (w *Writer) array(t schema.Type, value []byte) string {
	const head, dimension = 12, 8
	text := "["
	if len(value) > head {
		for rest := value[head+dimension:]; len(rest) > 0; {
			var element []byte
			element, rest = cutField(rest)
			if len(text) > 1 {
				text += ","
			}
			text += w.json(t, element)
		}
	}
	return text + "]"
}

// scalar is field for values that are to be read again.
func scalar(types *pgtype.Map, t schema.Type, value []byte) string {
	switch text := field(types, t, value); text {
	case "+Inf":
		return "Infinity"
	case "-Inf":
		return "-Infinity"
	default:
		return text
	}
}

// appendCSV appends a field in quotes where it needs them: an empty one would
// be NULL without.
func appendCSV(dst []byte, text string) []byte {
	if text != "" && !strings.ContainsAny(text, ",\"\r\n") {
		return append(dst, text...)
	}
	return fmt.Appendf(dst, `"%s"`, strings.ReplaceAll(text, `"`, `""`))
}
