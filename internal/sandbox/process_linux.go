package sandbox

import (
	"os/exec"
	"syscall"
)

// setDeathSignal also gives the child a process group of its own: Ctrl-C is
// for this process, which then stops its children in good order.
func setDeathSignal(cmd *exec.Cmd, sig syscall.Signal) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = sig
	cmd.SysProcAttr.Setpgid = true
}
