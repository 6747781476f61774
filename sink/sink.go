// Package sink is the contract between the loader and a warehouse.
//
// A warehouse keeps, in one database, the rows, the ledger of batch ids and the
// positions in Kafka, so that one transaction moves all three or none. The
// interfaces here are small, one for each of their users; package sinktest
// holds the suite that every implementation passes.
package sink

import (
	"context"
	"time"

	"tallyman/schema"
	"tallyman/schema/batch"
)

// Revision is one physical table that holds a dataset, with its own ledger
// entries and its own positions.
type Revision struct {
	ID       int64
	Manifest schema.Manifest // the one it was made from; its table takes rows by others too: see Manifests
	Physical schema.Table    // the table itself; Manifest.Table is the view over the active revision
	State    State
}

// State is where a revision is in its life.
type State string

// The states of a revision. A dataset has at most one active revision.
const (
	Building State = "building"
	Active   State = "active"
	Standby  State = "standby"
	Retired  State = "retired"
)

// Partition names one partition of a topic. Cluster is a configured name,
// because images of a broker ship with a fixed cluster id.
type Partition struct {
	Cluster string
	Topic   string
	Number  int32
}

// Position is how far a revision has read a partition.
type Position struct {
	Partition Partition
	Next      int64 // the next offset to read
	Era       int64 // raised by a rewind, a stop or an activation: the only fence
	LogStart  int64 // the log's start when last seen; -1: never
	// Anchor identifies the newest data record before Next; nil: none known.
	Anchor *Anchor
}

// Anchor recognises a log: the record at Offset must be this one.
type Anchor struct {
	Offset    int64
	Timestamp time.Time    // Kafka's, to the millisecond
	SHA256    batch.Digest // over key, headers and value: see Message.Fingerprint
}

// Message is a Kafka record as it was read, with its coordinates.
type Message struct {
	Partition Partition
	Offset    int64
	Timestamp time.Time
	Key       []byte
	Value     []byte
	Headers   []batch.Header
}

// Element is a batch that is ready to load.
type Element struct {
	Message
	Batch *batch.Batch
	// Manifest is what the rows are by; nil: the one that the revision was made from.
	Manifest *schema.Manifest
	Content  batch.Digest // of dataset, schema, content type, row count and value
	// Tuples are the rows in PostgreSQL's binary COPY format without file
	// header and trailer, walked: exactly Batch.Rows tuples.
	Tuples []byte
}

// Dead is a message that can't be loaded, kept whole with the reason.
type Dead struct {
	Message
	Reason batch.Reason
	Detail string
	// Batch is the envelope as far as it could be read; nil: not at all.
	Batch *batch.Batch
}

// Advance moves one position, by compare-and-set on (Era, From).
type Advance struct {
	Partition Partition
	Era       int64
	From      int64
	To        int64 // one past the last offset considered, whatever stood there
	LogStart  int64 // the log's start as the last fetch told it; -1: keep the stored one
	Anchor    *Anchor
	// Anchor nil keeps the stored anchor: nothing in [From, To) was a data record, or
	// none that is still at hand.
}

// Group is what one warehouse transaction commits together. Elements and Dead
// lie within the Advances: a Dead or Element at an offset outside of its
// partition's [From, To) is a programming error.
type Group struct {
	Revision Revision
	Advances []Advance
	Elements []Element
	Dead     []Dead
	// Announcements are what sources said of their streams, in any order.
	Announcements []batch.Announcement
	// Admit, unless nil, is asked once within the transaction, when the outcomes
	// are known and before any row is copied. Its error ends the transaction and
	// is returned as it is.
	Admit func(Result) error
}

// ManifestOf returns the manifest that the rows of element i are by.
func (g *Group) ManifestOf(i int) *schema.Manifest {
	if m := g.Elements[i].Manifest; m != nil {
		return m
	}
	return &g.Revision.Manifest
}

// Outcome is what became of one element of a group.
type Outcome uint8

// The outcomes. Conflict and Expired were quarantined by the same transaction, as
// id_conflict and as expired: of a time before the ledger's horizon, and not
// known to have been loaded.
const (
	Loaded Outcome = iota + 1
	Duplicate
	Conflict
	Expired
)

// Refused returns the reason for which an element with the outcome went to
// quarantine; empty: it did not.
func (o Outcome) Refused() batch.Reason {
	switch o {
	case Conflict:
		return batch.IDConflict
	case Expired:
		return batch.Expired
	default:
		return ""
	}
}

