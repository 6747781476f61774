//go:build unix && !linux

package sandbox

import (
	"os/exec"
	"syscall"
)

// setDeathSignal gives the child a process group of its own; there is no death
// signal on this system.
func setDeathSignal(cmd *exec.Cmd, _ syscall.Signal) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
}
