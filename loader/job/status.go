package job

import (
	"encoding/json"
	"time"
)

// Status is where a job is in its life.
type Status string

// The statuses.
const (
	Scheduled     Status = "scheduled"      // waits for somebody to work on it
	Running       Status = "running"        // somebody does
	Completed     Status = "completed"      // it is done
	StopRequested Status = "stop_requested" // it was asked to stop
	Stopping      Status = "stopping"       // whoever works on it has heard that
	Stopped       Status = "stopped"        // nobody works on it any more
	Failed        Status = "error"          // it will be tried again
	Fatal         Status = "fatal"          // it won't
)

// Ended says that nothing happens any more unless the job is scheduled again.
func (s Status) Ended() bool { return s == Completed || s == Stopped || s == Fatal }

// Retried is the type of the event by which a job in error is scheduled again,
// with the options that it has. Every other event's type is the status it leads to.
const Retried = "retry"

// Event is something that happened to a job.
type Event struct {
	ID     int64           `json:"event_id"`
	Epoch  int64           `json:"epoch"`
	Type   string          `json:"type"`
	Worker string          `json:"worker,omitempty"` // who did it; empty: somebody who asked, or the ledger itself
	Detail json.RawMessage `json:"detail"`
	At     time.Time       `json:"at"`
}

// detail is what events carry. Options are those of a scheduled event.
type detail struct {
	Options json.RawMessage `json:"options,omitempty"`
	Cause   string          `json:"cause,omitempty"`
	RetryAt *time.Time      `json:"retry_at,omitempty"`
}

// State is what the events of a job add up to.
type State struct {
	Status    Status          `json:"status"`
	Epoch     int64           `json:"epoch"`
	Worker    string          `json:"worker,omitempty"`
	Attempts  int             `json:"attempts"` // that failed since it was scheduled
	RetryAt   *time.Time      `json:"retry_at,omitempty"`
	Detail    json.RawMessage `json:"detail"`
	UpdatedAt time.Time       `json:"updated_at"`
}

// After returns the state after one more event.
func (s State) After(e Event) State {
	next := State{Status: Status(e.Type), Epoch: e.Epoch, Worker: e.Worker, Attempts: s.Attempts, Detail: e.Detail, UpdatedAt: e.At}
	switch e.Type {
	case string(Scheduled), string(Completed):
		next.Attempts = 0
	case Retried:
		next.Status = Scheduled
	case string(Failed):
		next.Attempts++
		var d detail
		if json.Unmarshal(e.Detail, &d) == nil {
			next.RetryAt = d.RetryAt
		}
	}
	return next
}
