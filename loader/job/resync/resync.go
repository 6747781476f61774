// Package resync is the kind of jobs that fill a further revision of a dataset
// beside the one that readers see, until it has everything that that one has.
package resync

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"tallyman/loader/job"
	"tallyman/loader/job/load"
	"tallyman/sink"
)

// Kind is the kind of such jobs.
type Kind struct{}

// Options are those of the load that fills the revision: they may be others than
// those of the load of the active one.
type Options struct {
	load.Options
}

// Name implements job.Kind.
func (Kind) Name() string { return "resync" }

// Key implements job.Kind.
func (k Kind) Key(t job.Target) job.Key { return job.HashKey(k.Name(), t) }

// Options implements job.Kind.
func (Kind) Options(raw json.RawMessage) (any, error) {
	of, err := (load.Kind{}).Options(raw)
	if err != nil {
		return nil, err
	}
	o, ok := of.(*load.Options)
	if !ok {
		return nil, fmt.Errorf("options are %T", of)
	}
	return &Options{Options: *o}, nil
}

// Members implements job.Limited: one is enough to watch over it.
func (*Options) Members() int { return 1 }

// Lacking is what a revision still lacks of the active one.
type Lacking struct {
	Batches int64
	Text    string         // says which
	Ranges  []sink.Missing // those that sources numbered
}

// Config is what a member works with.
type Config struct {
	// Deploy deploys the load of the revision.
	Deploy func(ctx context.Context, options json.RawMessage) error
	// Behind returns how many messages of the topic, up to where it ended when it was
	// first asked, the revision has not read.
	Behind func(ctx context.Context) (int64, error)
	// Lacks returns what the revision lacks of the active one.
	Lacks func(ctx context.Context) (Lacking, error)
	// Request asks the sources to publish ranges again.
	Request func(ctx context.Context, ranges []sink.Missing) error
	// Patience is how long sources may take to publish what they are asked for, after
	// something of it came last.
	Patience time.Duration
	// Logger takes what a person should know.
	Logger *slog.Logger
}

// lookEvery is how often it is looked how far the revision is.
const lookEvery = time.Second

// Run has the revision loaded, first by what the topic has, then by what sources
// still have, until it has what the active one has. What is in neither is an error
// that no further try mends: it names what that is.
func Run(ctx context.Context, r *job.Run, c Config) error {
	o, ok := r.Options.(*Options)
	if !ok {
		return fmt.Errorf("options are %T", r.Options)
	}
	raw, err := json.Marshal(o.Options)
	if err != nil {
		return err
	}
	if err := c.Deploy(ctx, raw); err != nil {
		return err
	}
	fill := filling{Config: c}
	for {
		began := time.Now()
		done, err := fill.look(ctx)
		switch {
		case ctx.Err() != nil || done:
			return nil //nolint:nilerr // work that is told to end has no errors
		case err != nil && sink.ClassOf(err) == sink.Retryable:
			c.Logger.Warn("can't see how far the revision is; trying again", "cause", err)
		case err != nil:
			return err
		}
		// Comparing two large ledgers takes its time, and should not be all that is done.
		timer := time.NewTimer(max(lookEvery, 5*time.Since(began)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// filling is how far a resync is.
type filling struct {
	Config
	asked    bool
	least    int64     // that it lacked so far
	progress time.Time // when it became less
}

func (f *filling) look(ctx context.Context) (done bool, err error) {
	behind, err := f.Behind(ctx)
	if err != nil || behind > 0 {
		return false, err
	}
	lacks, err := f.Lacks(ctx)
	switch {
	case err != nil:
		return false, err
	case lacks.Batches == 0 && lacks.Text == "":
		return true, nil
	case !f.asked:
		f.asked, f.least, f.progress = true, lacks.Batches, time.Now()
		if len(lacks.Ranges) == 0 {
			return false, nil
		}
		f.Logger.Info("the topic lacks what the active revision has; asking the sources for it", "batches", lacks.Batches)
		return false, f.Request(ctx, lacks.Ranges)
	case lacks.Batches < f.least:
		f.least, f.progress = lacks.Batches, time.Now()
	case time.Since(f.progress) > f.Patience:
		return false, &job.HopelessError{Err: fmt.Errorf("what is neither in the topic nor in the journal of a source that runs can't be loaded again: %s", lacks.Text)}
	}
	return false, nil
}
