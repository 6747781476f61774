package sink

import (
	"context"
	"time"

	"github.com/google/uuid"

	"tallyman/schema"
	"tallyman/schema/batch"
)

// KeptState is what became of a message in quarantine.
type KeptState string

// The states of a message in quarantine.
const (
	Open      KeptState = "open"
	Redriven  KeptState = "redriven"  // its content is loaded, by a redrive or from a good copy
	Discarded KeptState = "discarded" // somebody gave it up
)

// KeptKey names a message in quarantine: the same message twice is one there.
type KeptKey struct {
	Revision int64
	SHA256   batch.Digest // of headers and value; of the coordinates if it has neither
}

// Kept is a message in quarantine, without its bytes.
type Kept struct {
	Key       KeptKey
	Dataset   schema.Dataset
	Partition Partition
	Offset    int64
	Published time.Time // Kafka's timestamp; zero: not known
	Reason    batch.Reason
	Detail    string
	// ID, Source, Incarnation, Sequence and Rows are the batch's as far as its
	// envelope could be read; zero: not known. See batch.Refusal for which
	// reasons they may be believed.
	ID          uuid.UUID
	Source      string
	Incarnation uuid.UUID
	Sequence    uint64
	Rows        int64
	Size        int64 // bytes of the value as it came
	Whole       bool  // all of the value is kept, not only its beginning
	State       KeptState
	Seen        time.Time
	Closed      time.Time // zero: open
	ClosedBy    string    // empty: a loader, or open
	ClosedWhy   string    // what a person gave as the reason
}

// KeptMessage is a message in quarantine with its bytes.
type KeptMessage struct {
	Kept
	Message Message // its value is only the beginning, unless Whole
	// Manifest is the one that the message names, or that of its revision where
	// it names none; nil: the warehouse has no such manifest.
	Manifest *schema.Manifest
}

// Selection selects messages in quarantine. What is zero selects all.
type Selection struct {
	Prefixes []string // of the key's SHA-256, in lower-case hexadecimal digits: one of them
	Dataset  string
	ID       uuid.UUID
	Reason   batch.Reason
	State    KeptState
	Since    time.Time // first seen then or later
	Until    time.Time // first seen before
}

// Listing is what a selection has found.
type Listing struct {
	Kept  []Kept // the newest first
	Total int64  // of all that the selection has, however many are in Kept
}

// Judge decides what a message is: something to load, something for quarantine,
// or neither, which is a message that carries no batch.
// by is the manifest that the message names and that the revision's table takes
// rows by; nil: it names none, or none that is known.
type Judge func(m Message, by *schema.Manifest) (*Element, *Dead)

// RedriveResult is what became of a message that was tried again.
type RedriveResult struct {
	Outcome Outcome // Loaded or Duplicate, unless it is refused
	// Refusal is why it still can't be loaded; it stays open.
	Refusal *batch.Refusal
}

// Discard says who gives a message up, and why.
type Discard struct{ By, Why string }

// DiscardResult is what became of a message that was given up.
type DiscardResult struct {
	// Refused says that the batch's id is taken in the ledger, so that a later
	// copy is a duplicate. Else only the message here is closed, because its
	// identity is not to be believed, has no place in the ledger or stands for
	// other content there.
	Refused bool
}

// Quarantine is where messages are kept that could not be loaded, for people
// who look at them and decide. It is not safe for concurrent use.
//
// Redrive and Discard take locks in the order of a commit, the message in
// quarantine last, and leave an unknown outcome to be run again like Commit:
// errors have classes. A message that is no longer open is a *ClosedError.
type Quarantine interface {
	// List returns at most limit messages that s selects; 0: all.
	List(ctx context.Context, s Selection, limit int) (Listing, error)
	// Get returns a message with its bytes.
	Get(ctx context.Context, key KeptKey) (KeptMessage, error)
	// Discard gives a message up: its id is put in the ledger, without rows, in
	// the transaction that closes the message and every other copy of its content.
	Discard(ctx context.Context, key KeptKey, d Discard) (DiscardResult, error)
	Redriver
}

// Redriver tries messages in quarantine again.
type Redriver interface {
	// Redrive judges a message of the revision anew and commits what it carries
	// as if it had just been read, except that no position moves. The message is
	// closed by the same transaction, by whom by names; one that is still refused
	// stays open, with the reason that it is refused for now.
	Redrive(ctx context.Context, r Revision, key KeptKey, by string, judge Judge) (RedriveResult, error)
	// Redrivable returns messages that wait for a manifest which the warehouse has by
	// now, the oldest first, at most limit.
	Redrivable(ctx context.Context, r Revision, limit int) ([]KeptKey, error)
}

// ClosedError says that a message in quarantine is not open any more, or is not
// there at all.
type ClosedError struct {
	Key   KeptKey
	State KeptState // empty: there is no such message
}

// Error says what the message is instead.
func (e *ClosedError) Error() string {
	if e.State == "" {
		return "quarantine has no message " + e.Key.SHA256.String()
	}
	return "message " + e.Key.SHA256.String() + " in quarantine is " + string(e.State) + " already"
}
