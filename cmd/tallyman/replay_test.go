package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"tallyman/internal/sandbox/sandboxtest"
)

// expire deletes everything that the topic holds.
func (s *incompleteSite) expire() {
	s.t.Helper()
	for _, p := range s.broker.Cluster().PartitionInfos("web.visits") {
		if err := s.broker.DeleteRecords("web.visits", p.Partition, p.HighWatermark); err != nil {
			s.t.Fatal(err)
		}
	}
}

// loseBatch takes a batch out of the warehouse again, as an older backup would,
// and returns its stream and number.
func (s *incompleteSite) loseBatch(where string) string {
	s.t.Helper()
	id := s.ask("DELETE FROM tallyman.loaded_elements WHERE " + where + " RETURNING incarnation || '/' || sequence || '/' || unique_id")
	part := strings.Split(id, "/")
	s.ask("UPDATE tallyman.streams SET floor = 0 WHERE incarnation = '" + part[0] + "' RETURNING ''")
	s.ask("WITH gone AS (DELETE FROM public.visits__r1 WHERE _batch_id = '" + part[2] + "' RETURNING 1) SELECT count(*)::text FROM gone")
	return part[0]
}

// Journals on this machine: what is missing is listed with what they have of it,
// published, and loaded; again, by two at once, and once everything is there, it
// does no harm.
func TestReplayFromJournals(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := newIncompleteSite(t, version)
			state := t.TempDir()
			s.env = append(s.env, "TALLYMAN_SOURCE_DIR="+state, "TALLYMAN_SOURCE_NAME=till")
			s.load()
			s.must("push", "web/visits", "--manifest", s.manifest, file(t, "a.csv", visitsCSV), file(t, "b.ndjson", visitsNDJSON))
			s.must("wait", "web/visits", "--complete-through", "now", "--timeout", "60s")
			contains(t, s.must("replay", "web/visits"), "nothing is missing")
			s.expire()
			stream := s.loseBatch("row_count = 3")

			contains(t, s.must("replay", "web/visits"), "SOURCE STREAM MISSING BATCHES SINCE ROWS BYTES FROM",
				"till "+stream+" 1 1 20", "the journal of till, when it runs", "1 batches are missing; --apply has them published again")
			out := s.must("replay", "web/visits", "--journal", state, "-o", "json")
			var report replayReport
			if err := json.Unmarshal([]byte(out), &report); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if report.Applied || report.Batches != 1 || len(report.Missing) != 1 || report.Missing[0].Found.Rows != 3 || report.Missing[0].Found.First[0].Rows != 3 {
				t.Errorf("%+v", report)
			}
			contains(t, s.must("replay", "web/visits", "--source", "other"), "nothing is missing")
			contains(t, s.must("replay", "web/visits", "--until", "1h"), "nothing is missing")
			if got := s.ask("SELECT count(*)::text FROM public.visits"); got != "2" {
				t.Errorf("%s rows before, want 2", got)
			}
			elsewhere := filepath.Join(t.TempDir(), "copy")
			if err := os.CopyFS(elsewhere, os.DirFS(state)); err != nil {
				t.Fatal(err)
			}
			var both sync.WaitGroup
			for _, dir := range []string{state, elsewhere} {
				both.Go(func() {
					if out, err := s.process("replay", "web/visits", "--journal", dir, "--apply", "--timeout", "60s"); err != nil {
						t.Errorf("%v\n%s", err, out)
					}
				})
			}
			both.Wait()
			contains(t, s.must("replay", "web/visits", "--journal", state, "--apply", "--timeout", "60s"), "nothing is missing")
			s.must("wait", "web/visits", "--complete-through", "now", "--timeout", "60s")
			if got := s.ask("SELECT count(*) || ' of ' || count(DISTINCT _batch_id) FROM public.visits"); got != "5 of 2" {
				t.Errorf("%s batches, want 5 of 2", got)
			}
		})
	}
}

