package postgres_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema/batch"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

// secure has a server take nothing but TLS and a password, and returns the DSN
// of a user without it.
func secure(t *testing.T, version string, c sandboxtest.Certificate) string {
	t.Helper()
	server := sandboxtest.Server(t, version)
	conn := session(t, server.DSN("postgres"))
	data := filepath.Join(server.Dir(), "data")
	owner, err := os.Stat(data)
	if err != nil {
		t.Fatal(err)
	}
	put := func(name string, text []byte) {
		path := filepath.Join(data, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		stat := owner.Sys().(*syscall.Stat_t)
		if err := os.Chown(path, int(stat.Uid), int(stat.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	for name, from := range map[string]string{"server.crt": c.Cert, "server.key": c.Key} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		put(name, text)
	}
	put("pg_hba.conf", []byte("hostssl all all 127.0.0.1/32 scram-sha-256\n"))
	execute(t, conn, "SET password_encryption = 'scram-sha-256'", "CREATE ROLE secure SUPERUSER LOGIN PASSWORD 'right-password'",
		"ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()")
	dsn := fmt.Sprintf("host=127.0.0.1 port=%d user=secure dbname=postgres password=right-password ", server.Port())
	for try := range 100 { // the reload is on its way
		c, err := pgx.Connect(t.Context(), dsn+"sslmode=require")
		if err == nil {
			_ = c.Close(t.Context())
			break
		}
		if try == 99 {
			t.Fatal(err)
		}
		var ready bool // asks the server, so it is no sleep
		if err := conn.QueryRow(t.Context(), "SELECT pg_sleep(0.05) IS NOT NULL").Scan(&ready); err != nil {
			t.Fatal(err)
		}
	}
	return dsn
}

// Whoever the server is not what it should be, nothing is sent to it, and the
// error says what to change.
func TestVerifyFull(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			authority, another := sandboxtest.NewAuthority(t), sandboxtest.NewAuthority(t)
			dsn := secure(t, version, authority.Issue(t, time.Now().Add(time.Hour), "127.0.0.1", "db.example"))
			full := dsn + "sslmode=verify-full sslrootcert=" + authority.File
			w := open(t, full, events, postgres.Config{})
			p := w.partition(0)
			if _, err := w.committer().Commit(t.Context(), w.group(p, 1, w.element(batch.NewID(), p, 0, []any{int64(1), "one"}))); err != nil {
				t.Fatal(err)
			}
			if n := w.count("SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE a.backend_type = 'client backend' AND a.usename = 'secure' AND NOT s.ssl"); n != 0 {
				t.Errorf("%d sessions are not encrypted", n)
			}
			for name, tc := range map[string]struct {
				dsn  string
				says []string
			}{
				"wrong CA":       {dsn + "sslmode=verify-full sslrootcert=" + another.File, []string{"unknown authority", "set sslrootcert"}},
				"wrong host":     {strings.Replace(full, "host=127.0.0.1", "host=localhost", 1), []string{"not localhost", "connect by a name"}},
				"wrong password": {strings.Replace(full, "right-password", "wrong-password", 1), []string{"password authentication failed", "28P01"}},
				"no TLS":         {dsn + "sslmode=disable", []string{"no encryption", "28000"}},
			} {
				bad, err := postgres.Open(t.Context(), postgres.Config{URL: tc.dsn})
				if err != nil {
					t.Fatal(err)
				}
				defer bad.Close()
				_, err = bad.Target(t.Context())
				for _, part := range tc.says {
					if err == nil || !strings.Contains(err.Error(), part) {
						t.Errorf("%s: %v: doesn't say %s", name, err, part)
					}
				}
				if err != nil && strings.Contains(err.Error(), "-password") {
					t.Errorf("%s: the password is in %v", name, err)
				}
				if sink.ClassOf(err) != sink.Retryable {
					t.Errorf("%s: %v, want it waited for", name, sink.ClassOf(err))
				}
			}
		})
	}
}
