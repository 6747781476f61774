package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"tallyman/schema/batch"
)

// Record is a batch as the journal keeps it, with the topic that it is for.
type Record struct {
	Key   Key
	Topic string
	Batch *batch.Batch

	memory *[]byte // that Batch.Value is in, if a journal lent it
}

// Size returns the bytes that count against budgets: those of the rows.
func (r *Record) Size() int64 { return int64(len(r.Batch.Value)) }

// Errors about what is on the disk; they come wrapped.
var (
	// ErrCorrupt: bytes of a batch, or of what the store needs to find it, changed.
	ErrCorrupt = errors.New("damaged on disk")
	// ErrFormat: another release wrote the journal, in a format of its own.
	ErrFormat = errors.New("this release can't read it")
)

// recordVersion begins every record. After it, each preceded by its length as
// an unsigned varint: topic, Kafka key, then the number of headers and each
// one's key and value, then the value; at the end CRC-32C of all before it,
// four bytes, big-endian.
const recordVersion = 1

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

func uvarintSize(n int) int {
	var buf [binary.MaxVarintLen64]byte
	return binary.PutUvarint(buf[:], uint64(n))
}

func partSize(n int) int { return uvarintSize(n) + n }

// recordSize returns the size of the encoded record.
func recordSize(topic string, key, value []byte, headers []batch.Header) int {
	n := 1 + partSize(len(topic)) + partSize(len(key)) + uvarintSize(len(headers)) + partSize(len(value)) + crc32.Size
	for _, h := range headers {
		n += partSize(len(h.Key)) + partSize(len(h.Value))
	}
	return n
}

func appendPart[T string | []byte](dst []byte, part T) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(part)))
	return append(dst, part...)
}

// appendRecord appends the encoded record to dst, which is empty.
func appendRecord(dst []byte, topic string, b *batch.Batch, headers []batch.Header) []byte {
	dst = append(dst, recordVersion)
	dst = appendPart(dst, topic)
	dst = appendPart(dst, b.Key())
	dst = binary.AppendUvarint(dst, uint64(len(headers)))
	for _, h := range headers {
		dst = appendPart(dst, h.Key)
		dst = appendPart(dst, h.Value)
	}
	dst = appendPart(dst, b.Value)
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst, castagnoli()))
}

// parser reads length-prefixed parts; after the first error it reads nothing.
type parser struct {
	rest []byte
	bad  bool
}

func (p *parser) count() int {
	n, size := binary.Uvarint(p.rest)
	if size <= 0 || n > uint64(len(p.rest)-size) {
		p.bad, p.rest = true, nil
		return 0
	}
	p.rest = p.rest[size:]
	return int(n)
}

func (p *parser) part() []byte {
	n := p.count()
	part := p.rest[:n:n]
	p.rest = p.rest[n:]
	return part
}

// parseRecord reads a record and checks its checksum. The digest over identity
// and rows is under that, so the loader is the next to compute it. The batch's
// value shares b's memory.
func parseRecord(k Key, b []byte) (*Record, error) {
	damaged := func(detail string) error { return fmt.Errorf("batch %s: %w: %s", k, ErrCorrupt, detail) }
	if len(b) < 1+crc32.Size {
		return nil, damaged(fmt.Sprintf("%d bytes", len(b)))
	}
	body, sum := b[:len(b)-crc32.Size], binary.BigEndian.Uint32(b[len(b)-crc32.Size:])
	if crc32.Checksum(body, castagnoli()) != sum {
		return nil, damaged("its checksum does not match")
	}
	if body[0] != recordVersion {
		return nil, fmt.Errorf("batch %s: %w: it has record version %d, and this release knows %d", k, ErrFormat, body[0], recordVersion)
	}
	p := parser{rest: body[1:]}
	topic, key := p.part(), p.part()
	var headers []batch.Header
	for n := p.count(); n > 0 && !p.bad; n-- {
		headers = append(headers, batch.Header{Key: string(p.part()), Value: p.part()})
	}
	value := p.part()
	if p.bad || len(p.rest) != 0 {
		return nil, damaged("its lengths do not add up")
	}
	parsed, err := batch.Restore(key, value, headers)
	if err != nil {
		return nil, damaged(err.Error())
	}
	if parsed.Incarnation != k.Incarnation || parsed.Sequence != k.Sequence || parsed.Dataset != k.Dataset {
		return nil, damaged(fmt.Sprintf("it holds %s %s %d", parsed.Dataset, parsed.Incarnation, parsed.Sequence))
	}
	return &Record{Key: k, Topic: string(topic), Batch: parsed}, nil
}
