package batch

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/google/uuid"

	"tallyman/schema"
)

// Replay is somebody's request that a source publish batches of one stream once
// more, at once and however often it tried before. It travels on [ReceiptsTopic]
// and waits there for the source that has the journal.
type Replay struct {
	ID          uuid.UUID // of the request: a source carries it out once
	Target      string    // the warehouse that misses them
	Dataset     schema.Dataset
	Source      string
	Incarnation uuid.UUID
	// Ranges are what is asked for, from 1, in their order and apart, at most
	// MaxReceiptRanges.
	Ranges      []Range
	RequestedBy string    // a person, for the log; may be empty
	At          time.Time // when it was made, UTC
	Expires     time.Time // after which nobody carries it out, UTC; later than At
}

// replay is the value of the message.
type replay struct {
	ID          uuid.UUID `json:"id"`
	Target      string    `json:"target"`
	Dataset     string    `json:"dataset"`
	Source      string    `json:"source"`
	Incarnation uuid.UUID `json:"incarnation"`
	Ranges      []Range   `json:"ranges"`
	RequestedBy string    `json:"requested_by"`
	At          time.Time `json:"at"`
	Expires     time.Time `json:"expires"`
}

// Key returns the Kafka key: replay, target, dataset and incarnation, so that a
// newer request for a stream takes the place of an older one.
func (r *Replay) Key() []byte {
	return []byte("replay/" + r.Target + "/" + r.Dataset.String() + "/" + r.Incarnation.String())
}

// Headers returns the Kafka headers, in a fixed order.
func (r *Replay) Headers() []Header {
	return []Header{
		{Key: headerSpecVersion, Value: []byte(specVersion)},
		{Key: headerType, Value: []byte(typeOfReplay)},
		{Key: headerID, Value: []byte(r.ID.String())},
		{Key: headerTime, Value: []byte(r.At.UTC().Format(time.RFC3339Nano))},
		{Key: headerSource, Value: []byte(r.Target)},
		{Key: headerSubject, Value: []byte(r.Dataset.String())},
		{Key: headerContentType, Value: []byte(contentJSON)},
	}
}

// Value returns the Kafka value, a JSON object.
func (r *Replay) Value() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("replay request %s: %w", r.ID, err)
	}
	return json.Marshal(replay{
		ID: r.ID, Target: r.Target, Dataset: r.Dataset.String(), Source: r.Source, Incarnation: r.Incarnation,
		Ranges: r.Ranges, RequestedBy: r.RequestedBy, At: r.At.UTC(), Expires: r.Expires.UTC(),
	})
}

// ParseReplay reads the value of a message of type tallyman.replay.v1. Fields
// that it does not know are ignored, and so is the key: the value has it all.
func ParseReplay(value []byte) (*Replay, error) {
	var told replay
	if err := json.Unmarshal(value, &told); err != nil {
		return nil, fmt.Errorf("replay request: %w", err)
	}
	d, err := schema.ParseDataset(told.Dataset)
	if err != nil {
		return nil, fmt.Errorf("replay request: %w", err)
	}
	r := &Replay{
		ID: told.ID, Target: told.Target, Dataset: d, Source: told.Source, Incarnation: told.Incarnation,
		Ranges: told.Ranges, RequestedBy: told.RequestedBy, At: told.At.UTC(), Expires: told.Expires.UTC(),
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("replay request %s: %w", r.ID, err)
	}
	return r, nil
}

// check refuses what contradicts itself.
func (r *Replay) check() error {
	switch {
	case r.ID == uuid.Nil:
		return errors.New("it has no id")
	case r.Target == "" || r.Source == "":
		return errors.New("it names no target or no source")
	case r.Incarnation == uuid.Nil:
		return errors.New("it names no incarnation")
	case len(r.Ranges) == 0:
		return errors.New("it asks for nothing")
	case r.At.Year() < 1 || r.Expires.Year() > 9999:
		return errors.New("its times have years that are not between 1 and 9999")
	case !r.Expires.After(r.At):
		return errors.New("it expires before it was made")
	}
	return checkRanges(r.Ranges, 0, math.MaxInt64)
}
