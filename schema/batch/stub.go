package batch

import (
	"time"

	"github.com/google/uuid"

	"tallyman/schema"
)

// NewID returns a new v7 id.
func NewID() uuid.UUID { panic("stub") }

// FileID derives the v8 id of chunk number chunk (from 0) of a file with the given digest.
func FileID(d schema.Dataset, format string, content Digest, chunk uint64, label string) uuid.UUID {
	panic("stub")
}

// ParseID reads any RFC 9562 spelling of an accepted id; the error is a *Refusal.
func ParseID(s string) (uuid.UUID, error) { panic("stub") }

// TimeOf returns the batch time inside an accepted id.
func TimeOf(id uuid.UUID) (time.Time, error) { panic("stub") }

// Kind tells what a message is by its headers.
type Kind uint8

// The kinds of message on a dataset's topic.
const (
	Foreign Kind = iota // no CloudEvents header of ours: ce_type absent
	IsBatch             // tallyman.batch.v1
	Other               // another tallyman.* type: skipped, not quarantined
)

// KindOf reads ce_type.
func KindOf(headers []Header) Kind { panic("stub") }

// Parse reads a message into a batch and checks its digest; the error is a *Refusal.
func Parse(key, value []byte, headers []Header) (*Batch, error) { panic("stub") }

// Seal computes the digest over the preamble and the value.
func (b *Batch) Seal() { panic("stub") }

// Key returns the Kafka key.
func (b *Batch) Key() []byte { panic("stub") }

// Headers returns the Kafka headers.
func (b *Batch) Headers() []Header { panic("stub") }

// Content returns the digest that the ledger keeps.
func (b *Batch) Content() Digest { panic("stub") }
