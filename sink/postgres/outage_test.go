package postgres_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tallyman/internal/sandbox"
	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema/batch"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

// wire passes bytes between clients and a server. Once it sees a text it does
// something else, and from then on passes everything again.
type wire struct {
	dsn     string // by which to reach the server through the wire
	address string // of the server
	ended   chan struct{}
	passing sync.WaitGroup

	mu   sync.Mutex
	next *watch // nil: everything passes
}

// watch is what a wire looks for.
type watch struct {
	text   string
	answer bool         // in what the server says; else the client
	do     func() after // what then
}

// after says what becomes of the bytes in which the text was seen.
type after uint8

const (
	passOn after = iota
	hangUp
	fallSilent
)

func newWire(t *testing.T, dsn string) *wire {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{address: u.Host, ended: make(chan struct{})}
	u.Host = l.Addr().String()
	w.dsn = u.String()
	w.passing.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			w.passing.Go(func() { w.connect(client) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		close(w.ended)
		w.passing.Wait()
	})
	return w
}

func (w *wire) look(next watch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next = &next
}

func (w *wire) connect(client net.Conn) {
	server, err := net.Dial("tcp", w.address)
	if err != nil {
		_ = client.Close()
		return
	}
	end := sync.OnceFunc(func() { _, _ = client.Close(), server.Close() })
	w.passing.Go(func() { w.pass(client, server, true, end) })
	w.passing.Go(func() { w.pass(server, client, false, end) })
	w.passing.Go(func() { <-w.ended; end() })
}

