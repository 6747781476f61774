package consume

import (
	"encoding/binary"
	"errors"
	"time"

	"tallyman/schema/batch"
	"tallyman/sink"
)

// errRecords is the error for records that don't add up.
var errRecords = errors.New("the records contradict their batch's header")

// interned bounds the header names that a decoder keeps: the envelope has few.
const interned = 64

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

// decoder turns the decompressed records of a batch into messages.
type decoder struct {
	partition sink.Partition
	names     map[string]string
}

// decode reads all records of b from data, which the messages then share.
func (d *decoder) decode(b *rawBatch, data []byte) ([]sink.Message, error) {
	// A record takes at least 7 bytes, so a count can't claim more memory than
	// its bytes justify.
	if int64(b.count)*7 > int64(len(data)) {
		return nil, errRecords
	}
	messages := make([]sink.Message, 0, b.count)
	headers := make([]batch.Header, 0, d.countHeaders(b, data))
	c := cursor{b: data}
	previous := b.base - 1
	for range b.count {
		r := cursor{b: c.bytes()}
		if c.bad || len(r.b) == 0 {
			return nil, errRecords
		}
		r.b = r.b[1:] // attributes, unused
		at := b.firstTime + r.varint()
		if b.appendTime() {
			at = b.maxTime
		}
		m := sink.Message{
			Partition: d.partition,
			Offset:    b.base + r.varint(),
			Timestamp: time.UnixMilli(at).UTC(),
			Key:       r.bytes(),
			Value:     r.bytes(),
		}
		n := r.varint()
		if r.bad || n < 0 || n*2 > int64(len(r.b)) || m.Offset <= previous || m.Offset > b.last {
			return nil, errRecords
		}
		from := len(headers)
		for range n {
			name := r.bytes()
			headers = append(headers, batch.Header{Key: d.name(name), Value: r.bytes()})
		}
		if r.bad || len(r.b) != 0 {
			return nil, errRecords
		}
		if n > 0 {
			m.Headers = headers[from:len(headers):len(headers)]
		}
		previous = m.Offset
		messages = append(messages, m)
	}
	if len(c.b) != 0 {
		return nil, errRecords
	}
	return messages, nil
}

// countHeaders returns how many headers all records have together, as far as
// they can be read.
func (d *decoder) countHeaders(b *rawBatch, data []byte) int {
	total := 0
	c := cursor{b: data}
	for range b.count {
		r := cursor{b: c.bytes()}
		if c.bad || len(r.b) == 0 {
			break
		}
		r.b = r.b[1:]
		r.varint()
		r.varint()
		r.bytes()
		r.bytes()
		if n := r.varint(); !r.bad && n > 0 && n*2 <= int64(len(r.b)) {
			total += int(n)
		}
	}
	return total
}

// name returns a header's name, from the few that were seen before if it can.
func (d *decoder) name(b []byte) string {
	if s, ok := d.names[string(b)]; ok {
		return s
	}
	s := string(b)
	if len(d.names) < interned && len(s) <= interned {
		if d.names == nil {
			d.names = make(map[string]string)
		}
		d.names[s] = s
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
