//go:build !linux

package demo

import "syscall"

// attributes is empty where the kernel can't tie a child's life to its parent's.
// A child then notices that its standard input or its servers are gone.
func attributes() *syscall.SysProcAttr { return nil }
