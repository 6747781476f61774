package consume

import (
	"encoding/binary"
	"hash/crc32"
	"io"

	"github.com/segmentio/kafka-go/protocol"
)

// Sizes in bytes of the record formats' headers. The formats are those of
// https://kafka.apache.org/documentation/#messageformat.
const (
	prefixSize  = 17 // base offset, length, leader epoch or checksum, magic
	headerSize  = 61 // of a record batch (magic 2), the prefix included
	checkedFrom = 21 // where the checksum of a record batch begins
)

// answer is the response to a fetch request.
type answer struct {
	code       int16
	partitions []fetched
}

// ApiKey makes an answer a protocol.Message.
func (*answer) ApiKey() protocol.ApiKey { return protocol.Fetch } //nolint:staticcheck // the library's interface spells it so

// fetched is what an answer says about one partition.
type fetched struct {
	topic        string
	partition    int32
	code         int16
	highWater    int64
	lastStable   int64
	logStart     int64
	transactions []aborted
	batches      []rawBatch
}

// aborted names a transaction that was aborted, and the first offset of it.
type aborted struct {
	producer int64
	first    int64
}

// fault is what is wrong with a record batch as it came from the network.
type fault uint8

const (
	sound     fault = iota
	badCRC          // the checksum doesn't match: asking again may help
	badMagic        // a format that nobody knows: asking again may help
	cutShort        // longer than what was sent: asking for more may help
	tooLarge        // whole and intact, but over the limit; the content was not kept
	oldFormat       // a message of the format before record batches, intact
	malformed       // intact by its checksum, yet contradicts itself
)

// rawBatch is a record batch before decompression.
type rawBatch struct {
	base, last int64 // offsets
	bytes      int64 // as sent, the header included
	attributes int16
	firstTime  int64 // Unix milliseconds
	maxTime    int64
	producer   int64
	count      int32
	records    []byte // still compressed
	fault      fault
}

func (b *rawBatch) compression() int8   { return int8(b.attributes & 7) }
func (b *rawBatch) appendTime() bool    { return b.attributes&(1<<3) != 0 }
func (b *rawBatch) transactional() bool { return b.attributes&(1<<4) != 0 }
func (b *rawBatch) control() bool       { return b.attributes&(1<<5) != 0 }

// readAnswer decodes a fetch response of version 10 or 11. Batches of more than
// limit bytes are checked but not kept.
func readAnswer(r io.Reader, correlation int32, version int16, limit int64) (*answer, error) {
	f := newFrame(r, correlation)
	a := new(answer)
	f.int32() // throttle time
	a.code = f.int16()
	f.int32() // session id
	for range f.count(6) {
		topic := f.string()
		for range f.count(38) {
			p := readFetched(f, version, limit)
			p.topic = topic
			a.partitions = append(a.partitions, p)
			if f.err != nil {
				return nil, f.err
			}
		}
	}
	f.skip(f.left)
	if f.err != nil {
		return nil, f.err
	}
	return a, nil
}

func readFetched(f *frame, version int16, limit int64) fetched {
	p := fetched{
		partition:  f.int32(),
		code:       f.int16(),
		highWater:  f.int64(),
		lastStable: f.int64(),
		logStart:   f.int64(),
	}
	for range f.count(16) {
		p.transactions = append(p.transactions, aborted{producer: f.int64(), first: f.int64()})
	}
	if version >= 11 {
		f.int32() // preferred read replica
	}
	size := int64(f.int32())
	if size <= 0 || f.err != nil {
		return p
	}
	if size > f.left {
		f.fail("records of %d bytes where %d are left", size, f.left)
		return p
	}
	end := f.left - size
	for f.err == nil && f.left > end {
		b, ok := readBatch(f, f.left-end, limit)
		if f.err == nil && ok {
			p.batches = append(p.batches, b)
		}
		if !ok || b.fault == cutShort || b.fault == badMagic || b.fault == badCRC {
			f.skip(f.left - end)
		}
	}
	return p
}

// readBatch reads one batch out of the left bytes of a record set; ok is false
// if not even a prefix is left, which is how a broker ends a full answer.
func readBatch(f *frame, left, limit int64) (b rawBatch, ok bool) {
	if left < prefixSize {
		return b, false
	}
	var prefix [prefixSize]byte
	if !f.fill(prefix[:]) {
		return b, false
	}
	b.base = int64(binary.BigEndian.Uint64(prefix[0:]))
	b.last = b.base
	length := int64(int32(binary.BigEndian.Uint32(prefix[8:])))
	b.bytes = length + 12
	rest := b.bytes - prefixSize
	switch {
	case b.base < 0 || rest < 0:
		b.fault = badCRC
	case b.bytes > left:
		b.fault = cutShort
	case prefix[16] < 2:
		readOld(f, &b, prefix[:], rest)
	case prefix[16] > 2:
		b.fault = badMagic
	case rest < headerSize-prefixSize:
		b.fault = badCRC
	default:
		readModern(f, &b, rest, limit)
	}
	return b, f.err == nil
}

// readModern reads the rest of a record batch (magic 2).
func readModern(f *frame, b *rawBatch, rest, limit int64) {
	var h [headerSize - prefixSize]byte
	if !f.fill(h[:]) {
		return
	}
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	sum.Write(h[checkedFrom-prefixSize:])
	if b.bytes > limit {
		f.copyTo(sum, rest-int64(len(h)))
		b.fault = tooLarge
	} else {
		b.records = f.take(rest - int64(len(h)))
		sum.Write(b.records)
	}
	if binary.BigEndian.Uint32(h[:]) != sum.Sum32() {
		b.fault, b.records = badCRC, nil
		return
	}
	b.attributes = int16(binary.BigEndian.Uint16(h[4:]))
	delta := int32(binary.BigEndian.Uint32(h[6:]))
	b.firstTime = int64(binary.BigEndian.Uint64(h[10:]))
	b.maxTime = int64(binary.BigEndian.Uint64(h[18:]))
	b.producer = int64(binary.BigEndian.Uint64(h[26:]))
	b.count = int32(binary.BigEndian.Uint32(h[40:]))
	if delta < 0 || b.count < 0 || b.base+int64(delta) < b.base {
		b.fault, b.records = malformed, nil
		return
	}
	b.last = b.base + int64(delta)
}

// readOld checks a message of the formats before record batches. Such a message
// has no headers, so it can't carry a batch; a compressed one stands for several
// and its offset is the last of theirs.
func readOld(f *frame, b *rawBatch, prefix []byte, rest int64) {
	sum := crc32.NewIEEE()
	sum.Write(prefix[16:])
	f.copyTo(sum, rest)
	b.fault = oldFormat
	if binary.BigEndian.Uint32(prefix[12:]) != sum.Sum32() {
		b.fault = badCRC
	}
}
