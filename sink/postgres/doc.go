// Package postgres is the PostgreSQL warehouse: the schema tallyman with its
// migrations, the catalog and the positions, and the commit transaction.
//
// # The commit transaction
//
// One transaction, READ COMMITTED, moves the positions, claims the ids and
// loads the rows. Its locks are always taken in the same order, and within a
// class in key order, so two committers never wait for each other in a circle:
//
//		positions => v4 ids => ledger => table => satisfied => streams => announcements => quarantine
//
//	 1. Positions are locked with SELECT … ORDER BY key FOR NO KEY UPDATE and
//	    moved by compare-and-set on (era, next_offset). A miss is Fenced: the
//	    group is rolled back, somebody else moved them.
//	 2. Ids are claimed with one INSERT … ON CONFLICT DO NOTHING RETURNING. An id
//	    that an open transaction holds is waited for, which is why an unknown
//	    outcome is submitted again and never looked up: a SELECT would say
//	    "absent" while the old transaction still lives. The ledger's key has the
//	    batch time in it; a v4 id has none, so before that it is claimed in v4_ids,
//	    and from the ledger only with the time that stands there.
//	 3. The table is locked against ALTER and its columns are compared with the
//	    manifests of the group, because binary COPY takes eight bytes of bigint
//	    into a double without a word. The outcomes are known now, and Group.Admit
//	    is asked. Then one COPY for each list of columns streams the tuples of all
//	    claimed batches.
//	 4. Numbers of duplicates and announcements are noted, stream by stream (an
//	    announcement follows its stream's row); quarantine rows are written and
//	    closed, and COMMIT follows in the same round trip.
//
// Steps 1 to 3 up to the COPY are one round trip, the COPY two, step 4 one.
//
// # Partitions
//
// A dataset's table that is partitioned has one partition for the times that have
// none of their own, so rows that come before Init has made theirs, or from long
// ago, load all the same. The price is paid when one is made: attaching it looks
// through the partition for the rest, which nobody can use for as long, and is
// refused if there are rows of the new one's range. The ledger has no such
// partition: there, a time that has none must not be accepted. A commit locks the
// table against ALTER, but of its partitions only those that its rows go to.
//
// # The ledger's window
//
// The ledger forgets whole months (see retention.go). First the horizon is raised,
// by which every claim goes: an id before it is not taken. What it stood for is
// asked of the numbers then, which were kept before the partition could not be
// seen any more: accounted for, it is a duplicate; else it is quarantined as
// expired. A claim that does not see the horizon yet finds the partition, or
// fails: there is no moment in which a forgotten id is taken.
//
// # Time limits
//
// On the server: lock_timeout, statement_timeout and
// idle_in_transaction_session_timeout, set for the transaction only, so that a
// pooler in transaction mode can be used. On this side: every read and write
// has a deadline that follows progress (see stallConn), so a network that
// swallows everything is found in Config.StallTimeout. COMMIT is not cancelled
// by a context and no cancel request is ever sent for it: under synchronous
// replication a cancelled COMMIT is a commit that the standby may lack.
// A process of ours that is frozen in the middle of a COPY is immune to all of
// these; who waits for its locks terminates it (see blockers.go).
//
// # Poolers
//
// Init needs a direct connection (session-level advisory lock). Everything
// else works through PgBouncer in transaction mode, version 1.21 or later with
// max_prepared_statements set; or with default_query_exec_mode=exec in the
// connection string, which prepares nothing.
package postgres
