// Package demo runs the whole of Tallyman on one machine and proves the result:
// an embedded broker and PostgreSQL, one source process, several loader
// processes of the same program, and at the end a comparison, by plain SQL, of
// what the generator noted down with what the table holds.
//
// The demo process hosts the broker and starts everything else. Its children
// are known by their ids, log to files and die with it. What it believes about
// the outcome comes from two places that share no code with the loader: the
// file that the generator writes before it appends, and the table.
package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"tallyman/internal/sandbox"
	"tallyman/schema"
)

// Sabotage breaks something on purpose, to show that the comparison sees it.
type Sabotage string

// The ways to break it.
const (
	NoSabotage    Sabotage = ""
	LedgerKey     Sabotage = "ledger-key"     // the ledger loses its primary key: rows double when read again
	DeleteRecords Sabotage = "delete-records" // records vanish from the topic before they are read: rows are lost
)

// Progress is told how far the demo has come.
type Progress interface {
	Note(line string)
	Sent(rows int64)
	Loaded(rows int64)
}

// Config describes a demo.
type Config struct {
	Rows     int64 // at least 1
	Loaders  int   // at least 1
	Chaos    bool  // kill loaders, rewind, publish everything twice
	Keep     bool  // leave the loaders running after the comparison
	Seed     uint64
	Sabotage Sabotage
	// Executable is this program, for the source and the loaders.
	Executable string
	// Env is the environment that the children's is made from.
	Env      []string
	Progress Progress
}

// Demo is a running demo. Close ends it.
type Demo struct {
	config   Config
	manifest schema.Manifest
	dir      string // everything that the demo writes
	logs     string // of the children; kept if something fails
	postgres *sandbox.Postgres
	broker   *sandbox.Broker
	source   *process
	began    time.Time // the first row
	watch    *watcher

	mu      sync.Mutex
	loaders []*loader // nil in a place while its loader is replaced
	lost    int64     // batches that killed loaders had refused
	said    said      // by the source
}

// database is PostgreSQL's own first one; the cluster is the demo's alone.
const database = "postgres"

// Start starts the servers and prepares the warehouse and the topic. On an
// error everything is ended again.
func Start(ctx context.Context, c Config) (*Demo, error) {
	manifest, err := schema.ParseManifest(Manifest)
	if err != nil {
		return nil, fmt.Errorf("read the demo's manifest: %w", err)
	}
	dir, err := sandbox.MkdirTemp("tallyman-demo-")
	if err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	d := &Demo{config: c, manifest: manifest, dir: dir, logs: filepath.Join(dir, "logs")}
	if err := d.prepare(ctx); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err() // the rest is what came of it
		}
		return nil, errors.Join(err, d.Close(err))
	}
	return d, nil
}

func (d *Demo) prepare(ctx context.Context) error {
	if err := os.Mkdir(d.logs, 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	if err := d.startServers(ctx); err != nil {
		return err
	}
	manifest := filepath.Join(d.dir, "conversions.yaml")
	if err := os.WriteFile(manifest, Manifest, 0o644); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	for _, args := range [][]string{{"init"}, {"dataset", "apply", manifest}} {
		if err := d.command(ctx, strings.Join(args[:len(args)-len(args)/3], "-"), args...); err != nil {
			return err
		}
	}
	if d.config.Sabotage == LedgerKey {
		if err := d.dropLedgerKey(ctx); err != nil {
			return err
		}
	}
	return nil
}

// startServers starts the broker and PostgreSQL at the same time.
func (d *Demo) startServers(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		d.broker, err = sandbox.StartBroker(ctx, sandbox.BrokerConfig{DataDir: filepath.Join(d.dir, "broker")})
		return err
	})
	group.Go(func() (err error) {
		d.postgres, err = sandbox.StartPostgres(ctx, sandbox.PostgresConfig{
			Dir:      filepath.Join(d.dir, "postgres"),
			Settings: map[string]string{"shared_buffers": "256MB", "max_wal_size": "4GB"},
			Progress: lines{d.config.Progress},
		})
		return err
	})
	return group.Wait()
}

// DSN is how to reach the demo's PostgreSQL.
func (d *Demo) DSN() string { return d.postgres.DSN(database) }

// Brokers is how to reach the demo's Kafka.
func (d *Demo) Brokers() string { return strings.Join(d.broker.Addrs(), ",") }

