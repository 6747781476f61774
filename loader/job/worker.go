package job

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// WorkerConfig is what a Worker works with.
type WorkerConfig struct {
	// Ledger has the jobs. Required.
	Ledger *Ledger
	// Member names the worker among those of a job: no two live ones alike. Required.
	Member string
	// Lease is for how long the worker counts as alive after it was last heard of.
	// Defaults to 15 s.
	Lease time.Duration
	// Every is how often the ledger is looked at, should a notification be lost.
	// Defaults to 5 s.
	Every time.Duration
	// Wants says whether a job is for this worker. Defaults to all.
	Wants func(Job) bool
	// Do does the work of each kind, until it is done or ctx ends: then it gives up
	// what it has in hand and returns. A job of a kind that is not here is left alone.
	Do map[string]func(ctx context.Context, r *Run) error
	// Ended hears of work that ended by itself, once the ledger was told: with an
	// error, or completed. Defaults to nobody.
	Ended func(j Job, err error)
	// Vanished hears of a job that went back while it was worked on: the ledger does not
	// have it any more, or in an earlier epoch, as after a restore of its database from
	// a backup. Defaults to nobody.
	Vanished func(j Job)
	// Logger takes what a person should know. Defaults to none.
	Logger *slog.Logger
}

// Worker works on the active jobs of a ledger, as one of any number of members.
type Worker struct {
	config WorkerConfig

	mu      sync.Mutex
	jobs    []Job            // that it wants, as they were when it last looked
	working map[int64]*place // what it works on
	pauses  map[int64]*pause // after work that failed here
	blind   error            // why it could not look
	group   sync.WaitGroup
}

// place is where a worker works on a job.
type place struct {
	woken chan struct{}
	done  chan error              // what the work returned
	end   context.CancelCauseFunc // ends it
}

// pause is how long a job is left alone, by its failures in a row.
type pause struct {
	failures int
	until    time.Time
}

// NewWorker returns a worker; Run makes it work.
func NewWorker(c WorkerConfig) *Worker {
	if c.Lease == 0 {
		c.Lease = 15 * time.Second
	}
	if c.Every == 0 {
		c.Every = 5 * time.Second
	}
	if c.Wants == nil {
		c.Wants = func(Job) bool { return true }
	}
	if c.Ended == nil {
		c.Ended = func(Job, error) {}
	}
	if c.Vanished == nil {
		c.Vanished = func(Job) {}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return &Worker{config: c, working: map[int64]*place{}, pauses: map[int64]*pause{}, blind: errors.New("the jobs were not looked at yet")}
}

// Run works until ctx ends and what it works on has given up what it had in hand.
func (w *Worker) Run(ctx context.Context) {
	w.config.Ledger.Follow(ctx, w.config.Every, w.look)
	w.group.Wait()
}

// Jobs returns the jobs that the worker wants, as they were when it last looked,
// and which of them it works on; the error is why it can't look.
func (w *Worker) Jobs() (all []Job, working map[int64]bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	working = map[int64]bool{}
	for id := range w.working {
		working[id] = true
	}
	return w.jobs, working, w.blind
}

// look does what nobody else may be there to do, begins what is to be worked on,
// and has what is worked on look at its job.
func (w *Worker) look(ctx context.Context) {
	_, err := w.config.Ledger.Reconcile(ctx, w.config.Logger)
	var all []Job
	if err == nil {
		all, err = w.config.Ledger.List(ctx)
	}
	if ctx.Err() != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.blind = err; err != nil {
		w.config.Logger.Warn("can't look at the jobs; trying again", "cause", err, "pause", w.config.Every)
		return
	}
	w.jobs = nil
	for _, j := range all {
		if !w.config.Wants(j) {
			continue
		}
		w.jobs = append(w.jobs, j)
		do := w.config.Do[j.Kind]
		switch at := w.working[j.ID]; {
		case at != nil:
			select {
			case at.woken <- struct{}{}:
			default: // it is about to look
			}
		case do == nil || j.Status != Scheduled && j.Status != Running || w.paused(j.ID):
		default:
			w.begin(ctx, j, do)
		}
	}
}

func (w *Worker) paused(id int64) bool {
	p := w.pauses[id]
	return p != nil && time.Now().Before(p.until)
}

// begin works on a job, on the side.
func (w *Worker) begin(ctx context.Context, j Job, do func(context.Context, *Run) error) {
	at := &place{woken: make(chan struct{}, 1)}
	w.working[j.ID] = at
	w.group.Go(func() {
		err := w.work(ctx, j, at, do)
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.working, j.ID)
		if err == nil || ctx.Err() != nil {
			delete(w.pauses, j.ID)
			return
		}
		p := w.pauses[j.ID]
		if p == nil {
			p = &pause{}
			w.pauses[j.ID] = p
		}
		p.failures++
		p.until = time.Now().Add(w.config.Ledger.Backoff(p.failures))
	})
}

