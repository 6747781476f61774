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
	c := &change{Activation: a, w: w, fence: w.NewFence(), deadline: time.Now().Add(a.Wait)}
	for {
		was, err = c.try(ctx)
		var behind *UncoveredError
		class := sink.ClassOf(err)
		if class == sink.TooSlow {
			c.compared = 0 // so that the second look has less to look at
		}
		again := errors.As(err, &behind) && behind.passing || class == sink.Retryable || class == sink.TooSlow
		if err == nil || !again || time.Now().After(c.deadline) {
			break
		}
		select {
		case <-time.After(w.cfg.moment()):
		case <-ctx.Done():
			return was, context.Cause(ctx)
		}
	}
	if isLocked(err) {
		err = c.inUse(ctx, was, err)
	}
	return was, err
}

// change is a request to activate a revision.
type change struct {
	Activation
	w        *Warehouse
	fence    func(context.Context, pgx.Tx, int64) error
	deadline time.Time
	compared int64     // the active revision of which everything was looked at; 0: none
	since    time.Time // from when on that has to be looked at again
}

// try activates the revision, unless somebody else holds a lock for too long or has
// activated another one.
func (c *change) try(ctx context.Context) (was int64, err error) {
	active, err := activatable(ctx, c.w.pool, c.Activation)
	if err == nil && active != c.Revision && !c.Uncovered && c.compared != active {
		if c.since, err = c.settle(ctx, active); err == nil {
			err = c.w.awaitCover(ctx, c.Activation, active, c.deadline)
		}
		if err == nil {
			c.compared = active
		}
	}
	if err != nil || active == c.Revision {
		return active, c.w.class("activate", err)
	}
	was, err = c.swap(ctx)
	return was, c.w.class("activate", err)
}

// inUse says who holds what was waited for.
func (c *change) inUse(ctx context.Context, was int64, err error) error {
	infos, failed := c.w.Datasets(ctx)
	if failed != nil {
		return err
	}
	tables := []schema.Table{}
	for _, i := range infos {
		if i.Revision.ID == was {
			tables = append(tables, i.Revision.Manifest.Table, i.Revision.Physical)
		}
	}
	return c.w.inUse(ctx, c.Dataset, "Nothing was changed", tables, err)
}

const selectStates = `SELECT revision_id, dataset, state FROM tallyman.revisions WHERE dataset = $1 OR revision_id = $2 ORDER BY revision_id`

// activatable returns the active revision of a dataset, and refuses to activate
// what can't be.
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
			lacks, err = stillUncovered(ctx, w.pool, a.Revision, lacks)
		}
	}
}

const (
	lockJobs = `SELECT job_id FROM tallyman.jobs WHERE revision_id = ANY ($1) ORDER BY job_id FOR UPDATE`

	setState = `UPDATE tallyman.revisions SET state = $2 WHERE revision_id = $1`

	// What came lately is little, and there is an index for it.
	byIndex = `SELECT set_config('enable_seqscan', 'off', true), set_config('statement_timeout', $1, true)`

	// Sources hear of the streams of the revision that speaks from now on, also of
	// those that have been silent for long.
	tellAll = `
INSERT INTO tallyman.receipts AS r (cluster, revision_id, incarnation, due_at)
SELECT p.cluster, $1, s.incarnation, now()
FROM (SELECT DISTINCT cluster FROM tallyman.positions WHERE revision_id = $1) p
CROSS JOIN tallyman.streams s
WHERE s.revision_id = $1
ORDER BY p.cluster, s.incarnation
ON CONFLICT (cluster, revision_id, incarnation) DO UPDATE SET due_at = EXCLUDED.due_at WHERE r.due_at = 'infinity'`
)

const (
	// caughtUp is how long a transaction that holds up the loads of the active
	// revision waits for the other one.
	caughtUp = 2 * time.Second
	// overlap is how long before everything was compared the second look begins.
	// No commit was in flight then; one that waited gives up in seconds.
	overlap = time.Minute
)

