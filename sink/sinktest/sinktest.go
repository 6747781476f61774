// Package sinktest is the suite that every warehouse passes: the contract of
// package sink, written as tests.
//
// A new warehouse takes it over with one test that opens it and calls Run. The
// suite knows the warehouse by package sink alone, and by the few functions of
// Warehouse that look at what it holds. Each case has a dataset of its own in
// the one warehouse, so the cases run at the same time and also show that
// datasets don't touch each other.
package sinktest

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/sink"
)

// Warehouse is an empty warehouse, prepared, and what the suite has to do and to
// see there beyond the contract. Its functions may be called concurrently.
type Warehouse struct {
	sink.Positions
	sink.Catalog
	sink.Manifests
	sink.Ledger
	sink.Books
	sink.Receipts
	sink.Retirer
	// NewCommitter returns a committer, which the suite closes.
	NewCommitter func() sink.Committer
	// NewQuarantine returns the quarantine for one user at a time.
	NewQuarantine func() sink.Quarantine
	// Apply makes a dataset, or applies a further manifest of one, and returns its
	// active revision.
	Apply func(m schema.Manifest) (sink.Revision, error)
	// Rows counts the rows that came with a batch.
	Rows func(r sink.Revision, id uuid.UUID) (int64, error)
	// Quarantine returns what quarantine holds, by partition and offset.
	Quarantine func(r sink.Revision) ([]Quarantined, error)
	// Forget has the ledger forget batches whose times are before one, as far as it
	// can: RunForgetting calls it, Run does not.
	Forget func(before time.Time) error
	// Act does what an operator may do to a table behind Tallyman's back.
	Act func(r sink.Revision, a Action) error
}

// Quarantined is a message in quarantine.
type Quarantined struct {
	Partition int32
	Offset    int64
	Reason    batch.Reason
	Detail    string
	ID        uuid.UUID // uuid.Nil: not known
	Kept      int64     // bytes of the value that are kept
	Size      int64     // bytes of the value as it came
	Open      bool      // false: a good copy has loaded since
}

// Action is what an operator does.
type Action uint8

// The actions.
const (
	// Constrain makes the table refuse rows whose column n is negative.
	Constrain Action = iota + 1
	// Relax takes that back.
	Relax
)

// Run runs the suite. open is called once.
func Run(t *testing.T, open func(t testing.TB) Warehouse) {
	t.Helper()
	w := open(t)
	for name, run := range cases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(newFixture(t, w, name))
		})
	}
}

// RunForgetting runs the part of the suite that has the ledger forget batches,
// which no case can do for itself alone. It needs a warehouse of its own; open is
// called once.
func RunForgetting(t *testing.T, open func(t testing.TB) Warehouse) {
	t.Helper()
	w := open(t)
	forgotten(newFixture(t, w, "forgotten"))
}

// cases returns the suite by the names of its cases, which are names of datasets too.
func cases() map[string]func(*fixture) {
	return map[string]func(*fixture){
		"catalog":                      catalog,
		"assign":                       assign,
		"move":                         move,
		"load":                         load,
		"repeat":                       repeat,
		"repeat-in-group":              repeatInGroup,
		"loaded":                       loaded,
		"conflict":                     conflict,
		"derived-ids":                  derivedIDs,
		"v1-and-v6":                    v1AndV6,
		"v4":                           v4,
		"v4-crossing":                  v4Crossing,
		"v4-crossing-failure":          v4CrossingFailure,
		"v4-opposite-orders":           v4OppositeOrders,
		"v4-dead":                      v4Dead,
		"v4-kept":                      v4Kept,
		"other-dataset":                otherDataset,
		"two-manifests":                twoManifests,
		"positions":                    positions,
		"position-only":                positionOnly,
		"fenced-by-era":                fencedByEra,
		"fenced-by-offset":             fencedByOffset,
		"fenced-in-part":               fencedInPart,
		"error":                        failure,
		"admit":                        admit,
		"cancelled":                    cancelled,
		"closed":                       closed,
		"crossing":                     crossing,
		"crossing-failure":             crossingFailure,
		"opposite-orders":              oppositeOrders,
		"one-position":                 onePosition,
		"dead":                         dead,
		"dead-twice":                   deadTwice,
		"dead-then-good":               deadThenGood,
		"good-then-dead":               goodThenDead,
		"dead-beside-good":             deadBesideGood,
		"dead-of-other-content":        deadOfOtherContent,
		"dead-known":                   deadKnown,
		"dead-out-of-window":           deadOutOfWindow,
		"dead-large":                   deadLarge,
		"dead-odd-text":                deadOddText,
		"listed":                       listed,
		"redriven":                     redriven,
		"redriven-duplicate":           redrivenDuplicate,
		"redriven-given-up":            redrivenGivenUp,
		"redrive-large":                redriveLarge,
		"redrive-crossing":             redriveCrossing,
		"redrive-cancelled":            redriveCancelled,
		"discarded":                    discarded,
		"redrivable":                   redrivable,
		"announced":                    announced,
		"announced-in-grace":           announcedInGrace,
		"announced-elsewhere":          announcedElsewhere,
		"announced-quarantined":        announcedQuarantined,
		"announced-twice":              announcedTwice,
		"announced-absurdly":           announcedAbsurdly,
		"announced-by-too-many":        announcedByTooMany,
		"announced-by-too-many-closed": announcedByTooManyClosed,
		"announced-far-ahead":          announcedFarAhead,
		"accepted":                     accepted,
		"receipts":                     receipts,
		"receipts-of-closed":           receiptsOfClosed,
		"receipts-in-grace":            receiptsInGrace,
		"receipts-many-holes":          receiptsOfManyHoles,
		"receipts-at-once":             receiptsAtOnce,
		"retired":                      retired,
		"expected":                     expected,
	}
}
