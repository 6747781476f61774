package main

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// served is a daemon in a process of its own.
type served struct {
	t   *testing.T
	url string
	cmd *exec.Cmd

	mu  sync.Mutex
	log strings.Builder
}

var (
	takingRows = regexp.MustCompile(`msg="taking rows" url=(\S+)`)
	adminPage  = regexp.MustCompile(`msg="metrics and probes" address=(\S+)`)
)

// tryServe starts a daemon and returns it once it takes rows; or its log, if it ended.
func tryServe(t *testing.T, env []string, args ...string) (*served, string) {
	t.Helper()
	s := &served{t: t, cmd: exec.Command(os.Args[0], append([]string{"source", "serve"}, args...)...)}
	s.cmd.Env = append([]string{asProgram, "TALLYMAN_SERVE_LISTEN=127.0.0.1:0"}, env...)
	out, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		if t.Failed() {
			t.Logf("log of the daemon:\n%.4000s", s.says())
		}
	})
	up := make(chan string, 1)
	go func() {
		defer close(up)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			s.mu.Lock()
			s.log.WriteString(lines.Text() + "\n")
			s.mu.Unlock()
			if found := takingRows.FindStringSubmatch(lines.Text()); found != nil {
				up <- found[1]
			}
		}
	}()
	select {
	case url, ok := <-up:
		if !ok {
			return nil, s.says()
		}
		s.url = url
		return s, ""
	case <-time.After(stall):
		t.Fatalf("the daemon does not take rows\n%s", s.says())
		return nil, ""
	}
}

// startServe starts a daemon that must start.
func startServe(t *testing.T, env []string, args ...string) *served {
	t.Helper()
	s, log := tryServe(t, env, args...)
	if s == nil {
		t.Fatalf("the daemon ended\n%s", log)
	}
	return s
}

// says returns the daemon's log.
func (s *served) says() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// kill ends the daemon with SIGKILL.
func (s *served) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// drain ends the daemon with SIGTERM: in ten seconds, and well.
func (s *served) drain() {
	s.t.Helper()
	began := time.Now()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Wait(); err != nil || time.Since(began) > 10*time.Second {
		s.t.Errorf("the daemon took %v to end: %v\n%s", time.Since(began), err, s.says())
	}
}

// get returns what a page of the admin listener says.
func (s *served) get(path string) string {
	s.t.Helper()
	found := adminPage.FindStringSubmatch(s.says())
	if found == nil {
		s.t.Fatalf("no admin listener\n%s", s.says())
	}
	_, body := request(s.t, http.MethodGet, "http://"+found[1]+path, "", nil)
	return body
}

// request makes a request that has to be answered.
func request(t *testing.T, method, url, body string, header http.Header) (status int, text string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = header
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	all, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(all)
}
