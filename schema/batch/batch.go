// Package batch is the envelope in which rows travel: a batch's identity, its
// CloudEvents headers, the digest that ties them to the rows, and the reasons
// for which one is refused. FORMAT.md in this directory specifies it for
// producers in any language.
package batch

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"time"

	"github.com/google/uuid"

	"tallyman/schema"
)

// Header is one Kafka record header, without a dependency on a Kafka client.
type Header struct {
	Key   string
	Value []byte
}

// Digest is a SHA-256.
type Digest [sha256.Size]byte

// String returns the digest as 64 lower-case hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Batch is an immutable, ordered set of rows of one dataset: the unit of loading.
type Batch struct {
	ID   uuid.UUID
	Time time.Time // the batch time, UTC
	// Source names the producer. Incarnation (uuid.Nil: absent) and Sequence
	// (0: absent) number the batch within its stream, from 1 and without holes.
	Source      string
	Incarnation uuid.UUID
	Sequence    uint64
	Dataset     schema.Dataset
	Schema      string // the manifest's hash; empty: the one that the revision was made from
	ContentType string
	Rows        int
	Digest      Digest // over the preamble and Value
	Traceparent string // W3C trace context; empty: absent
	Value       []byte // the rows, in the encoding that ContentType names
}

// The content types of a batch's value; package rows encodes and decodes both.
const (
	Native = "application/vnd.tallyman.rows"
	NDJSON = "application/x-ndjson"
)

// MaxRows bounds the rows of a batch.
const MaxRows = 10_000_000

// The types of message, as in ce_type.
const (
	typePrefix         = "tallyman."
	typeOfBatch        = "tallyman.batch.v1"
	typeOfAnnouncement = "tallyman.announcement.v1"
	typeOfReceipt      = "tallyman.receipt.v1"
	typeOfReplay       = "tallyman.replay.v1"
	specVersion        = "1.0"
	digestPrefix       = "sha-256="
)

// The names of the headers.
const (
	headerSpecVersion = "ce_specversion"
	headerType        = "ce_type"
	headerID          = "ce_id"
	headerTime        = "ce_time"
	headerSource      = "ce_source"
	headerIncarnation = "ce_incarnation"
	headerSequence    = "ce_sequence"
	headerSubject     = "ce_subject"
	headerDataSchema  = "ce_dataschema"
	headerRows        = "ce_rows"
	headerDigest      = "ce_digest"
	headerContentType = "content-type"
	headerTraceparent = "traceparent"
)

// Seal computes the digest over the preamble and the value.
func (b *Batch) Seal() { b.Digest = b.seal() }

// Intact says whether the digest is the one of the preamble and the value.
func (b *Batch) Intact() bool { return b.Digest == b.seal() }

func (b *Batch) seal() Digest {
	var incarnation, sequence string
	if b.Incarnation != uuid.Nil {
		incarnation = b.Incarnation.String()
	}
	if b.Sequence != 0 {
		sequence = strconv.FormatUint(b.Sequence, 10)
	}
	return digest(b.Value, b.ID.String(), b.Source, incarnation, sequence,
		b.Dataset.String(), b.dataSchema(), b.ContentType, strconv.Itoa(b.Rows))
}

// Content returns the digest that the ledger keeps: over dataset, schema,
// content type and row count, one line each as in the preamble, and the value.
// Neither id nor source is in it, so it tells whether an id came back with
// other rows, whoever sent them.
func (b *Batch) Content() Digest {
	return digest(b.Value, b.Dataset.String(), b.dataSchema(), b.ContentType, strconv.Itoa(b.Rows))
}

// digest is the SHA-256 of lines, each ended by a newline, and then of value.
func digest(value []byte, lines ...string) Digest {
	h := sha256.New()
	var preamble bytes.Buffer
	for _, line := range lines {
		preamble.WriteString(line)
		preamble.WriteByte('\n')
	}
	h.Write(preamble.Bytes())
	h.Write(value)
	var d Digest
	h.Sum(d[:0])
	return d
}

// dataSchema returns ce_dataschema, or "" where no manifest is named.
func (b *Batch) dataSchema() string {
	if b.Schema == "" {
		return ""
	}
	return schema.Ref{Dataset: b.Dataset, Hash: b.Schema}.String()
}

// Key returns the Kafka key: the canonical id.
func (b *Batch) Key() []byte { return []byte(b.ID.String()) }

// Headers returns the Kafka headers, in a fixed order. ce_time is left out for
// v8, which has no time, and beyond the year 9999, which RFC 3339 can't write.
func (b *Batch) Headers() []Header {
	hs := make([]Header, 0, 13)
	add := func(key, value string) { hs = append(hs, Header{Key: key, Value: []byte(value)}) }
	add(headerSpecVersion, specVersion)
	add(headerType, typeOfBatch)
	add(headerID, b.ID.String())
	if layout := timeLayout(b.ID); layout != "" && b.Time.Before(endOfTime()) {
		add(headerTime, b.Time.UTC().Format(layout))
	}
	add(headerSource, b.Source)
	if b.Incarnation != uuid.Nil {
		add(headerIncarnation, b.Incarnation.String())
		add(headerSequence, strconv.FormatUint(b.Sequence, 10))
	}
	add(headerSubject, b.Dataset.String())
	if b.Schema != "" {
		add(headerDataSchema, b.dataSchema())
	}
	add(headerRows, strconv.Itoa(b.Rows))
	add(headerDigest, digestPrefix+b.Digest.String())
	add(headerContentType, b.ContentType)
	if b.Traceparent != "" {
		add(headerTraceparent, b.Traceparent)
	}
	return hs
}

// timeLayout returns how ce_time is written: to the precision at which it is
// read; "" for v8.
func timeLayout(id uuid.UUID) string {
	switch precision(id) {
	case time.Millisecond:
		return "2006-01-02T15:04:05.000Z"
	case time.Microsecond:
		return "2006-01-02T15:04:05.000000Z"
	default:
		return ""
	}
}
