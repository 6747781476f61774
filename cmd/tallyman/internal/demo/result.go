package demo

import "time"

// Result is how a demo ended.
type Result struct {
	Rows, Batches Count
	// Duplicates is how often loaders refused a batch that was loaded already.
	// What a loader refused shortly before it was killed isn't in it.
	Duplicates int64
	Kills      []Kill
	Duration   time.Duration // from the first row appended until nothing was left to load
	DSN        string
	Brokers    string
	Table      string // quoted, with its schema
	Topic      string
}

// Sound says that the table holds exactly what was sent.
func (r Result) Sound() bool { return r.Rows.Sound() && r.Batches.Sound() }

// RowsPerSecond is the rate at which rows got from being appended to being loaded.
func (r Result) RowsPerSecond() int64 {
	if r.Duration <= 0 {
		return 0
	}
	return int64(float64(r.Rows.Loaded) / r.Duration.Seconds())
}

// Kill is one loader killed inside an open transaction, which then was rolled back.
type Kill struct {
	Loader string
	PID    int    // of the loader
	XID    string // the transaction
	Doing  string // what the transaction's session was in the middle of
}
