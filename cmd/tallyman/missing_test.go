package main

import (
	"errors"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"tallyman/internal/sandbox/sandboxtest"
)

// incompleteSite is a site with the visits, and programs as processes of their own.
type incompleteSite struct {
	*site
	t        *testing.T
	manifest string
}

func newIncompleteSite(t *testing.T, version string) *incompleteSite {
	t.Helper()
	s := &incompleteSite{site: newSite(t, version), t: t, manifest: file(t, "visits.yaml", visits)}
	s.env = append(s.env, "TALLYMAN_LOADER_MISSING_GRACE=1ms", "TALLYMAN_SERVE_ANNOUNCE_INTERVAL=200ms")
	succeed(t, s.env, "init")
	succeed(t, s.env, "dataset", "apply", s.manifest, "--partitions", "1", "--replication-factor", "1")
	return s
}

// process runs a command as a process of its own, until it ends.
func (s *incompleteSite) process(args ...string) (string, error) {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append([]string{asProgram}, s.env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (s *incompleteSite) must(args ...string) string {
	s.t.Helper()
	out, err := s.process(args...)
	if err != nil {
		s.t.Fatalf("tallyman %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// load starts a loader that ends with the test.
func (s *incompleteSite) load() {
	s.t.Helper()
	cmd := exec.Command(os.Args[0], "load", "web/visits")
	cmd.Env = append([]string{asProgram}, s.env...)
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// ask returns what one row of the warehouse says.
func (s *incompleteSite) ask(sql string) (text string) {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), s.dsn)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = conn.Close(s.t.Context()) }()
	if err := conn.QueryRow(s.t.Context(), sql).Scan(&text); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
	return text
}

// A push, then a wait, and everything is loaded, with no step of a person. The
// same file pushed from another machine waits for nothing either.
func TestPushThenWait(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := newIncompleteSite(t, version)
			csv := file(t, "visits.csv", visitsCSV)
			s.load()
			for range 2 {
				s.env = append(s.env, "HOME="+t.TempDir())
				s.must("push", "web/visits", "--manifest", s.manifest, csv)
				s.must("wait", "web/visits", "--complete-through", "now", "--timeout", "60s")
				if n := s.ask("SELECT count(*)::text FROM public.visits"); n != "3" {
					t.Errorf("%s rows, want 3", n)
				}
			}
			contains(t, s.must("missing", "list"), "nothing is missing")
			contains(t, s.must("status"), "COMPLETE THROUGH", "web/visits 3 1 0", " 0 0 0 all")
			if got := s.ask("SELECT string_agg(reason || ' ' || first || '-' || last, ',') FROM tallyman.satisfied"); got != "duplicate 1-1" {
				t.Errorf("satisfied: %s", got)
			}
		})
	}
}

// A batch that the topic has lost before it was read is missing, holds the
// dataset back, and is so no more once its source publishes it again; or once
// somebody gives it up.
func TestMissing(t *testing.T) {
	t.Parallel()
	s := newIncompleteSite(t, "18")
	first, second := file(t, "a.csv", visitsCSV), file(t, "b.ndjson", visitsNDJSON)
	for _, path := range []string{first, second} {
		s.must("push", "web/visits", "--manifest", s.manifest, path)
	}
	// Offsets: a batch, its end, the other batch, its end. The first one expires.
	if err := s.broker.DeleteRecords("web.visits", 0, 1); err != nil {
		t.Fatal(err)
	}
	s.load()
	out, err := s.process("wait", "web/visits", "--complete-through", "now", "--timeout", "10s")
	if failed := (*exec.ExitError)(nil); !errors.As(err, &failed) || failed.ExitCode() != exitFound {
		t.Fatalf("wait: %v\n%s", err, out)
	}
	contains(t, out, "web/visits is not complete through", "after 10s", "batch 1 of 1 is not loaded")
	contains(t, s.must("missing", "list"), "DATASET SOURCE STREAM MISSING BATCHES SINCE", "web/visits", " 1 1 20")
	if got := s.ask("SELECT count(*)::text FROM public.visits"); got != "2" {
		t.Errorf("%s rows, want 2", got)
	}
	s.must("push", "web/visits", "--manifest", s.manifest, first)
	s.must("wait", "web/visits", "--complete-through", "now", "--timeout", "60s")
	contains(t, s.must("missing", "list", "web/visits"), "nothing is missing")
	if got := s.ask("SELECT count(*)::text FROM public.visits"); got != "5" {
		t.Errorf("%s rows, want 5", got)
	}

	// And one that nobody has any more.
	third := file(t, "c.csv", "n,page\n9,lost\n")
	stream := s.lose(third)
	contains(t, s.must("missing", "accept", "web/visits", stream, "1-5", "--reason", "a test"), "1 batches are given up")
	contains(t, s.must("missing", "accept", "web/visits", stream, "1", "--reason", "a test"), "nothing of that is missing")
	s.must("wait", "web/visits", "--complete-through", "now", "--timeout", "60s")
	if got := s.ask("SELECT why || ' ' || (by_whom <> '')::text FROM tallyman.satisfied WHERE reason = 'accepted'"); got != "a test true" {
		t.Errorf("the record says %s", got)
	}
}

// lose announces a batch that is nowhere: the end of a push with its batch taken
// out of the warehouse again. It returns the stream.
func (s *incompleteSite) lose(path string) string {
	s.t.Helper()
	s.must("push", "web/visits", "--manifest", s.manifest, path)
	s.must("wait", "web/visits", "--complete-through", "now", "--timeout", "60s")
	stream := s.ask("SELECT incarnation::text FROM tallyman.loaded_elements ORDER BY loaded_at DESC LIMIT 1")
	s.ask("DELETE FROM tallyman.loaded_elements WHERE incarnation = '" + stream + "' RETURNING ''")
	s.ask("UPDATE tallyman.streams SET floor = 0 WHERE incarnation = '" + stream + "' RETURNING ''")
	contains(s.t, s.must("missing", "list"), "web/visits", stream, " 1 1 20")
	return stream
}

// A source that was killed between the journal and Kafka tells at its next
// opening how far it was, and what it had promised is loaded.
func TestKilledBeforePublishing(t *testing.T) {
	t.Parallel()
	s := newIncompleteSite(t, "18")
	s.load()
	env := append(slices.Clone(s.env), "KAFKA_BROKERS=127.0.0.1:1", "TALLYMAN_SERVE_MANIFESTS="+s.manifest)
	dead := startServe(t, env)
	url := "/v1/datasets/web/visits/batches"
	status, body := request(t, http.MethodPost, dead.url+url, visitsNDJSON, http.Header{"Content-Type": {"application/x-ndjson"}})
	if status != http.StatusAccepted {
		t.Fatalf("%d %s", status, body)
	}
	dead.kill()
	if got := s.ask("SELECT count(*)::text FROM tallyman.streams"); got != "0" {
		t.Errorf("%s streams are known", got)
	}
	startServe(t, append(slices.Clone(s.env), "TALLYMAN_SERVE_MANIFESTS="+s.manifest))
	s.must("wait", "web/visits", "--complete-through", "now", "--timeout", "60s")
	if got := s.ask("SELECT count(*)::text FROM public.visits"); got != "2" {
		t.Errorf("%s rows, want 2", got)
	}
	const streams = `SELECT string_agg(state || ' ' || announced || '/' || covered, ',' ORDER BY state) FROM tallyman.completeness`
	if got := s.ask(streams); got != "closed 1/1,open 0/0" {
		t.Errorf("streams: %s", got)
	}
}
