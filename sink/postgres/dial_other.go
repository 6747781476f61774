//go:build !linux

package postgres

import (
	"syscall"
	"time"
)

// setUserTimeout does nothing here: the limit on unacknowledged bytes is a
// socket option of Linux. Keepalives and the stall limit remain.
func setUserTimeout(string, syscall.RawConn, time.Duration) error { return nil }
