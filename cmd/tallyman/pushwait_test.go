package main

import (
	"errors"
	"os/exec"
	"testing"

	"tallyman/internal/sandbox/sandboxtest"
)

// push returns the command line that pushes files and waits for a loader.
func (s *incompleteSite) push(more ...string) []string {
	return append([]string{"push", "web/visits", "--manifest", s.manifest, "--wait-loaded"}, more...)
}

// A push that waits ends when the rows are in the table, whoever pushed them, and
// what it says of a loader that is away is what is not loaded.
func TestPushWaitLoaded(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := newIncompleteSite(t, version)
			csv, ndjson := file(t, "visits.csv", visitsCSV), file(t, "visits.ndjson", visitsNDJSON)
			out, err := s.process(s.push(csv, "--timeout", "1500ms")...)
			if failed := (*exec.ExitError)(nil); !errors.As(err, &failed) || failed.ExitCode() != exitFound {
				t.Fatalf("without a loader: %v\n%s", err, out)
			}
			contains(t, out, "3 rows in 1 batches published", "1 of 1 batches are published and not loaded after 1.5s", "is not loaded yet")
			s.load()
			for range 2 { // the second time as from another machine
				contains(t, s.must(s.push(csv, ndjson, "--timeout", "60s")...), "all of it is loaded: 2 batches")
				if n := s.ask("SELECT count(*)::text FROM public.visits"); n != "5" {
					t.Errorf("%s rows, want 5", n)
				}
				s.env = append(s.env, "HOME="+t.TempDir())
			}
			if got := decode[pushReport](t, succeed(t, s.env, s.push(csv, "-o", "json")...)); got.Loaded == nil || *got.Loaded != 1 {
				t.Errorf("%+v", got)
			}
			s.must("wait", "web/visits", "--complete-through", "now", "--timeout", "60s")
		})
	}
}

// What can't be loaded is named: at once if nothing can change that.
func TestPushWaitLoadedOfWhatIsRefused(t *testing.T) {
	t.Parallel()
	s := newIncompleteSite(t, "18")
	s.load()
	csv := file(t, "visits.csv", visitsCSV)
	s.must(s.push(csv)...)
	// Another text for NULL makes other rows under the same ids, elsewhere.
	s.env = append(s.env, "HOME="+t.TempDir())
	out, err := s.process(s.push(csv, "--null", "home")...)
	if failed := (*exec.ExitError)(nil); !errors.As(err, &failed) || failed.ExitCode() != exitFound {
		t.Fatalf("other rows: %v\n%s", err, out)
	}
	contains(t, out, "with other rows", "another text for NULL")
	s.ask("UPDATE tallyman.loaded_elements SET outcome = 'discarded' RETURNING ''")
	s.env = append(s.env, "HOME="+t.TempDir())
	out, err = s.process(s.push(csv)...)
	if failed := (*exec.ExitError)(nil); !errors.As(err, &failed) || failed.ExitCode() != exitFound {
		t.Fatalf("discarded: %v\n%s", err, out)
	}
	contains(t, out, "was discarded", "--again LABEL")
	fail(t, exitUsage, s.env, []string{"push", "web/visits", "--manifest", s.manifest, csv, "--timeout", "1s"}, "--timeout is for --wait-loaded")
	fail(t, exitFailed, s.env, []string{"push", "web/others", "--manifest", file(t, "o.yaml", "dataset: web/others\ncolumns: [{name: n, type: int64}]"), csv, "--wait-loaded"},
		"the warehouse has no dataset web/others")
}
