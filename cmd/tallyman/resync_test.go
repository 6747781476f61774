package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"tallyman/internal/sandbox/sandboxtest"
)

// found is the output of a command that must end with status 3.
func (s *incompleteSite) found(args ...string) string {
	s.t.Helper()
	out, err := s.process(args...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitFound {
		s.t.Fatalf("tallyman %s: %v, want status %d\n%s", strings.Join(args, " "), err, exitFound, out)
	}
	return out
}

// watch counts the rows that a reader sees, in a tight loop, and reports any error
// and any count that is less than the one before. The function ends that.
func (s *incompleteSite) watch() (stop func() (reads, rows int64)) {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), s.dsn)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.t.Context()))
	var reads, rows int64
	var group sync.WaitGroup
	group.Go(func() {
		defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
		for ; ctx.Err() == nil; reads++ {
			var n int64
			if err := conn.QueryRow(context.WithoutCancel(ctx), "SELECT count(*) FROM public.visits").Scan(&n); err != nil {
				s.t.Errorf("a reader: %v", err)
				return
			}
			if n < rows {
				s.t.Errorf("a reader saw %d rows, and then %d", rows, n)
			}
			rows = n
		}
	})
	return func() (int64, int64) {
		cancel()
		group.Wait()
		return reads, rows
	}
}

// publish pushes a file every so often until it is told to stop; the function
// returns how many rows that were.
func (s *incompleteSite) publish() (stop func() int) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.t.Context()))
	var group sync.WaitGroup
	rows := 0
	group.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			var csv strings.Builder
			csv.WriteString("n,page\n")
			for i := range 500 {
				fmt.Fprintf(&csv, "%d,page %d\n", i, n)
			}
			if out, err := s.process("push", "web/visits", "--manifest", s.manifest, file(s.t, "more.csv", csv.String())); err != nil {
				s.t.Errorf("push: %v\n%s", err, out)
				return
			}
			rows += 500
		}
	})
	return func() int {
		cancel()
		group.Wait()
		return rows
	}
}

// A dataset is loaded anew while its sources publish and a reader counts rows, is
// swapped, and back; whatever is active agrees with the ledger all along.
func TestResync(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := newIncompleteSite(t, version)
			s.must("push", "web/visits", "--manifest", s.manifest, file(t, "a.csv", visitsCSV))
			s.begin("web/visits")
			s.begin()
			s.must("wait", "web/visits", "--complete-through", "now", "--timeout", "60s")
			read, published := s.watch(), s.publish()
			contains(t, s.must("resync", "web/visits", "--table", "visits_anew", "--parallelism", "1"), "revision 2 of web/visits is active; revision 1 stands by")
			s.must("verify", "web/visits")
			for _, to := range []string{"1", "2", "1"} {
				contains(t, s.must("revision", "activate", "web/visits", to), "revision "+to+" of web/visits is active")
				s.must("verify", "web/visits")
			}
			rows := int64(published()) + 3
			s.until("every row, in both", func() bool {
				return s.number("SELECT count(*) FROM public.visits") == rows && s.number("SELECT count(*) FROM public.visits_anew") == rows
			})
			if reads, seen := read(); reads < 100 || seen < rows-500 {
				t.Errorf("%d reads, %d rows at the end", reads, seen)
			}
			const differ = `SELECT count(*) FROM ((SELECT * FROM public.visits__r1 EXCEPT ALL SELECT * FROM public.visits_anew) UNION ALL (SELECT * FROM public.visits_anew EXCEPT ALL SELECT * FROM public.visits__r1)) x`
			if n := s.number(differ); n != 0 {
				t.Errorf("the tables differ in %d rows", n)
			}
			fail(t, exitFailed, s.env, []string{"revision", "drop", "web/visits", "1"}, "revision 1 is the active one")
			fail(t, exitFailed, s.env, []string{"revision", "drop", "web/visits", "2"}, "revision 2 is being loaded, job")
			id := s.number("SELECT job_id FROM tallyman.jobs WHERE kind = 'load' AND revision_id = 2")
			s.must("job", "stop", fmt.Sprint(id), "--wait", "30s")
			contains(t, s.must("revision", "drop", "web/visits", "2"), "is dropped")
			contains(t, s.must("revision", "list"), "1 web/visits active", "2 web/visits retired")
			s.must("job", "delete", fmt.Sprint(id))
			s.must("verify", "web/visits")
			// The next one is another revision.
			contains(t, s.must("resync", "web/visits", "--no-activate"), "revision 3 of web/visits has everything")
			contains(t, s.must("resync", "web/visits"), "revision 3 of web/visits is active")
		})
	}
}

