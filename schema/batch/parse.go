package batch

import (
	"errors"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"tallyman/schema"
)

// Kind tells what a message is by its headers.
type Kind uint8

// The kinds of message, on the topics of datasets and on [ReceiptsTopic].
const (
	Foreign        Kind = iota // ce_type is absent or not one of ours
	IsBatch                    // tallyman.batch.v1
	IsAnnouncement             // tallyman.announcement.v1
	IsReceipt                  // tallyman.receipt.v1
	IsReplay                   // tallyman.replay.v1
	Other                      // another tallyman.* type: skipped, not quarantined
)

// KindOf reads ce_type; of several, the first.
func KindOf(headers []Header) Kind {
	for i := range headers {
		if headers[i].Key != headerType {
			continue
		}
		switch t := string(headers[i].Value); {
		case t == typeOfBatch:
			return IsBatch
		case t == typeOfAnnouncement:
			return IsAnnouncement
		case t == typeOfReceipt:
			return IsReceipt
		case t == typeOfReplay:
			return IsReplay
		case strings.HasPrefix(t, typePrefix):
			return Other
		}
		return Foreign
	}
	return Foreign
}

var (
	decimal     = regexp.MustCompile(`^[1-9][0-9]*$`)
	traceparent = regexp.MustCompile(`^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)
)

// Parse reads a message into a batch and checks its digest; the error is a
// *Refusal. The first fault in this order is told: the id, the other headers,
// an empty value, the digest. Headers that it does not know are ignored, and
// so is a malformed traceparent. The batch shares value with its caller.
func Parse(key, value []byte, headers []Header) (*Batch, error) {
	return parse(key, headers, parser{batch: &Batch{Value: value}})
}

// Restore is Parse for whoever sealed the batch and knows by a checksum of its
// own that nothing of it changed: the digest is read, but not computed again.
func Restore(key, value []byte, headers []Header) (*Batch, error) {
	return parse(key, headers, parser{batch: &Batch{Value: value}, trusted: true})
}

func parse(key []byte, headers []Header, p parser) (*Batch, error) {
	p.collect(headers)
	if r := p.parse(key); r != nil {
		r.Batch = p.batch
		return nil, r
	}
	return p.batch, nil
}

// parser reads the headers of one message.
type parser struct {
	batch   *Batch
	trusted bool // the digest is right
	// values holds the first value of each of our headers, by its name.
	values   map[string]string
	repeated string // a header of ours that came twice; empty: none
}

// collect keeps the headers of ours.
func (p *parser) collect(headers []Header) {
	p.values = make(map[string]string, 13)
	for i := range headers {
		switch key := headers[i].Key; key {
		case headerSpecVersion, headerType, headerID, headerTime, headerSource, headerIncarnation, headerSequence,
			headerSubject, headerDataSchema, headerRows, headerDigest, headerContentType, headerTraceparent:
			if _, again := p.values[key]; !again {
				p.values[key] = string(headers[i].Value)
			} else if p.repeated == "" {
				p.repeated = key
			}
		}
	}
}

// parse reads header by header into the batch, which keeps what was read
// before the first fault.
func (p *parser) parse(key []byte) *Refusal {
	if r := p.id(); r != nil {
		return r
	}
	for _, step := range []func() *Refusal{
		func() *Refusal { return p.once(key) }, p.kind, p.time, p.source, p.stream, p.dataset, p.content,
	} {
		if r := step(); r != nil {
			return r
		}
	}
	p.batch.Traceparent = p.values[headerTraceparent]
	if !traceparent.MatchString(p.batch.Traceparent) {
		p.batch.Traceparent = ""
	}
	if len(p.batch.Value) == 0 {
		return refuse(BadRows, "the value is empty, but ce_rows is %d", p.batch.Rows)
	}
	return p.digest()
}

func (p *parser) id() *Refusal {
	s := p.values[headerID]
	if s == "" {
		return refuse(NoID, "header ce_id is missing or empty")
	}
	id, err := parseUUID(s)
	if err != nil {
		return refuse(BadID, "ce_id %s is not a UUID", quote(s))
	}
	p.batch.ID = id
	p.batch.Time, _ = TimeOf(id) // v4 has one only once ce_time is read
	return checkID(id)
}

// once refuses what makes the identity ambiguous: a header of ours that comes
// twice, a key that is not the id.
func (p *parser) once(key []byte) *Refusal {
	if p.repeated != "" {
		return refuse(BadEnvelope, "header %s comes more than once", p.repeated)
	}
	if len(key) == 0 {
		return nil
	}
	if id, err := parseUUID(string(key)); err != nil || id != p.batch.ID {
		return refuse(BadEnvelope, "key %s is not the id %s", quote(string(key)), p.batch.ID)
	}
	return nil
}

func (p *parser) kind() *Refusal {
	if v := p.values[headerSpecVersion]; v != specVersion {
		return refuse(BadEnvelope, "ce_specversion is %s, want %q", quote(v), specVersion)
	}
	if v := p.values[headerType]; v != typeOfBatch {
		return refuse(BadEnvelope, "ce_type is %s, want %q", quote(v), typeOfBatch)
	}
	return nil
}

func (p *parser) time() *Refusal {
	s, ok := p.values[headerTime]
	if !ok && p.batch.ID.Version() == 4 {
		return refuse(BadEnvelope, "header ce_time is missing: id %s is of version 4, which has no time in it", p.batch.ID)
	}
	if !ok {
		return nil
	}
	var told time.Time
	if err := told.UnmarshalText([]byte(s)); err != nil {
		return refuse(BadEnvelope, "ce_time %s is not a time of RFC 3339 with a zone", quote(s))
	}
	at, err := TimeWith(p.batch.ID, told)
	var r *Refusal
	if errors.As(err, &r) {
		r.Detail = "ce_time: " + r.Detail
		return r
	}
	p.batch.Time = at
	return nil
}

func (p *parser) source() *Refusal {
	s := p.values[headerSource]
	switch {
	case s == "":
		return refuse(BadEnvelope, "header ce_source is missing or empty")
	case len(s) > schema.MaxSource:
		return refuse(BadEnvelope, "ce_source %s has %d bytes, at most %d are possible", quote(s), len(s), schema.MaxSource)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl):
		return refuse(BadEnvelope, "ce_source %s is not UTF-8 without control characters", quote(s))
	}
	p.batch.Source = s
	return nil
}

func (p *parser) stream() *Refusal {
	incarnation, hasIncarnation := p.values[headerIncarnation]
	sequence, hasSequence := p.values[headerSequence]
	switch {
	case !hasIncarnation && !hasSequence:
		return nil
	case hasIncarnation != hasSequence:
		return refuse(BadEnvelope, "ce_incarnation and ce_sequence come together or not at all")
	}
	id, err := parseUUID(incarnation)
	if err != nil || id == uuid.Nil {
		return refuse(BadEnvelope, "ce_incarnation %s is not a UUID", quote(incarnation))
	}
	n, ok := parseDecimal(sequence, math.MaxInt64)
	if !ok {
		return refuse(BadEnvelope, "ce_sequence %s is not a decimal number from 1 to %d", quote(sequence), int64(math.MaxInt64))
	}
	p.batch.Incarnation, p.batch.Sequence = id, n
	return nil
}

func (p *parser) dataset() *Refusal {
	d, err := schema.ParseDataset(p.values[headerSubject])
	if err != nil {
		return refuse(BadEnvelope, "ce_subject: %v", err)
	}
	p.batch.Dataset = d
	s, ok := p.values[headerDataSchema]
	if !ok {
		return nil
	}
	ref, err := schema.ParseRef(s)
	switch {
	case err != nil:
		return refuse(BadEnvelope, "ce_dataschema: %v", err)
	case ref.Hash == "":
		return refuse(BadEnvelope, "ce_dataschema %s names no manifest: want namespace/name@hash", quote(s))
	case ref.Dataset != d:
		return refuse(BadEnvelope, "ce_dataschema is of dataset %s, but ce_subject is %s", ref.Dataset, d)
	}
	p.batch.Schema = ref.Hash
	return nil
}

func (p *parser) content() *Refusal {
	n, ok := parseDecimal(p.values[headerRows], MaxRows)
	if !ok {
		return refuse(BadEnvelope, "ce_rows %s is not a decimal number from 1 to %d", quote(p.values[headerRows]), MaxRows)
	}
	p.batch.Rows = int(n)
	switch v := p.values[headerContentType]; v {
	case Native, NDJSON:
		p.batch.ContentType = v
		return nil
	default:
		return refuse(BadEnvelope, "content-type is %s, want %q or %q", quote(v), Native, NDJSON)
	}
}

func (p *parser) digest() *Refusal {
	s := p.values[headerDigest]
	if s == "" {
		return refuse(BadDigest, "header ce_digest is missing or empty")
	}
	if r := p.readDigest(); r != nil {
		return r
	}
	if p.trusted {
		return nil
	}
	if is := p.batch.seal(); is != p.batch.Digest {
		return refuse(BadDigest, "ce_digest is %s, but headers and value give %s", p.batch.Digest, is)
	}
	return nil
}

// parseDecimal reads a number from 1 to limit without sign or leading zero.
func parseDecimal(s string, limit uint64) (uint64, bool) {
	if len(s) > 20 || !decimal.MatchString(s) {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil && n <= limit
}
