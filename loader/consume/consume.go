// Package consume reads a dataset's topic: group membership, fetching by
// leader, the checks that recognise a log, gaps and rewinds. Positions come
// from the warehouse; Kafka's own offsets are only a hint for lag tools.
package consume

import (
	"context"

	"tallyman/schema/batch"
	"tallyman/sink"
)

// Record is one step through a partition's log: a data record, or a stretch
// that carries none.
type Record struct {
	// Message holds the record; for a Skip only its Partition is set.
	sink.Message
	// Next is the position after this step, one past the last offset considered.
	Next int64
	// Skip says that nothing in this step can be loaded: control records,
	// aborted transactions, offsets that compaction emptied.
	Skip bool
	// Refused is set for a record whose content can't be had (it does not
	// decompress within the limit): it goes to quarantine by its coordinates.
	Refused *batch.Refusal
	// LogStart is the log's start as the fetch that brought this step told it.
	LogStart int64
	// HighWater is the partition's high watermark as that fetch told it.
	HighWater int64

	release func()
}

// Release gives the record's bytes back to the budget for reading ahead. The
// handler calls it once for every record that it was handed, when it is done.
func (r *Record) Release() {
	if r.release != nil {
		r.release()
		r.release = nil
	}
}

// Handler takes the records of the partitions that this member owns. For one
// partition the calls come one after another, in the order Begin, Handle…,
// End, and Begin may come again at any time; partitions are independent.
type Handler interface {
	// Begin says that the records of a partition start (again) at p.Next, in
	// p.Era: whatever is queued of the partition is dropped.
	Begin(p sink.Position)
	// Handle takes records in offset order. It may block; it returns only ctx's error.
	Handle(ctx context.Context, partition int32, records []Record) error
	// End says that the partitions are no longer this member's: what is queued
	// is dropped, and a commit in flight is waited for until ctx ends.
	End(ctx context.Context, partitions []int32)
}
