package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tallyman/internal/sandbox/sandboxtest"
)

// working is a loader process of the tests.
type working struct {
	s    *incompleteSite
	cmd  *exec.Cmd
	path string // of its log
}

// begin starts a loader that ends with the test.
func (s *incompleteSite) begin(args ...string) *working {
	s.t.Helper()
	w := &working{s: s, path: filepath.Join(s.t.TempDir(), "log"), cmd: exec.Command(os.Args[0], append([]string{"load"}, args...)...)}
	log, err := os.Create(w.path)
	if err != nil {
		s.t.Fatal(err)
	}
	w.cmd.Env = append([]string{asProgram}, append(s.env, "TALLYMAN_ADMIN_LISTEN=127.0.0.1:0")...)
	w.cmd.Stdout, w.cmd.Stderr = log, log
	if err := w.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = w.cmd.Process.Kill()
		_ = w.cmd.Wait()
		_ = log.Close()
		if s.t.Failed() {
			s.t.Logf("a loader's log:\n%.8000s", w.log())
		}
	})
	return w
}

func (w *working) log() string {
	text, err := os.ReadFile(w.path)
	if err != nil {
		w.s.t.Error(err)
	}
	return string(text)
}

// page asks the loader's admin listener, once it listens.
func (w *working) page(path string) (int, string) {
	w.s.t.Helper()
	var address string
	w.s.until("the address", func() bool {
		_, rest, found := strings.Cut(w.log(), `msg="metrics and probes" address=`)
		address, _, _ = strings.Cut(rest, "\n")
		return found
	})
	resp, err := http.Get("http://" + address + path)
	if err != nil {
		w.s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.s.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// until waits for something.
func (s *incompleteSite) until(what string, is func() bool) {
	s.t.Helper()
	for end := time.Now().Add(60 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("no %s within a minute", what)
		}
	}
}

// number asks the warehouse for a number.
func (s *incompleteSite) number(sql string) int64 {
	s.t.Helper()
	n, err := strconv.ParseInt(s.ask("SELECT ("+sql+")::text"), 10, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// becomes waits until a job is in a status.
func (s *incompleteSite) becomes(id int64, status string) {
	s.t.Helper()
	s.until(status, func() bool {
		return s.ask(fmt.Sprintf("SELECT status FROM tallyman.job_status WHERE job_id = %d", id)) == status
	})
}

// Loaders that all start at once are one job. Another option is a conflict. While
// it is stopped they are idle and say so, and once it is deployed again they load.
func TestLoadersAreOneJob(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := newIncompleteSite(t, version)
			var loaders []*working
			for range 5 {
				loaders = append(loaders, s.begin("web/visits"))
			}
			s.until("five members", func() bool { return s.number("SELECT count(*) FROM tallyman.job_members") == 5 })
			if got := s.ask("SELECT string_agg(type, ' ' ORDER BY event_id) FROM tallyman.job_events"); got != "scheduled running" {
				t.Errorf("events: %s", got)
			}
			id := s.number("SELECT job_id FROM tallyman.jobs")
			fail(t, exitFailed, s.env, []string{"job", "deploy", "load", "web/visits", "--option", "parallelism=2"},
				fmt.Sprintf("job %d is running with other options: parallelism is 0, not 2", id), "--replace")
			s.must("push", "web/visits", "--manifest", s.manifest, file(t, "a.csv", visitsCSV), "--wait-loaded")
			contains(t, s.must("job", "stop", fmt.Sprint(id), "--wait", "30s"), "is stopped")
			for _, l := range loaders {
				s.until("an idle loader", func() bool {
					status, text := l.page("/readyz")
					return status == http.StatusOK && strings.Contains(text, fmt.Sprintf("web/visits: load job %d is stopped", id))
				})
				_, metrics := l.page("/metrics")
				for _, want := range []string{`tallyman_job_status{dataset="web/visits",kind="load",revision="1",status="stopped"} 1`, `tallyman_job_member{dataset="web/visits",kind="load",revision="1"} 0`} {
					if !strings.Contains(metrics, want) {
						t.Errorf("no %s in /metrics", want)
					}
				}
			}
			s.must("push", "web/visits", "--manifest", s.manifest, file(t, "b.ndjson", visitsNDJSON))
			before := s.ask("SELECT count(*) || ' ' || sum(next_offset) FROM tallyman.positions")
			contains(t, s.must("job", "deploy", "load", "web/visits", "--option", "parallelism=3"), "scheduled")
			s.must("wait", "web/visits", "--complete-through", "now", "--timeout", "60s")
			if after := s.ask("SELECT count(*) || ' ' || sum(next_offset) FROM tallyman.positions"); after == before {
				t.Errorf("the positions are where they were: %s", before)
			}
			if n := s.number("SELECT count(*) FROM tallyman.job_members"); n != 3 {
				t.Errorf("%d members, want 3", n)
			}
			if era := s.number("SELECT max(era) FROM tallyman.positions"); era < 2 {
				t.Errorf("era %d: what members of the first epoch have in hand is not refused", era)
			}
			s.must("verify", "web/visits")
		})
	}
}

