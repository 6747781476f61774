package main

import (
	"errors"
	"fmt"
	"strings"

	"tallyman/cmd/tallyman/internal/settings"
)

// The statuses that the program ends with.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2 // wrong usage or configuration: nothing was done
	exitFound  = 3 // the check ran, and what it looked for is there
)

// usageError is a command line that can't be carried out as it stands.
type usageError struct {
	command string // whose help explains it
	err     error
}

func (e *usageError) Error() string {
	return fmt.Sprintf("%v\nsee %s --help", e.err, e.command)
}

func (e *usageError) Unwrap() error { return e.err }

// foundError is a check that ran and found something.
type foundError struct{ text string }

func (e *foundError) Error() string { return e.text }

// report prints err, once, and returns the status for it.
func (p *program) report(err error) int {
	if err == nil {
		return exitDone
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if line = strings.TrimSpace(line); line != "" {
			fmt.Fprintf(p.stderr, "tallyman: %s\n", printable(line))
		}
	}
	var usage *usageError
	var faults settings.Faults
	var found *foundError
	switch {
	case errors.As(err, &usage), errors.As(err, &faults):
		return exitUsage
	case errors.As(err, &found):
		return exitFound
	default:
		return exitFailed
	}
}
