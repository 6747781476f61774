// Package sandboxtest hands the servers of internal/sandbox to tests: one
// PostgreSQL per version and test process with a database per test, embedded
// brokers, and the real Kafka where it is asked for.
//
// Servers start when the first test wants them. A test package that uses the
// shared ones has
//
//	func TestMain(m *testing.M) { sandboxtest.Main(m) }
//
// which stops them at the end.
package sandboxtest

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"tallyman/internal/sandbox"
)

// startLimit bounds the start of any server, a first fetch included.
const startLimit = 5 * time.Minute

// Versions returns the PostgreSQL versions that everything is tested against:
// the oldest and the newest that are supported.
func Versions() []string { return []string{"15", "18"} }

// Main runs a package's tests and stops the shared servers. It does not return.
func Main(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	defer func() {
		if err := shared().stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stop shared servers:", err)
			code = max(code, 1)
		}
	}()
	return m.Run()
}

// startContext is a test's context with the limit for starting a server.
func startContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), startLimit)
	t.Cleanup(cancel)
	return ctx
}

// quick are settings of a server whose data nobody needs after the test. What
// is committed still outlives a crash of the server, which is a crash of
// processes and not of the machine; synchronous_commit=off would lose it.
func quick() map[string]string {
	return map[string]string{
		"fsync":            "off",
		"full_page_writes": "off",
		"shared_buffers":   "32MB",
		"max_connections":  "200",
		"max_wal_size":     "256MB",
	}
}

// Server returns a PostgreSQL server of the test's own, to crash and to start
// again. It is closed when the test ends.
func Server(t testing.TB, version string) *sandbox.Postgres {
	t.Helper()
	p, err := sandbox.StartPostgres(startContext(t), sandbox.PostgresConfig{
		Version:  version,
		Settings: quick(),
		Progress: os.Stderr,
	})
	if err != nil {
		t.Fatalf("start PostgreSQL %s: %v", version, err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close PostgreSQL %s: %v", version, err)
		}
	})
	return p
}
