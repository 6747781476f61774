// Package commit turns the records of a topic into warehouse transactions and
// decides what follows when one fails.
//
// Records arrive by partition through Handler, which implements
// consume.Handler. Every partition belongs to one lane; a lane owns one
// committer, so that one transaction at a time moves a partition's position.
// A lane runs two goroutines: one checks and decodes records into steps, the
// other groups the steps that are queued — it never waits for more — and
// submits them.
//
// A step is a batch to load, a message to quarantine, or a stretch with
// nothing in it that the position merely passes. Steps are submitted in the
// order in which they came, so a group is a list of steps, bisecting is
// cutting the list in two, and each part moves the positions to its own end.
//
// What a failed group leads to, by sink.Class:
//
//	Retryable      wait with jittered backoff, no limit; submit the same again
//	TooSlow        submit in halves
//	BadData        submit in halves until one batch alone repeats it: quarantine
//	Fenced         drop what is queued of the group's partitions, read positions again
//	Misconfigured  stop the dataset: nothing moves, one probe a minute, alarm
//
// Invariants: a position never passes a batch that was neither loaded, refused
// as a duplicate nor quarantined in the transaction that moved it; a session
// (from one Begin to the next Begin or End of a partition) never submits a
// step of an earlier one; an outage never quarantines anything.
package commit
