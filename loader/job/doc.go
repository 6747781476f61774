// Package job is the ledger of jobs: work that was promised to be done, and that
// is asked for again and again by deployments, pipelines and people. A repeat
// never makes a second job, and never passes over what is different about it.
//
// A job is what its [Key] says, which its [Kind] makes from what the job is about
// and never from its options. What happens to it is a chain of events, which are
// only ever added, and its status is what they add up to:
//
//	scheduled → running → completed
//	                    → error → (retry) scheduled … → fatal
//	scheduled, running, error → stop_requested → stopping → stopped
//
// The options of a run are in its scheduled event. A job that ended can be
// scheduled again with others: it keeps its id, and its epoch rises.
//
// Every change locks the job's row first, and reads its status in a statement
// after that, at READ COMMITTED: a status that was read with the lock, or before
// it, may be one that another session has replaced meanwhile. No other lock is
// taken before it, and those of events, status and members only after it.
package job
