package main

import (
	"encoding/json"
	"errors"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyman/internal/sandbox/sandboxtest"
)

// incomplete waits for a dataset in vain and returns what is said of it.
func (s *incompleteSite) incomplete() string {
	s.t.Helper()
	out, err := s.process("wait", "web/visits", "--complete-through", "now", "--timeout", "3s")
	if failed := (*exec.ExitError)(nil); !errors.As(err, &failed) || failed.ExitCode() != exitFound {
		s.t.Fatalf("wait: %v\n%s", err, out)
	}
	return out
}

// A daemon that was killed holds its dataset back until somebody says that it
// will not come again.
func TestRetire(t *testing.T) {
	t.Parallel()
	s := newIncompleteSite(t, "18")
	s.load()
	dead := startServe(t, append(slices.Clone(s.env), "TALLYMAN_SERVE_MANIFESTS="+s.manifest, "TALLYMAN_SOURCE_NAME=eu-west-3"))
	s.comesTo("SELECT count(*)::text FROM tallyman.streams WHERE announced_at > '-infinity'", "1")
	dead.kill()
	contains(t, s.incomplete(), "web/visits is not complete through", "after 3s (known sources):", "source eu-west-3, stream ", "it was last heard of at")
	retire := []string{"source", "retire", "web/visits", "--source", "eu-west-3", "--reason", "disk lost"}
	contains(t, s.must(retire...), "STREAM WAS ANNOUNCED MISSING LAST HEARD NOW", " open 0 0 20", "lives: name it with --incarnation")
	s.ask("UPDATE tallyman.streams SET seen_at = now() - interval '61 s' RETURNING ''")
	var said struct {
		Dataset, Source string
		Streams         []retiredJSON
	}
	if err := json.Unmarshal([]byte(s.must(append(retire, "-o", "json")...)), &said); err != nil || len(said.Streams) != 1 || !said.Streams[0].Retired || said.Source != "eu-west-3" {
		t.Errorf("%+v, %v", said, err)
	}
	s.must("wait", "web/visits", "--complete-through", "now", "--timeout", "60s")
	if got := s.ask("SELECT state || ' ' || retired_why || ' ' || (retired_by <> '')::text || ' ' || (retired_at <= now())::text FROM tallyman.streams"); got != "retired disk lost true true" {
		t.Errorf("the record says %s", got)
	}
	contains(t, s.must(retire...), "no stream of source eu-west-3 holds web/visits back")
	fail(t, exitFailed, s.env, []string{"source", "retire", "web/visits", "--source", "eu-west", "--reason", "x"}, `web/visits: no such stream of source "eu-west": there are streams of ["eu-west-3"]`)
	fail(t, exitUsage, s.env, []string{"source", "retire", "web/visits", "--incarnation", "7"}, "--source is required", "--reason is required", `--incarnation "7" is no stream`)
}

// comesTo waits until one row of the warehouse says something.
func (s *incompleteSite) comesTo(sql, want string) {
	s.t.Helper()
	for deadline := time.Now().Add(time.Minute); s.ask(sql) != want; {
		if time.Now().After(deadline) {
			s.t.Fatalf("%s: %s, want %s", sql, s.ask(sql), want)
		}
	}
}

// A dataset is complete as far as the sources are that its manifest expects.
func TestExpectedSources(t *testing.T) {
	t.Parallel()
	s := newIncompleteSite(t, "15")
	s.load()
	s.must("push", "web/visits", "--manifest", s.manifest, file(t, "visits.csv", visitsCSV))
	s.must("wait", "web/visits", "--complete-through", "now", "--timeout", "60s")
	contains(t, s.must("status", "web/visits"), "complete through all (known sources)")
	expecting := file(t, "expecting.yaml", visits+"sources: [{name: nightly}, {name: eu-west-3, continuous: true}]\n")
	contains(t, s.must("dataset", "apply", expecting), "takes rows by a further manifest", "sources are others")
	contains(t, s.incomplete(), "(the 2 sources expected):", "source eu-west-3: the manifest expects it, and it was never heard of", "source nightly: the manifest expects it")
	contains(t, s.must("status", "web/visits"), "complete through ? (the 2 sources expected)")

	s.env = append(s.env, "TALLYMAN_SOURCE_NAME=eu-west-3")
	s.must("push", "web/visits", "--manifest", expecting, file(t, "more.csv", "n,page\n9,more\n"))
	s.env = append(s.env, "TALLYMAN_SOURCE_NAME=nightly")
	s.must("push", "web/visits", "--manifest", expecting, file(t, "most.csv", "n,page\n10,most\n"))
	out := s.incomplete()
	contains(t, out, "source eu-west-3: it is continuous and has no open stream; its last announcement was at 20")
	if strings.Contains(out, "nightly") {
		t.Errorf("a source that ended well is waited for:\n%s", out)
	}
	s.must("dataset", "apply", s.manifest)
	s.must("wait", "web/visits", "--complete-through", "now", "--timeout", "60s")
	if got := s.ask("SELECT count(*)::text FROM public.visits"); got != "5" {
		t.Errorf("%s rows, want 5", got)
	}
}

// What the ledger has forgotten does not load a second time, however often its
// topic is read.
func TestRetention(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := newIncompleteSite(t, version)
			s.load()
			d := startServe(t, append(slices.Clone(s.env), "TALLYMAN_SERVE_MANIFESTS="+s.manifest))
			old := time.Now().UTC().AddDate(0, 0, -100)
			status, body := request(t, http.MethodPost, d.url+"/v1/datasets/web/visits/batches", visitsNDJSON, http.Header{
				"Content-Type": {"application/x-ndjson"}, "Idempotency-Key": {uuid.NewString()}, "Tallyman-Batch-Time": {old.Format(time.RFC3339)}})
			if status != http.StatusAccepted {
				t.Fatalf("%d %s", status, body)
			}
			s.comesTo("SELECT count(*)::text FROM public.visits", "2")
			fail(t, exitUsage, s.env, []string{"init", "--retention", "9d"}, "--retention: a retention of 9d is too short")
			contains(t, s.must("init"), "up to date", "made 0 partitions")
			contains(t, s.must("init", "--retention", "30d"), "dropped 0 partitions of the ledger; it takes batches from 20", "(retention 30d)")
			contains(t, s.must("init"), "dropped 0 partitions of the ledger; it takes batches from 20", "(retention 30d)")
			contains(t, s.must("status"), "the ledger takes batches from 20", " up to 20")
			if got := s.ask("SELECT (SELECT count(*) FROM tallyman.loaded_elements) || ' ' || (SELECT count(*) FROM tallyman.v4_ids)"); got != "0 0" {
				t.Errorf("the ledger has %s", got)
			}
			end := s.ask("SELECT next_offset::text FROM tallyman.positions")
			s.must("rewind", "web/visits")
			s.comesTo("SELECT (next_offset >= "+end+" AND era = 2)::text FROM tallyman.positions", "true")
			if got := s.ask("SELECT (SELECT count(*) FROM public.visits) || ' ' || (SELECT count(*) FROM tallyman.quarantine)"); got != "2 0" {
				t.Errorf("rows and quarantine: %s", got)
			}
			contains(t, s.must("missing", "list"), "nothing is missing")
		})
	}
}
