package torture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyman/internal/sandbox/sandboxtest"
)

const (
	dataset = "proof/events"
	topic   = "proof.events"
	group   = "tallyman.proof.events.r1"

	// patience is how long something that has to happen may take, on a machine that
	// has other things to do. It is longer than the five minutes after which a loader
	// says once more what is missing.
	patience = 6 * time.Minute

	// Rows that are in the files more often than in the table, and the other way round.
	lostRows  = `SELECT count(*) FROM (SELECT * FROM sent EXCEPT ALL SELECT id, at, kind, amount, note FROM public.events) lost`
	extraRows = `SELECT count(*) FROM (SELECT id, at, kind, amount, note FROM public.events EXCEPT ALL SELECT * FROM sent) extra`
)

// world is a site on a cluster that gets hurt, and everything that its sources accepted.
type world struct {
	*site
	kafka *cluster
	files *accepted
}

// accepted are the files that rows were taken from: written before they are sent.
type accepted struct {
	mu    sync.Mutex
	write func(rows int) (string, error)
	names []string
}

// newWorld prepares the dataset on a cluster, with periods that suit a test.
func newWorld(t *testing.T, kafka *cluster) *world {
	t.Helper()
	return newWorldAt(t, kafka, sandboxtest.Postgres(t, "18"), random(t))
}

func newWorldAt(t *testing.T, kafka *cluster, dsn string, r *rand.Rand) *world {
	t.Helper()
	s := newSiteAt(t, kafka.Addr(), dsn, eventsManifest)
	s.env = append(s.env, "TALLYMAN_LOADER_MISSING_GRACE=1s", "TALLYMAN_LOADER_RECEIPT_INTERVAL=500ms", "TALLYMAN_SERVE_ANNOUNCE_INTERVAL=500ms", "TALLYMAN_SERVE_REPLAY_GRACE=1s",
		"TALLYMAN_SERVE_MANIFESTS="+s.manifest(), "TALLYMAN_SERVE_LISTEN=127.0.0.1:0", "TALLYMAN_SERVE_RATE=100000")
	e := &events{random: r, dir: s.dir}
	return &world{site: s, kafka: kafka, files: &accepted{write: e.write}}
}

// with returns the same world as programs see it that run with other settings.
func (w *world) with(env ...string) *world {
	s := *w.site
	s.env = append(append([]string{}, w.env...), env...)
	return &world{site: &s, kafka: w.kafka, files: w.files}
}

// file writes a file of new rows, which is sent from now on.
func (w *world) file(rows int) string {
	w.t.Helper()
	w.files.mu.Lock()
	defer w.files.mu.Unlock()
	name, err := w.files.write(rows)
	if err != nil {
		w.t.Fatal(err)
	}
	w.files.names = append(w.files.names, name)
	return name
}

// push pushes a file to its end.
func (w *world) push(file string) {
	w.t.Helper()
	w.run("push", dataset, file, "--manifest", w.manifest())
}

// daemon is a source that takes rows over HTTP.
type daemon struct {
	world *world
	name  string
	dir   string // of its state
	log   string
	cmd   *exec.Cmd
	url   atomic.Pointer[string]
}

var takingRows = regexp.MustCompile(`msg="taking rows" url=(\S+)`)

// serve starts a daemon with a journal of its own.
func (w *world) serve(name string) *daemon {
	w.t.Helper()
	d := &daemon{world: w, name: name, dir: filepath.Join(w.dir, "source-"+name), log: filepath.Join(w.logDir, name+".log")}
	w.t.Cleanup(func() {
		d.kill()
		w.tail(name, d.log)
	})
	d.start()
	return d
}

// start runs the daemon, on the journal that it had.
func (d *daemon) start() {
	w := d.world
	w.t.Helper()
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	before, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		w.t.Fatal(err)
	}
	d.cmd = exec.Command(w.binary, "source", "serve")
	d.cmd.Env = append(append([]string{}, w.env...), "TALLYMAN_SOURCE_NAME="+d.name, "TALLYMAN_SOURCE_DIR="+d.dir)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.until(d.name+" takes rows", func() bool {
		text, err := os.ReadFile(d.log)
		if err != nil || int64(len(text)) < before {
			return false
		}
		found := takingRows.FindSubmatch(text[before:])
		if found != nil {
			url := string(found[1])
			d.url.Store(&url)
		}
		return found != nil
	})
}

// startWith runs the daemon with other settings from now on.
func (d *daemon) startWith(w *world) {
	w.t.Helper()
	d.world = w
	d.start()
}

// kill ends the daemon with SIGKILL, if it runs.
func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait()
}

// drain ends the daemon with SIGTERM.
func (d *daemon) drain() {
	d.world.t.Helper()
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	if err := d.cmd.Wait(); err != nil {
		d.world.t.Errorf("end %s: %v", d.name, err)
	}
}

// post posts files as batches of their own, each until it is accepted.
func (d *daemon) post(files ...string) {
	d.world.t.Helper()
	for _, file := range files {
		if err := d.offer(d.world.t.Context(), file); err != nil {
			d.world.t.Fatal(err)
		}
	}
}

// offer posts a file until it is accepted.
func (d *daemon) offer(ctx context.Context, file string) error {
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	body, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
		status, answer, err := d.request(ctx, id.String(), body)
		switch {
		case err == nil && status == http.StatusAccepted:
			tick.Stop()
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%s does not accept %s: %d %s, %w", d.name, file, status, answer, errors.Join(err, ctx.Err()))
		case err == nil && status < 500 && status != http.StatusTooManyRequests:
			return fmt.Errorf("%s refuses %s: %d %s", d.name, file, status, answer)
		}
	}
}

