// Package peek reads the rows of a message, as far as they can be read, for a
// person to look at, and writes those of a batch as text. Of a message that
// could not be loaded it trusts nothing: not the lengths, not the values, not
// that there is a row at all.
package peek

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/schema/ddl"
	"tallyman/schema/rows"
	"tallyman/sink"
)

// Sheet is what a message's rows look like.
type Sheet struct {
	// Columns are the fields of native rows, in order; nil where rows are lines.
	Columns []string `json:"columns,omitempty"`
	// Rows are the rows that were asked for: the first ones, and the bad one.
	Rows []Row `json:"rows"`
	// Total is how many rows could be read.
	Total int `json:"total"`
	// Bad is the row that is at fault, from 1; 0: not known, or all of them.
	Bad int `json:"bad_row,omitempty"`
	// BadColumn is the column that is at fault; empty: not known, or all of them.
	BadColumn string `json:"bad_column,omitempty"`
	// Problem is why the rows can't be read to their end; empty: they can.
	Problem string `json:"problem,omitempty"`
}

// Row is a row of a message.
type Row struct {
	Number int       `json:"row"`
	Values []*string `json:"values,omitempty"` // nil: NULL; fewer than columns: it ends there
	Line   string    `json:"line,omitempty"`   // of NDJSON, as it is
}

// Rows reads the rows of a message by its manifest, and returns the first ones,
// limit of them, and the bad one; 0: all of them.
func Rows(k *sink.KeptMessage, limit int) Sheet {
	s := Sheet{Rows: []Row{}}
	if len(k.Message.Value) == 0 {
		s.Problem = "there is no value"
		return s
	}
	s.Bad, s.BadColumn = blame(k)
	isNative := k.Message.Header("content-type") == batch.Native
	if isNative && k.Manifest == nil {
		s.Problem = fmt.Sprintf("the rows are native, and the warehouse doesn't know their manifest, %q", k.Message.Header("ce_dataschema"))
		return s
	}
	s.read(k.Message.Value, isNative, k.Manifest, limit)
	if !k.Whole && s.Problem == "" {
		s.Problem = fmt.Sprintf("only the first of %d bytes are kept", k.Size)
	}
	return s
}

// Batch reads the first rows of a batch, limit of them; 0: all of them. Native
// rows need their manifest; nil: it is not known.
func Batch(b *batch.Batch, m *schema.Manifest, limit int) Sheet {
	s := Sheet{Rows: []Row{}}
	isNative := b.ContentType == batch.Native
	if isNative && m == nil {
		s.Problem = "the rows are native, and their manifest was not given"
		return s
	}
	s.read(b.Value, isNative, m, limit)
	return s
}

func (s *Sheet) read(value []byte, isNative bool, m *schema.Manifest, limit int) {
	keep := func(r Row) {
		s.Total = r.Number
		if limit == 0 || r.Number <= limit || r.Number == s.Bad {
			s.Rows = append(s.Rows, r)
		}
	}
	if isNative {
		s.native(*m, value, keep)
	} else {
		lines(value, keep)
	}
}

// copyLine is how PostgreSQL says which row of a COPY it refused.
var copyLine = regexp.MustCompile(`COPY .*, line (\d+)(?:, column ([^;:]+))?`)

// blame finds the row and the column that are at fault: by decoding the rows
// once more, else by what the warehouse said.
func blame(k *sink.KeptMessage) (row int, column string) {
	if k.Reason == batch.BadRows && k.Manifest != nil {
		var fault *rows.Error
		if errors.As(check(k), &fault) {
			return fault.Row, fault.Column
		}
	}
	if m := copyLine.FindStringSubmatch(k.Detail); m != nil {
		n, err := strconv.Atoi(m[1])
		if err == nil {
			return n, m[2]
		}
	}
	return 0, ""
}

// check decodes the rows of a batch whose envelope is sound.
func check(k *sink.KeptMessage) error {
	codec, err := rows.NewCodec(*k.Manifest)
	if err != nil {
		return err
	}
	b, err := batch.Parse(k.Message.Key, k.Message.Value, k.Message.Headers)
	switch {
	case err != nil:
		return err
	case b.ContentType == batch.Native:
		return codec.Walk(b.Value, b.Rows, b.ID)
	default:
		_, _, err = codec.AppendNDJSON(nil, b.ID, b.Value)
		return err
	}
}

