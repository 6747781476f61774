package sandbox_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"tallyman/internal/sandbox"
	"tallyman/internal/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

// query returns the single value that a statement gives.
func query[T any](t *testing.T, dsn, statement string) (value T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if err := conn.QueryRow(ctx, statement).Scan(&value); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	return value
}

// Committed rows outlive a crash and a stop, and the address stays the same.
func TestPostgresCrashAndStart(t *testing.T) {
	defer goleak.VerifyNone(t)
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			begun := time.Now()
			server := sandboxtest.Server(t, version)
			t.Logf("initdb and start: %v, programs in %s", time.Since(begun), server.BinDir())
			dsn := server.DSN("postgres")
			if got := query[string](t, dsn, "SELECT (current_setting('server_version_num')::int / 10000)::text"); got != version {
				t.Fatalf("server is version %s, want %s", got, version)
			}
			execute(t, dsn, "CREATE TABLE kept AS SELECT 42 AS n")
			for name, end := range map[string]func() error{"crash": server.Crash, "stop": server.Stop} {
				pid := server.Pid()
				if err := end(); err != nil {
					t.Fatal(err)
				}
				if got := server.Pid(); got != 0 {
					t.Fatalf("after a %s the pid is %d, want 0", name, got)
				}
				begun = time.Now()
				if err := server.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				t.Logf("start after a %s: %v", name, time.Since(begun))
				if got := server.Pid(); got == 0 || got == pid {
					t.Fatalf("after a %s and a start the pid is %d, before it was %d", name, got, pid)
				}
				if got := query[int](t, dsn, "SELECT n FROM kept"); got != 42 {
					t.Fatalf("after a %s the row is %d", name, got)
				}
			}
		})
	}
}

func execute(t *testing.T, dsn, statement string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// Two tests never see one another's database.
func TestPostgresDatabasePerTest(t *testing.T) {
	a, b := sandboxtest.Postgres(t, "18"), sandboxtest.Postgres(t, "18")
	execute(t, a, "CREATE TABLE only_here (n int)")
	if query[bool](t, b, "SELECT to_regclass('only_here') IS NOT NULL") {
		t.Fatal("the second database holds the first one's table")
	}
}

// Without a version an installed server serves, if there is one.
func TestPostgresAnyVersion(t *testing.T) {
	server, err := sandbox.StartPostgres(t.Context(), sandbox.PostgresConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	t.Logf("%s from %s", query[string](t, server.DSN("postgres"), "SHOW server_version"), server.BinDir())
	if got := query[string](t, server.DSN("postgres"), "SHOW fsync"); got != "on" {
		t.Fatalf("fsync is %s without a setting, want on", got)
	}
}
