package sink

import (
	"errors"

	"tallyman/schema/batch"
)

// Class says what the loader does about an error of a warehouse.
type Class uint8

// The classes. The zero value is the careful one: what nobody listed stops the
// dataset and quarantines nothing.
const (
	// Misconfigured stops the dataset with a named reason; a person mends it.
	Misconfigured Class = iota
	// Retryable is an outage, a conflict or an unknown outcome: wait, submit again.
	Retryable
	// TooSlow is a statement time-out: submit the group again in halves.
	TooSlow
	// BadData is the content's own fault: bisect until one batch alone repeats it.
	BadData
	// Fenced means that a position is not where the group expected it: nothing
	// was done; drop what is queued, read the positions again.
	Fenced
)

// String returns the class's name as it is used in metrics and logs.
func (c Class) String() string {
	switch c {
	case Retryable:
		return "retryable"
	case TooSlow:
		return "too_slow"
	case BadData:
		return "bad_data"
	case Fenced:
		return "fenced"
	default:
		return "misconfigured"
	}
}

// QuarantineFull is the reason of a Misconfigured error where a group would make
// the dataset's quarantine larger than it may be. A part of the group may fit.
const QuarantineFull batch.Reason = "quarantine_full"

// Error is an error of a warehouse with its class.
type Error struct {
	Class Class
	// Reason is the quarantine reason for BadData; a short stable name such as
	// "column_mismatch" or "table_missing" for Misconfigured; else empty.
	Reason batch.Reason
	// Grace says that the same rows may well load a little later (a foreign key
	// whose parent is on its way), so BadData is not believed at once.
	Grace bool
	Err   error
}

// Error returns the text of the wrapped error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the wrapped error.
func (e *Error) Unwrap() error { return e.Err }

// ClassOf returns the class of err: Misconfigured for one without a class.
func ClassOf(err error) Class {
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	return Misconfigured
}
