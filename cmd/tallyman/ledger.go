package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"

	"github.com/jackc/pgx/v5"

	"tallyman/cmd/tallyman/internal/settings"
	"tallyman/loader/job"
	"tallyman/loader/job/load"
	"tallyman/loader/job/replay"
	"tallyman/loader/job/resync"
	"tallyman/sink/postgres"
)

// newLedger returns the ledger of jobs, which is in the warehouse, with every kind
// that there is.
func newLedger(w *postgres.Warehouse) *job.Ledger {
	l := job.New(w.Pool(), load.Kind{}, replay.Kind{}, resync.Kind{})
	fence := w.NewFence()
	l.Fence = func(ctx context.Context, tx pgx.Tx, j job.Job) error {
		if j.Kind != (load.Kind{}).Name() {
			return nil // only loads move positions
		}
		return fence(ctx, tx, j.Revision)
	}
	return l
}

// ledgerError gives an error of the ledger of jobs its class, unless a request was
// refused for what it asks.
func ledgerError(w *postgres.Warehouse, err error) error {
	if err == nil || job.Refused(err) {
		return err
	}
	return w.Classify("ask the ledger of jobs", err)
}

// uniqueMember returns a name under which no other process works on jobs.
func uniqueMember(cfg settings.Config) string {
	var tail [4]byte
	_, _ = rand.Read(tail[:]) // it never fails
	return member(cfg) + "-" + hex.EncodeToString(tail[:])
}

// targetOf is what a job about a revision is about.
func targetOf(d postgres.DatasetInfo) job.Target {
	return job.Target{Dataset: d.Revision.Manifest.Dataset.String(), Manifest: d.Hash, Revision: d.Revision.ID}
}

// revisionOf returns a revision by its id.
func revisionOf(ctx context.Context, w *postgres.Warehouse, id int64) (postgres.DatasetInfo, error) {
	all, err := w.Datasets(ctx)
	if err != nil {
		return postgres.DatasetInfo{}, err
	}
	for _, d := range all {
		if d.Revision.ID == id {
			return d, nil
		}
	}
	return postgres.DatasetInfo{}, &job.HopelessError{Err: fmt.Errorf("there is no revision %d any more: delete the job about it", id)}
}
