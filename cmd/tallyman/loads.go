package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"tallyman/cmd/tallyman/internal/settings"
	"tallyman/internal/admin"
	"tallyman/internal/kafkaconn"
	"tallyman/loader"
	"tallyman/loader/job"
	"tallyman/loader/job/load"
	"tallyman/loader/job/replay"
	"tallyman/loader/job/resync"
	"tallyman/schema"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

// loads is the work of one process: a loader for each load job.
type loads struct {
	cfg       settings.Config
	want      schema.Ref // zero: every dataset
	options   []byte     // of the job that is deployed for it
	replace   bool       // an active job with other options
	warehouse *postgres.Warehouse
	conn      *kafkaconn.Conn
	log       *slog.Logger
	metrics   *metrics
	ledger    *job.Ledger
	worker    *job.Worker
	cancel    context.CancelCauseFunc // ends the process, with an error or without
	again     chan struct{}           // to deploy the job once more

	mu       sync.Mutex
	deployed int64                    // the job of the dataset; 0: not yet
	running  map[int64]*loader.Loader // by job
	failed   map[int64]error          // of work that ended by itself, by job
	waiting  error                    // why the job is not deployed yet
}

func newLoads(cfg settings.Config, w *postgres.Warehouse, conn *kafkaconn.Conn, log *slog.Logger) *loads {
	l := &loads{
		cfg: cfg, warehouse: w, conn: conn, log: log, ledger: newLedger(w), again: make(chan struct{}, 1),
		running: map[int64]*loader.Loader{}, failed: map[int64]error{}, waiting: errors.New("the warehouse was not asked yet"),
	}
	l.worker = job.NewWorker(job.WorkerConfig{
		Ledger: l.ledger, Member: uniqueMember(cfg), Wants: l.wants, Ended: l.ended, Vanished: l.vanished, Logger: log,
		Do: map[string]func(context.Context, *job.Run) error{load.Kind{}.Name(): l.load, replay.Kind{}.Name(): l.replay, resync.Kind{}.Name(): l.resync},
	})
	l.metrics = newMetrics(l.worker)
	return l
}

// drainLimit is how long the process may take to end after it was told to.
const drainLimit = 9500 * time.Millisecond

// errDone ends the process when the one job that it was started for is done.
var errDone = errors.New("the job is done")