func lines(value []byte, keep func(Row)) {
	n := 0
	for line := range bytes.Lines(value) {
		n++
		keep(Row{Number: n, Line: string(bytes.TrimRight(line, "\r\n"))})
	}
}

// native reads tuples until they end or make no sense any more.
func (s *Sheet) native(m schema.Manifest, value []byte, keep func(Row)) {
	columns := append([]schema.Column(nil), m.Columns...)
	if m.BatchID {
		columns = append(columns, schema.Column{Name: schema.BatchIDColumn, Type: schema.UUID})
	}
	for _, c := range columns {
		s.Columns = append(s.Columns, c.Name)
	}
	types := pgtype.NewMap()
	for n := 1; len(value) > 0; n++ {
		row := Row{Number: n, Values: []*string{}}
		value, s.Problem = tuple(types, columns, value, &row)
		keep(row)
		if s.Problem != "" {
			s.Problem = fmt.Sprintf("row %d: %s", n, s.Problem)
			return
		}
	}
}

// tuple reads one tuple into row and returns what follows it, and why it could
// not be read to its end.
func tuple(types *pgtype.Map, columns []schema.Column, value []byte, row *Row) (rest []byte, problem string) {
	if len(value) < 2 {
		return nil, "a byte is left over"
	}
	if fields := int(int16(binary.BigEndian.Uint16(value))); fields != len(columns) {
		return nil, fmt.Sprintf("it has %d fields, want %d", fields, len(columns))
	}
	value = value[2:]
	for _, c := range columns {
		if len(value) < 4 {
			return nil, fmt.Sprintf("column %q: the value ends before the field's length", c.Name)
		}
		length := int(int32(binary.BigEndian.Uint32(value)))
		value = value[4:]
		switch {
		case length == -1:
			row.Values = append(row.Values, nil)
			continue
		case length < 0 || length > len(value):
			return nil, fmt.Sprintf("column %q: a length of %d, with %d bytes left", c.Name, length, len(value))
		}
		text := field(types, c.Type, value[:length])
		row.Values = append(row.Values, &text)
		value = value[length:]
	}
	return value, ""
}

// field writes a value as text; one that is none of its type as hexadecimal
// digits after \x.
func field(types *pgtype.Map, t schema.Type, value []byte) string {
	raw := `\x` + hex.EncodeToString(value)
	physical, ok := ddl.Postgres(t)
	if !ok {
		return raw
	}
	kind, ok := types.TypeForOID(physical.OID)
	if !ok {
		return raw
	}
	v, err := kind.Codec.DecodeDatabaseSQLValue(types, physical.OID, pgtype.BinaryFormatCode, value)
	if err != nil {
		return raw
	}
	switch v := v.(type) {
	case string:
		return v
	case []byte:
		switch physical.OID {
		case pgtype.JSONOID, pgtype.JSONBOID:
			return string(v)
		case pgtype.ByteaOID:
			return raw
		}
		return array(types, kind, value)
	case float64:
		size := 64
		if physical.OID == pgtype.Float4OID {
			size = 32
		}
		return strconv.FormatFloat(v, 'g', -1, size)
	case time.Time:
		layout := map[uint32]string{pgtype.DateOID: time.DateOnly, pgtype.TimestampOID: "2006-01-02T15:04:05.999999999"}[physical.OID]
		if layout == "" {
			layout = time.RFC3339Nano
		}
		return v.UTC().Format(layout)
	default:
		return fmt.Sprint(v)
	}
}

// array writes an array as PostgreSQL does.
func array(types *pgtype.Map, kind *pgtype.Type, value []byte) string {
	elements, err := kind.Codec.DecodeValue(types, kind.OID, pgtype.BinaryFormatCode, value)
	if err == nil {
		var text []byte
		if text, err = types.Encode(kind.OID, pgtype.TextFormatCode, elements, nil); err == nil {
			return string(text)
		}
	}
	return `\x` + hex.EncodeToString(value)
}
