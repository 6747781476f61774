package sandboxtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"tallyman/internal/sandbox"
)

// shared is what the tests of one process have in common, made when the first
// of them wants it.
var shared = sync.OnceValue(func() *servers {
	return &servers{postgres: map[string]func() (*sandbox.Postgres, error){}}
})

// servers are started once each and stopped together.
type servers struct {
	mu       sync.Mutex
	postgres map[string]func() (*sandbox.Postgres, error) // by version
	running  []*sandbox.Postgres
}

// get returns the server of a version, started by the first caller.
func (s *servers) get(version string) (*sandbox.Postgres, error) {
	s.mu.Lock()
	once := s.postgres[version]
	if once == nil {
		once = sync.OnceValues(func() (*sandbox.Postgres, error) { return s.start(version) })
		s.postgres[version] = once
	}
	s.mu.Unlock()
	return once()
}

func (s *servers) start(version string) (*sandbox.Postgres, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	server, err := sandbox.StartPostgres(ctx, sandbox.PostgresConfig{
		Version:  version,
		Settings: quick(),
		Progress: os.Stderr,
	})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = append(s.running, server)
	return server, nil
}

func (s *servers) stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for _, server := range s.running {
		err = errors.Join(err, server.Close())
	}
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
	server, err := shared().get(version)
	if err != nil {
		t.Fatalf("start PostgreSQL %s: %v", version, err)
	}
	return server
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