// Run appends, loads and compares. The error is not about what the comparison
// found; it is about a stall, though, if the comparison found nothing.
func (d *Demo) Run(ctx context.Context) (Result, error) {
	watch, err := d.startWatcher(ctx)
	if err != nil {
		return Result{}, err
	}
	d.watch = watch
	d.began = time.Now()
	if err := d.startSource(); err != nil {
		return Result{}, err
	}
	if d.config.Sabotage == DeleteRecords {
		if err := d.deleteRecords(ctx); err != nil {
			return Result{}, err
		}
	}
	if err := d.startLoaders(); err != nil {
		return Result{}, err
	}
	kills, err := d.work(ctx)
	stalled := errors.Is(err, errStalled)
	if err != nil && !stalled {
		return Result{}, err
	}
	result := Result{Kills: kills, Duration: time.Since(d.began), DSN: d.DSN(), Brokers: d.Brokers(), Duplicates: d.duplicates(ctx)}
	d.stopWatch()
	if !d.config.Keep {
		if err := d.stopProcesses(); err != nil {
			return Result{}, err
		}
	}
	if stalled {
		d.config.Progress.Note(err.Error())
	}
	d.config.Progress.Note("comparing the generator's file with the table, by plain SQL")
	rows, batches, failure := compare(ctx, d.DSN(), d.sentFile())
	if failure != nil {
		return Result{}, failure
	}
	if result.Rows, result.Batches = rows, batches; !result.Sound() {
		return result, nil
	}
	return result, err
}

// work returns once everything is loaded, in whatever way was asked for.
func (d *Demo) work(ctx context.Context) ([]Kill, error) {
	if d.config.Chaos {
		return d.chaos(ctx)
	}
	return nil, d.await(ctx, "everything to be loaded", readIn(1))
}

// sentFile is where the generator notes what it is about to append.
func (d *Demo) sentFile() string { return filepath.Join(d.dir, "sent.copy") }

// environ is the environment of the children: this process's without what
// would configure another warehouse or broker, and the demo's own.
func (d *Demo) environ(more ...string) []string {
	var env []string
	for _, e := range d.config.Env {
		name, _, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, "TALLYMAN_") && !strings.HasPrefix(name, "PG") && name != "DATABASE_URL" && name != "KAFKA_BROKERS" {
			env = append(env, e)
		}
	}
	env = append(env, "DATABASE_URL="+d.DSN(), "KAFKA_BROKERS="+d.Brokers(), "TALLYMAN_SOURCE_DIR="+filepath.Join(d.dir, "source"))
	return append(env, more...)
}

func (d *Demo) startSource() error {
	var err error
	d.source, err = d.start(launch{
		name:  "source",
		args:  []string{"demo-source", fmt.Sprint("--rows=", d.config.Rows), fmt.Sprint("--seed=", d.config.Seed), "--note=" + d.sentFile()},
		env:   d.environ(),
		pipes: true,
	})
	if err != nil {
		return err
	}
	go d.listen()
	return nil
}

// listen takes in what the source reports, until its end.
func (d *Demo) listen() {
	report := json.NewDecoder(d.source.stdout)
	for {
		var s said
		if report.Decode(&s) != nil {
			return
		}
		d.mu.Lock()
		d.said = s
		d.mu.Unlock()
		d.config.Progress.Sent(s.Rows)
	}
}

// stopProcesses ends loaders and source in order; each must end well.
func (d *Demo) stopProcesses() error {
	d.mu.Lock()
	loaders := d.loaders
	d.loaders = nil
	d.mu.Unlock()
	var group errgroup.Group // all at once: each may take its ten seconds
	for _, l := range loaders {
		if l == nil {
			continue
		}
		group.Go(func() error { return l.stop(stopPatience) })
	}
	err := group.Wait()
	if d.source != nil {
		err = errors.Join(err, d.source.stop(stopPatience))
		d.source = nil
	}
	return err
}

// stopPatience is more than a loader may take to drain.
const stopPatience = 12 * time.Second

// Close ends everything that the demo started and removes what it wrote; after
// a failure the children's logs stay, and a line says where. An interruption is
// no failure: what the children say of it is of no interest.
func (d *Demo) Close(failure error) error {
	d.stopWatch()
	err := d.stopProcesses()
	if errors.Is(failure, context.Canceled) {
		failure, err = nil, nil
	}
	if d.postgres != nil {
		err = errors.Join(err, d.postgres.Close())
	}
	if d.broker != nil {
		err = errors.Join(err, d.broker.Close())
	}
	if failure == nil && err == nil {
		return os.RemoveAll(d.dir)
	}
	entries, _ := os.ReadDir(d.dir)
	for _, e := range entries {
		if e.Name() != "logs" {
			err = errors.Join(err, os.RemoveAll(filepath.Join(d.dir, e.Name())))
		}
	}
	d.config.Progress.Note("the logs of what ran are in " + d.logs)
	return err
}

func (d *Demo) stopWatch() {
	if d.watch != nil {
		d.watch.stop()
		d.watch = nil
	}
}

// lines makes a writer of a Progress.
type lines struct{ progress Progress }

func (l lines) Write(text []byte) (int, error) {
	for line := range strings.SplitSeq(strings.TrimRight(string(text), "\n"), "\n") {
		l.progress.Note(line)
	}
	return len(text), nil
}

// freeAddress returns an address on this machine that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String(), nil
}
