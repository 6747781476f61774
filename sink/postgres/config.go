package postgres

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Config is how to reach and use a warehouse.
type Config struct {
	// URL is a connection string, postgres://… or key=value pairs; libpq's
	// environment variables fill what it leaves out. Required, may be empty
	// only if the environment says it all.
	URL string
	// Target is the configured name of the warehouse. Defaults to "warehouse".
	Target string
	// Member names this process in application_name, as "tallyman/<member>".
	// Defaults to "cli".
	Member string
	// MaxConns limits the pool that catalog and positions use; committers have
	// connections of their own. Defaults to 4.
	MaxConns int
	// ConnectTimeout limits the making of one connection, unless URL has
	// connect_timeout. Defaults to 5 s.
	ConnectTimeout time.Duration
	// StallTimeout is how long a step may go without a byte in either
	// direction, before the connection counts as dead. It must be longer than
	// two lock waits and a claim. Defaults to 13 s.
	StallTimeout time.Duration
	// LockTimeout limits each wait for a lock in a commit. Defaults to 3 s.
	LockTimeout time.Duration
	// ClaimTimeout limits each statement of a commit other than COPY. Defaults to 5 s.
	ClaimTimeout time.Duration
	// CopyTimeout limits a COPY, to which one second is added for each MiB of
	// the group. Defaults to 30 s.
	CopyTimeout time.Duration
	// IdleTimeout is when the server ends a transaction whose client is silent
	// between two statements. Defaults to 10 s.
	IdleTimeout time.Duration
	// QuarantineMaxBytes is how many bytes a dataset's open quarantine may hold;
	// what would exceed it stops the dataset instead. Defaults to no limit.
	QuarantineMaxBytes int64
	// Logger takes what is worth telling and is no error. Defaults to discarding.
	Logger *slog.Logger
}

// withDefaults returns c with its zero fields filled, or every fault of it.
func (c Config) withDefaults() (Config, error) {
	if c.Target == "" {
		c.Target = "warehouse"
	}
	if c.Member == "" {
		c.Member = "cli"
	}
	if c.MaxConns == 0 {
		c.MaxConns = 4
	}
	durations := []struct {
		field *time.Duration
		value time.Duration
		name  string
	}{
		{&c.ConnectTimeout, 5 * time.Second, "ConnectTimeout"},
		{&c.StallTimeout, 13 * time.Second, "StallTimeout"},
		{&c.LockTimeout, 3 * time.Second, "LockTimeout"},
		{&c.ClaimTimeout, 5 * time.Second, "ClaimTimeout"},
		{&c.CopyTimeout, 30 * time.Second, "CopyTimeout"},
		{&c.IdleTimeout, 10 * time.Second, "IdleTimeout"},
	}
	var faults []error
	for _, d := range durations {
		if *d.field == 0 {
			*d.field = d.value
		}
		if *d.field < 0 {
			faults = append(faults, fmt.Errorf("%s is negative", d.name))
		}
	}
	if c.MaxConns < 0 {
		faults = append(faults, errors.New("MaxConns is negative"))
	}
	for _, s := range []struct{ name, value string }{{"URL", c.URL}, {"Target", c.Target}, {"Member", c.Member}} {
		if strings.ContainsRune(s.value, 0) {
			faults = append(faults, fmt.Errorf("%s contains a NUL byte", s.name))
		}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, errors.Join(faults...)
}

// clientSide are libpq's parameters about the client's own socket. pgx does
// not know them and would send them to the server, which refuses them.
type clientSide struct {
	keepalives  bool
	idle        time.Duration
	interval    time.Duration
	count       int
	userTimeout time.Duration
}

// takeClientSide removes libpq's socket parameters from the run-time
// parameters that pgx would send, and reads them.
// Meaning and units: https://www.postgresql.org/docs/current/libpq-connect.html
func takeClientSide(params map[string]string) (clientSide, error) {
	s := clientSide{keepalives: true, idle: 5 * time.Second, interval: 2 * time.Second, count: 3, userTimeout: 10 * time.Second}
	take := func(name string, set func(n int)) error {
		text, ok := params[name]
		if !ok {
			return nil
		}
		delete(params, name)
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return fmt.Errorf("%s=%q: want a number from 0", name, text)
		}
		set(n)
		return nil
	}
	return s, errors.Join(
		take("keepalives", func(n int) { s.keepalives = n != 0 }),
		take("keepalives_idle", func(n int) { s.idle = time.Duration(n) * time.Second }),
		take("keepalives_interval", func(n int) { s.interval = time.Duration(n) * time.Second }),
		take("keepalives_count", func(n int) { s.count = n }),
		take("tcp_user_timeout", func(n int) { s.userTimeout = time.Duration(n) * time.Millisecond }),
	)
}

// connConfig parses the connection string into what every connection shares.
func (c Config) connConfig() (*pgx.ConnConfig, error) {
	cc, err := pgx.ParseConfig(c.URL)
	if err != nil {
		return nil, fmt.Errorf("parse connection string: %w", err)
	}
	side, err := takeClientSide(cc.RuntimeParams)
	if err != nil {
		return nil, fmt.Errorf("parse connection string: %w", err)
	}
	if cc.ConnectTimeout == 0 {
		cc.ConnectTimeout = c.ConnectTimeout
	}
	cc.RuntimeParams["application_name"] = "tallyman/" + c.Member
	if cc.ValidateConnect == nil {
		cc.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	cc.DialFunc = dialer{side: side, stall: c.StallTimeout}.dial
	return cc, nil
}