// What can't be had is named, with the reason, and the rest is loaded.
func TestReplayOfWhatIsGone(t *testing.T) {
	t.Parallel()
	s := newIncompleteSite(t, "18")
	state := t.TempDir()
	s.env = append(s.env, "TALLYMAN_SOURCE_DIR="+state, "TALLYMAN_SOURCE_NAME=till")
	s.load()
	s.must("push", "web/visits", "--manifest", s.manifest, file(t, "a.csv", visitsCSV), file(t, "b.ndjson", visitsNDJSON))
	s.must("wait", "web/visits", "--complete-through", "now", "--timeout", "60s")
	s.expire()
	kept, gone := s.loseBatch("row_count = 3"), s.loseBatch("row_count = 2")
	journals, err := filepath.Glob(filepath.Join(state, "push", "*", "journal"))
	if err != nil || len(journals) != 2 {
		t.Fatalf("journals %v, %v", journals, err)
	}
	for _, j := range journals {
		if strings.Contains(s.must("source", "journal", "list", "--journal", j), gone) {
			if err := os.RemoveAll(filepath.Dir(j)); err != nil {
				t.Fatal(err)
			}
		}
	}
	out, err := s.process("replay", "web/visits", "--journal", state, "--apply", "--timeout", "60s")
	if failed := (*exec.ExitError)(nil); !errors.As(err, &failed) || failed.ExitCode() != exitFound {
		t.Fatalf("%v\n%s", err, out)
	}
	contains(t, out, "1 of 2 batches are accounted for now", "batches 1 of source till, stream "+gone, "nowhere: the journal of till has none of it")
	if strings.Contains(out, "stream "+kept) {
		t.Errorf("what was loaded is named:\n%s", out)
	}
	if got := s.ask("SELECT count(*)::text FROM public.visits"); got != "3" {
		t.Errorf("%s rows, want 3", got)
	}
	out, err = s.process("replay", "web/visits", "--apply", "--timeout", "1s") // nobody answers
	if failed := (*exec.ExitError)(nil); !errors.As(err, &failed) || failed.ExitCode() != exitFound {
		t.Fatalf("%v\n%s", err, out)
	}
	contains(t, out, "web/visits: not all is loaded:", "the journal of till, when it runs")
}

// A source that does nothing by itself yet is asked, by a request that waits for
// it; one that runs is, too.
func TestReplayByRequest(t *testing.T) {
	t.Parallel()
	s := newIncompleteSite(t, "18")
	s.env = append(s.env, "TALLYMAN_SERVE_REPLAY_GRACE=10m", "TALLYMAN_SERVE_MANIFESTS="+s.manifest)
	s.load()
	daemon := startServe(t, s.env)
	for n := range 3 {
		status, body := request(t, http.MethodPost, daemon.url+"/v1/datasets/web/visits/batches", fmt.Sprintf("{\"n\":%d}\n", n), http.Header{"Content-Type": {"application/x-ndjson"}})
		if status != http.StatusAccepted {
			t.Fatalf("%d %s", status, body)
		}
	}
	s.comesTo("SELECT count(*)::text FROM public.visits", "3")
	s.comesTo("SELECT announced::text FROM tallyman.streams", "3")
	s.expire()
	s.loseBatch("sequence = 2")
	contains(t, s.must("replay", "web/visits", "--apply", "--timeout", "60s"), "1 of 1 batches are accounted for now")
	if got := s.ask("SELECT string_agg(n::text, ',' ORDER BY n) FROM public.visits"); got != "0,1,2" {
		t.Errorf("rows %s", got)
	}

	// And while it is away.
	s.expire()
	s.loseBatch("sequence = 3")
	daemon.kill()
	asked := make(chan error, 1)
	go func() {
		out, err := s.process("replay", "web/visits", "--apply", "--timeout", "60s")
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
		asked <- err
	}()
	s.comesTo("SELECT count(*)::text FROM public.visits", "2")
	startServe(t, slices.Clone(s.env))
	if err := <-asked; err != nil {
		t.Error(err)
	}
	if got := s.ask("SELECT string_agg(n::text, ',' ORDER BY n) FROM public.visits"); got != "0,1,2" {
		t.Errorf("rows %s", got)
	}
}
