package main

import (
	"context"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"

	"tallyman/loader/job"
	"tallyman/loader/job/load"
	"tallyman/loader/job/replay"
	"tallyman/loader/job/resync"
	"tallyman/sink"
)

// replay has the sources publish again what is missing of a dataset.
func (l *loads) replay(ctx context.Context, r *job.Run) error {
	return replay.Run(ctx, r, replay.Config{
		Missing: func(ctx context.Context, grace time.Duration) ([]sink.Missing, error) {
			return l.warehouse.Missing(ctx, r.Job.Dataset, grace)
		},
		Request: l.request, Grace: l.cfg.LoaderMissingGrace, Logger: l.log.With("job", r.Job.ID, "dataset", r.Job.Dataset),
	})
}

// request asks the sources of this warehouse to publish ranges again.
func (l *loads) request(ctx context.Context, ranges []sink.Missing) error {
	return requestReplay(ctx, l.conn, l.cfg.WarehouseTarget, ranges)
}

// resync has a further revision of a dataset loaded until it has what the active
// one has.
func (l *loads) resync(ctx context.Context, r *job.Run) error {
	d, err := revisionOf(ctx, l.warehouse, r.Job.Revision)
	if err != nil {
		return err
	}
	f := filler{l: l, revision: d.Revision}
	log := l.log.With("job", r.Job.ID, "dataset", r.Job.Dataset)
	return resync.Run(ctx, r, resync.Config{
		Deploy: func(ctx context.Context, options json.RawMessage) error {
			// The load of a revision that is being built is the resync's own.
			_, err := l.ledger.Replace(ctx, job.Deployment{Kind: load.Kind{}.Name(), Options: options,
				Resolve: func(context.Context, pgx.Tx) (job.Target, error) { return targetOf(d), nil },
			}, func(c *job.Conflict) {
				log.Info("replacing the revision's load", "load", c.Job.ID, "differences", c.Differences)
			})
			return err
		},
		Behind: f.behind, Lacks: f.lacks, Request: l.request, Patience: l.cfg.LoaderMissingGrace, Logger: log,
	})
}

// filler sees how far a revision is.
type filler struct {
	l        *loads
	revision sink.Revision
	ends     map[sink.Partition]int64 // of the topic, when it was first looked at
}

func (f *filler) behind(ctx context.Context) (n int64, err error) {
	if f.ends == nil {
		numbers, err := f.l.conn.HighWaters(ctx, f.revision.Manifest.Topic)
		if err != nil {
			return 0, &sink.Error{Class: sink.Retryable, Err: err}
		}
		f.ends = map[sink.Partition]int64{}
		for number, end := range numbers {
			f.ends[sink.Partition{Cluster: f.l.conn.Cluster(), Topic: f.revision.Manifest.Topic, Number: number}] = end
		}
	}
	positions, err := f.l.warehouse.ReadPositions(ctx, f.revision)
	if err != nil {
		return 0, err
	}
	next := map[sink.Partition]int64{}
	for _, p := range positions {
		next[p.Partition] = p.Next
	}
	for at, end := range f.ends {
		n += max(end-next[at], 0)
	}
	return n, nil
}

func (f *filler) lacks(ctx context.Context) (resync.Lacking, error) {
	all, err := f.l.warehouse.Datasets(ctx)
	if err != nil {
		return resync.Lacking{}, err
	}
	var active int64
	for _, d := range all {
		if d.Revision.State == sink.Active && d.Revision.Manifest.Dataset == f.revision.Manifest.Dataset {
			active = d.Revision.ID
		}
	}
	u, err := f.l.warehouse.Uncovered(ctx, active, f.revision.ID)
	if err != nil || u.Batches == 0 && u.Forgotten == 0 {
		return resync.Lacking{}, err
	}
	lacks := resync.Lacking{Batches: u.Batches, Text: u.String()}
	for _, r := range u.Streams {
		if r.First > 0 {
			lacks.Ranges = append(lacks.Ranges, sink.Missing{Dataset: f.revision.Manifest.Dataset, Revision: active,
				Source: r.Source, Incarnation: r.Incarnation, First: r.First, Last: r.Last})
		}
	}
	return lacks, nil
}
