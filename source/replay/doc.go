// Package replay publishes batches of a journal once more: those that a target
// says it misses, and those that a person asks for.
//
// # Invariants
//
//   - A batch goes out under its id, to its topic, with the bytes and the digest
//     that it was sealed with. One whose digest does not match any more is told
//     of and not sent; others go on.
//   - What is sent twice does no harm: the loader refuses the second one by its id.
//   - Sending is limited in batches and bytes a second, and works beside live
//     publishing, never in its place.
package replay
