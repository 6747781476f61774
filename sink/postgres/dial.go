package postgres

import (
	"context"
	"net"
	"sync"
	"syscall"
	"time"
)

// dialer makes the connections: with keepalives and a user time-out, so that
// the kernel notices a dead peer, and deadlines that follow progress.
type dialer struct {
	side  clientSide
	stall time.Duration
}

func (d dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	nd := net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{
			Enable: d.side.keepalives, Idle: d.side.idle, Interval: d.side.interval, Count: d.side.count,
		},
		ControlContext: func(_ context.Context, network, _ string, c syscall.RawConn) error {
			return setUserTimeout(network, c, d.side.userTimeout)
		},
	}
	if !d.side.keepalives {
		nd.KeepAlive = -1
	}
	conn, err := nd.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &stallConn{Conn: conn, limit: d.stall}, nil
}

// stallConn is a connection that fails when nothing has come or gone for a
// while during a Read or a Write. Progress in either direction moves the
// deadline of both, because a long COPY has a Read pending all the time.
// Deadlines set from outside (a cancelled context) still hold.
type stallConn struct {
	net.Conn
	limit time.Duration

	mu    sync.Mutex
	outer time.Time // set from outside; zero: none
}

func (c *stallConn) arm() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	deadline := time.Now().Add(c.limit)
	if !c.outer.IsZero() && c.outer.Before(deadline) {
		deadline = c.outer
	}
	return c.Conn.SetDeadline(deadline)
}

// Read reads, and counts as progress what it got.
func (c *stallConn) Read(b []byte) (int, error) { return c.progress(c.Conn.Read, b) }

// Write writes in pieces, so that a long one shows its progress.
func (c *stallConn) Write(b []byte) (int, error) {
	const piece = 256 << 10
	done := 0
	for {
		n, err := c.progress(c.Conn.Write, b[done:min(len(b), done+piece)])
		done += n
		if err != nil || done >= len(b) {
			return done, err
		}
	}
}

func (c *stallConn) progress(op func([]byte) (int, error), b []byte) (int, error) {
	if err := c.arm(); err != nil {
		return 0, err
	}
	n, err := op(b)
	if n > 0 && err == nil {
		err = c.arm()
	}
	return n, err
}

// SetDeadline sets a deadline that holds beside the stall limit.
func (c *stallConn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	c.outer = t
	c.mu.Unlock()
	return c.arm()
}

// SetReadDeadline is SetDeadline: nobody needs them apart.
func (c *stallConn) SetReadDeadline(t time.Time) error { return c.SetDeadline(t) }

// SetWriteDeadline is SetDeadline: nobody needs them apart.
func (c *stallConn) SetWriteDeadline(t time.Time) error { return c.SetDeadline(t) }
