package intake

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"

	"tallyman/schema"
	"tallyman/schema/batch"
)

// decoderOf returns a decoder, and the encoding of a push of the same text.
func decoderOf(t testing.TB, m schema.Manifest, format Format, text []byte) (*Decoder, *encoding) {
	t.Helper()
	d, err := NewDecoder(m)
	if err != nil {
		t.Fatal(err)
	}
	return d, newEncoding(t, m, format, sha256.Sum256(text))
}

// A text is decoded to the tuples that a push makes of a file with it, also
// where it is decoded in pieces.
func TestDecodesWhatPushEncodes(t *testing.T) {
	t.Parallel()
	m := manifest(t, pairs)
	for format, text := range map[Format]string{
		NDJSON: strings.Repeat(`{"n":1,"t":"some text, so that there are pieces"}`+"\n", 3000) + `{"n":2}`,
		CSV:    "\ufefft,n\r\n" + strings.Repeat("\"a\n\"\"b\"\"\",3\r\n,4\n", 3000),
	} {
		d, e := decoderOf(t, m, format, []byte(text))
		total, err := e.run(t.Context(), strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		chunks := map[uuid.UUID][]byte{} // the journal has them in any order
		for record, err := range e.journal.All() {
			if err != nil {
				t.Fatal(err)
			}
			chunks[record.Batch.ID] = record.Batch.Value
		}
		var want []byte
		for number := range uint64(len(chunks)) {
			want = append(want, chunks[batch.FileID(m.Dataset, string(format), e.content, number, "")]...)
		}
		got, n, err := d.Decode(uuid.Nil, Text{Format: format, Data: []byte(text)})
		if err != nil || int64(n) != total.rows {
			t.Fatalf("%s: %d rows, want %d: %v", format, n, total.rows, err)
		}
		blank := func(value []byte) []byte { return withoutIDs(t, d, value) }
		if !bytes.Equal(blank(got), blank(want)) {
			t.Errorf("%s: the tuples differ", format)
		}
	}
}

// withoutIDs clears the ids at the end of tuples, whatever they are.
func withoutIDs(t *testing.T, d *Decoder, value []byte) []byte {
	t.Helper()
	cleared := bytes.Clone(value)
	for begin := 0; begin < len(cleared); {
		end := begin + 2
		for range d.codec.Columns() {
			size := int(int32(uint32(cleared[end])<<24 | uint32(cleared[end+1])<<16 | uint32(cleared[end+2])<<8 | uint32(cleared[end+3])))
			end += 4 + max(size, 0)
		}
		d.codec.SetID(cleared[begin:end], uuid.Nil)
		begin = end
	}
	return cleared
}

// What is too much ends the decoding soon after it is.
func TestDecodingIsBounded(t *testing.T) {
	t.Parallel()
	d, err := NewDecoder(manifest(t, pairs))
	if err != nil {
		t.Fatal(err)
	}
	full := errors.New("full")
	for format, text := range map[Format]string{NDJSON: strings.Repeat("{\"n\":1}\n", 100_000), CSV: "n\n" + strings.Repeat("1\n", 400_000)} {
		if _, _, err := d.Decode(batch.NewID(), Text{Format: format, Data: []byte(text), MaxRows: 99_999}); !errors.Is(err, ErrTooManyRows) {
			t.Errorf("%s: %v", format, err)
		}
		most := 0
		_, _, err := d.Decode(batch.NewID(), Text{Format: format, Data: []byte(text), Grown: func(n int) error {
			if most = n; n > 1<<20 {
				return full
			}
			return nil
		}})
		if !errors.Is(err, full) || most > 4<<20 {
			t.Errorf("%s: %d bytes, then %v", format, most, err)
		}
	}
}
