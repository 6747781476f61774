// Package loader is one member that keeps one revision of a dataset loaded:
// it reads the dataset's topic (package consume), and commits what it reads to
// the warehouse (package commit). Any number of members share the work
// through Kafka's consumer group; none of them keeps state of its own.
//
// # Why each batch is loaded exactly once
//
// A batch is immutable and carries a unique id; a digest over its identity and
// its rows is checked before anything else, so a batch is loaded as its source
// made it or not at all.
//
// One transaction of the warehouse writes the batch's rows, its id into the
// ledger, and the position one past it. Either all three are durable or none.
//
//   - Not twice: the ledger's key is unique. A second copy of a batch, from
//     whatever cause — a retry, a rewind, two members at once, a lost answer,
//     another cluster — is refused by the constraint in the very transaction
//     that would have loaded it. Nothing is looked up beforehand, so there is no
//     moment between the look and the act.
//   - Not lost between topic and table: a position moves only in the
//     transaction that loaded, refused or quarantined everything before it,
//     and by compare-and-set on the place where this member started reading.
//     A member that was evicted, frozen or cut off finds the position moved or
//     its era raised, and its whole transaction rolls back.
//   - Unknown outcomes are run again: when the answer to COMMIT is lost, the
//     same group is submitted again. If the first attempt had committed, the
//     positions have moved, the compare-and-set misses, and the member reads
//     them again. If it had not, it loads now. If its session still lives, the
//     second attempt waits for the locks that it holds.
//   - Lost before the topic, or in it: Kafka is only a best-effort network here.
//     Journal and ledger are the ends; batches are numbered within their
//     stream, and what the ledger lacks can be published again at any time,
//     because a repeat is harmless.
//
// Kafka's own consumer offsets are written after the commit, as a hint for lag
// tools. Nothing reads them to decide anything.
package loader