// Result tells what a committed group did: one outcome for each element, in order.
type Result struct {
	Outcomes []Outcome
	// Known is how many of the dead and the refused messages add nothing to
	// quarantine: they are there already, whatever their state, or the ledger has
	// their very content. A topic that is read again has many.
	Known int
	// Refused are the announcements that the warehouse did not take.
	Refused []RefusedAnnouncement
}

// RefusedAnnouncement is one that contradicts what the warehouse knows, or that
// would have more missing than it believes.
type RefusedAnnouncement struct {
	Index int // in the group's Announcements
	Why   AnnouncementFault
}

// AnnouncementFault is why an announcement was not taken: one closed list.
type AnnouncementFault string

// The faults. The first two are seen before a group, the others by the warehouse.
const (
	Malformed      AnnouncementFault = "malformed"        // or of another dataset, or its digest does not match
	Ahead          AnnouncementFault = "from_the_future"  // its time is further ahead than the clock skew allowed
	OtherSource    AnnouncementFault = "other_source"     // the stream is another source's
	WentBack       AnnouncementFault = "went_back"        // a lower number than was announced before
	TooManyMissing AnnouncementFault = "too_many_missing" // it would leave more than a million batches of the stream missing
	TooManyStreams AnnouncementFault = "too_many_streams" // ten thousand streams of the dataset are open, or closed and lacking something
)

// Committer commits groups, one at a time, on a connection of its own that it
// opens when first used and again after a failure.
//
// Commit either returns a Result, and everything in the group is durable; or an
// error, whose class (see ClassOf) says what to do. After an error nothing of
// the group is durable, except that a lost answer to COMMIT leaves it unknown:
// that is Retryable, and the same group submitted again is either committed
// once, or Fenced because the first attempt had moved the positions.
// Cancelling ctx abandons the group by rollback; once COMMIT is sent it is not
// cancelled any more, only bounded by the committer's own deadline.
type Committer interface {
	Commit(ctx context.Context, g *Group) (Result, error)
	Close() error
}

// Move places a position outside of a commit: over a gap, or back.
type Move struct {
	Partition Partition
	Era       int64 // compare-and-set on (Era, From), as in Advance
	From      int64
	To        int64
	LogStart  int64
	// Gap, if not empty, records that the offsets [From, To) were never read, and why.
	Gap string
	// Rewind raises the era, which fences every stale member.
	Rewind bool
}

// Positions reads and places positions.
type Positions interface {
	// Assign returns the positions of the partitions, in the order asked. A
	// partition that was never read gets a row at offset 0, era 1, log start
	// -1, without an anchor. An era that a rewind raised is seen here.
	Assign(ctx context.Context, r Revision, ps []Partition) ([]Position, error)
	// Move applies m, clears the anchor and returns the new position; Fenced if
	// the position is no longer at (m.Era, m.From).
	Move(ctx context.Context, r Revision, m Move) (Position, error)
}

// Window is the range of batch times that the ledger takes.
type Window struct {
	Horizon time.Time // ids before it are refused; zero: no horizon
	End     time.Time // ids at or after it have no partition yet
}

// Manifests finds the manifests that a revision's table takes rows by: the one
// that it was made from, and those applied since that only add nullable columns.
type Manifests interface {
	// Manifest returns the manifest with a hash; nil if the table takes no rows
	// by one of that hash, now.
	Manifest(ctx context.Context, r Revision, hash string) (*schema.Manifest, error)
}

// Ledger tells what is loaded, outside of a transaction: what is not there may be
// the next moment, but what is there stays. A batch that is forgotten with its
// month was loaded all the same.
type Ledger interface {
	// Loaded says of each of the batches whether it was loaded as it comes now: under
	// its id, its time and its number in its stream, from a message with its digest.
	// The digest is believed: it says what the message claims to be. Of the values
	// nothing is needed.
	Loaded(ctx context.Context, r Revision, batches []*batch.Batch) ([]bool, error)
}

// Catalog tells what there is to load.
type Catalog interface {
	// Target returns the name stored in the warehouse.
	Target(ctx context.Context) (string, error)
	// ActiveRevisions returns the active revision of every dataset, by name.
	ActiveRevisions(ctx context.Context) ([]Revision, error)
	// Window returns the ledger's window.
	Window(ctx context.Context) (Window, error)
}

// Extender keeps room for the times ahead: what a loader does for a warehouse
// beside loading. It is safe for concurrent use, by any number of members.
type Extender interface {
	// ExtendLedger has the ledger take times further ahead, where it does not yet,
	// and returns how many partitions that took.
	ExtendLedger(ctx context.Context) (int, error)
	// TableEnd returns up to when, from now on, a revision's table has partitions
	// of their own for its rows; zero: it has no partitions that end.
	TableEnd(ctx context.Context, r Revision) (time.Time, error)
}
