// Package journal keeps a source's batches on disk: its durable outbox.
//
// A journal is a directory that one process holds at a time. Every opening
// starts a new incarnation; the batches of one dataset in one incarnation are
// a stream, numbered 1, 2, 3, … without holes. A batch is in one of three
// states:
//
//	unpublished  in the journal, not yet acknowledged by Kafka
//	published    acknowledged; kept, so that it can be published again
//	set aside    the broker refuses it for good; kept, tried again at the next opening
//
// # Invariants
//
//   - When Append returns without an error, the batch and its place in its
//     stream are on disk, fsynced. Appends that wait at the same time share one
//     fsync. A journal that is filled in bulk promises this of Close instead.
//   - A number is taken only by a batch that is written: the number, the order
//     of the log and the batch's digest come about under one lock, and an
//     append that is refused takes none.
//   - One id in one dataset has one content. The same id with the same content
//     is answered as the first time; with another content it is [ErrIDConflict].
//   - Marks (published, set aside) are not fsynced. A mark that a crash undoes
//     means that a batch is published twice, which its id makes harmless.
//
// # Failures
//
//   - A torn tail of the log, which a crash can leave behind, was never
//     acknowledged and is dropped. A flipped byte before it is found when the
//     journal is opened or when the batch is read, and the error names the file
//     or the batch. Only damage to the very last write before a crash can't be
//     told from a torn tail; a journal that was closed has no such tail.
//   - An append that would leave less free space than the reserve is refused
//     with [ErrDiskFull] and nothing is lost: the reserve is what the store
//     needs to move what it holds in memory to its place.
//   - After a failed write or fsync of the log nobody knows what is on the
//     disk, and asking again would lie. The process stops: one line at level
//     error, exit code 1. The next opening finds everything that was acknowledged.
//   - A second process gets [ErrInUse].
//
// # Reading
//
// [OpenReader] is for a journal that nobody holds, or a copy of one on another
// machine: it begins no incarnation and writes nothing. It tells what the keys
// say, reads batches, and verifies that each is whole, that ids and marks point
// to batches and that no sequence is missing.
//
// # Trimming
//
// [Journal.Trim] deletes batches for good, which nothing can undo. It does so
// only with what its caller names as confirmed and what it finds itself to be
// published and old enough: announcements keep by when which numbers were there,
// by a clock that never goes back, and a batch of which that is not known stays.
// In one step with the batches it notes their numbers, so that a stream ends as
// it would have without, and forgets their ids. A journal of which something was
// trimmed can't be opened by a release that does not know of it.
package journal
