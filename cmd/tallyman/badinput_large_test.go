package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strconv"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tallyman/schema/batch"
)

// The memory that a loader may take for the largest messages, in bytes, beside
// what it has at rest. The heap is measured as the system gave it: some copies
// of 12 MiB, and holes of that size between them. A bomb may take 64 MiB, and
// two steps more in which a heap grows by itself.
const (
	largeMemory = 200 << 20
	bombMemory  = (64 + 2*4) << 20
)

// Messages beyond every limit, and a few kilobytes that are a quarter of a
// gigabyte when decompressed.
func TestBadInputLarge(t *testing.T) {
	t.Parallel()
	s := newBadSite(t, map[string]string{"message.max.bytes": strconv.Itoa(60 << 20)})
	s.loader = append(s.loader, "GOMEMLIMIT=", "GOGC=") // it has the limits that it sets itself
	large := s.stream("dataset: bad/large\ncolumns:\n  - {name: k, type: text}\n", lines(`{"k":"good"}`))
	bomb := s.stream("dataset: bad/bomb\ncolumns:\n  - {name: k, type: text}\n", lines(`{"k":"good"}`))
	p := s.load()
	p.until("readiness", func() bool { return p.ready() == "ok\n" })
	rest := p.heap()

	bomb.produce("before a bomb", good("", ""))
	bomb.append("a bomb", frameOf(t, 256<<20), want{outcome: "quarantined", reason: batch.TooLarge, detail: "decompresses to more than"})
	bomb.append("half a frame", frameOf(t, 100)[:12], want{outcome: "quarantined", reason: batch.Unreadable, detail: "EOF"})
	bomb.append("noise", []byte("this was never compressed"), want{outcome: "quarantined", reason: batch.Unreadable})
	bomb.produce("after a bomb", good("", ""))
	bomb.passed(p)
	bomb.check(p)
	bomb.checkRedrive()
	if more := p.heap() - rest; more > bombMemory {
		t.Errorf("a bomb took %d MiB", more>>20)
	} else {
		t.Logf("a bomb took %d MiB", more>>20)
	}

	noise := bytes.Repeat([]byte("0123456789abcdef"), 12<<20/16)
	text := string(noise)
	length := strconv.Itoa(len(text))
	large.produceCases([]badCase{
		{"12 MiB", good("length(k)::text", length, native(text))},
		{"12 MiB of JSON", good("length(k)::text", length, lines(`{"k":"`+text+`"}`))},
		{"8 MiB, damaged", bad(batch.BadDigest, "digest", message(func(r *kgo.Record) { r.Value = noise[:8<<20] }))},
		{"a byte more, damaged", bad(batch.BadDigest, "digest", message(func(r *kgo.Record) { r.Value = noise[:8<<20+1] }))},
		{"12 MiB, damaged", bad(batch.BadDigest, "digest", message(func(r *kgo.Record) { r.Value = noise }))},
		{"12 MiB with a NUL", bad(batch.Rejected, "SQLSTATE 22021", raw(map[string]string{"k": text + "\x00"}))},
		{"12 MiB of other content", []send{good("", "", native(text))[0], bad(batch.IDConflict, "stands for", native(text[1:]))[0]}},
		{"12 MiB in no column", bad(batch.BadRows, "is not a column", lines(`{"`+text+`":1}`))},
	})
	// Many times over, so that a loader without bounds would hold twice what it may.
	whole := []byte(`{"k":"` + text + `"}`)
	again := edit(func(b *batch.Batch) { b.Value = whole })
	many := good("", "", again)
	for range 14 {
		many = append(many, duplicate(again))
	}
	large.produce("12 MiB, 15 times", many)
	large.produce("36 MiB", []send{{want{outcome: "quarantined", reason: batch.TooLarge, detail: "the limit is"},
		[]change{message(func(r *kgo.Record) { r.Value = bytes.Repeat(noise, 3) })}}})
	large.unread(len(large.sent) - 1)
	large.produce("after 36 MiB", good("", ""))
	large.passed(p)
	large.check(p)
	large.checkRedrive()
	if more := p.heap() - rest; more > largeMemory {
		t.Errorf("large messages took %d MiB", more>>20)
	} else {
		t.Logf("large messages took %d MiB", more>>20)
	}
	p.checkLog()
}

// heap returns the most that the process's heap had of the system, in bytes.
func (p *process) heap() int64 {
	p.t.Helper()
	bytes, err := strconv.ParseFloat(p.metric("go_memstats_heap_sys_bytes"), 64)
	if err != nil {
		p.t.Fatal(err)
	}
	return int64(bytes)
}

// unread says of a message that was sent that nobody can read it: quarantine
// has its coordinates and nothing else.
func (st *stream) unread(i int) {
	r := st.sent[i].record
	st.sent[i].record = &kgo.Record{Topic: r.Topic, Offset: r.Offset}
}

// append writes a record batch of one record whose zstd frame is as it is.
func (st *stream) append(name string, frame []byte, w want) {
	t := st.site.t
	t.Helper()
	rb := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, Attributes: 4, NumRecords: 1,
		FirstTimestamp: 1_700_000_000_000, MaxTimestamp: 1_700_000_000_000, ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1,
		Records: frame,
	}
	rb.Length = int32(len(rb.AppendTo(nil)) - 12)
	bytes := rb.AppendTo(nil)
	binary.BigEndian.PutUint32(bytes[17:], crc32.Checksum(bytes[21:], crc32.MakeTable(crc32.Castagnoli)))
	p := kmsg.NewProduceRequestTopicPartition()
	p.Records = bytes
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic, topic.Partitions = st.manifest.Topic, append(topic.Partitions, p)
	topic.TopicID = st.site.broker.Cluster().TopicInfo(st.manifest.Topic).TopicID
	request := kmsg.NewPtrProduceRequest()
	request.Acks, request.TimeoutMillis, request.Topics = -1, 5000, append(request.Topics, topic)
	answer, err := request.RequestWith(t.Context(), st.site.client)
	if err == nil {
		err = kerr.ErrorForCode(answer.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		t.Fatal(err)
	}
	offset := answer.Topics[0].Partitions[0].BaseOffset
	st.sent = append(st.sent, sent{w, name, batch.Batch{}, &kgo.Record{Topic: st.manifest.Topic, Offset: offset}})
}

// frameOf is the zstd frame of a record whose value is that many zero bytes.
func frameOf(t *testing.T, size int) []byte {
	t.Helper()
	head := []byte{0, 0, 0, 1} // attributes, time, offset, and a key of -1 bytes
	head = binary.AppendVarint(head, int64(size))
	head = append(binary.AppendVarint(nil, int64(len(head)+size+1)), head...)
	var frame bytes.Buffer
	w, err := zstd.NewWriter(&frame)
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 64<<10)
	_, err = w.Write(head)
	for left := size + 1; left > 0 && err == nil; left -= len(zeros) { // and no headers
		_, err = w.Write(zeros[:min(left, len(zeros))])
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return frame.Bytes()
}