// The causes for which work on a job is given up.
var (
	errOver     = errors.New("the job is over, or stopped")
	errVanished = errors.New("the job went back")
)

// work joins a job, does it, and tells the ledger what came of it. An error is why
// it should not be joined again at once.
func (w *Worker) work(ctx context.Context, j Job, at *place, do func(context.Context, *Run) error) error {
	l, log := w.config.Ledger, w.config.Logger.With("job", j.ID, "kind", j.Kind, "dataset", j.Dataset)
	r, err := l.Join(ctx, j.ID, w.config.Member, w.config.Lease)
	switch {
	case errors.Is(err, ErrNotRunnable), errors.Is(err, ErrUnknown), errors.Is(err, ErrFull):
		return nil // it has moved on, or does without this member
	case err != nil:
		if ctx.Err() == nil {
			log.Error("can't work on a job", "cause", err)
		}
		return err
	}
	log.Info("working on a job", "epoch", r.Job.Epoch, "revision", r.Job.Revision)
	doing, end := context.WithCancelCause(ctx)
	defer end(nil)
	at.done, at.end = make(chan error, 1), end
	go func() { at.done <- do(doing, r) }()
	result := w.attend(ctx, r, at, log)
	// The process may be ending; what came of the work is told all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tellLimit)
	defer cancel()
	switch cause := context.Cause(doing); {
	case result != nil && !errors.Is(result, context.Canceled) && !errors.Is(result, errOver):
		log.Error("work on a job ended with an error", "cause", result)
		tell := l.Fail
		if hopeless := (*HopelessError)(nil); errors.As(result, &hopeless) {
			tell = l.GiveUp
		}
		if _, err := tell(ctx, r, result); err != nil && !errors.Is(err, ErrStale) {
			log.Warn("can't tell the ledger of jobs so", "cause", err)
		}
		w.config.Ended(r.Job, result)
		return result
	case errors.Is(cause, errVanished):
		log.Warn("the job went back, as after a restore of the warehouse; giving it up")
		w.config.Vanished(r.Job)
		return nil
	case cause != nil: // stopped, or the process ends
		if j, err := l.Leave(ctx, r); err == nil {
			log.Info("left a job", "status", j.Status)
		} else if !errors.Is(err, ErrUnknown) {
			log.Warn("can't leave a job; its lease ends by itself", "cause", err)
		}
		return nil
	default:
		if _, err := l.Complete(ctx, r); err != nil {
			log.Warn("can't tell the ledger that a job is done; it is done again", "cause", err)
			return err
		}
		log.Info("completed a job")
		w.config.Ended(r.Job, nil)
		return nil
	}
}

// tellLimit is how long an ending process may take to tell the ledger.
const tellLimit = 2 * time.Second

// attend renews the lease on a job until the work on it has ended, and ends the
// work when the job is stopped or over.
func (w *Worker) attend(ctx context.Context, r *Run, at *place, log *slog.Logger) error {
	tick := time.NewTicker(w.config.Lease / 3)
	defer tick.Stop()
	for {
		select {
		case err := <-at.done:
			return err
		case <-tick.C:
		case <-at.woken:
		}
		switch err := w.renew(ctx, r); {
		case errors.Is(err, errOver), errors.Is(err, errVanished):
			at.end(err)
		case err != nil:
			log.Warn("can't renew the lease on a job; going on", "cause", err)
		}
	}
}

// renew renews a lease; errOver or errVanished says that the work shall end.
func (w *Worker) renew(ctx context.Context, r *Run) error {
	// Also while the process ends: what is in hand is still being committed.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.config.Lease/3)
	defer cancel()
	l := w.config.Ledger
	j, err := l.Renew(ctx, r, w.config.Lease)
	if err == nil && j.Status == StopRequested {
		_, err = l.Heard(ctx, r)
	}
	switch {
	case errors.Is(err, ErrStale):
		now, err := l.Show(ctx, r.Job.ID)
		if errors.Is(err, ErrUnknown) || err == nil && now.Epoch < r.Job.Epoch {
			return errVanished
		}
		return errOver
	case err != nil:
		return err
	case j.Status != Running: // another member may have failed, if this one's lease was over for a while
		return errOver
	}
	return nil
}
