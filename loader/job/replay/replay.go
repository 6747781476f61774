// Package replay is the kind of jobs that have what is missing of a dataset
// published again by the sources that have it, and that wait until it is loaded.
package replay

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"tallyman/loader/job"
	"tallyman/sink"
)

// Kind is the kind of such jobs.
type Kind struct{}

// Options are what a replay can be told.
type Options struct {
	// Source limits it to what one source announced. Empty: all.
	Source string `json:"source"`
	// Since and Until limit it to what is missing since a time in between (RFC 3339).
	// Empty: no bound; what is missing when the job begins, in any case.
	Since string `json:"since"`
	Until string `json:"until"`
}

// Name implements job.Kind.
func (Kind) Name() string { return "replay" }

// Key implements job.Kind.
func (k Kind) Key(t job.Target) job.Key { return job.HashKey(k.Name(), t) }

// Options implements job.Kind.
func (Kind) Options(raw json.RawMessage) (any, error) {
	o := &Options{}
	if err := job.ReadOptions(raw, o); err != nil {
		return nil, err
	}
	for name, text := range map[string]*string{"since": &o.Since, "until": &o.Until} {
		if *text == "" {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, *text)
		if err != nil {
			return nil, fmt.Errorf("%w: options: %s is no time (RFC 3339)", job.ErrMalformed, name)
		}
		*text = at.UTC().Format(time.RFC3339Nano)
	}
	return o, nil
}

// Members implements job.Limited: one is enough to ask.
func (*Options) Members() int { return 1 }

// wants says whether a range is one that the options are about.
func (o *Options) wants(m sink.Missing) bool {
	since, _ := time.Parse(time.RFC3339Nano, o.Since) // Options has read them
	until, _ := time.Parse(time.RFC3339Nano, o.Until)
	return (o.Source == "" || m.Source == o.Source) && !m.Since.Before(since) && (o.Until == "" || m.Since.Before(until))
}

// Config is what a member works with.
type Config struct {
	// Missing returns what is missing of the dataset for longer than a time.
	Missing func(ctx context.Context, grace time.Duration) ([]sink.Missing, error)
	// Request asks the sources to publish ranges again.
	Request func(ctx context.Context, ranges []sink.Missing) error
	// Grace is for how long a batch has to be missing.
	Grace time.Duration
	// Logger takes what a person should know.
	Logger *slog.Logger
}

const (
	lookEvery = 2 * time.Second
	askEvery  = 10 * time.Minute // requests live longer, and a source may come back that has not seen one
)

// Run asks for what is missing, and returns once it is no longer so.
func Run(ctx context.Context, r *job.Run, c Config) error {
	o, ok := r.Options.(*Options)
	if !ok {
		return fmt.Errorf("options are %T", r.Options)
	}
	all, err := c.Missing(ctx, c.Grace)
	if err != nil {
		return err
	}
	wanted := slices.DeleteFunc(all, func(m sink.Missing) bool { return !o.wants(m) })
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var asked time.Time
	for left := wanted; len(left) > 0; {
		if time.Since(asked) >= askEvery {
			if err := c.Request(ctx, left); err != nil {
				return err
			}
			asked = time.Now()
			c.Logger.Info("asked the sources for what is missing", "ranges", len(left))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		now, err := c.Missing(ctx, 0)
		if err != nil {
			if sink.ClassOf(err) != sink.Retryable {
				return err
			}
			continue
		}
		left = sink.Overlap(wanted, now)
	}
	return nil
}