// A load with an end completes its job, and the process ends with it.
func TestLoadToAnEnd(t *testing.T) {
	t.Parallel()
	s := newIncompleteSite(t, "18")
	s.must("push", "web/visits", "--manifest", s.manifest, file(t, "a.csv", visitsCSV))
	s.must("load", "web/visits", "--end", "latest")
	var list struct {
		Jobs []struct{ Status string }
	}
	if err := json.Unmarshal([]byte(s.must("job", "list", "-o", "json")), &list); err != nil || len(list.Jobs) != 1 || list.Jobs[0].Status != "completed" {
		t.Errorf("%+v, %v", list, err)
	}
	if n := s.number("SELECT count(*) FROM public.visits"); n != 3 {
		t.Errorf("%d rows, want 3", n)
	}
	// It is scheduled again, and ends also where there is nothing to load, and with a time.
	s.must("load", "web/visits", "--end", time.Now().Add(2*time.Second).Format(time.RFC3339))
}

// frozenRows is how many rows a frozen loader was to load: of 2 KiB, so that a COPY
// is longer than what sockets hold.
const frozenRows = 50_000

// frozen returns a loader that was stopped as it stood in the middle of a COPY, which
// no time-out of the server ends.
func (s *incompleteSite) frozen() *working {
	s.t.Helper()
	var csv strings.Builder
	csv.WriteString("page,n\n")
	for n := range frozenRows {
		fmt.Fprintf(&csv, "%s,%d\n", strings.Repeat("p", 2<<10), n)
	}
	s.must("push", "web/visits", "--manifest", s.manifest, file(s.t, "large.csv", csv.String()))
	l := s.begin("web/visits")
	caught := func() bool {
		_ = l.cmd.Process.Signal(syscall.SIGSTOP)
		// What PostgreSQL still has to do, it does.
		for range 5 {
			if s.number(`SELECT count(*) FROM pg_stat_progress_copy JOIN pg_stat_activity USING (pid) WHERE wait_event = 'ClientRead'`) > 0 {
				return true
			}
		}
		_ = l.cmd.Process.Signal(syscall.SIGCONT)
		if s.number("SELECT count(*) FROM public.visits") == frozenRows {
			s.t.Fatal("everything was loaded before anything was caught")
		}
		return false
	}
	for !caught() {
		time.Sleep(2 * time.Millisecond)
	}
	return l
}

// A loader that is frozen in the middle of a COPY holds up neither a stop nor what
// comes after; when it goes on, it changes nothing any more.
func TestFrozenLoader(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := newIncompleteSite(t, version)
			l := s.frozen()
			id := s.number("SELECT job_id FROM tallyman.jobs")
			contains(t, s.must("job", "stop", fmt.Sprint(id), "--wait", "60s"), "is stopped")
			const state = `SELECT (SELECT count(*) FROM public.visits) || ' ' || (SELECT count(*) FROM tallyman.loaded_elements) || ' ' || (SELECT string_agg(next_offset || '/' || era, ',') FROM tallyman.positions)`
			before := s.ask(state)
			_ = l.cmd.Process.Signal(syscall.SIGCONT)
			s.until("word of it", func() bool {
				return strings.Contains(l.log(), "left a job") || strings.Contains(l.log(), "lease ends by itself")
			})
			if after := s.ask(state); after != before {
				t.Errorf("rows, batches and positions are %s, and were %s", after, before)
			}
			// In the next epoch it is a member like others.
			s.must("job", "deploy", "load", "web/visits")
			s.must("wait", "web/visits", "--complete-through", "now", "--timeout", "60s")
			if n := s.number("SELECT count(*) FROM public.visits"); n != frozenRows {
				t.Errorf("%d rows, want %d", n, frozenRows)
			}
			s.must("verify", "web/visits")
		})
	}
}

// So it is over a stop, a deployment, a resync and an activation, by another loader:
// whatever the frozen one still does, both tables have each row once.
func TestFrozenLoaderOverAnActivation(t *testing.T) {
	t.Parallel()
	s := newIncompleteSite(t, "18")
	l := s.frozen()
	s.must("job", "stop", fmt.Sprint(s.number("SELECT job_id FROM tallyman.jobs")), "--wait", "60s")
	s.begin("web/visits")
	contains(t, s.must("resync", "web/visits", "--wait", "60s"), "revision 2 of web/visits is active")
	s.must("wait", "web/visits", "--complete-through", "now", "--timeout", "60s")
	_ = l.cmd.Process.Signal(syscall.SIGCONT)
	s.until("word of it", func() bool {
		return strings.Contains(l.log(), "left a job") || strings.Contains(l.log(), "lease ends by itself")
	})
	s.until("all rows in both", func() bool {
		return s.number("SELECT count(*) FROM public.visits__r1") == frozenRows && s.number("SELECT count(*) FROM public.visits") == frozenRows
	})
	for _, table := range []string{"visits__r1", "visits__r2"} {
		if n := s.number("SELECT count(DISTINCT n) FROM public." + table); n != frozenRows {
			t.Errorf("%d different rows in %s", n, table)
		}
	}
	s.must("verify", "web/visits")
	s.must("revision", "activate", "web/visits", "1", "--wait", "60s")
	s.must("verify", "web/visits")
}

