package intake

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"tallyman/schema"
	"tallyman/schema/rows"
)

// ErrTooManyRows: a text has more rows than its reader takes.
var ErrTooManyRows = errors.New("too many rows")

// Decoder makes native tuples of texts that are held in memory, as a body of
// HTTP is. It takes what a file may hold. It is safe for concurrent use.
type Decoder struct {
	manifest schema.Manifest
	codec    *rows.Codec
}

// NewDecoder returns the decoder of a manifest.
func NewDecoder(m schema.Manifest) (*Decoder, error) {
	codec, err := rows.NewCodec(m)
	if err != nil {
		return nil, err
	}
	return &Decoder{manifest: m, codec: codec}, nil
}

// Text is what a Decoder reads.
type Text struct {
	Format Format
	Data   []byte
	// Room is how many bytes of tuples are made room for at first. Defaults to none.
	Room int
	// MaxRows bounds the rows. Defaults to no bound.
	MaxRows int
	// Grown is asked, every so often, whether the tuples may have so many
	// bytes; its error ends the decoding. Defaults to yes.
	Grown func(bytes int) error
}

// piece is how much text is decoded before it is looked how much came of it.
const piece = 64 << 10

// Decode returns the tuples of a text, with a batch's id, and how many. In CSV
// an empty field without quotes is NULL. The error is a [RowError] for what
// can't be read, [ErrTooManyRows], or the one of t.Grown.
func (d *Decoder) Decode(id uuid.UUID, t Text) ([]byte, int, error) {
	out := &decoding{Decoder: d, id: id, text: t, value: make([]byte, 0, t.Room)}
	data := bytes.TrimPrefix(t.Data, []byte("\ufeff"))
	var err error
	if t.Format == CSV {
		err = out.csv(data)
	} else {
		err = out.ndjson(data)
	}
	if err != nil {
		return nil, 0, err
	}
	return out.value, out.rows, nil
}

// decoding is the decoding of one text.
type decoding struct {
	*Decoder
	id    uuid.UUID
	text  Text
	value []byte
	rows  int
}

// grown looks whether what there is by now is too much.
func (d *decoding) grown() error {
	if limit := d.text.MaxRows; limit > 0 && d.rows > limit {
		return fmt.Errorf("%w: %d are taken at once", ErrTooManyRows, limit)
	}
	if d.text.Grown != nil {
		return d.text.Grown(len(d.value))
	}
	return nil
}

func (d *decoding) ndjson(data []byte) error {
	for len(data) > 0 {
		end := len(data)
		if end > piece {
			if i := bytes.IndexByte(data[piece:], '\n'); i >= 0 {
				end = piece + i + 1
			}
		}
		var n int
		var err error
		d.value, n, err = d.codec.AppendNDJSON(d.value, d.id, data[:end])
		var bad *rows.Error
		if errors.As(err, &bad) {
			return &RowError{Line: int64(d.rows + max(bad.Row, 1)), Column: bad.Column, Detail: bad.Detail}
		}
		if err != nil {
			return err
		}
		d.rows += n
		if err := d.grown(); err != nil {
			return err
		}
		data = data[end:]
	}
	return nil
}

func (d *decoding) csv(data []byte) error {
	seen := scan{format: CSV}
	end := seen.end(data)
	if end == 0 {
		end = len(data)
	}
	head, err := parseHeader(data[:end], d.manifest)
	if err != nil {
		return err
	}
	records := recordReader{data: data[end:], line: 1 + int64(bytes.Count(data[:end], []byte{'\n'}))}
	reader := newRowReader(head, "")
	looked := 0
	for !records.ended() {
		line := records.line
		if err := reader.read(&records); err != nil {
			return err
		}
		if d.value, err = d.codec.AppendText(d.value, d.id, reader.fields); err != nil {
			return explainRow(d.manifest, reader, line, err)
		}
		d.rows++
		if records.at-looked >= piece {
			looked = records.at
			if err := d.grown(); err != nil {
				return err
			}
		}
	}
	return d.grown()
}
