package infer

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"tallyman/schema"
	"tallyman/schema/rows"
)

// judge asks the codec whether a column of a type takes a value.
type judge struct {
	all    []*candidate
	codecs map[schema.Type]*rows.Codec // each of one column
	field  [1]rows.Field
	tuple  []byte // memory only
}

func newJudge() (*judge, error) {
	j := &judge{all: candidates(), codecs: map[schema.Type]*rows.Codec{}}
	for _, c := range j.all {
		typ := c.typ
		if typ == schema.Decimal {
			typ = schema.MakeDecimal(2*maxDigits, maxDigits)
		}
		codec, err := rows.NewCodec(schema.Manifest{Columns: []schema.Column{{Name: "c", Type: typ}}})
		if err != nil {
			return nil, fmt.Errorf("codec of type %s: %w", c.typ, err)
		}
		j.codecs[c.typ] = codec
	}
	return j, nil
}

// takes reports whether the candidate takes a value.
func (j *judge) takes(c *candidate, v value) bool {
	if c.kinds&v.kind == 0 || c.looks != nil && !c.looks(v.text) {
		return false
	}
	return j.refusal(c.typ, v) == nil
}

// clocks are the types of which JSON has spellings of its own.
var clocks = [...]schema.Type{schema.Date, schema.Time, schema.Timestamp, schema.TimestampTZ}

// refusal returns why a column of the type does not take a value; nil: it does.
// A string of JSON is encoded as its text is, but for dates and times, of which
// JSON has fewer spellings, and for columns of JSON.
func (j *judge) refusal(t schema.Type, v value) (err error) {
	text := v.text
	switch {
	case v.kind == str && slices.Contains(clocks[:], t):
		object := slices.Concat([]byte(`{"c":`), v.raw, []byte("}"))
		j.tuple, _, err = j.codecs[t].AppendNDJSON(j.tuple[:0], uuid.Nil, object)
		return err
	case t == schema.JSON && v.kind != field:
		if v.kind != nested && !bytes.Contains(v.raw, []byte(`\u0000`)) {
			return nil // valid, flat, and shorter than a record may be
		}
		text = v.raw
	}
	j.field[0] = rows.Field{Value: text}
	j.tuple, err = j.codecs[t].AppendText(j.tuple[:0], uuid.Nil, j.field[:])
	return err
}
