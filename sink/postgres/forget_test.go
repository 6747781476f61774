package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

// forget runs Init with a retention of three months, at the middle of a month.
func (a *aged) forget(ctx context.Context, n int) (postgres.InitReport, error) {
	return a.Init(ctx, postgres.InitOptions{Retention: &postgres.Retention{Months: 3}, Now: func() time.Time { return mid(n) }})
}

// comesTo waits for a query to return a number above 0.
func comesTo(t *testing.T, conn *pgx.Conn, done <-chan error, sql string) {
	t.Helper()
	for n := int64(0); n == 0; {
		select {
		case err := <-done:
			t.Fatalf("it did not come to that: %v", err)
		default:
		}
		if err := conn.QueryRow(t.Context(), sql).Scan(&n); err != nil {
			t.Fatal(err)
		}
	}
}

// A partition is detached while a transaction has loaded into it and is still
// open, and others load without waiting. What that transaction adds is known
// once it is dropped, and a copy that came in between is not held against it.
func TestRetentionBesideLoads(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			a := newAged(t, version, 1, 3)
			p := a.partition(0)
			late, id := uuid.New(), idAt(mid(-1)) // in the partition that goes first
			copied := renumber(a.element(id, p, 0, []any{int64(1), "late"}), late, 7)
			slow := session(t, a.dsn)
			execute(t, slow, "BEGIN")
			const insert = `INSERT INTO tallyman.loaded_elements (revision_id, batch_time, unique_id, outcome, incarnation, sequence, row_count, byte_count, digest)
				VALUES ($1, $2, $3::text::uuid, 'loaded', $4::text::uuid, 7, 1, 1, $5)`
			if _, err := slow.Exec(t.Context(), insert, a.revision.ID, copied.Batch.Time, id.String(), late.String(), copied.Content[:]); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() {
				report, err := a.forget(t.Context(), 4)
				if err == nil && (!slices.Equal(report.Forgotten, []string{"loaded_elements_older", "loaded_elements_2024_01"}) || report.Held != "") {
					err = errors.New("forgotten are " + report.Held)
				}
				done <- err
			}()
			comesTo(t, a.conn, done, `SELECT count(*) FROM pg_inherits WHERE inhparent = 'tallyman.loaded_elements'::regclass AND inhdetachpending`)
			comesTo(t, a.conn, done, `SELECT count(*) FROM pg_locks l JOIN pg_stat_activity s USING (pid)
				WHERE NOT l.granted AND s.datname = current_database() AND s.query LIKE 'ALTER TABLE%DETACH%CONCURRENTLY'`)

			// Nobody waits longer than a tenth of a second for any lock.
			hurried := bare(t, a.dsn, postgres.Config{LockTimeout: 100 * time.Millisecond})
			c := hurried.NewCommitter()
			defer func() { _ = c.Close() }()
			now := a.element(batch.NewID(), p, 1, []any{int64(2), "now"})
			res, err := c.Commit(t.Context(), a.group(p, 2, copied, now))
			if err != nil || !slices.Equal(res.Outcomes, []sink.Outcome{sink.Expired, sink.Loaded}) {
				t.Fatalf("beside the detaching: %v, %v", res.Outcomes, err)
			}
			if n := a.count(`SELECT count(*) FROM tallyman.quarantine WHERE reason = 'expired' AND state = 'open'`); n != 1 {
				t.Errorf("%d in quarantine", n)
			}
			execute(t, slow, "COMMIT")
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if n := a.count(`SELECT count(*) FROM tallyman.satisfied WHERE incarnation = $1::text::uuid AND first = 7 AND last = 7 AND reason = 'forgotten'`, late.String()); n != 1 {
				t.Error("what the open transaction loaded is not accounted for")
			}
			if n := a.count(`SELECT count(*) FROM tallyman.quarantine WHERE reason = 'expired' AND state = 'redriven'`); n != 1 {
				t.Error("the copy is in quarantine still")
			}
			if res, err := c.Commit(t.Context(), a.group(a.partition(0), 3, copied)); err != nil || !slices.Equal(res.Outcomes, []sink.Outcome{sink.Duplicate}) {
				t.Errorf("once it is forgotten: %v, %v", res.Outcomes, err)
			}
			a.check(t, "then")
		})
	}
}

