package sandbox

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// PostgresConfig says which server to run and where.
type PostgresConfig struct {
	// Version is the major version to fetch and run: "15", "16", "17" or "18".
	// Defaults to an installed server of whatever version, or "18" without one.
	Version string
	// Dir holds the data directory and the log; a data directory found there
	// is used as it is. Defaults to a temporary directory that Close removes.
	Dir string
	// CacheDir keeps fetched binaries. Defaults to the user's cache
	// directory; for root, one beside the temporary directories.
	CacheDir string
	// Settings are entries of postgresql.conf. Defaults to PostgreSQL's own.
	Settings map[string]string
	// Progress gets a line when binaries are fetched. Defaults to nowhere.
	Progress io.Writer
	// Logger tells what is started and stopped. Defaults to none.
	Logger *slog.Logger
}

// Postgres is a running, or stopped, PostgreSQL server. Its superuser is
// postgres, without a password, from 127.0.0.1.
type Postgres struct {
	config    PostgresConfig
	binDir    string
	dir       string
	temporary bool
	port      int
	account   *account

	mu     sync.Mutex
	server *process // nil before the first start
}

// How long a server may take to stop when asked to be fast about it, before it
// is told to stop at once.
const stopPatience = 20 * time.Second

// StartPostgres makes a data directory, unless Dir has one, and runs a server
// on it. It returns once connections are accepted; ctx limits only that.
func StartPostgres(ctx context.Context, c PostgresConfig) (*Postgres, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	bin, err := postgresBinaries(ctx, c)
	if err != nil {
		return nil, err
	}
	p := &Postgres{config: c, binDir: bin, dir: c.Dir}
	if p.account, err = serverAccount(); err != nil {
		return nil, err
	}
	if p.dir == "" {
		p.temporary = true
		p.dir, err = MkdirTemp("tallyman-postgres-")
	} else {
		err = os.MkdirAll(p.dir, 0o755)
	}
	if err != nil {
		return nil, fmt.Errorf("make directory for PostgreSQL: %w", err)
	}
	if err := p.initAndStart(ctx); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *Postgres) initAndStart(ctx context.Context) error {
	if err := p.initdb(ctx); err != nil {
		return err
	}
	const attempts = 5 // another process may take the free port before the server does
	for attempt := 1; ; attempt++ {
		port, err := freePort()
		if err != nil {
			return err
		}
		p.port = port
		if err = p.Start(ctx); err == nil || attempt == attempts || !strings.Contains(err.Error(), "Address already in use") {
			return err
		}
	}
}

// DSN returns the connection string of a database, as a URL.
func (p *Postgres) DSN(database string) string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s?sslmode=disable", p.port, database)
}

// Port returns the port on 127.0.0.1; it stays the same over restarts.
func (p *Postgres) Port() int { return p.port }

// BinDir returns the directory of the server's programs; fetched ones are
// initdb, pg_ctl and postgres only.
func (p *Postgres) BinDir() string { return p.binDir }

// Dir returns the directory that holds the data directory, "data", and the
// server's log, "postgres.log".
func (p *Postgres) Dir() string { return p.dir }

// Pid returns the postmaster's process id, or 0 when the server is stopped.
func (p *Postgres) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server == nil || !p.server.running() {
		return 0
	}
	return p.server.pid()
}

func (p *Postgres) dataDir() string { return filepath.Join(p.dir, "data") }
func (p *Postgres) logPath() string { return filepath.Join(p.dir, "postgres.log") }

