package journal

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/google/uuid"

	"tallyman/schema"
	"tallyman/schema/batch"
)

// Whatever is on the disk under a right checksum: no panic; an error is about
// damage or another version; and a record that is read is written as it was.
func FuzzParseRecord(f *testing.F) {
	b := &batch.Batch{
		ID: uuid.MustParse("0192f0c1-2b3c-7d4e-8f50-617283940a1b"), Source: "s", Incarnation: uuid.Max, Sequence: 7,
		Dataset: schema.Dataset{Namespace: "a", Name: "b"}, ContentType: batch.NDJSON, Rows: 1, Value: []byte("{}\n"),
	}
	var err error
	if b.Time, err = batch.TimeOf(b.ID); err != nil {
		f.Fatal(err)
	}
	b.Seal()
	k := Key{Stream: Stream{Incarnation: b.Incarnation, Dataset: b.Dataset}, Sequence: b.Sequence}
	whole := appendRecord(nil, "topic", b, b.Headers())
	if _, err := parseRecord(k, whole); err != nil {
		f.Fatal(err)
	}
	f.Add(whole[:len(whole)-crc32.Size])
	f.Add([]byte{})
	f.Add([]byte{recordVersion, 1, 't', 0, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, body []byte) {
		bytes := sum(body)
		r, err := parseRecord(k, bytes)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && body[0] == recordVersion {
				t.Fatal(err)
			}
			return
		}
		again, err := parseRecord(k, appendRecord(nil, r.Topic, r.Batch, r.Batch.Headers()))
		if err != nil || again.Batch.Digest != r.Batch.Digest || again.Topic != r.Topic {
			t.Errorf("written again it is %+v: %v", again, err)
		}
	})
}

// sum appends the checksum of a record.
func sum(body []byte) []byte {
	return binary.BigEndian.AppendUint32(body, crc32.Checksum(body, castagnoli()))
}
