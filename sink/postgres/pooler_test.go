package postgres_test

import (
	"bytes"
	"io"
	"net"
	"net/url"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema/batch"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

// brokenPooler passes everything between clients and the server, until a
// client sends rows: then it answers as PgBouncer does when it loses the server.
func brokenPooler(t *testing.T, dsn string) string {
	t.Helper()
	c, err := pgconn.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	network, address := pgconn.NetworkAddress(c.Host, c.Port)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial(network, address)
			if err != nil {
				_ = client.Close()
				return
			}
			go func() { _, _ = io.Copy(client, server) }()
			go breakAtRows(client, server)
		}
	}()
	u := url.URL{Scheme: "postgres", User: url.UserPassword(c.User, c.Password), Host: listener.Addr().String(), Path: c.Database, RawQuery: "sslmode=disable"}
	return u.String()
}

func breakAtRows(client, server net.Conn) {
	defer func() { _, _ = client.Close(), server.Close() }()
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		if bytes.Contains(buf[:n], []byte("PGCOPY\n\xff")) {
			lost := &pgproto3.ErrorResponse{Severity: "FATAL", Code: "08P01", Message: "server conn crashed?"}
			if answer, err := lost.Encode(nil); err == nil {
				_, _ = client.Write(answer)
			}
			return
		}
		if _, err := server.Write(buf[:n]); err != nil {
			return
		}
	}
}

// PgBouncer tells of a lost server by the code that the server itself uses for
// a field that is too short. Rows that met an outage are not bad rows.
func TestCommitThroughABrokenPooler(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			dsn := sandboxtest.Postgres(t, version)
			w := open(t, dsn, events, postgres.Config{})
			pooled, err := postgres.Open(t.Context(), postgres.Config{URL: brokenPooler(t, dsn)})
			if err != nil {
				t.Fatal(err)
			}
			defer pooled.Close()
			c := pooled.NewCommitter()
			defer func() { _ = c.Close() }()
			p := w.partition(0)
			g := w.group(p, 1, w.element(batch.NewID(), p, 0, []any{int64(1), "one"}))
			if _, err = c.Commit(t.Context(), g); sink.ClassOf(err) != sink.Retryable {
				t.Errorf("an outage is %v: %v", sink.ClassOf(err), err)
			}
			if _, err = w.committer().Commit(t.Context(), g); err != nil {
				t.Errorf("the same group, with the server back: %v", err)
			}
		})
	}
}
