package torture

import (
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"tallyman/internal/sandbox"
	"tallyman/internal/sandbox/sandboxtest"
)

// warehouse is a PostgreSQL of the test's own, with base backups of it.
type warehouse struct {
	t      *testing.T
	server *sandbox.Postgres
	tool   string
}

// newWarehouse starts a PostgreSQL of the version whose pg_basebackup Debian has.
// Where it isn't asked for, a missing pg_basebackup skips the test.
func newWarehouse(t *testing.T) *warehouse {
	t.Helper()
	tool, err := exec.LookPath("pg_basebackup")
	switch {
	case err == nil:
	case os.Getenv(sandboxtest.RealKafka) == "":
		t.Skip("needs pg_basebackup 15 or newer (postgresql-client on Debian): install it, or run make test-all")
	default:
		t.Fatal(err)
	}
	return &warehouse{t: t, server: sandboxtest.Server(t, "15"), tool: tool}
}

func (p *warehouse) dsn() string { return p.server.DSN("postgres") }

// backup takes a base backup, while everything goes on.
func (p *warehouse) backup() (dir string) {
	p.t.Helper()
	at, err := url.Parse(p.dsn())
	if err != nil {
		p.t.Fatal(err)
	}
	dir = filepath.Join(p.t.TempDir(), "backup")
	cmd := exec.CommandContext(p.t.Context(), p.tool, "--host", at.Hostname(), "--port", at.Port(), "--username", "postgres", "--no-password",
		"--pgdata", dir, "--wal-method", "stream", "--checkpoint", "fast", "--no-sync")
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("pg_basebackup: %v\n%s", err, out)
	}
	return dir
}

// restore puts a backup in the place of the server's data.
func (p *warehouse) restore(backup string) {
	p.t.Helper()
	if err := p.server.Stop(); err != nil {
		p.t.Fatal(err)
	}
	data := filepath.Join(p.server.Dir(), "data")
	info, err := os.Stat(data)
	if err == nil {
		err = emptyDir(data)
	}
	if err == nil {
		err = os.CopyFS(data, os.DirFS(backup))
	}
	if err == nil {
		err = handOver(data, info)
	}
	if err == nil {
		err = p.server.Start(p.t.Context())
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// handOver gives everything below a directory to whom another belongs, and to
// nobody else: PostgreSQL insists.
func handOver(dir string, to fs.FileInfo) error {
	owner, ok := to.Sys().(*syscall.Stat_t)
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && ok {
			err = os.Lchown(path, int(owner.Uid), int(owner.Gid))
		}
		if err == nil && e.IsDir() {
			err = os.Chmod(path, 0o700)
		}
		return err
	})
}

// The warehouse is replaced by an older backup of itself, beside a loader that
// runs on, and the topic has expired. So what was loaded since exists in
// journals only: of a stream that the backup knows, of one that began and ended
// since, of one that goes on, and of a file.
func TestWarehouseRestoredFromAnOlderBackup(t *testing.T) {
	t.Parallel()
	p := newWarehouse(t)
	w := newWorldAt(t, embedded(t), p.dsn(), random(t))
	d := w.serve("web")
	w.load("loader", dataset)
	d.some()
	w.loadedAll()
	backup := p.backup()

	d.some()
	d.drain()
	d.start()
	d.some()
	d.drain()
	d.start()
	d.some()
	file := w.file(3000)
	w.push(file)
	w.loadedAll()
	w.kafka.expire(topic)
	p.restore(backup)
	w.hurt()
	d.some()
	w.push(file)
	w.healed()
}

// The topic still has what was loaded since the backup: positions went back
// with the warehouse, so it is read again.
func TestWarehouseRestoredBesideItsTopic(t *testing.T) {
	t.Parallel()
	p := newWarehouse(t)
	w := newWorldAt(t, embedded(t), p.dsn(), random(t))
	d := w.serve("web")
	l := w.load("loader", dataset)
	d.some()
	w.loadedAll()
	backup := p.backup()
	d.some()
	w.push(w.file(3000))
	w.loadedAll()
	l.drain()
	d.drain()
	p.restore(backup)
	w.hurt()
	w.load("loader", dataset)
	w.healed()
}