// A loader that the warehouse breaks off with while it begins its job waits for
// the warehouse and begins again; it ends for no outage.
func TestLoaderOutlivesAnOutageAtItsStart(t *testing.T) {
	t.Parallel()
	s := newIncompleteSite(t, "18")
	s.must("push", "web/visits", "--manifest", s.manifest, file(t, "a.csv", visitsCSV))
	s.must("job", "deploy", "load", "web/visits")
	admin, err := pgx.Connect(t.Context(), s.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = admin.Close(context.Background()) }()
	if _, err := admin.Exec(t.Context(), "BEGIN; LOCK tallyman.datasets"); err != nil {
		t.Fatal(err)
	}
	l := s.begin("web/visits")
	s.until("loader that reads the manifests", func() bool {
		return s.number(`SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock') AS x`) > 0
	})
	s.until("word of it", func() bool { return strings.Contains(l.log(), "work on a job ended with an error") })
	if _, err := admin.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	s.must("wait", "web/visits", "--complete-through", "now", "--timeout", "60s")
	s.must("verify", "web/visits")
}

// What can't be meant is refused, by its status, and nothing is written.
func TestJobsRefused(t *testing.T) {
	t.Parallel()
	s := newIncompleteSite(t, "18")
	s.must("job", "deploy", "load", "web/visits")
	s.must("revision", "create", "web/visits", "--table", "anew")
	const state = `SELECT (SELECT count(*) FROM tallyman.jobs) || ' ' || (SELECT count(*) FROM tallyman.job_events) || ' ' || (SELECT string_agg(state, ',' ORDER BY revision_id) FROM tallyman.revisions)`
	before := s.ask(state)
	for _, tc := range []struct {
		status int
		args   string
		says   string
	}{
		{exitUsage, "job deploy mend web/visits", `unknown kind of job "mend": want load, replay, resync`},
		{exitUsage, "job deploy load visits", "namespace/name"},
		{exitFailed, "job deploy load web/other", "no dataset web/other; it has web/visits"},
		{exitFailed, "job deploy resync web/other", "no dataset web/other"},
		{exitFailed, "job deploy load web/visits --revision 7", "no revision 7; it has 1, 2"},
		{exitUsage, "job deploy load web/visits --option speed=1", `unknown field "speed"`},
		{exitUsage, "job deploy load web/visits --option parallelism=-1", "parallelism is -1"},
		{exitUsage, "job deploy load web/visits --option parallelism=1 --option parallelism=2", "given twice"},
		{exitUsage, "job deploy load web/visits --option parallelism", "want NAME=VALUE"},
		{exitUsage, "job deploy load web/visits --option end=soon", "end is neither a time"},
		{exitFailed, "job deploy load web/visits --option parallelism=2", "parallelism is 0, not 2"},
		{exitUsage, "job show --key short", "neither 64 hexadecimal digits"},
		{exitUsage, "job show --key " + strings.Repeat("a", 65), "neither 64 hexadecimal digits"},
		{exitUsage, "job show", "want a job's id, or --key"},
		{exitFailed, "job show --key " + strings.Repeat("0", 64), "there is no such job: with key 000"},
		{exitUsage, "job stop one", "is no job's id"},
		{exitFailed, "job stop 77", "there is no such job: 77"},
		{exitFailed, "job events 77", "there is no such job: 77"},
		{exitFailed, "job retry 77", "there is no such job: 77"},
		{exitFailed, "job delete 1", "the job is active; stop it first"},
		{exitFailed, "revision create web/visits --table anew", "a revision of web/visits with the table"},
		{exitFailed, "revision create web/other", "no dataset web/other"},
		{exitFailed, "revision activate web/other 2", "revision 2 belongs to web/visits"},
		{exitFailed, "revision activate web/visits 9", "there is no revision 9"},
		{exitUsage, "revision activate web/visits two", "is no revision's id"},
		{exitUsage, "revision activate web/visits 2 --wait 0s", "--wait has to be positive"},
		{exitFailed, "revision drop web/visits 1", "revision 1 is the active one"},
		{exitFailed, "revision copy web/visits 9", "there is no revision 9"},
		{exitFailed, "load web/visits@" + strings.Repeat("0", 64), "takes no rows by manifest"},
		{exitFailed, "load web/visits --parallelism 3", "with --replace it is stopped"},
		{exitUsage, "load --end latest", "name its dataset"},
		{exitUsage, "load web/visits --end 5m", "every replica would mean another"},
		{exitFailed, "resync web/other", "no dataset web/other"},
	} {
		r := invoke(t, s.env, strings.Fields(tc.args)...)
		if r.status != tc.status || !strings.Contains(r.stderr, tc.says) {
			t.Errorf("tallyman %s ended with %d, want %d and %q:\n%s%s", tc.args, r.status, tc.status, tc.says, r.stdout, r.stderr)
		}
	}
	if after := s.ask(state); after != before {
		t.Errorf("jobs, events and revisions are %s, and were %s", after, before)
	}
}
