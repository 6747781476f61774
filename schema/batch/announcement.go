package batch

import (
	"encoding/hex"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"tallyman/schema"
)

// Announcement is a source's statement: by my clock's At I had numbered the
// batches of this stream up to Sequence. It travels on the dataset's topic, in
// headers alone, so that a batch that never comes can be missed.
type Announcement struct {
	Source      string
	Incarnation uuid.UUID
	Dataset     schema.Dataset
	Sequence    uint64    // 0: none yet
	At          time.Time // UTC, to the microsecond
	Final       bool      // the stream gets no further numbers
	Digest      Digest    // over all of the above
}

const (
	headerFinal  = "ce_final"
	finalYes     = "true"
	announceTime = "2006-01-02T15:04:05.000000Z"
)

// Seal computes the digest.
func (a *Announcement) Seal() { a.Digest = a.seal() }

func (a *Announcement) seal() Digest {
	return digest(nil, typeOfAnnouncement, a.Source, a.Incarnation.String(), strconv.FormatUint(a.Sequence, 10),
		a.Dataset.String(), a.time(), a.final())
}

func (a *Announcement) time() string { return a.At.UTC().Format(announceTime) }

func (a *Announcement) final() string {
	if a.Final {
		return finalYes
	}
	return ""
}

// Key returns the Kafka key: the incarnation, so that the announcements of a
// stream are in one partition.
func (a *Announcement) Key() []byte { return []byte(a.Incarnation.String()) }

// Headers returns the Kafka headers, in a fixed order.
func (a *Announcement) Headers() []Header {
	hs := make([]Header, 0, 10)
	add := func(key, value string) { hs = append(hs, Header{Key: key, Value: []byte(value)}) }
	sequence := strconv.FormatUint(a.Sequence, 10)
	add(headerSpecVersion, specVersion)
	add(headerType, typeOfAnnouncement)
	add(headerID, a.Incarnation.String()+"/"+sequence+"/"+a.time())
	add(headerTime, a.time())
	add(headerSource, a.Source)
	add(headerIncarnation, a.Incarnation.String())
	add(headerSequence, sequence)
	add(headerSubject, a.Dataset.String())
	if a.Final {
		add(headerFinal, finalYes)
	}
	add(headerDigest, digestPrefix+a.Digest.String())
	return hs
}

// ParseAnnouncement reads a message of type tallyman.announcement.v1 and checks
// its digest; the error is a *Refusal without a batch. Headers that it does not
// know are ignored, and so is the key.
func ParseAnnouncement(value []byte, headers []Header) (*Announcement, error) {
	p := parser{batch: &Batch{}}
	p.collect(headers)
	for i := range headers {
		if headers[i].Key != headerFinal {
			continue
		}
		if _, again := p.values[headerFinal]; again {
			p.repeated = headerFinal
		}
		p.values[headerFinal] = string(headers[i].Value)
	}
	if r := p.announcement(value); r != nil {
		return nil, r
	}
	b := p.batch
	a := &Announcement{Source: b.Source, Incarnation: b.Incarnation, Dataset: b.Dataset, Sequence: b.Sequence, At: b.Time, Digest: b.Digest}
	a.Final = p.values[headerFinal] == finalYes
	if is := a.seal(); is != a.Digest {
		return nil, refuse(BadDigest, "ce_digest is %s, but the headers give %s", a.Digest, is)
	}
	return a, nil
}

// announcement reads everything but the final flag into the batch.
func (p *parser) announcement(value []byte) *Refusal {
	switch final, told := p.values[headerFinal]; {
	case p.repeated != "":
		return refuse(BadEnvelope, "header %s comes more than once", p.repeated)
	case p.values[headerSpecVersion] != specVersion:
		return refuse(BadEnvelope, "ce_specversion is %s, want %q", quote(p.values[headerSpecVersion]), specVersion)
	case p.values[headerType] != typeOfAnnouncement:
		return refuse(BadEnvelope, "ce_type is %s, want %q", quote(p.values[headerType]), typeOfAnnouncement)
	case told && final != finalYes:
		return refuse(BadEnvelope, "ce_final is %s, want %q or no such header", quote(final), finalYes)
	case len(value) > 0:
		return refuse(BadEnvelope, "the value has %d bytes, that of an announcement is empty", len(value))
	}
	for _, step := range []func() *Refusal{p.source, p.numbered, p.announcedAt, p.dataset, p.readDigest} {
		if r := step(); r != nil {
			return r
		}
	}
	return nil
}

// numbered reads the stream, of which an announcement may say that it has no batch yet.
func (p *parser) numbered() *Refusal {
	id, err := parseUUID(p.values[headerIncarnation])
	if err != nil || id == uuid.Nil {
		return refuse(BadEnvelope, "ce_incarnation %s is not a UUID", quote(p.values[headerIncarnation]))
	}
	p.batch.Incarnation = id
	s := p.values[headerSequence]
	n, ok := parseDecimal(s, math.MaxInt64)
	if !ok && s != "0" {
		return refuse(BadEnvelope, "ce_sequence %s is not a decimal number from 0 to %d", quote(s), int64(math.MaxInt64))
	}
	p.batch.Sequence = n
	return nil
}

func (p *parser) announcedAt() *Refusal {
	s := p.values[headerTime]
	at, err := time.Parse(announceTime, s)
	if err != nil || at.Year() < 1 || at.Format(announceTime) != s {
		return refuse(BadEnvelope, "ce_time %s is not a time like %s", quote(s), announceTime)
	}
	p.batch.Time = at
	return nil
}

// readDigest reads ce_digest without checking it.
func (p *parser) readDigest() *Refusal {
	d, err := parseDigest(p.values[headerDigest])
	if err != nil {
		return refuse(BadDigest, "ce_digest %s: %v", quote(p.values[headerDigest]), err)
	}
	p.batch.Digest = d
	return nil
}

var errDigest = errors.New("it is not " + digestPrefix + " and 64 hexadecimal digits")

// parseDigest reads what stands in ce_digest.
func parseDigest(s string) (Digest, error) {
	told, found := strings.CutPrefix(s, digestPrefix)
	var d Digest
	if !found || len(told) != hex.EncodedLen(len(d)) {
		return Digest{}, errDigest
	}
	if _, err := hex.Decode(d[:], []byte(told)); err != nil {
		return Digest{}, errDigest
	}
	return d, nil
}
