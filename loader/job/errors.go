package job

import (
	"errors"
	"fmt"
	"strings"
)

// The ways in which a request is refused. Nothing is written then.
var (
	// ErrUnknown: there is no such job.
	ErrUnknown = errors.New("there is no such job")
	// ErrUnknownKind: nobody here does jobs of that kind.
	ErrUnknownKind = errors.New("unknown kind of job")
	// ErrMalformed: a key or options that nobody can have meant.
	ErrMalformed = errors.New("malformed")
	// ErrStopping: the job is being stopped; the request may come again later.
	ErrStopping = errors.New("the job is being stopped; try again later")
	// ErrActive: the job is not at an end, which the request needs.
	ErrActive = errors.New("the job is active; stop it first")
	// ErrNotRunnable: the job waits for nobody.
	ErrNotRunnable = errors.New("the job is not to be worked on")
	// ErrFull: as many work on the job as its options allow. One may come again later.
	ErrFull = errors.New("as many members as it may have work on the job")
	// ErrStale: the job has moved on since: it was stopped, scheduled again, or
	// deleted. Whoever is told so stops working.
	ErrStale = errors.New("the job has moved on")
)

// Refused says that a request was refused for what it asks, and not because the
// ledger could not be asked.
func Refused(err error) bool {
	for _, e := range []error{ErrUnknown, ErrUnknownKind, ErrMalformed, ErrStopping, ErrActive, ErrNotRunnable, ErrFull, ErrStale} {
		if errors.Is(err, e) {
			return true
		}
	}
	var (
		conflict *Conflict
		target   *TargetError
	)
	return errors.As(err, &conflict) || errors.As(err, &target)
}

// TargetError refuses a request because of what it is about: a dataset or a
// revision that is not there, or no longer.
type TargetError struct {
	Err  error
	Gone bool // it was there, and can't be worked on any more
}

// Error implements error.
func (e *TargetError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *TargetError) Unwrap() error { return e.Err }

// HopelessError is an error of work that a further try does not mend: the job is
// fatal then, until somebody deploys it again.
type HopelessError struct{ Err error }

// Error implements error.
func (e *HopelessError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *HopelessError) Unwrap() error { return e.Err }

// Conflict refuses a deployment whose options are not those of the active job.
type Conflict struct {
	Job         Job
	Differences []Difference
}

// Error implements error.
func (c *Conflict) Error() string {
	var all []string
	for _, d := range c.Differences {
		all = append(all, fmt.Sprintf("%s is %v, not %v", d.Option, d.Have, d.Want))
	}
	return fmt.Sprintf("job %d is %s with other options: %s", c.Job.ID, c.Job.Status, strings.Join(all, ", "))
}
