package torture

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tallyman/internal/sandbox/sandboxtest"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "what random choices are made from; 0: another for each run")
	killsFlag = flag.Int("kills", 20, "how many loaders are killed")
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

// random returns a generator whose seed is printed.
func random(t *testing.T) *rand.Rand {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("repeat this with: go test ./internal/torture -run '^%s$' -seed %d", t.Name(), seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// program is the program under test, built once.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "tallyman-torture-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "tallyman")
	if out, err := exec.Command("go", "build", "-o", path, "tallyman/cmd/tallyman").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
})

// site is a cluster and a warehouse, and the environment that names them.
type site struct {
	t      *testing.T
	binary string
	dir    string
	logDir string // kept by go test -artifacts
	dsn    string
	env    []string
	conn   *pgx.Conn
}

// newSite starts Apache Kafka and PostgreSQL and prepares the dataset.
func newSite(t *testing.T, manifest string) *site {
	t.Helper()
	s := newSiteAt(t, sandboxtest.Kafka(t).Addr(), sandboxtest.Postgres(t, "18"), manifest)
	s.connect()
	return s
}

// newSiteAt prepares the dataset on servers that are there.
func newSiteAt(t *testing.T, kafka, dsn, manifest string) *site {
	t.Helper()
	binary, err := program()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &site{t: t, binary: binary, dir: dir, logDir: t.ArtifactDir(), dsn: dsn}
	s.env = append(os.Environ(),
		"DATABASE_URL="+s.dsn, "KAFKA_BROKERS="+kafka,
		"TALLYMAN_SOURCE_DIR="+filepath.Join(dir, "state"), "TALLYMAN_ADMIN_LISTEN=off")
	if err := os.WriteFile(s.manifest(), []byte(manifest), 0o644); err != nil {
		t.Fatal(err)
	}
	s.run("init")
	s.apply()
	return s
}

// connect connects for the test's own statements.
func (s *site) connect() {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), s.dsn)
	if err != nil {
		s.t.Fatal(err)
	}
	s.conn = conn
	s.t.Cleanup(func() { _ = conn.Close(context.Background()) })
}

// apply makes the dataset's table and topics, as far as they are not there.
func (s *site) apply() {
	s.t.Helper()
	s.run("dataset", "apply", s.manifest(), "--partitions", "4", "--replication-factor", "1")
}

func (s *site) manifest() string { return filepath.Join(s.dir, "manifest.yaml") }

// try runs a command to its end and returns what it printed.
func (s *site) try(args ...string) (string, error) {
	cmd := exec.CommandContext(s.t.Context(), s.binary, args...)
	cmd.Env = s.env
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("tallyman %s: %w\n%s%s", strings.Join(args, " "), err, out.String(), problems.String())
	}
	return out.String(), nil
}

// run runs a command that must end well.
func (s *site) run(args ...string) string {
	s.t.Helper()
	out, err := s.try(args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// push pushes files one after another, in the background; the channel has the error.
func (s *site) push(dataset string, files ...string) <-chan error {
	done := make(chan error, 1)
	go func() {
		for _, file := range files {
			if _, err := s.try("push", dataset, file, "--manifest", s.manifest()); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	return done
}

// exec executes a statement.
func (s *site) exec(sql string, args ...any) {
	s.t.Helper()
	if _, err := s.conn.Exec(s.t.Context(), sql, args...); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
}

// count returns the one number that a statement asks for.
func (s *site) count(sql string) int64 {
	s.t.Helper()
	var n int64
	if err := s.conn.QueryRow(s.t.Context(), sql).Scan(&n); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// await waits until a number is at least so large. It ends the test when
// nothing moves for two minutes.
func (s *site) await(sql string, want int64) {
	s.t.Helper()
	last, moved := int64(-1), time.Now()
	for tick := time.NewTicker(5 * time.Millisecond); ; <-tick.C {
		n := s.count(sql)
		if n >= want {
			tick.Stop()
			return
		}
		if n != last {
			last, moved = n, time.Now()
		}
		if time.Since(moved) > 2*time.Minute {
			s.t.Fatalf("%s: %d, want %d, and nothing has moved for two minutes", sql, n, want)
		}
	}
}

// loader is a running load.
type loader struct {
	site *site
	name string
	cmd  *exec.Cmd
	log  string
}

// load starts a loader; dataset empty: of all active jobs.
func (s *site) load(name, dataset string) *loader {
	s.t.Helper()
	l := &loader{site: s, name: name, log: filepath.Join(s.logDir, name+".log")}
	log, err := os.OpenFile(l.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	args := []string{"load"}
	if dataset != "" {
		args = append(args, dataset)
	}
	l.cmd = exec.Command(s.binary, args...)
	l.cmd.Env = append(s.env, "TALLYMAN_LOADER_MEMBER="+name)
	l.cmd.Stdout, l.cmd.Stderr = log, log
	if err := l.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = l.cmd.Process.Kill()
		_ = l.cmd.Wait()
		if s.t.Failed() {
			text, _ := os.ReadFile(l.log)
			s.t.Logf("log of %s:\n%s", name, text[max(0, len(text)-4000):])
		}
	})
	return l
}

// kill ends the loader with SIGKILL.
func (l *loader) kill() {
	l.site.t.Helper()
	if err := l.cmd.Process.Kill(); err != nil {
		l.site.t.Fatalf("kill %s: %v", l.name, err)
	}
	_ = l.cmd.Wait()
}

// drain ends the loader with SIGTERM: in ten seconds, and well.
func (l *loader) drain() {
	l.site.t.Helper()
	began := time.Now()
	if err := l.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		l.site.t.Fatalf("end %s: %v", l.name, err)
	}
	err := l.cmd.Wait()
	if took := time.Since(began); err != nil || took > 10*time.Second {
		l.site.t.Errorf("%s took %v to end: %v", l.name, took, err)
	}
}