// initdb makes the data directory unless there is one.
func (p *Postgres) initdb(ctx context.Context) error {
	data := p.dataDir()
	if _, err := os.Stat(filepath.Join(data, "PG_VERSION")); err == nil {
		return nil
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	if p.account != nil {
		for _, dir := range []string{p.dir, p.binDir} {
			if err := checkPassable(dir); err != nil {
				return err
			}
		}
		if err := os.Chown(data, int(p.account.Uid), int(p.account.Gid)); err != nil {
			return fmt.Errorf("hand over data directory: %w", err)
		}
	}
	begun := time.Now()
	cmd := exec.CommandContext(ctx, filepath.Join(p.binDir, "initdb"), "-D", data, "-U", "postgres",
		"--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync", "--no-instructions")
	p.prepare(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	p.config.Logger.Debug("made data directory", "dir", data, "took", time.Since(begun))
	return nil
}

// prepare sets the account and surroundings of one of the server's programs.
func (p *Postgres) prepare(cmd *exec.Cmd) {
	cmd.Dir = p.dir
	// Nothing else: PGDATA and the like are for other servers, passwords for nobody.
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if slices.Contains([]string{"PATH", "HOME", "TMPDIR", "TZ", "LANG", "LD_LIBRARY_PATH"}, name) || strings.HasPrefix(name, "LC_") {
			cmd.Env = append(cmd.Env, entry)
		}
	}
	if p.account != nil {
		runAs(cmd, p.account)
	}
}

// Start runs the server again after Stop or Crash, on the same data directory
// and port. It returns once connections are accepted, so after recovery.
func (p *Postgres) Start(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server != nil && p.server.running() {
		return errors.New("start PostgreSQL: it is running")
	}
	log, err := os.OpenFile(p.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open PostgreSQL's log: %w", err)
	}
	defer log.Close()
	args := []string{
		"-D", p.dataDir(), "-p", strconv.Itoa(p.port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
	}
	for name, value := range p.config.Settings {
		args = append(args, "-c", name+"="+value)
	}
	cmd := exec.Command(filepath.Join(p.binDir, "postgres"), args...)
	p.prepare(cmd)
	cmd.Stdout, cmd.Stderr = log, log
	begun := time.Now()
	// SIGQUIT is an immediate shutdown: it ends the backends too.
	server, err := startProcess(cmd, syscall.SIGQUIT)
	if err != nil {
		return fmt.Errorf("start PostgreSQL: %w", err)
	}
	p.server = server
	if err := server.await(ctx, func() bool { return p.ready(server.pid()) }); err != nil {
		err = fmt.Errorf("start PostgreSQL: %w\n%s", err, tail(p.logPath()))
		return errors.Join(err, server.end(syscall.SIGQUIT, stopPatience, syscall.SIGKILL))
	}
	p.config.Logger.Debug("PostgreSQL started", "pid", server.pid(), "port", p.port, "took", time.Since(begun))
	return nil
}

// ready reads what the postmaster writes for pg_ctl: the first line of
// postmaster.pid is its process id, the eighth its status.
func (p *Postgres) ready(pid int) bool {
	content, err := os.ReadFile(filepath.Join(p.dataDir(), "postmaster.pid"))
	if err != nil {
		return false
	}
	var lines []string
	for scanner := bufio.NewScanner(bytes.NewReader(content)); scanner.Scan(); {
		lines = append(lines, strings.TrimSpace(scanner.Text()))
	}
	return len(lines) >= 8 && lines[0] == strconv.Itoa(pid) && lines[7] == "ready"
}

// Stop shuts the server down fast: sessions are ended and transactions rolled
// back. A stopped server is no error.
func (p *Postgres) Stop() error { return p.end("stopped", syscall.SIGINT) }

// Crash ends the server at once and without a checkpoint; the next Start
// recovers from the write-ahead log.
func (p *Postgres) Crash() error { return p.end("crashed", syscall.SIGQUIT) }

func (p *Postgres) end(how string, sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server == nil || !p.server.running() {
		return nil
	}
	if err := p.server.end(sig, stopPatience, syscall.SIGKILL); err != nil {
		return fmt.Errorf("stop PostgreSQL: %w", err)
	}
	p.config.Logger.Debug("PostgreSQL "+how, "pid", p.server.pid())
	return nil
}

// Close stops the server and removes its directory if it was a temporary one.
func (p *Postgres) Close() error {
	err := p.Stop()
	if p.temporary {
		err = errors.Join(err, os.RemoveAll(p.dir))
	}
	return err
}

// freePort returns a port on 127.0.0.1 that was free a moment ago.
func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}
