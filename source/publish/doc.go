// Package publish brings a journal's batches to Kafka.
//
// A [Publisher] follows the streams of a journal and sends their batches, each
// as one message, to the topic that the journal names. It waits for all in-sync
// replicas, and only then marks the batch as published.
//
// # Invariants
//
//   - A batch is sent until it is acknowledged or refused for good, always with
//     the same id, headers and bytes. An answer that does not come in time
//     leaves it unknown whether the message was stored: it is sent again, and the
//     loader refuses the second one by its id.
//   - Every stream has a bound on the bytes in flight, so that a topic that is
//     away holds up neither memory nor other datasets.
//   - Order is not kept. Batches carry their sequence.
//
// # Failures
//
// Outages, missing topics and missing rights are waited for, without a limit,
// with jittered back-off; the log says so when it begins, once a minute, and
// when it ends. A message that the broker refuses because of what it is (too
// large, invalid) is sent once more alone, since messages share a request; if
// that is refused as well, the batch is set aside: an error in the log, a metric, an
// entry in the journal's statistics. The batches behind it go on. A batch that
// the journal can't read back is set aside in the same way.
package publish
