package batch

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"tallyman/schema"
)

// ReceiptsTopic carries the receipts of every dataset of a cluster. It is
// compacted: the newest of each target and stream is what counts.
const ReceiptsTopic = "tallyman.receipts"

// MaxReceiptRanges bounds the ranges of a receipt, and with them its size, to
// some 60 kB for any number of holes.
const MaxReceiptRanges = 1000

// Receipt is what a target tells a source about one stream: what is accounted
// for, and what is missing. A later one may say less than an earlier one, since
// a warehouse can be restored from a backup.
type Receipt struct {
	Target      string
	Dataset     schema.Dataset
	Source      string
	Incarnation uuid.UUID
	// Through: every batch up to here is loaded, discarded, satisfied or quarantined.
	Through uint64
	// Considered: up to here Missing is the whole truth; what is above was not
	// looked at, or is missing for less than the grace period. At least Through.
	Considered uint64
	// Announced is the highest number that the target has heard of. At least Considered.
	Announced uint64
	// Missing are ranges of numbers above Through and up to Considered, both
	// ends included, in their order and apart, at most MaxReceiptRanges. Every
	// other number up to Considered is accounted for.
	Missing []Range
	// Closed says that the target knows of the stream's end.
	Closed bool
	// At is when the target looked, by its clock, UTC.
	At time.Time
}

// Range is a run of numbers of a stream, both ends included, from 1.
type Range struct {
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
}

// Covers says whether the receipt shows the batch with number n as accounted for.
func (r *Receipt) Covers(n uint64) bool {
	if n <= r.Through || n > r.Considered {
		return n <= r.Through
	}
	for _, m := range r.Missing {
		if m.First <= n && n <= m.Last {
			return false
		}
	}
	return true
}

const contentJSON = "application/json"

// receipt is the value of the message.
type receipt struct {
	Target      string    `json:"target"`
	Dataset     string    `json:"dataset"`
	Source      string    `json:"source"`
	Incarnation uuid.UUID `json:"incarnation"`
	Through     uint64    `json:"through"`
	Considered  uint64    `json:"considered"`
	Announced   uint64    `json:"announced"`
	Missing     []Range   `json:"missing"`
	Closed      bool      `json:"closed"`
	At          time.Time `json:"at"`
}

// Key returns the Kafka key: target, dataset and incarnation, so that a newer
// receipt takes the place of an older one.
func (r *Receipt) Key() []byte {
	return []byte(r.Target + "/" + r.Dataset.String() + "/" + r.Incarnation.String())
}

// Headers returns the Kafka headers, in a fixed order.
func (r *Receipt) Headers() []Header {
	at := r.At.UTC().Format(time.RFC3339Nano)
	return []Header{
		{Key: headerSpecVersion, Value: []byte(specVersion)},
		{Key: headerType, Value: []byte(typeOfReceipt)},
		{Key: headerID, Value: []byte(string(r.Key()) + "/" + at)},
		{Key: headerTime, Value: []byte(at)},
		{Key: headerSource, Value: []byte(r.Target)},
		{Key: headerSubject, Value: []byte(r.Dataset.String())},
		{Key: headerContentType, Value: []byte(contentJSON)},
	}
}

// Value returns the Kafka value, a JSON object.
func (r *Receipt) Value() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("receipt %s: %w", r.Key(), err)
	}
	missing := r.Missing
	if missing == nil {
		missing = []Range{}
	}
	return json.Marshal(receipt{
		Target: r.Target, Dataset: r.Dataset.String(), Source: r.Source, Incarnation: r.Incarnation,
		Through: r.Through, Considered: r.Considered, Announced: r.Announced, Missing: missing, Closed: r.Closed, At: r.At.UTC(),
	})
}

// ParseReceipt reads the value of a message of type tallyman.receipt.v1. Fields
// that it does not know are ignored, and so is the key: the value has it all.
func ParseReceipt(value []byte) (*Receipt, error) {
	var told receipt
	if err := json.Unmarshal(value, &told); err != nil {
		return nil, fmt.Errorf("receipt: %w", err)
	}
	d, err := schema.ParseDataset(told.Dataset)
	if err != nil {
		return nil, fmt.Errorf("receipt: %w", err)
	}
	r := &Receipt{
		Target: told.Target, Dataset: d, Source: told.Source, Incarnation: told.Incarnation,
		Through: told.Through, Considered: told.Considered, Announced: told.Announced, Missing: told.Missing, Closed: told.Closed,
		At: told.At.UTC(),
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("receipt %s: %w", quote(string(r.Key())), err)
	}
	return r, nil
}

// check refuses what contradicts itself.
func (r *Receipt) check() error {
	switch {
	case r.Target == "" || r.Source == "":
		return errors.New("it names no target or no source")
	case r.Incarnation == uuid.Nil:
		return errors.New("it names no incarnation")
	case r.Through > r.Considered || r.Considered > r.Announced:
		return fmt.Errorf("through %d, considered %d and announced %d are not in this order", r.Through, r.Considered, r.Announced)
	case r.At.Year() < 1 || r.At.Year() > 9999:
		return errors.New("its time has a year that is not between 1 and 9999")
	}
	return checkRanges(r.Missing, r.Through, r.Considered)
}

// checkRanges checks that ranges lie above one number and up to another, in
// their order and apart.
func checkRanges(all []Range, above, upto uint64) error {
	if len(all) > MaxReceiptRanges {
		return fmt.Errorf("%d ranges, at most %d are allowed", len(all), MaxReceiptRanges)
	}
	for _, m := range all {
		if m.First <= above || m.Last < m.First || m.Last > upto {
			return fmt.Errorf("the range %d to %d is not above %d and up to %d", m.First, m.Last, above, upto)
		}
		above = m.Last
	}
	return nil
}
