package consume

import (
	"encoding/binary"
	"errors"
	"time"
	"unsafe"

	"tallyman/schema/batch"
	"tallyman/sink"
)

// errRecords is the error for records that don't add up.
var errRecords = errors.New("the records contradict their batch's header")

const (
	interned   = 64      // header names that a reader keeps, and the longest of them: the envelope has few
	maxHeaders = 1 << 16 // of one record: two bytes of data may claim a header, which takes forty

	// What one call of Handle gets at most: tiny records take more memory than
	// their bytes.
	chunkRecords = 512
	chunkBytes   = 1 << 20
)

// A producer may claim any time. What no calendar has is cut to these, in Unix
// milliseconds: the beginning of the year 1 and the end of the year 9999.
const (
	minTime = -62135596800000
	maxTime = 253402300799999
)

// Memory of what stands for a record besides its bytes.
const (
	recordMemory = int64(unsafe.Sizeof(Record{}))
	headerMemory = int64(unsafe.Sizeof(batch.Header{}))
)

// cursor walks bytes; after a step past their end it stays bad.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) varint() int64 {
	v, n := binary.Varint(c.b)
	if n <= 0 {
		c.bad, c.b = true, nil
		return 0
	}
	c.b = c.b[n:]
	return v
}

// bytes reads a length and as many bytes; a negative length is a null.
func (c *cursor) bytes() []byte {
	n := c.varint()
	if n < 0 || c.bad {
		return nil
	}
	if n > int64(len(c.b)) {
		c.bad, c.b = true, nil
		return nil
	}
	v := c.b[:n:n]
	c.b = c.b[n:]
	return v
}

// rawRecord is a record whose headers are still bytes.
type rawRecord struct {
	offset     int64
	at         int64 // Unix milliseconds
	key, value []byte
	count      int64 // of headers
	headers    cursor
}

// next reads the next record of b off c.
func (b *rawBatch) next(c *cursor) (r rawRecord, ok bool) {
	body := cursor{b: c.bytes()}
	if c.bad || len(body.b) == 0 {
		return r, false
	}
	body.b = body.b[1:] // attributes, unused
	r.at = b.firstTime + body.varint()
	if b.appendTime() {
		r.at = b.maxTime
	}
	r.at = min(max(r.at, minTime), maxTime)
	r.offset = b.base + body.varint()
	r.key, r.value = body.bytes(), body.bytes()
	r.count = body.varint()
	r.headers = body
	return r, !body.bad && r.count >= 0 && r.count <= maxHeaders && r.count*2 <= int64(len(body.b))
}

// check walks the records of b, decompressed, from end to end. What it finds in
// order can be read without looking for errors again.
func (b *rawBatch) check(data []byte) error {
	c := cursor{b: data}
	previous := b.base - 1
	for range b.count {
		r, ok := b.next(&c)
		if !ok || r.offset <= previous || r.offset > b.last {
			return errRecords
		}
		previous = r.offset
		for range 2 * r.count {
			r.headers.bytes()
		}
		if r.headers.bad || len(r.headers.b) != 0 {
			return errRecords
		}
	}
	if len(c.b) != 0 {
		return errRecords
	}
	return nil
}

// reader reads the records of a batch that passed check, a few at a time.
type reader struct {
	batch     *rawBatch
	partition sink.Partition
	rest      cursor
	left      int32
	names     map[string]string // header names that were met before
}

// read starts on a batch's records, decompressed.
func (r *reader) read(b *rawBatch, data []byte) {
	r.batch, r.rest, r.left = b, cursor{b: data}, b.count
}

// peek returns how many records come next, and the memory that they take
// besides their bytes.
func (r *reader) peek() (n int, bytes int64) {
	c := r.rest
	for n < int(r.left) && n < chunkRecords && bytes < chunkBytes {
		raw, ok := r.batch.next(&c)
		if !ok {
			break
		}
		n++
		bytes += recordMemory + raw.count*headerMemory
	}
	return n, bytes
}

// take reads one record.
func (r *reader) take() sink.Message {
	raw, ok := r.batch.next(&r.rest)
	if !ok {
		panic("consume: a batch was read that was not checked")
	}
	r.left--
	m := sink.Message{
		Partition: r.partition,
		Offset:    raw.offset,
		Timestamp: time.UnixMilli(raw.at).UTC(),
		Key:       raw.key,
		Value:     raw.value,
	}
	if raw.count > 0 {
		m.Headers = make([]batch.Header, raw.count)
	}
	for i := range m.Headers {
		m.Headers[i] = batch.Header{Key: r.name(raw.headers.bytes()), Value: raw.headers.bytes()}
	}
	return m
}

// name returns a header's name, from the few that were seen before if it can.
func (r *reader) name(b []byte) string {
	if s, ok := r.names[string(b)]; ok {
		return s
	}
	s := string(b)
	if len(r.names) < interned && len(s) <= interned {
		if r.names == nil {
			r.names = make(map[string]string)
		}
		r.names[s] = s
	}
	return s
}

// controlAbort reports whether a control batch's record says that the
// producer's transaction was aborted.
func controlAbort(data []byte) bool {
	c := cursor{b: data}
	r := cursor{b: c.bytes()}
	if c.bad || len(r.b) == 0 {
		return false
	}
	r.b = r.b[1:]
	r.varint()
	r.varint()
	key := r.bytes()
	return !r.bad && len(key) >= 4 && binary.BigEndian.Uint16(key[2:]) == 0
}