// What is neither in the topic nor in a journal is named, and readers keep what
// they see; told so, a resync copies it.
func TestResyncOfWhatIsGone(t *testing.T) {
	t.Parallel()
	s := newIncompleteSite(t, "18")
	s.begin("web/visits")
	for _, path := range []string{file(t, "a.csv", visitsCSV), file(t, "b.ndjson", visitsNDJSON)} {
		s.must("push", "web/visits", "--manifest", s.manifest, path, "--wait-loaded")
	}
	// Offsets: a batch, its end, the other batch, its end.
	if err := s.broker.DeleteRecords("web.visits", 0, 1); err != nil {
		t.Fatal(err)
	}
	out := s.found("resync", "web/visits")
	contains(t, out, "revision 2 of web/visits can't be filled", "neither in the topic nor in the journal", "1 batches, 3 rows", "batches 1 to 1 of source", "--copy")
	if got := s.ask("SELECT string_agg(state, ' ' ORDER BY revision_id) FROM tallyman.revisions"); got != "active building" {
		t.Errorf("revisions are %s", got)
	}
	out = s.found("revision", "activate", "web/visits", "2", "--wait", "1s")
	contains(t, out, "does not cover the active one, 1", "1 batches, 3 rows", "Nothing was changed")
	contains(t, s.must("resync", "web/visits", "--copy"), "copying that", "revision 2 of web/visits is active")
	if n := s.number("SELECT count(*) FROM public.visits__r2"); n != 5 {
		t.Errorf("%d rows, want 5", n)
	}
	s.must("verify", "web/visits")
	s.must("push", "web/visits", "--manifest", s.manifest, file(t, "a.csv", visitsCSV), "--wait-loaded")
	if n := s.number("SELECT count(*) FROM public.visits"); n != 5 {
		t.Errorf("%d rows, want 5", n)
	}
}

// A replay is a job as well: what is missing is published again by the source that
// has it.
func TestReplayAsAJob(t *testing.T) {
	t.Parallel()
	s := newIncompleteSite(t, "18")
	s.begin()
	s.must("job", "deploy", "replay", "web/visits")
	s.becomes(1, "completed") // nothing is missing
	s.must("job", "deploy", "load", "web/visits")
	s.must("push", "web/visits", "--manifest", s.manifest, file(t, "a.csv", visitsCSV))
	s.must("wait", "web/visits", "--complete-through", "now", "--timeout", "60s")
	contains(t, s.must("job", "deploy", "replay", "web/visits", "--option", "source=none"), "scheduled")
	s.becomes(1, "completed")
	contains(t, s.must("job", "events", "1"), "scheduled", "running", "completed", "scheduled", "running", "completed")
	fail(t, exitUsage, s.env, []string{"job", "deploy", "replay", "web/visits", "--option", "since=yesterday"}, "since is no time")
}

// Resyncs that begin at once are one job about one revision.
func TestResyncsAtOnce(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := newIncompleteSite(t, version)
			var group sync.WaitGroup
			for range 8 {
				group.Go(func() {
					if out, err := s.process("job", "deploy", "resync", "web/visits"); err != nil {
						t.Errorf("%v\n%s", err, out)
					}
				})
			}
			group.Wait()
			if got := s.ask("SELECT count(*) || ' ' || (SELECT count(*) FROM tallyman.jobs) || ' ' || (SELECT count(*) FROM tallyman.job_events) FROM tallyman.revisions"); got != "2 1 1" {
				t.Errorf("revisions, jobs and events: %s", got)
			}
		})
	}
}

// A message that two revisions have in quarantine has one ID: it is shown once, and
// what is decided of it is decided for both.
func TestQuarantineOfTwoRevisions(t *testing.T) {
	t.Parallel()
	s := newIncompleteSite(t, "18")
	s.begin("web/visits")
	client, err := kgo.NewClient(kgo.SeedBrokers(s.broker.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	bad := &kgo.Record{Topic: "web.visits", Value: []byte("x"), Headers: []kgo.RecordHeader{{Key: "ce_specversion", Value: []byte("1.0")}, {Key: "ce_type", Value: []byte("tallyman.batch.v1")}}}
	if err := client.ProduceSync(t.Context(), bad).FirstErr(); err != nil {
		t.Fatal(err)
	}
	s.until("quarantine", func() bool { return s.number("SELECT count(*) FROM tallyman.quarantine") == 1 })
	s.must("resync", "web/visits")
	s.until("quarantine in both", func() bool { return s.number("SELECT count(*) FROM tallyman.quarantine WHERE state = 'open'") == 2 })
	id := s.ask("SELECT DISTINCT encode(sha256, 'hex') FROM tallyman.quarantine")
	contains(t, s.must("quarantine", "show", id[:12]), id[:12])
	s.must("quarantine", "discard", id, "--reason", "a test")
	if n := s.number("SELECT count(*) FROM tallyman.quarantine WHERE state = 'discarded'"); n != 2 {
		t.Errorf("%d are discarded, want it of both revisions", n)
	}
}