func (w *wire) pass(to, from net.Conn, answer bool, end func()) {
	defer end()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		switch w.seen(buf[:n], answer) {
		case hangUp:
			return
		case fallSilent:
			<-w.ended
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (w *wire) seen(b []byte, answer bool) after {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.next == nil || w.next.answer != answer || !bytes.Contains(b, []byte(w.next.text)) {
		return passOn
	}
	do := w.next.do
	w.next = nil
	return do()
}

// The outcome of a COMMIT without an answer is unknown. The same group again
// finds out: fenced if it had committed, and else it loads.
func TestCommitInDoubt(t *testing.T) {
	t.Parallel()
	const commit = "COMMIT\x00"
	for name, tc := range map[string]struct {
		answer    bool
		then      after
		committed bool
	}{
		"answer lost":       {answer: true, then: hangUp, committed: true},
		"answer never came": {answer: true, then: fallSilent, committed: true},
		"never sent":        {then: hangUp},
	} {
		for _, version := range sandboxtest.Versions() {
			t.Run(name+"/"+version, func(t *testing.T) {
				t.Parallel()
				w := open(t, sandboxtest.Postgres(t, version), events, postgres.Config{})
				wire := newWire(t, w.dsn)
				// In this mode every message has the statement's text.
				far := bare(t, wire.dsn+"&default_query_exec_mode=exec", postgres.Config{StallTimeout: 2 * time.Second})
				c := far.NewCommitter()
				t.Cleanup(func() { _ = c.Close() })
				p := w.partition(0)
				g := w.group(p, 2, w.element(batch.NewID(), p, 0, []any{int64(1), "x"}))
				g.Dead = []sink.Dead{{Message: sink.Message{Partition: p.Partition, Offset: 1, Value: []byte("?")}, Reason: batch.NoID}}

				wire.look(watch{text: commit, answer: tc.answer, do: func() after { return tc.then }})
				_, err := c.Commit(t.Context(), g)
				var e *sink.Error
				if !errors.As(err, &e) || e.Class != sink.Retryable || e.Reason != "in_doubt" {
					t.Fatalf("%v, want it in doubt", err)
				}
				if tc.committed {
					_ = w.refused(c, g, verdict{class: sink.Fenced})
				} else {
					w.loads(c, g)
				}
				if rows, dead := w.count("SELECT count(*) FROM events"), w.count("SELECT count(*) FROM tallyman.quarantine"); rows != 1 || dead != 1 {
					t.Errorf("%d rows, %d in quarantine, want one of each", rows, dead)
				}
				if p := w.partition(0); p.Next != 2 {
					t.Errorf("position %d, want 2", p.Next)
				}
			})
		}
	}
}

// Whichever message a session is cut off at, while its statements are prepared or
// run, that is an outage: the load is not stopped by it.
func TestCutOffAtAnyMessage(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{})
	wire := newWire(t, w.dsn)
	p := w.partition(0)
	for name, do := range map[string]func(far *postgres.Warehouse) error{
		"assign": func(far *postgres.Warehouse) error {
			_, err := far.Assign(t.Context(), w.revision, []sink.Partition{p.Partition})
			return err
		},
		"commit": func(far *postgres.Warehouse) error {
			c, p := far.NewCommitter(), w.partition(0) // what was cut off may have committed
			defer func() { _ = c.Close() }()
			_, err := c.Commit(t.Context(), w.group(p, p.Next+1, w.element(batch.NewID(), p, p.Next, []any{int64(1), "x"})))
			return err
		},
	} {
		for _, answer := range []bool{false, true} {
			cuts := 0
			for ended := false; !ended; cuts++ {
				far := bare(t, wire.dsn, postgres.Config{}) // nothing is prepared yet
				cut := wire.cutAfter("tallyman.positions", cuts, answer)
				err := do(far)
				if ended = !cut.Load(); !ended && sink.ClassOf(err) != sink.Retryable {
					t.Errorf("%s, cut off after %d messages (answer: %v): %v is %v", name, cuts, answer, err, sink.ClassOf(err))
				}
			}
			t.Logf("%s: cut off at %d messages (answer: %v)", name, cuts-1, answer)
		}
	}
}

// A COMMIT that is on its way is not cancelled: its answer is waited for.
func TestCommitIsNotCancelled(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{})
	wire := newWire(t, w.dsn)
	c := bare(t, wire.dsn+"&default_query_exec_mode=exec", postgres.Config{}).NewCommitter()
	t.Cleanup(func() { _ = c.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wire.look(watch{text: "COMMIT\x00", do: func() after { cancel(); return passOn }})
	p := w.partition(0)
	res, err := c.Commit(ctx, w.group(p, 1, w.element(batch.NewID(), p, 0, []any{int64(1), "x"})))
	if err != nil || res.Outcomes[0] != sink.Loaded || ctx.Err() == nil {
		t.Errorf("%v, %v; context: %v", res, err, ctx.Err())
	}
}

// A committer outlives its session and its server: each failure is an outage to
// be waited for, and leaves nothing.
func TestOutages(t *testing.T) {
	t.Parallel()
	server := sandboxtest.Server(t, "18")
	w := open(t, server.DSN("postgres"), events, postgres.Config{})
	c, p := w.committer(), w.partition(0)
	outage := func(name string, g *sink.Group) {
		t.Helper()
		_, err := c.Commit(t.Context(), g)
		var e *sink.Error
		if !errors.As(err, &e) || e.Class != sink.Retryable || e.Reason != "outage" {
			t.Errorf("%s: %v, want an outage", name, err)
		}
	}
	for _, tc := range []struct {
		name string
		fail func(*sandbox.Postgres) error
	}{
		{"session ended", func(s *sandbox.Postgres) error {
			_, err := session(t, s.DSN("postgres")).Exec(t.Context(), `
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name LIKE 'tallyman/%' AND state = 'idle in transaction'`)
			return err
		}},
		{"server stopped", (*sandbox.Postgres).Stop},
		{"server crashed", (*sandbox.Postgres).Crash},
	} {
		g := w.group(p, p.Next+1, w.element(batch.NewID(), p, p.Next, []any{int64(1), "x"}))
		g.Admit = func(sink.Result) error { return tc.fail(server) }
		outage(tc.name, g)
		g.Admit = nil
		if server.Pid() == 0 {
			outage(tc.name+", still away", g)
			if err := server.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		w.loads(c, g)
		p.Next++
	}
	w.conn = session(t, w.dsn)
	if rows, ids := w.count("SELECT count(*) FROM events"), w.count("SELECT count(*) FROM tallyman.loaded_elements"); rows != 3 || ids != 3 {
		t.Errorf("%d rows of %d batches, want 3 of each", rows, ids)
	}
}

// drip is a COPY that never ends: a header, then a tuple whenever it is let.
type drip struct {
	head  []byte
	tuple []byte
	every time.Duration // 0: nothing follows
	end   chan struct{}
}

// Read implements io.Reader.
func (d *drip) Read(b []byte) (int, error) {
	if d.head != nil {
		n := copy(b, d.head)
		d.head = nil
		return n, nil
	}
	var tick <-chan time.Time
	if d.every > 0 {
		tick = time.After(d.every)
	}
	select {
	case <-tick:
		return copy(b, d.tuple), nil
	case <-d.end:
		return 0, io.ErrUnexpectedEOF
	}
}

// copying begins a COPY in a session that has locked the positions, and that goes
// on as the drip does. What became of the COPY comes on the channel.
func (w *warehouse) copying(p sink.Position, application string, every time.Duration) (*pgconn.PgConn, *drip, <-chan error) {
	w.t.Helper()
	holder, err := pgconn.Connect(w.t.Context(), w.dsn+"&application_name="+application)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = holder.Close(context.Background()) })
	if _, err := holder.Exec(w.t.Context(), "BEGIN; SELECT FROM tallyman.positions FOR UPDATE").ReadAll(); err != nil {
		w.t.Fatal(err)
	}
	d := &drip{every: every, end: make(chan struct{}), head: []byte("PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"),
		tuple: w.element(batch.NewID(), p, 0, []any{int64(0), "drop"}).Tuples}
	copied := make(chan error, 1)
	go func() {
		_, err := holder.CopyFrom(context.Background(), d, "COPY events__r1 (n, note, _batch_id) FROM STDIN (FORMAT binary)")
		copied <- err
	}()
	for w.count(`SELECT count(*) FROM pg_stat_progress_copy WHERE datname = current_database()`) == 0 {
		select {
		case err := <-copied:
			w.t.Fatal("the COPY ended: ", err)
		default:
		}
	}
	return holder, d, copied
}

// A fence raises the eras also where a frozen process of ours holds the positions,
// and that process's transaction is gone by then.
func TestFenceEndsAFrozenCopy(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := open(t, sandboxtest.Postgres(t, version), events, postgres.Config{LockTimeout: 200 * time.Millisecond})
			p := w.partition(0)
			_, d, copied := w.copying(p, "tallyman/frozen", 0)
			fence := w.NewFence()
			var err error
			tries := 0
			for ; tries < 6; tries++ {
				err = pgx.BeginFunc(t.Context(), w.Pool(), func(tx pgx.Tx) error { return fence(t.Context(), tx, w.revision.ID) })
				if pg := (*pgconn.PgError)(nil); !errors.As(err, &pg) || pg.Code != "55P03" {
					break
				}
			}
			close(d.end)
			var pg *pgconn.PgError
			if err != nil || tries == 0 || !errors.As(<-copied, &pg) || pg.Code != "57P01" {
				t.Fatalf("after %d tries %v; the other session: %v", tries, err, pg)
			}
			if now := w.partition(0); now.Era != p.Era+1 {
				t.Errorf("era %d, want %d", now.Era, p.Era+1)
			}
			// What was read before the fence loads nothing.
			_, err = w.committer().Commit(t.Context(), w.group(p, 1, w.element(batch.NewID(), p, 0, []any{int64(1), "x"})))
			if sink.ClassOf(err) != sink.Fenced || w.count("SELECT count(*) FROM events") != 0 {
				t.Errorf("a commit of the era before: %v", err)
			}
		})
	}
}

