package sandboxtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"tallyman/internal/sandbox"
)

// shared holds what the tests of one process have in common. The map is filled
// as servers are wanted; each entry starts once.
var shared = struct {
	mu      sync.Mutex
	servers map[string]func() (io.Closer, error)
	running []io.Closer
}{servers: map[string]func() (io.Closer, error){}}

// sharedServer returns the server of that name, started by the first caller.
func sharedServer(name string, start func() (io.Closer, error)) (io.Closer, error) {
	shared.mu.Lock()
	once := shared.servers[name]
	if once == nil {
		once = sync.OnceValues(func() (io.Closer, error) {
			server, err := start()
			if err == nil {
				shared.mu.Lock()
				defer shared.mu.Unlock()
				shared.running = append(shared.running, server)
			}
			return server, err
		})
		shared.servers[name] = once
	}
	shared.mu.Unlock()
	return once()
}

func stopShared() error {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	var err error
	for _, server := range shared.running {
		err = errors.Join(err, server.Close())
	}
	clear(shared.servers)
	return err
}

// Postgres makes an empty database on the test process's shared server of that
// version and returns its DSN. The database is dropped when the test ends, with
// whatever sessions it still has.
func Postgres(t testing.TB, version string) (dsn string) {
	t.Helper()
	server := SharedServer(t, version)
	name := "test_" + uuid.New().String()
	execute(t.Context(), t, server, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize())
	t.Cleanup(func() {
		execute(context.Background(), t, server, "DROP DATABASE "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)")
	})
	return server.DSN(name)
}

// SharedServer returns the test process's server of that version, which other
// tests use too: don't stop it.
func SharedServer(t testing.TB, version string) *sandbox.Postgres {
	t.Helper()
	server, err := sharedServer("postgres "+version, func() (io.Closer, error) {
		ctx, cancel := context.WithTimeout(context.Background(), startLimit)
		defer cancel()
		return sandbox.StartPostgres(ctx, sandbox.PostgresConfig{
			Version:  version,
			Settings: quick(),
			Progress: os.Stderr,
		})
	})
	if err != nil {
		t.Fatalf("start PostgreSQL %s: %v", version, err)
	}
	return server.(*sandbox.Postgres)
}

func execute(ctx context.Context, t testing.TB, server *sandbox.Postgres, statement string) {
	t.Helper()
	conn, err := pgx.Connect(ctx, server.DSN("postgres"))
	if err != nil {
		t.Fatalf("connect to the shared server: %v", err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, statement); err != nil {
		t.Fatal(fmt.Errorf("%s: %w", statement, err))
	}
}