// A partition that somebody reads for too long is left for the next run, which
// finishes it. Its batches are refused meanwhile.
func TestRetentionHeld(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			a := newAged(t, version, 1, 3)
			id := a.idOf(t, mid(-1))
			reader := session(t, a.dsn)
			execute(t, reader, "BEGIN", "SELECT count(*) FROM tallyman.loaded_elements")
			hasty := bare(t, a.dsn, postgres.Config{LockTimeout: 10 * time.Millisecond, StallTimeout: time.Minute})
			o := postgres.InitOptions{Retention: &postgres.Retention{Months: 3}, Now: func() time.Time { return mid(4) }}
			for range 2 {
				report, err := hasty.Init(t.Context(), o)
				if err != nil || report.Held != "loaded_elements_older" || len(report.Forgotten) != 0 || !report.Window.Horizon.Equal(firstOf(mid(1))) {
					t.Fatalf("%+v, %v", report, err)
				}
				if a.claimable(t, mid(-1), id) {
					t.Error("a batch can load a second time")
				}
				a.check(t, "held")
			}
			execute(t, reader, "COMMIT")
			report, err := hasty.Init(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			a.settled(t, report, firstOf(mid(1)))
			a.check(t, "then")
			a.replay(t, mid(0))
		})
	}
}

// The same where the first partition is to refuse times before the horizon: its
// lock is tried for moments, and loaders go by the horizon meanwhile.
func TestRetentionHeldInTheFirstPartition(t *testing.T) {
	t.Parallel()
	a := newAged(t, "15", 3, 1)
	reader := session(t, a.dsn)
	execute(t, reader, "BEGIN", "SELECT count(*) FROM tallyman.loaded_elements")
	done := make(chan error, 1)
	go func() {
		report, err := a.forget(t.Context(), 2)
		if err == nil && (report.Held != "loaded_elements_older" || !report.Window.Horizon.Equal(firstOf(mid(-1)))) {
			err = fmt.Errorf("%+v", report)
		}
		done <- err
	}()
	comesTo(t, a.conn, done, `SELECT count(*) FROM pg_locks l JOIN pg_stat_activity s USING (pid)
		WHERE NOT l.granted AND s.datname = current_database() AND s.query LIKE 'ALTER TABLE%ADD CONSTRAINT%'`)
	hurried := bare(t, a.dsn, postgres.Config{LockTimeout: time.Second})
	c := hurried.NewCommitter()
	defer func() { _ = c.Close() }()
	p := a.partition(0)
	res, err := c.Commit(t.Context(), a.group(p, 3, a.element(idAt(mid(-2)), p, 0, []any{int64(1), "old"}),
		a.element(idAt(mid(-1)), p, 1, []any{int64(2), "kept"}), a.element(batch.NewID(), p, 2, []any{int64(3), "now"})))
	if err != nil || !slices.Equal(res.Outcomes, []sink.Outcome{sink.Expired, sink.Loaded, sink.Loaded}) {
		t.Errorf("beside it: %v, %v", res.Outcomes, err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	a.check(t, "held")
	execute(t, reader, "COMMIT")
	report, err := a.forget(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	a.settled(t, report, firstOf(mid(-1)))
	a.check(t, "then")
	if a.claimable(t, mid(-2), uuid.NewString()) || !a.claimable(t, mid(-1), uuid.NewString()) {
		t.Error("the first partition takes other times than those from the horizon on")
	}
}

// What was never loaded is no duplicate, however low its number: neither what
// is in quarantine nor what somebody gave up for lost.
func TestRetentionKeepsWhatWasNotLoaded(t *testing.T) {
	t.Parallel()
	a := newAged(t, "18", 1, 3)
	p := a.partition(0)
	refused := renumber(a.element(idAt(mid(0)), p, 0, []any{int64(1), "refused"}), a.passed, 10)
	lost := renumber(a.element(idAt(mid(0)), p, 1, []any{int64(2), "lost"}), a.passed, 20)
	g := a.group(p, 2)
	g.Dead = []sink.Dead{{Message: refused.Message, Batch: refused.Batch, Reason: batch.Rejected, Detail: "a test"}}
	c := a.committer()
	if _, err := c.Commit(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	found := renumber(a.element(idAt(mid(0)), p, 2, []any{int64(3), "given up, and loaded after all"}), a.announced, 11)
	execute(t, a.conn, "INSERT INTO tallyman.satisfied (revision_id, incarnation, first, last, reason) VALUES (1, '"+a.passed.String()+"', 20, 20, 'accepted'), (1, '"+a.announced.String()+"', 11, 11, 'accepted')")
	if _, err := a.forget(t.Context(), 4); err != nil {
		t.Fatal(err)
	}
	refused.Offset, lost.Offset, found.Offset = 2, 3, 4
	res, err := c.Commit(t.Context(), a.group(a.partition(0), 5, refused, lost, found))
	if err != nil || !slices.Equal(res.Outcomes, []sink.Outcome{sink.Expired, sink.Expired, sink.Duplicate}) || res.Known != 1 {
		t.Errorf("%+v, %v", res, err)
	}
	l, err := a.Quarantine().List(t.Context(), sink.Selection{State: sink.Open}, 10)
	if err != nil || len(l.Kept) != 2 {
		t.Fatalf("%+v, %v", l, err)
	}
	judge := func(m sink.Message, _ *schema.Manifest) (*sink.Element, *sink.Dead) {
		for _, e := range []sink.Element{refused, lost} {
			if string(e.Key) == string(m.Key) {
				return &e, nil
			}
		}
		return nil, nil
	}
	for _, k := range l.Kept {
		got, err := a.Quarantine().Redrive(t.Context(), a.revision, k.Key, "somebody", judge)
		if err != nil || got.Refusal == nil || got.Refusal.Reason != batch.Expired {
			t.Errorf("redriven: %+v, %v", got, err)
		}
		if _, err := a.Quarantine().Discard(t.Context(), k.Key, sink.Discard{By: "somebody", Why: "a test"}); err != nil {
			t.Errorf("discarded: %v", err)
		}
	}
	if n := a.count("SELECT count(*) FROM tallyman.quarantine WHERE state = 'open'"); n != 0 {
		t.Errorf("%d are open still", n)
	}
}

// A loader makes the months ahead, as nobody, and not while tallyman init does.
func TestExtendLedger(t *testing.T) {
	t.Parallel()
	w := bare(t, sandboxtest.Postgres(t, "15"), postgres.Config{})
	mustInit(t, w, time.Now().AddDate(-1, 0, 0))
	if n, err := w.ExtendLedger(t.Context()); n != 12 || err != nil {
		t.Errorf("made %d, %v", n, err)
	}
	if n, err := w.ExtendLedger(t.Context()); n != 0 || err != nil {
		t.Errorf("made %d, %v", n, err)
	}
	window, err := w.Window(t.Context())
	if want := firstOf(time.Now()).AddDate(0, 25, 0); err != nil || !window.End.Equal(want) {
		t.Errorf("the ledger ends at %v, %v, want %v", window.End, err, want)
	}
	if made := mustInit(t, w, time.Now()).Partitions; len(made) != 0 {
		t.Errorf("init made %v", made)
	}
}

func TestParseRetention(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]postgres.Retention{"400d": {Days: 400}, "30d": {Days: 30}, "13mo": {Months: 13}, "off": {}} {
		if got, err := postgres.ParseRetention(text); err != nil || got != want || got.String() != text {
			t.Errorf("%s is %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0d", "29d", "4", "-1mo", "1y", "400 d", "99999d", "Off"} {
		if got, err := postgres.ParseRetention(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}
