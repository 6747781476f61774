package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"tallyman/schema"
	"tallyman/schema/ddl"
	"tallyman/sink"
)

// Activation says which revision readers shall see.
type Activation struct {
	Dataset  schema.Dataset
	Revision int64
	// Uncovered has it done even if the present revision holds batches that this one
	// does not.
	Uncovered bool
	// Wait is how long this revision may take to catch up with the present one.
	// Defaults to 30 s.
	Wait time.Duration
}

// Activate has readers see another revision of a dataset: one transaction puts the
// view over its table, so grants and views that depend on it stay. The one that was
// active is standby from then on, and is loaded on, so the way back is one more
// activation. Unless told otherwise it waits until the revision has what the active
// one has, an *UncoveredError if it has not in time: then nobody sees rows go.
// It returns the revision that was active; the same one if it was that already.
func (w *Warehouse) Activate(ctx context.Context, a Activation) (was int64, err error) {
	if a.Wait == 0 {
		a.Wait = 30 * time.Second
	}
	deadline := time.Now().Add(a.Wait)
	active, err := w.activeNow(ctx, a)
	if err != nil || active == a.Revision {
		return active, w.class("activate", err)
	}
	if !a.Uncovered {
		if err := w.awaitCover(ctx, a, active, deadline); err != nil {
			return active, w.class("activate", err)
		}
	}
	fence := w.NewFence()
	for {
		was, err = w.swap(ctx, a, fence)
		var behind *UncoveredError
		if again := errors.As(err, &behind) || sink.ClassOf(err) == sink.Retryable; err == nil || !again || time.Now().After(deadline) {
			break
		}
		select {
		case <-time.After(w.cfg.moment()):
		case <-ctx.Done():
			return was, context.Cause(ctx)
		}
	}
	return was, err
}

const selectStates = `SELECT revision_id, dataset, state FROM tallyman.revisions WHERE dataset = $1 OR revision_id = $2 ORDER BY revision_id`

// activeNow returns the active revision of a dataset, and refuses to activate
// what can't be.
func (w *Warehouse) activeNow(ctx context.Context, a Activation) (active int64, err error) {
	return activatable(ctx, w.pool, a)
}

func activatable(ctx context.Context, q queryer, a Activation) (active int64, err error) {
	rows, err := q.Query(ctx, selectStates, a.Dataset.String(), a.Revision)
	if err != nil {
		return 0, err
	}
	var (
		id, wanted     int64
		dataset, state string
		of             string
		is             sink.State
	)
	_, err = pgx.ForEachRow(rows, []any{&id, &dataset, &state}, func() error {
		if id == a.Revision {
			wanted, of, is = id, dataset, sink.State(state)
		}
		if dataset == a.Dataset.String() && sink.State(state) == sink.Active {
			active = id
		}
		return nil
	})
	switch {
	case err != nil:
		return 0, err
	case wanted == 0:
		return 0, noRevision("there is no revision %d: tallyman revision list shows them", a.Revision)
	case of != a.Dataset.String():
		return 0, wrongRevision("revision %d belongs to %s, not to %s", a.Revision, of, a.Dataset)
	case is == sink.Retired:
		return 0, wrongRevision("revision %d was dropped", a.Revision)
	case active == 0:
		return 0, noRevision("dataset %s has no active revision", a.Dataset)
	}
	return active, nil
}

// coverEvery is how often it is looked whether a revision has caught up.
const coverEvery = 50 * time.Millisecond

