package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"

	"tallyman/cmd/tallyman/internal/settings"
	"tallyman/internal/admin"
	"tallyman/internal/kafkaconn"
	"tallyman/loader"
	"tallyman/schema"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

func newLoad(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "load [NS/NAME[@HASH]]",
		GroupID: groupRun,
		Short:   "Load a dataset from Kafka into the warehouse, until told to stop",
		Long: `Load a dataset from Kafka into the warehouse, until told to stop; without a name,
every dataset of the warehouse, those that are applied later too.

Run as many as there is work for: they share the topic's partitions. Each batch is loaded
once, whatever happens to Kafka, to the warehouse or to this program in between. SIGTERM ends
it within ten seconds, with what is in flight committed. /metrics, /livez and /readyz answer on
admin.listen.`,
		Example: `  tallyman load ads/conversions
  tallyman load
  tallyman load ads/conversions --admin-listen 0.0.0.0:9187 --log-format json`,
		Args: cobra.MaximumNArgs(1),
	}
	settingFlags(cmd, "kafka", "warehouse", "loader", "admin")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var want schema.Ref
		if len(args) == 1 {
			var err error
			if want, err = schema.ParseRef(args[0]); err != nil {
				return &usageError{command: cmd.CommandPath(), err: err}
			}
		}
		cfg, err := p.settings(cmd, settings.Kafka|settings.Warehouse|settings.Admin)
		if err != nil {
			return err
		}
		w, err := p.warehouse(cmd.Context(), cfg)
		if err != nil {
			return err
		}
		defer w.Close()
		conn, err := p.kafka(cfg)
		if err != nil {
			return err
		}
		defer conn.Close()
		limitMemory()
		l := &loads{
			cfg: cfg, want: want, warehouse: w, conn: conn, log: p.logger(cfg), registry: newRegistry(),
			running: map[int64]*loader.Loader{}, waiting: errors.New("the warehouse was not asked yet"),
		}
		return l.run(cmd.Context())
	}
	return cmd
}

// limitMemory keeps the process small beside what it holds of batches, unless
// the environment says otherwise.
func limitMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(54 << 20)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}

