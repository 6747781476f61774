//go:build !unix

package demo

import "errors"

var errNoFreeze = errors.New("this system can't freeze a process, so the demo's --chaos can't run on it")

// freeze stops a process where it stands; thaw lets it go on.
func (p *process) freeze() error { return errNoFreeze }

func (p *process) thaw() error { return errNoFreeze }