// awaitCover waits until the revision has every batch that the active one has now.
func (w *Warehouse) awaitCover(ctx context.Context, a Activation, active int64, deadline time.Time) error {
	lacks, err := w.Uncovered(ctx, active, a.Revision)
	for {
		switch {
		case err != nil:
			return err
		case lacks.Batches == 0 && lacks.Forgotten == 0:
			return nil
		case lacks.Forgotten > 0, time.Now().After(deadline):
			return (&UncoveredError{Revision: a.Revision, Active: active, Uncovered: lacks}).class()
		}
		select {
		case <-time.After(coverEvery):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if lacks.Batches > int64(len(lacks.batches)) {
			lacks, err = w.Uncovered(ctx, active, a.Revision)
		} else {
			lacks, err = w.stillUncovered(ctx, a.Revision, lacks)
		}
	}
}

const (
	lockJobs = `SELECT job_id FROM tallyman.jobs WHERE revision_id = ANY ($1) ORDER BY job_id FOR UPDATE`

	// A message that was read is loaded, refused or skipped: who is as far as the
	// other one has everything that it has from there.
	sumBehind = `
SELECT coalesce(sum(greatest(o.next_offset - coalesce(n.next_offset, 0), 0)), 0)::bigint
FROM tallyman.positions o
LEFT JOIN tallyman.positions n ON (n.revision_id, n.cluster, n.topic, n.partition) = ($2, o.cluster, o.topic, o.partition)
WHERE o.revision_id = $1`

	setState = `UPDATE tallyman.revisions SET state = $2 WHERE revision_id = $1`
)

// caughtUp is how long a transaction that holds up the loads of the active
// revision waits for the other one.
const caughtUp = 2 * time.Second

// recent is how far back batch times go that are compared once more.
const recent = time.Hour

// swap activates a revision. The jobs about both are locked first, then the
// positions of the one that was active, which holds up its loads until the other
// has what it has; the view last.
func (w *Warehouse) swap(ctx context.Context, a Activation, fence func(context.Context, pgx.Tx, int64) error) (was int64, err error) {
	err = pgx.BeginTxFunc(ctx, w.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(initLock)); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, becomeOwnerHere); err != nil {
			return err
		}
		if was, err = activatable(ctx, tx, a); err != nil || was == a.Revision {
			return err
		}
		if _, err := tx.Exec(ctx, lockJobs, []int64{was, a.Revision}); err != nil {
			return err
		}
		if err := fence(ctx, tx, was); err != nil {
			return err
		}
		if !a.Uncovered {
			if err := w.covers(ctx, tx, was, a.Revision); err != nil {
				return err
			}
		}
		if err := fence(ctx, tx, a.Revision); err != nil {
			return err
		}
		if err := carryOver(ctx, tx, was, a.Revision); err != nil {
			return err
		}
		return w.showRevision(ctx, tx, was, a)
	})
	return was, w.class("activate", err)
}

// covers waits for a moment until a revision has what the other one has, whose
// loads are held up meanwhile.
func (w *Warehouse) covers(ctx context.Context, tx pgx.Tx, was, now int64) error {
	deadline := time.Now().Add(caughtUp)
	for {
		lacks := &UncoveredError{Revision: now, Active: was}
		if err := tx.QueryRow(ctx, sumBehind, was, now).Scan(&lacks.Behind); err != nil {
			return err
		}
		if lacks.Behind == 0 {
			var err error
			if lacks.Uncovered, err = uncovered(ctx, tx, was, now, time.Now().Add(-recent)); err != nil || lacks.Uncovered.Batches == 0 {
				return err
			}
		}
		if time.Now().After(deadline) {
			return lacks.class()
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// showRevision puts the dataset's view over the table of a revision.
func (w *Warehouse) showRevision(ctx context.Context, tx pgx.Tx, was int64, a Activation) error {
	rows, err := tx.Query(ctx, selectDatasets)
	if err != nil {
		return err
	}
	infos, err := pgx.CollectRows(rows, scanDataset)
	if err != nil {
		return err
	}
	for _, i := range infos {
		if i.Revision.ID != a.Revision {
			continue
		}
		all, err := readManifests(ctx, tx, a.Dataset.String())
		if err != nil {
			return err
		}
		m := i.Revision.Manifest
		if err := lockView(ctx, tx, m.Table, w.cfg.moment()); err != nil {
			return err
		}
		added := allAdded(m, servedBy(i.Revision, all[a.Dataset.String()]))
		if _, err := tx.Exec(ctx, ddl.PostgresWidenView(m, i.Revision.Physical, added)); err != nil {
			return err
		}
	}
	if _, err := tx.Exec(ctx, setState, was, sink.Standby); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, setState, a.Revision, sink.Active)
	return err
}
