// Package demo runs the whole of Tallyman and proves the result: a source
// process, several loader processes of the same program, and at the end a
// comparison, by plain SQL, of what was sent with what the table holds.
//
// What is sent is either made up, and noted in a file before it is appended, or
// a file of the user's. What the demo believes about the outcome comes from two
// places that share no code with the loader: that file, read by somebody else's
// parser, and the table.
//
// It runs on an embedded broker and PostgreSQL, which the demo process hosts,
// or as a guest on servers of the user's, where everything that it makes has a
// random name and is removed at the end. The children are known by their ids,
// log to files and die with the demo process.
package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"tallyman/internal/kafkaconn"
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
	Rows     int64    // at least 1; of a file, what it has
	File     *File    // what to load; nil: rows that the demo makes up
	Servers  *Servers // whom to be a guest of; nil: embedded ones
	Loaders  int      // at least 1
	Chaos    bool     // kill loaders, rewind, publish everything twice
	Keep     bool     // leave the loaders running after the comparison
	Seed     uint64
	Sabotage Sabotage
	// Executable is this program, for the source and the loaders.
	Executable string
	// Env is the environment that the children's is made from.
	Env      []string
	Progress Progress
}

// Servers are the user's.
type Servers struct {
	Kafka kafkaconn.Config
	URL   string // of PostgreSQL; what it leaves out comes from PGHOST and so on
	// Args and Env are what the children are told besides, to reach them as the
	// demo does.
	Args []string
	Env  []string
}

// Demo is a running demo. Close ends it.
type Demo struct {
	config   Config
	cargo    cargo
	manifest schema.Manifest
	dir      string            // everything that the demo writes
	logs     string            // of the children; kept if something fails
	postgres *sandbox.Postgres // nil: a guest
	broker   *sandbox.Broker   // nil: a guest
	guest    *guest            // nil: on embedded servers
	kafka    *kafkaconn.Conn
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
	var cargo cargo = madeUp{}
	if c.File != nil {
		cargo = userFile{*c.File}
	}
	manifest, err := cargo.manifest()
	if err != nil {
		return nil, fmt.Errorf("read the demo's manifest: %w", err)
	}
	dir, err := sandbox.MkdirTemp("tallyman-demo-")
	if err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	d := &Demo{config: c, cargo: cargo, manifest: manifest, dir: dir, logs: filepath.Join(dir, "logs")}
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
	first := [][]string{{"init"}}
	if d.config.Servers != nil {
		made, err := d.beGuest(ctx)
		if err != nil {
			return err
		}
		if !made {
			first = nil
		}
	} else if err := d.startServers(ctx); err != nil {
		return err
	}
	if err := os.WriteFile(d.manifestFile(), d.manifest.Canonical(), 0o644); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	if err := d.makeTopic(ctx); err != nil {
		return err
	}
	for _, args := range append(first, []string{"dataset", "apply", d.manifestFile()}) {
		if err := d.command(ctx, args[0], args...); err != nil {
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
	if err := group.Wait(); err != nil {
		return err
	}
	var err error
	d.kafka, err = kafkaconn.New(kafkaconn.Config{Brokers: d.broker.Addrs()})
	return err
}

// manifestFile is where the children find the manifest. JSON is YAML, too.
func (d *Demo) manifestFile() string { return filepath.Join(d.dir, "manifest.yaml") }

// maxMessage is enough for the rows of any chunk of a file, whose text is
// shorter than its tuples if the values are short, in bytes.
const maxMessage = 8 << 20

// makeTopic makes the dataset's topic, with as many partitions as the brokers
// give a topic by themselves.
func (d *Demo) makeTopic(ctx context.Context) error {
	return d.kafka.CreateTopic(ctx, kafkaconn.NewTopic{
		Name: d.manifest.Topic, Configs: map[string]string{"cleanup.policy": "delete", "max.message.bytes": fmt.Sprint(maxMessage)},
	})
}

// DSN is how to reach the PostgreSQL.
func (d *Demo) DSN() string {
	if d.guest != nil {
		return d.guest.url
	}
	return d.postgres.DSN(database)
}

// Brokers is how to reach the Kafka.
func (d *Demo) Brokers() string { return strings.Join(d.kafka.Brokers(), ",") }

// Run appends, loads and compares. The error is not about what the comparison
// found; it is about a stall, though, if the comparison found nothing.
func (d *Demo) Run(ctx context.Context) (Result, error) {
	watch, err := d.startWatcher(ctx)
	if err != nil {
		return Result{}, err
	}
	d.watch = watch
	d.began = time.Now()
	if err := d.cargo.send(d); err != nil {
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
	result := Result{
		Kills: kills, Duration: time.Since(d.began), DSN: d.DSN(), Brokers: d.Brokers(), Duplicates: d.duplicates(ctx),
		Table: d.table(), Topic: d.manifest.Topic,
	}
	d.stopWatch()
	if !d.config.Keep {
		if err := d.stopProcesses(); err != nil {
			return Result{}, err
		}
	}
	if stalled {
		d.config.Progress.Note(err.Error())
	}
	rows, batches, failure := d.cargo.compare(ctx, d)
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

// table is the quoted name of the view over the table.
func (d *Demo) table() string {
	return pgx.Identifier{d.manifest.Table.Schema, d.manifest.Table.Name}.Sanitize()
}

// environ is the environment of the children. On embedded servers it is this
// process's without what would configure another warehouse or broker; on the
// user's it is this process's, whose settings reach the same servers.
func (d *Demo) environ(more ...string) []string {
	var env []string
	if d.guest != nil {
		env = append(append(env, d.config.Env...), d.config.Servers.Env...)
	} else {
		for _, e := range d.config.Env {
			name, _, _ := strings.Cut(e, "=")
			if !strings.HasPrefix(name, "TALLYMAN_") && !strings.HasPrefix(name, "PG") && name != "DATABASE_URL" && name != "KAFKA_BROKERS" {
				env = append(env, e)
			}
		}
	}
	env = append(env, "TALLYMAN_WAREHOUSE_URL="+d.DSN(), "TALLYMAN_KAFKA_BROKERS="+d.Brokers(), "TALLYMAN_SOURCE_DIR="+filepath.Join(d.dir, "source"))
	return append(env, more...)
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
	if d.guest != nil {
		err = errors.Join(err, d.guest.leave())
	}
	if d.kafka != nil {
		d.kafka.Close()
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