// run serves the admin page, deploys the job and works.
func (l *loads) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l.cancel = cancel
	var group sync.WaitGroup
	if l.cfg.AdminListen != "off" {
		jobs, err := jobsAPI(l.cfg, l.warehouse, l.ledger)
		if err != nil {
			return err
		}
		server, err := admin.Listen(admin.Config{Listen: l.cfg.AdminListen, Gatherer: l.metrics, Ready: l.ready, API: jobs, Logger: l.log})
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
		if err := l.deploy(ctx); err != nil {
			cancel(err)
			return
		}
		if ctx.Err() == nil {
			l.worker.Run(ctx)
		}
	})
	group.Go(func() {
		for {
			select {
			case <-l.again:
				if err := l.deploy(ctx); err != nil {
					cancel(err)
				}
			case <-ctx.Done():
				return
			}
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
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, errDone) {
		return cause
	}
	return nil
}

// deployAgain is how long deploy waits for a warehouse that is away, and for a
// job that is being stopped.
const deployAgain = time.Second

// deploy deploys the load job of the dataset that was named. An outage is waited
// for, and so is a job that is being stopped.
func (l *loads) deploy(ctx context.Context) error {
	for {
		err := checkTarget(ctx, l.warehouse, l.cfg.WarehouseTarget)
		if err == nil && l.want != (schema.Ref{}) {
			err = l.deployOnce(ctx)
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the end of the process is none
		}
		if err != nil && !errors.Is(err, job.ErrStopping) && sink.ClassOf(ledgerError(l.warehouse, err)) != sink.Retryable {
			return conflictHint(ledgerError(l.warehouse, err))
		}
		l.mu.Lock()
		l.waiting = err
		l.mu.Unlock()
		if err == nil {
			return nil
		}
		l.log.Warn("nothing to load yet; waiting", "cause", err)
		timer := time.NewTimer(deployAgain)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

func (l *loads) deployOnce(ctx context.Context) error {
	d := job.Deployment{Kind: load.Kind{}.Name(), Options: l.options, Resolve: l.resolve}
	if l.want.Hash == "" {
		d.Find = findFor(d.Kind, l.want.Dataset, 0)
	}
	do := l.ledger.Deploy
	if l.replace {
		do = func(ctx context.Context, d job.Deployment) (job.Deployed, error) {
			return l.ledger.Replace(ctx, d, func(c *job.Conflict) { l.log.Info("replacing the job", "job", c.Job.ID, "differences", c.Differences) })
		}
	}
	done, err := do(ctx, d)
	if err != nil {
		return err
	}
	l.log.Info("deployed the load job", "job", done.Job.ID, "epoch", done.Job.Epoch, "status", done.Job.Status, "deduplicated", done.Deduplicated)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deployed = done.Job.ID
	return nil
}

// resolve says what the job of the dataset is about: its active revision.
func (l *loads) resolve(ctx context.Context, tx pgx.Tx) (job.Target, error) {
	t, err := resolveIn(l.warehouse, l.want.Dataset, 0)(ctx, tx)
	if err != nil || l.want.Hash == "" {
		return t, err
	}
	d, err := revisionOf(ctx, l.warehouse, t.Revision)
	if err == nil && !slices.ContainsFunc(d.Manifests, func(a postgres.AppliedManifest) bool { return a.Hash == l.want.Hash }) {
		err = &job.TargetError{Err: fmt.Errorf("dataset %s takes no rows by manifest %s: tallyman dataset show %[1]s tells by which it does", l.want.Dataset, l.want.Hash)}
	}
	return t, err
}

// wants says whether a job is for this process.
func (l *loads) wants(j job.Job) bool {
	return l.want == (schema.Ref{}) && !j.Status.Ended() || j.Dataset == l.want.Dataset.String()
}

// load keeps a revision loaded while its job says so.
func (l *loads) load(ctx context.Context, r *job.Run) error {
	d, err := revisionOf(ctx, l.warehouse, r.Job.Revision)
	if err != nil {
		return err
	}
	of := d.Revision
	registry, forget := l.metrics.add(of)
	defer forget()
	l.mu.Lock()
	share := int64(len(l.running) + 1)
	l.mu.Unlock()
	if jobs, _, err := l.worker.Jobs(); err == nil {
		share = max(share, int64(len(jobs)))
	}
	return load.Run(ctx, r, load.Config{
		Ledger: l.ledger,
		Loader: loader.Config{
			Revision: of, Conn: l.conn, Warehouse: l.warehouse, Redriver: l.warehouse.Redriver(), Books: l.warehouse, Receipts: l.warehouse,
			Extender: l.warehouse, Ledger: l.warehouse, MissingGrace: l.cfg.LoaderMissingGrace, ReceiptInterval: l.cfg.LoaderReceiptInterval,
			Committers: l.cfg.LoaderCommitters, ReadAhead: int64(l.cfg.LoaderReadAhead) / share,
			GroupBytes: int64(l.cfg.LoaderGroupBytes), SessionTimeout: l.cfg.LoaderSessionTimeout,
			ClockSkew: l.cfg.LoaderClockSkew, BreakerWindow: l.cfg.LoaderBreakerWindow,
			Grace: l.cfg.LoaderForeignKeyGrace, Probe: l.cfg.LoaderProbeInterval, Logger: l.log, Registerer: registry,
		},
		Started: func(one *loader.Loader) { l.set(r.Job.ID, one) },
		Ended:   func() { l.set(r.Job.ID, nil) },
	})
}

// set notes what works on a job; nil: nothing any more.
func (l *loads) set(id int64, one *loader.Loader) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if delete(l.failed, id); one == nil {
		delete(l.running, id)
		return
	}
	l.running[id] = one
}

// ended ends the process if it was started for the one job that has ended by
// itself, unless that was for an outage. Else the others go on, and the probe says
// what has failed until it is tried again.
func (l *loads) ended(j job.Job, err error) {
	if err != nil {
		err = fmt.Errorf("%s of %s ended: %w", j.Kind, j.Dataset, err)
	}
	l.mu.Lock()
	ends := j.ID == l.deployed && sink.ClassOf(err) != sink.Retryable
	if err != nil {
		l.failed[j.ID] = err
	}
	l.mu.Unlock()
	switch {
	case ends && err != nil:
		l.cancel(err)
	case ends:
		l.cancel(errDone)
	}
}

// vanished deploys the job again that this process was started for, when the
// warehouse has forgotten it: a restore went back to before its deployment.
func (l *loads) vanished(j job.Job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if j.ID != l.deployed {
		return
	}
	select {
	case l.again <- struct{}{}:
	default: // it is about to
	}
}

// ready returns nil, or why something is not being loaded, a line each; the note
// tells which jobs this process is idle for. Names in it may be of anything; a
// probe's answer is looked at in terminals.
func (l *loads) ready() (string, error) {
	jobs, working, blind := l.worker.Jobs()
	l.mu.Lock()
	defer l.mu.Unlock()
	errs := []error{l.waiting}
	if l.waiting == nil {
		errs = append(errs, blind)
	}
	var notes []string
	for _, j := range jobs {
		name := fmt.Sprintf("%s: %s job %d", j.Dataset, j.Kind, j.ID)
		one := l.running[j.ID]
		switch {
		case one != nil:
			errs = append(errs, one.Ready())
		case l.failed[j.ID] != nil:
			errs = append(errs, l.failed[j.ID])
		case j.Status == job.Failed:
			errs = append(errs, fmt.Errorf("%s is in error; it is tried again", name))
		case working[j.ID] || j.Status != job.Running:
			notes = append(notes, fmt.Sprintf("%s is %s", name, j.Status))
		default:
			notes = append(notes, name+" is running, and has as many members as it may")
		}
	}
	if l.waiting == nil && blind == nil && len(jobs) == 0 {
		errs = append(errs, errors.New("there is no active job: deploy one with tallyman load NS/NAME or tallyman job deploy load NS/NAME"))
	}
	return printableLines(strings.Join(notes, "\n")), printableError(errors.Join(errs...))
}

// printableLines makes each line fit for a terminal.
func printableLines(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = printable(lines[i])
	}
	return strings.Join(lines, "\n")
}

func printableError(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(printableLines(err.Error()))
}
