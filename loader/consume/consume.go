// Package consume reads a dataset's topic: group membership, fetching by
// leader, the checks that recognise a log, gaps and rewinds. Positions come
// from the warehouse; Kafka's own offsets are only a hint for lag tools.
//
// # Shape
//
// A Consumer is a member of a consumer group. Each generation of the group is a
// session: one flow for each partition that the member owns, and one fetcher
// for each broker that leads some of them. A flow lives from one reading of its
// position to the next: it checks that the log is the one that the position
// belongs to, tells the Handler to begin, decompresses what the fetcher brings
// it and hands the records on. A reset ends a flow and starts another from the
// warehouse's position; so does everything that makes the log doubtful: a
// changed leader epoch, an unknown topic, an offset out of range, a record batch
// that begins within the one before.
//
// # What is trusted
//
// Only what a checksum covers. The broker's record batches are decoded here,
// because the client library compares no batch's last offset, sizes arrays by
// what the bytes claim, and panics on some of them in a goroutine of its own.
// The fields that no checksum covers (a batch's base offset, the answer's
// offsets) must continue what was read, or be told twice, before they move
// anything; a gap or a rewind is decided by two equal examinations.
//
// # Failure
//
// An outage of Kafka or of the warehouse makes the consumer wait with growing
// pauses, its partitions kept. Only what a person must mend ends Run with an
// error: a missing or compacted topic at the start, a broker without an API
// that is needed, or an error of the warehouse's positions that waiting can't
// help.
package consume

import (
	"context"

	"tallyman/schema/batch"
	"tallyman/sink"
)

// Record is one step through a partition's log: a data record, or a stretch
// that carries none.
type Record struct {
	// Message holds the record; for a Skip only its Partition is set. Key, value
	// and headers are shared with no other record and stay valid as long as they
	// are referred to, also after Release.
	sink.Message
	// Next is the position after this step, one past the last offset considered.
	Next int64
	// Skip says that nothing in this step can be loaded: control records,
	// aborted transactions, offsets that compaction emptied.
	Skip bool
	// Refused is set for a record batch whose content can't be had (it does not
	// decompress within the limit, or not at all): it goes to quarantine by its
	// coordinates. Offset is the first that it covers, Next-1 the last.
	Refused *batch.Refusal
	// LogStart is the log's start as the fetch that brought this step told it.
	LogStart int64
	// HighWater is the partition's high watermark as that fetch told it.
	HighWater int64

	slab  *slab
	index int
}

// Release gives the record's bytes back to the budget for reading ahead. The
// handler calls it for every record that it was handed, when it is done;
// releasing a record or its copy again does nothing.
func (r *Record) Release() {
	if r.slab != nil {
		r.slab.release(r.index)
		r.slab = nil
	}
}

// Handler takes the records of the partitions that this member owns. For one
// partition the calls come one after another, in the order Begin, Handle…,
// End, and Begin may come again at any time; partitions are independent.
type Handler interface {
	// Begin says that the records of a partition start (again) at p.Next, in
	// p.Era: whatever is queued of the partition is dropped.
	Begin(p sink.Position)
	// Handle takes records in offset order, and releases them when it is done
	// with them. It does not block: what it holds is bounded by the budget from
	// which records are taken until then. It returns only ctx's error.
	Handle(ctx context.Context, partition int32, records []Record) error
	// End says that the partitions are no longer this member's: what is queued
	// is dropped, and a commit in flight is waited for until ctx ends.
	End(ctx context.Context, partitions []int32)
}
