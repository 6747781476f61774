package sink

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"tallyman/schema"
)

// Completeness is how far a dataset is loaded, by what its sources announced.
// It speaks for the sources that the manifest expects, and for all others that
// the warehouse has heard of; where none is expected, for the latter alone.
type Completeness struct {
	// Read says that readers see the revision. One that is being built lacks what it
	// has not read yet, which nobody misses.
	Read      bool
	Expected  int64 // sources that the manifest expects
	Announced int64 // batches, by all streams that are not retired
	Satisfied int64 // of these, loaded, discarded, satisfied or in quarantine
	Streams   int64 // that are known
	Open      int64 // of these, that may get further numbers
	// Through is the time, by the sources' clocks, through which every batch
	// announced is loaded or discarded; zero: nothing is known yet, or of some
	// stream nothing is covered, or of some expected source nothing was ever heard.
	Through time.Time
	// All says that every stream is closed and wholly loaded; Through is zero then.
	All     bool
	Missing int64     // batches announced longer ago than the grace period, and nowhere
	Oldest  time.Time // since when the oldest of them is missing; zero: none is
	Refused int64     // announcements that were not taken
	// Holds are the streams that hold Through back, the worst first, at most ten.
	Holds []Hold
}

// Hold is a stream with something announced that is not loaded, or one that is
// open and was last heard of at Through; or an expected source without a stream
// that may get further numbers.
type Hold struct {
	Source      string
	Incarnation uuid.UUID // uuid.Nil: it is the expected source
	Announced   uint64
	Covered     uint64    // up to here all is loaded or discarded
	Through     time.Time // zero: nothing is covered
	Heard       time.Time // when an announcement was last taken; zero: never
	Open        bool
	Refused     int64  // announcements that were not taken
	Fault       string // why the last of them was not
}

// Missing is a range of batches, both ends included, that a source announced and
// that are nowhere: not loaded, discarded, satisfied or in quarantine.
type Missing struct {
	Dataset     schema.Dataset
	Revision    int64
	Source      string
	Incarnation uuid.UUID
	First, Last uint64
	Since       time.Time // when the warehouse first heard of the first of them
}

// Overlap returns the parts of what is missing now that lie within ranges of
// before.
func Overlap(ranges, now []Missing) []Missing {
	of := map[uuid.UUID][]Missing{}
	for _, r := range ranges {
		of[r.Incarnation] = append(of[r.Incarnation], r)
	}
	var left []Missing
	for _, m := range now {
		for _, r := range of[m.Incarnation] {
			part := m
			part.First, part.Last = max(m.First, r.First), min(m.Last, r.Last)
			if part.First <= part.Last {
				left = append(left, part)
			}
		}
	}
	return left
}

// Acceptance ends a range of missing batches: somebody says that they are lost.
type Acceptance struct {
	Revision    int64
	Incarnation uuid.UUID
	First, Last uint64
	By, Why     string
}

// Retirement ends that streams of a source hold their dataset back: somebody says
// that their journals are lost. It is not taken back by what the streams may
// still announce; whoever opens the source again begins another stream.
type Retirement struct {
	Revision    int64
	Source      string
	Incarnation uuid.UUID // uuid.Nil: every stream that holds the dataset back and is silent
	By, Why     string
}

// Silence is how long nothing was heard of a stream that a Retirement takes
// without naming it: one that lives announces every few seconds.
const Silence = time.Minute

// RetiredStream is what became of a stream in a Retirement.
type RetiredStream struct {
	Incarnation uuid.UUID
	State       StreamState // that it had before
	Announced   uint64
	Missing     int64     // batches announced that are nowhere, and of which nobody hears any more
	Heard       time.Time // when an announcement was last taken
	Alive       bool      // it was heard of just now and not named, so it was left alone
}

// StreamState is where a stream is in its life.
type StreamState string

// The states of a stream.
const (
	StreamOpen    StreamState = "open"
	StreamClosed  StreamState = "closed"
	StreamRetired StreamState = "retired"
)

// UnknownSourceError says that there is no such stream to retire.
type UnknownSourceError struct {
	Source string
	Known  []string // sources that the warehouse has heard of, some
}

// Error tells which sources there are.
func (e *UnknownSourceError) Error() string {
	if len(e.Known) == 0 {
		return fmt.Sprintf("no such stream of source %q: no source was ever heard of", e.Source)
	}
	return fmt.Sprintf("no such stream of source %q: there are streams of %q", e.Source, e.Known)
}

// Retirer ends that streams hold their dataset back.
type Retirer interface {
	// RetireSource retires the streams of a source that hold their dataset back, or
	// the one that is named, and returns each with what it was. An
	// *UnknownSourceError says that there is none; nothing at all means that there
	// are some, and none of them holds the dataset back.
	RetireSource(ctx context.Context, r Retirement) ([]RetiredStream, error)
}

// Books are what the warehouse knows of streams, for people and for upkeep. It
// is safe for concurrent use.
type Books interface {
	// AdvanceFloors remembers what is accounted for, so that the cost of the
	// other questions follows the gap and not history. Any number of members may
	// do it, at any time. It returns how many streams it moved.
	AdvanceFloors(ctx context.Context, r Revision) (int64, error)
	// Completeness tells how far a revision is loaded.
	Completeness(ctx context.Context, r Revision, grace time.Duration) (Completeness, error)
	// Missing returns what is missing for longer than grace, of active revisions;
	// dataset empty: of all. The order is that of dataset, source, stream and number.
	Missing(ctx context.Context, dataset string, grace time.Duration) ([]Missing, error)
	// AcceptMissing accounts for what is missing within a range, now, and returns
	// how many batches that were.
	AcceptMissing(ctx context.Context, a Acceptance) (int64, error)
}