// A process of ours that is frozen in the middle of a COPY is ended by whoever
// waits for its locks. One that goes on, however slowly, and what is not ours,
// are waited for.
func TestFrozenCopy(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		application string
		every       time.Duration
		ended       bool
	}{
		"frozen": {application: "tallyman/frozen", ended: true},
		"slow":   {application: "tallyman/slow", every: 5 * time.Millisecond},
		"others": {application: "psql"},
	} {
		for _, version := range sandboxtest.Versions() {
			t.Run(name+"/"+version, func(t *testing.T) {
				t.Parallel()
				w := open(t, sandboxtest.Postgres(t, version), events, postgres.Config{LockTimeout: 200 * time.Millisecond})
				p := w.partition(0)
				holder, d, copied := w.copying(p, tc.application, tc.every)
				var err error
				c := w.committer()
				g := w.group(p, 1, w.element(batch.NewID(), p, 0, []any{int64(1), "x"}))
				const tries = 6 // twice what it takes
				for range tries {
					if _, err = c.Commit(t.Context(), g); err == nil {
						break
					}
					var e *sink.Error
					if !errors.As(err, &e) || e.Class != sink.Retryable || e.Reason != "locked" {
						t.Fatalf("%v, want it locked", err)
					}
				}
				close(d.end)
				var pg *pgconn.PgError
				if ended := errors.As(<-copied, &pg) && pg.Code == "57P01"; ended != tc.ended || (err == nil) != tc.ended {
					t.Errorf("the other session was ended: %t, want %t; the last commit: %v", ended, tc.ended, err)
				}
				if _ = holder.Close(t.Context()); err != nil {
					w.loads(c, g)
				}
				if n := w.count("SELECT sum(n) FROM events"); n != 1 {
					t.Errorf("rows make %d, want 1", n)
				}
			})
		}
	}
}
