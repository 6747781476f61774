package demo

import "syscall"

// attributes makes a child die with this process, and keeps a terminal's Ctrl-C
// from reaching it: this process ends its children in order.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