func (d *daemon) request(ctx context.Context, id string, body []byte) (int, []byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, *d.url.Load()+"/v1/datasets/"+dataset+"/batches", bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Content-Type", "text/csv")
	r.Header.Set("Idempotency-Key", id)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	return response.StatusCode, answer, err
}

// few are so many batches as a step of a test takes.
const few = 15

// some posts a few batches and returns once the journal and, if the cluster
// runs, the topic has them.
func (d *daemon) some() {
	d.world.t.Helper()
	for range few {
		d.post(d.world.file(40))
	}
}

// keep posts batches until stop is called, which returns once the last is accepted.
func (d *daemon) keep() (stop func()) {
	ctx, cancel := context.WithCancel(d.world.t.Context())
	ended := make(chan error, 1)
	go func() {
		var err error
		for tick := time.NewTicker(25 * time.Millisecond); ctx.Err() == nil && err == nil; <-tick.C {
			err = d.offer(d.world.t.Context(), d.world.file(10))
		}
		ended <- err
	}()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			d.world.t.Error(err)
		}
	})
}

// published waits until a daemon's batches have left its journal, so that what
// happens to the topic happens to them.
func (w *world) published(d *daemon, least int64) {
	w.t.Helper()
	var n int64
	w.until(fmt.Sprintf("%d batches of %s are in the topic", least, d.name), func() bool {
		n = 0
		for _, end := range w.kafka.ends(topic) {
			n += end
		}
		return n >= least
	})
}

// records returns how many records were ever written to the topic.
func (w *world) records() (n int64) {
	w.t.Helper()
	for _, end := range w.kafka.ends(topic) {
		n += end
	}
	return n
}

// logs returns the names of the logs of everything that was run.
func (w *world) logs() []string {
	names, err := filepath.Glob(filepath.Join(w.logDir, "*.log"))
	if err != nil {
		w.t.Error(err)
	}
	return names
}

// tail shows the end of a log if the test has failed.
func (w *world) tail(name, log string) {
	if w.t.Failed() {
		text, _ := os.ReadFile(log)
		w.t.Logf("log of %s:\n%s", name, text[max(0, len(text)-6000):])
	}
}

// account has the warehouse read the files of everything that was sent.
func (w *world) account() {
	w.t.Helper()
	w.connect()
	w.exec(`DROP TABLE IF EXISTS sent`)
	w.exec(sentTable)
	w.files.mu.Lock() // sources may go on
	names := slices.Clone(w.files.names)
	w.files.mu.Unlock()
	for _, file := range names {
		w.sent(file)
	}
}

// loadedAll waits until the table has every row that was sent.
func (w *world) loadedAll() {
	w.t.Helper()
	w.account()
	w.none(lostRows, "rows were accepted and are not in the table")
}

// none waits until a statement counts nothing. It ends the test when nothing
// moves for as long as anything may take.
func (w *world) none(sql, what string) {
	w.t.Helper()
	last, moved := int64(-1), time.Now()
	for tick := time.NewTicker(100 * time.Millisecond); ; <-tick.C {
		n := w.count(sql)
		if n == 0 {
			tick.Stop()
			return
		}
		if n != last {
			last, moved = n, time.Now()
		}
		if time.Since(moved) > patience {
			w.fail("%d %s, and nothing has moved for %v", n, what, patience)
		}
	}
}

// healed waits until everything that was accepted is in the table, and then
// believes nothing that is not so: no row too many by plain SQL, nothing
// missing, the table as the ledger says, complete through now.
func (w *world) healed() {
	w.t.Helper()
	w.loadedAll()
	if _, err := w.try("wait", dataset, "--complete-through", "now", "--timeout", patience.String()); err != nil {
		w.fail("%v", err)
	}
	if n := w.count(extraRows); n != 0 {
		w.t.Errorf("%d rows are doubled, altered or were never sent", n)
	}
	if list := w.run("missing", "list"); !strings.Contains(list, "nothing is missing") {
		w.t.Errorf("missing list:\n%s", list)
	}
	if _, err := w.try("verify", dataset); err != nil {
		w.fail("%v", err)
	}
	if n := w.count(`SELECT count(*) FROM (SELECT FROM tallyman.loaded_elements WHERE sequence IS NOT NULL
		GROUP BY revision_id, incarnation, sequence HAVING count(*) > 1) reused`); n != 0 {
		w.t.Errorf("%d numbers of streams were used for more than one batch", n)
	}
	if n := w.count(`SELECT count(*) FROM tallyman.quarantine`); n != 0 {
		w.t.Errorf("%d batches are in quarantine", n)
	}
}

// hurt checks that what was done did take something away: fewer rows are in the
// table than were accepted.
func (w *world) hurt() {
	w.t.Helper()
	w.account()
	if n := w.count(lostRows); n == 0 {
		w.t.Fatal("nothing was lost, so nothing is proved")
	}
}

// freeze stops a loader as it stands; thaw lets it go on.
func (l *loader) freeze() { l.signal(syscall.SIGSTOP) }
func (l *loader) thaw()   { l.signal(syscall.SIGCONT) }

func (l *loader) signal(s syscall.Signal) {
	l.site.t.Helper()
	if err := l.cmd.Process.Signal(s); err != nil {
		l.site.t.Fatal(err)
	}
}

// emptyDir removes what a directory holds.
func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

// copyDir returns a copy of a directory.
func (w *world) copyDir(dir string) string {
	w.t.Helper()
	into := w.t.TempDir()
	if err := os.CopyFS(into, os.DirFS(dir)); err != nil {
		w.t.Fatal(err)
	}
	return into
}

// replaceDir gives a directory the contents of another.
func (w *world) replaceDir(dir, by string) {
	w.t.Helper()
	if err := errors.Join(emptyDir(dir), os.CopyFS(dir, os.DirFS(by))); err != nil {
		w.t.Fatal(err)
	}
}