func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "tallyman_build_info", Help: "1; the label tells the version.", ConstLabels: prometheus.Labels{"version": version()},
	})
	info.Set(1)
	r.MustRegister(info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// loads is the work of one process: a loader for each dataset.
type loads struct {
	cfg       settings.Config
	want      schema.Ref // zero: every dataset
	warehouse *postgres.Warehouse
	conn      *kafkaconn.Conn
	log       *slog.Logger
	registry  *prometheus.Registry
	cancel    context.CancelCauseFunc // ends the process with an error

	mu      sync.Mutex
	running map[int64]*loader.Loader // by revision
	waiting error                    // why nothing runs yet; nil once something does
	failed  []error                  // of loads that ended by themselves
}

// drainLimit is how long the process may take to end after it was told to.
const drainLimit = 9500 * time.Millisecond

// run serves the admin page and keeps the loaders running.
func (l *loads) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l.cancel = cancel
	var group sync.WaitGroup
	if l.cfg.AdminListen != "off" {
		server, err := admin.Listen(admin.Config{Listen: l.cfg.AdminListen, Gatherer: l.registry, Ready: l.ready, Logger: l.log})
		if err != nil {
			return err
		}
		l.log.Info("metrics and probes", "address", server.Addr())
		group.Go(func() {
			if err := server.Run(ctx); err != nil {
				cancel(err)
			}
		})
	}
	group.Go(func() {
		if err := l.follow(ctx, &group); err != nil {
			cancel(err)
		}
	})
	<-ctx.Done()
	drained := make(chan struct{})
	go func() { group.Wait(); close(drained) }()
	timer := time.NewTimer(drainLimit)
	defer timer.Stop()
	select {
	case <-drained:
	case <-timer.C:
		l.log.Warn("a transaction did not end in time; whether it committed, the next loader finds out")
	}
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// lookEvery is how often the warehouse is asked for datasets.
const lookEvery = 5 * time.Second

// follow starts a loader for every dataset that there is to load. An outage is
// waited for.
func (l *loads) follow(ctx context.Context, group *sync.WaitGroup) error {
	for {
		revisions, err := l.revisions(ctx)
		if err != nil && sink.ClassOf(err) != sink.Retryable && ctx.Err() == nil {
			return err
		}
		l.mu.Lock()
		started := len(l.running) > 0
		if l.waiting = err; err == nil && !started && len(revisions) == 0 {
			l.waiting = errors.New("the warehouse has no dataset yet: make one with tallyman dataset apply MANIFEST")
		}
		waiting := l.waiting
		l.mu.Unlock()
		if waiting != nil && !started && ctx.Err() == nil {
			l.log.Warn("nothing to load yet; waiting", "cause", waiting)
		}
		for _, r := range revisions {
			if err := l.start(ctx, group, r, len(revisions)); err != nil {
				return err
			}
		}
		if started && l.want != (schema.Ref{}) {
			return nil // the one dataset runs
		}
		timer := time.NewTimer(lookEvery)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// revisions asks the warehouse what there is to load.
func (l *loads) revisions(ctx context.Context) ([]sink.Revision, error) {
	if err := checkTarget(ctx, l.warehouse, l.cfg.WarehouseTarget); err != nil {
		return nil, err
	}
	all, err := l.warehouse.Datasets(ctx)
	if err != nil {
		return nil, err
	}
	var found []sink.Revision
	for _, d := range all {
		if d.Revision.State != sink.Active || l.want != (schema.Ref{}) && d.Revision.Manifest.Dataset != l.want.Dataset {
			continue
		}
		if l.want.Hash != "" && !slices.ContainsFunc(d.Manifests, func(a postgres.AppliedManifest) bool { return a.Hash == l.want.Hash }) {
			return nil, fmt.Errorf("dataset %s takes no rows by manifest %s: tallyman dataset show %[1]s tells by which it does", l.want.Dataset, l.want.Hash)
		}
		found = append(found, d.Revision)
	}
	if found == nil && l.want != (schema.Ref{}) {
		return nil, unknownDataset(l.want.Dataset.String(), all)
	}
	return found, nil
}

// start starts a loader unless it runs. share is among how many datasets the
// read-ahead is divided.
func (l *loads) start(ctx context.Context, group *sync.WaitGroup, r sink.Revision, share int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running[r.ID] != nil {
		return nil
	}
	one, err := loader.New(loader.Config{
		Revision: r, Conn: l.conn, Warehouse: l.warehouse, Redriver: l.warehouse.Redriver(), Books: l.warehouse, Receipts: l.warehouse,
		Extender: l.warehouse, Ledger: l.warehouse, MissingGrace: l.cfg.LoaderMissingGrace, ReceiptInterval: l.cfg.LoaderReceiptInterval,
		Committers: l.cfg.LoaderCommitters, ReadAhead: int64(l.cfg.LoaderReadAhead) / int64(share),
		GroupBytes: int64(l.cfg.LoaderGroupBytes), SessionTimeout: l.cfg.LoaderSessionTimeout,
		ClockSkew: l.cfg.LoaderClockSkew, BreakerWindow: l.cfg.LoaderBreakerWindow,
		Grace: l.cfg.LoaderForeignKeyGrace, Probe: l.cfg.LoaderProbeInterval, Logger: l.log,
		Registerer: prometheus.WrapRegistererWith(prometheus.Labels{"dataset": r.Manifest.Dataset.String()}, l.registry),
	})
	if err != nil {
		return err
	}
	l.running[r.ID] = one
	group.Go(func() {
		if err := one.Run(ctx); err != nil {
			l.fail(r, err)
		}
	})
	return nil
}

// fail ends the process if this was its one dataset. Else the others go on, and
// the probe says what has failed until somebody mends it and starts again.
func (l *loads) fail(r sink.Revision, err error) {
	err = fmt.Errorf("load of %s ended: %w", r.Manifest.Dataset, err)
	if l.want != (schema.Ref{}) {
		l.cancel(err)
		return
	}
	l.log.Error("a load ended; the others go on", "cause", err)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = append(l.failed, err)
}

// ready returns nil, or why something is not being loaded, a line each. Names
// in it may be of anything; a probe's answer is looked at in terminals.
func (l *loads) ready() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	errs := append([]error{l.waiting}, l.failed...)
	for _, one := range l.running {
		errs = append(errs, one.Ready())
	}
	err := errors.Join(errs...)
	if err == nil {
		return nil
	}
	lines := strings.Split(err.Error(), "\n")
	for i := range lines {
		lines[i] = printable(lines[i])
	}
	return errors.New(strings.Join(lines, "\n"))
}
