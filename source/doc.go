// Package source takes rows from an application, makes them durable on its own
// disk and publishes them to Kafka.
//
// A [Source] carries one dataset. [Source.Append] cuts rows into batches,
// [Source.AppendBatch] takes one batch under an id of the caller's choice, and
// [Source.AppendBatchAt] under one of version 4 with its time. All return once the batch, with its id and its place in the stream, is in the
// journal and fsynced; publishing goes on in the background, and what a crash
// or a missing Kafka leaves unpublished is published after the next Open.
//
// # What an answer means
//
//   - nil: the rows are on this machine's disk. They will be loaded exactly
//     once, unless the disk is lost before Kafka and the warehouse have them.
//   - an error that names a row (a [rows.Error]), or [ErrTooLarge],
//     [ErrIDConflict], [ErrDiskFull], [ErrClosed] or a [batch.Refusal] for an
//     id: nothing of the call was taken.
//   - the context's error: unknown. The rows may be durable all the same.
//   - none: the process ended. Unknown as well.
//
// After an unknown answer, AppendBatch with the same id and rows is safe: the
// batch is loaded once. Append has no id to repeat, so its rows may then be
// loaded twice; an application that can't have that makes its own ids.
//
// # Batches
//
// Appends that wait at the same time share a batch and an fsync. Rows of one
// call stay together unless they are more than a batch holds. A batch is cut
// when it is full (10,000 rows or 768 KiB), or when as many calls wait for it
// as for the batch before, or at the linger time (100 ms), and not while the
// batch before is still being written. So one caller alone never waits for
// company, some callers that append in turns wait for one another and not for
// the clock, and the linger time bounds the wait when company stays away.
//
// # Speed
//
// Half the work is compression, at the level of the process's ZstdCodec, in
// kafka-go's package compress. A program that publishes much sets its Level to 1
// before Open, as the tallyman command does: 1.6 times as fast as the default,
// and on tuples no larger. Callers side by side share fsyncs; one alone waits
// for each.
//
// # Failures
//
// Open works while Kafka is away, since accepting needs only the disk. A row
// that can't be encoded refuses its own call and no other. A failed fsync ends
// the process: after one, nobody knows what is on the disk. See package journal
// for the disk's failures and package publish for Kafka's.
package source
