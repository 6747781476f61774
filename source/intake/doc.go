// Package intake turns files into batches: it reads CSV and NDJSON, keeps the
// rows in a journal of their own and publishes them.
//
// The same content is loaded once into a dataset, from whichever machine and
// whenever it is pushed. A file is cut into chunks by a frozen rule over its
// own bytes, a chunk is a batch, and a batch's id is derived from the dataset,
// the format, the SHA-256 of the uncompressed bytes, the chunk's number and, if
// the same content is to be loaded once more on purpose, a label. Names, times,
// settings and manifest are not part of it. FORMAT.md in this directory
// specifies all that.
//
// # States of a push
//
// A push has a directory under the state directory, named by the id of its
// first batch, and one process at a time holds it:
//
//	reading    the directory has no state file; nothing was published
//	encoded    the state file is there: the journal has every batch of the file
//	published  Kafka has acknowledged them
//
// Nothing is published before the state file is written, so a row that can't
// be read refuses the file as a whole. A push that ends while reading starts
// over; one that ends later goes on with what is not yet published.
//
// Instead of Kafka a daemon may take the batches, see [Remote]; then "published"
// means that the daemon has them on its disk, under the same ids.
//
// # Pushing again
//
// A push that finds everything published publishes it again, under the same
// ids: what was acknowledged may have been lost since, which this machine
// can't know, and the loader refuses by its ids what it has. With another
// manifest the same content is refused, because its ids are taken.
//
// # Failures
//
// A missing topic is an error before anything is journaled. Kafka's absence is
// waited for, after the file was read. A file that changes while it is read is
// refused: it is read twice, and must be the same both times. Journals are kept;
// the directory of a push may be removed once its rows are loaded.
package intake