// errMoved says that another revision became active meanwhile.
var errMoved = errors.New("another revision was activated meanwhile")

// settle waits for commits to a revision that are in flight, and for copies, and
// returns since when none can have begun that is in flight later.
func (c *change) settle(ctx context.Context, revision int64) (since time.Time, err error) {
	tx, err := c.w.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return since, err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // so that no era is raised
	if err := tx.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&since); err != nil {
		return since, err
	}
	for _, lock := range []int64{initLock, copyLock} {
		const take = "SELECT set_config('lock_timeout', $1, true), pg_advisory_xact_lock($2)"
		if _, err := tx.Exec(ctx, take, milliseconds(c.w.cfg.LockTimeout), lock); err != nil {
			return since, err
		}
	}
	return since.Add(-overlap), c.fence(ctx, tx, revision)
}

// swap activates a revision. The jobs about both are locked first, then the
// positions of the one that was active and its table, which holds up its loads
// until the other has what it has; the view last.
func (c *change) swap(ctx context.Context) (was int64, err error) {
	err = pgx.BeginTxFunc(ctx, c.w.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(initLock)); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, becomeOwnerHere); err != nil {
			return err
		}
		if was, err = activatable(ctx, tx, c.Activation); err != nil || was == c.Revision {
			return err
		}
		if !c.Uncovered && was != c.compared {
			return &sink.Error{Class: sink.Retryable, Reason: reasonRevision, Err: errMoved}
		}
		if _, err := tx.Exec(ctx, lockJobs, []int64{was, c.Revision}); err != nil {
			return err
		}
		if err := c.fence(ctx, tx, was); err != nil {
			return err
		}
		if !c.Uncovered {
			if err := c.covers(ctx, tx, was); err != nil {
				return err
			}
		}
		if err := c.fence(ctx, tx, c.Revision); err != nil {
			return err
		}
		if err := carryOver(ctx, tx, was, c.Revision); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, tellAll, c.Revision); err != nil {
			return err
		}
		return c.w.showRevision(ctx, tx, was, c.Activation)
	})
	return was, err
}

// covers waits for a moment until a revision has what the other one has, whose
// loads are held up meanwhile: by its positions, and by its table, for who moves
// none (a redrive) or has only just got one. Positions say nothing of what is
// lacking: a cluster or topic that is gone leaves some behind.
func (c *change) covers(ctx context.Context, tx pgx.Tx, was int64) error {
	table, err := physicalOf(ctx, tx, was)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "LOCK TABLE "+ddl.PostgresName(table)+" IN SHARE MODE"); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, byIndex, milliseconds(caughtUp)); err != nil {
		return err
	}
	deadline := time.Now().Add(caughtUp)
	lacks, err := uncovered(ctx, tx, was, c.Revision, c.since)
	for err == nil && lacks.Batches > 0 {
		if lacks.Batches > int64(len(lacks.batches)) || time.Now().After(deadline) {
			return (&UncoveredError{Revision: c.Revision, Active: was, Uncovered: lacks, passing: true}).class()
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		lacks, err = stillUncovered(ctx, tx, c.Revision, lacks)
	}
	if err == nil {
		_, err = tx.Exec(ctx, "SELECT set_config('statement_timeout', '0', true)")
	}
	return err
}

// physicalOf returns the table of a revision.
func physicalOf(ctx context.Context, q queryer, revision int64) (t schema.Table, err error) {
	err = q.QueryRow(ctx, "SELECT physical_schema, physical_table FROM tallyman.revisions WHERE revision_id = $1", revision).Scan(&t.Schema, &t.Name)
	return t, err
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
		// It locks the view alone: who reads a table, such as a backup, is not waited for.
		if _, err := tx.Exec(ctx, "SELECT set_config('lock_timeout', $1, true)", milliseconds(w.cfg.moment())); err != nil {
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
