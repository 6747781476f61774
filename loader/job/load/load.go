// Package load is the kind of jobs that keep a revision loaded. Its members share
// the topic's partitions through their consumer group.
package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"tallyman/internal/kafkaconn"
	"tallyman/loader"
	"tallyman/loader/job"
	"tallyman/sink"
)

// Kind is the kind of such jobs.
type Kind struct{}

// Latest is the end of a load that stops with what there is when it is scheduled.
const Latest = "latest"

// Options are what a load can be told.
type Options struct {
	// End is the batch time through which the job loads, and then it is completed; or
	// Latest, which means the moment when the job was scheduled. Empty: it never ends.
	End string `json:"end"`
	// Parallelism is how many members may work on it at once; 0: all that come.
	Parallelism int `json:"parallelism"`
}

// Name implements job.Kind.
func (Kind) Name() string { return "load" }

// Key implements job.Kind.
func (k Kind) Key(t job.Target) job.Key { return job.HashKey(k.Name(), t) }

// Options implements job.Kind.
func (Kind) Options(raw json.RawMessage) (any, error) {
	o := &Options{}
	if err := job.ReadOptions(raw, o); err != nil {
		return nil, err
	}
	if o.Parallelism < 0 {
		return nil, fmt.Errorf("%w: options: parallelism is %d, not a number of members", job.ErrMalformed, o.Parallelism)
	}
	if o.End != "" && o.End != Latest {
		at, err := time.Parse(time.RFC3339Nano, o.End)
		if err != nil {
			return nil, fmt.Errorf("%w: options: end is neither a time (RFC 3339) nor %q", job.ErrMalformed, Latest)
		}
		o.End = at.UTC().Format(time.RFC3339Nano)
	}
	return o, nil
}

// Members implements job.Limited.
func (o *Options) Members() int { return o.Parallelism }

// Until returns the batch time through which a run loads; zero: it never ends.
func Until(r *job.Run) time.Time {
	o, ok := r.Options.(*Options)
	switch {
	case !ok || o.End == "":
		return time.Time{}
	case o.End == Latest:
		return r.Scheduled
	}
	at, err := time.Parse(time.RFC3339Nano, o.End)
	if err != nil { // Options has read it
		return time.Time{}
	}
	return at
}

// Config is what a member works with.
type Config struct {
	// Ledger has the job.
	Ledger *job.Ledger
	// Loader is the member's loader but for what fences it.
	Loader loader.Config
	// Started is given the loader before it runs, and Ended when it no longer does.
	Started func(*loader.Loader)
	Ended   func()
}

// lookEvery is how often a load looks whether it has reached its end.
const lookEvery = time.Second

// Run loads until ctx ends, or the job's end is reached.
func Run(ctx context.Context, r *job.Run, c Config) error {
	check := func(ctx context.Context) error { return c.Ledger.Current(ctx, r) }
	lc := c.Loader
	lc.Warehouse = fencedWarehouse{Warehouse: lc.Warehouse, check: check}
	if lc.Redriver != nil {
		lc.Redriver = fencedRedriver{Redriver: lc.Redriver, check: check}
	}
	one, err := loader.New(lc)
	if err != nil {
		return err
	}
	c.Started(one)
	defer c.Ended()
	until := Until(r)
	if until.IsZero() {
		return one.Run(ctx)
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		ended <- reach(running, lc, until)
		stop()
	}()
	err = one.Run(running)
	stop()
	return errors.Join(err, <-ended)
}

// reach returns when everything through a batch time is loaded, as far as the
// topic, read to where it ended after that time, and the announcements tell; or
// when ctx ends.
func reach(ctx context.Context, c loader.Config, until time.Time) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	e := end{config: c, until: until}
	for {
		done, err := e.reached(ctx)
		if done || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			c.Logger.Warn("can't see whether the load has reached its end; trying again", "cause", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// end is what a load is to reach.
type end struct {
	config loader.Config
	until  time.Time
	ends   []sink.Position // where the partitions ended, once that time was over
}

func (e *end) reached(ctx context.Context) (bool, error) {
	if time.Now().Before(e.until) {
		return false, nil
	}
	if e.ends == nil {
		var err error
		if e.ends, err = ends(ctx, e.config.Conn, e.config.Revision.Manifest.Topic); err != nil {
			return false, err
		}
	}
	at := make([]sink.Partition, len(e.ends))
	for i := range e.ends {
		at[i] = e.ends[i].Partition
	}
	positions, err := e.config.Warehouse.Assign(ctx, e.config.Revision, at)
	if err != nil {
		return false, err
	}
	for i, p := range positions {
		if p.Next < e.ends[i].Next {
			return false, nil
		}
	}
	if e.config.Books == nil {
		return true, nil
	}
	known, err := e.config.Books.Completeness(ctx, e.config.Revision, 0)
	if err != nil {
		return false, err
	}
	return known.All || known.Streams == 0 && known.Expected == 0 || !known.Through.Before(e.until), nil
}

// ends returns where the partitions of a topic end now.
func ends(ctx context.Context, conn *kafkaconn.Conn, topic string) ([]sink.Position, error) {
	numbers, err := conn.HighWaters(ctx, topic)
	if err != nil {
		return nil, err
	}
	all := []sink.Position{}
	for number, next := range numbers {
		all = append(all, sink.Position{Partition: sink.Partition{Cluster: conn.Cluster(), Topic: topic, Number: number}, Next: next})
	}
	return all, nil
}
