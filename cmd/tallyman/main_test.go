package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tallyman/internal/sandbox"
	"tallyman/internal/sandbox/sandboxtest"
)

// asProgram in the environment makes the test binary the program itself, for
// commands that start further processes of it.
const asProgram = "BE_TALLYMAN=1"

func TestMain(m *testing.M) {
	if name, value, _ := strings.Cut(asProgram, "="); os.Getenv(name) == value {
		main()
	}
	sandboxtest.Main(m)
}

// result is how a command line ended.
type result struct {
	status         int
	stdout, stderr string
}

// invoke executes one command line as main does, in an environment of its own.
func invoke(t *testing.T, env []string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	p := program{stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr, env: env}
	status := p.run(t.Context(), args)
	return result{status, stdout.String(), stderr.String()}
}

// succeed executes a command line that must end well, and returns what it printed.
func succeed(t *testing.T, env []string, args ...string) string {
	t.Helper()
	r := invoke(t, env, args...)
	if r.status != exitDone || r.stderr != "" {
		t.Fatalf("tallyman %s ended with %d\n%s%s", strings.Join(args, " "), r.status, r.stdout, r.stderr)
	}
	return r.stdout
}

// fail executes a command line that must end with a status, having printed
// nothing but a message that says every one of the things.
func fail(t *testing.T, want int, env []string, args []string, says ...string) {
	t.Helper()
	r := invoke(t, env, args...)
	line := "tallyman " + strings.Join(args, " ")
	if r.status != want || r.stdout != "" {
		t.Errorf("%s ended with %d, want %d\n%s%s", line, r.status, want, r.stdout, r.stderr)
	}
	for _, s := range says {
		if !strings.Contains(r.stderr, s) {
			t.Errorf("%s: the message doesn't say %q:\n%s", line, s, r.stderr)
		}
	}
}

// site is a warehouse and a broker of the test's own, and the environment that
// names them.
type site struct {
	dsn    string
	broker *sandbox.Broker
	env    []string
}

func newSite(t *testing.T, version string) *site {
	t.Helper()
	s := &site{dsn: sandboxtest.Postgres(t, version), broker: sandboxtest.Broker(t, sandbox.BrokerConfig{})}
	s.env = []string{"DATABASE_URL=" + s.dsn, "KAFKA_BROKERS=" + s.broker.Addr(), "HOME=" + t.TempDir(), "TALLYMAN_ADMIN_LISTEN=off"}
	return s
}

// file writes a file of the test's own and returns its path.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
