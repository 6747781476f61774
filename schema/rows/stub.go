// Package rows encodes and decodes rows by a manifest: native (the tuples of
// PostgreSQL's binary COPY), NDJSON and text fields.
package rows

import (
	"fmt"

	"github.com/google/uuid"

	"tallyman/schema"
)

// The content types of a batch's value.
const (
	Native = "application/vnd.tallyman.rows"
	NDJSON = "application/x-ndjson"
)

// Error is a row that can't be encoded or decoded; it names row and column.
type Error struct {
	Row    int    // from 1; 0: the value as a whole
	Column string // empty: the row as a whole
	Detail string
}

// Error returns "row N, column C: detail".
func (e *Error) Error() string { return fmt.Sprintf("row %d, column %q: %s", e.Row, e.Column, e.Detail) }

// Codec encodes and decodes the rows of one manifest. It is safe for concurrent use.
type Codec struct{}

// NewCodec builds the codec of a manifest.
func NewCodec(m schema.Manifest) (*Codec, error) { panic("stub") }

// Append appends one native tuple. Values are, by column type: bool; int64 or any
// Go integer that fits; float64; string; time.Time; uuid.UUID; json.RawMessage,
// []byte or string for json; nil for NULL.
func (c *Codec) Append(dst []byte, id uuid.UUID, values []any) ([]byte, error) { panic("stub") }

// Field is one field of a text row, as in CSV.
type Field struct {
	Value []byte
	Null  bool
}

// AppendText appends one native tuple from text fields in manifest order.
func (c *Codec) AppendText(dst []byte, id uuid.UUID, fields []Field) ([]byte, error) { panic("stub") }

// AppendNDJSON appends the native tuples of an NDJSON value and returns how many.
func (c *Codec) AppendNDJSON(dst []byte, id uuid.UUID, value []byte) ([]byte, int, error) {
	panic("stub")
}

// Walk checks a native value: field counts, lengths, exactly n tuples that end at
// the last byte, and that every tuple's _batch_id is id.
func (c *Codec) Walk(value []byte, n int, id uuid.UUID) error { panic("stub") }
