package consume

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/fetch"
)

// Whatever a broker answers: no panic, and no more memory than the limit for
// what the bytes claim; a record batch that is called sound walks or is refused.
func FuzzReadAnswer(f *testing.F) {
	const version, limit = 10, 1 << 20
	sent := written(f, version, &fetch.Response{Topics: []fetch.ResponseTopic{{Topic: topic, Partitions: []fetch.ResponsePartition{{
		Partition: 1, HighWatermark: 2, LastStableOffset: 2,
		AbortedTransactions: []fetch.ResponseTransaction{{ProducerID: 7, FirstOffset: 1}},
		RecordSet: protocol.RecordSet{Version: 2, Records: protocol.NewRecordReader(
			protocol.Record{Offset: 0, Key: protocol.NewBytes([]byte("k")), Value: protocol.NewBytes([]byte("v"))},
			protocol.Record{Offset: 1, Headers: []protocol.Header{{Key: "h", Value: []byte("x")}}},
		)},
	}}}}})
	if a, err := readAnswer(bytes.NewReader(sent), correlation, version, limit); err != nil || len(a.partitions[0].batches) != 1 {
		f.Fatalf("the seed is read as %+v: %v", a, err)
	}
	f.Add(sent)
	f.Fuzz(func(t *testing.T, answer []byte) {
		a, err := readAnswer(bytes.NewReader(answer), correlation, version, limit)
		if err != nil {
			return
		}
		for _, part := range a.partitions {
			for i := range part.batches {
				b := &part.batches[i]
				if len(b.records) > limit {
					t.Errorf("%d bytes of records were kept", len(b.records))
				}
				if b.fault == sound && b.compression() == 0 {
					_ = b.check(b.records)
				}
			}
		}
	})
}

// Whatever is in a record batch after decompression: no panic, and what passed
// check is read to its end, offset after offset.
func FuzzCheckRecords(f *testing.F) {
	f.Add([]byte{20, 0, 0, 0, 2, 'k', 2, 'v', 2, 2, 'h', 2, 'x'}, int32(1))
	f.Add(record(0, "value"), int32(1))
	f.Add([]byte{}, int32(0))
	f.Fuzz(func(t *testing.T, data []byte, count int32) {
		b := &rawBatch{base: 100, last: 100 + 1<<20, count: count}
		if b.check(data) != nil {
			return
		}
		previous, c := b.base-1, cursor{b: data}
		for range b.count {
			r, ok := b.next(&c)
			if !ok || r.offset <= previous || r.offset > b.last {
				t.Fatalf("offset %d after %d", r.offset, previous)
			}
			previous = r.offset
		}
		if len(c.b) != 0 {
			t.Errorf("%d bytes are left", len(c.b))
		}
	})
}

// Whatever claims to be framed Snappy: no panic, and no more than there is room for.
func FuzzUnsnappy(f *testing.F) {
	f.Add([]byte("\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x05\x03\x08abc"))
	f.Add(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(nil)))
	f.Fuzz(func(t *testing.T, src []byte) {
		const room = 1 << 16
		if out, err := unsnappy(make([]byte, 0, room), src); err == nil && len(out) > room {
			t.Errorf("%d bytes in %d", len(out), room)
		}
	})
}
