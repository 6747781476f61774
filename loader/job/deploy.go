package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
)

// Deployment asks for a job.
type Deployment struct {
	Kind    string
	Options json.RawMessage // as the kind reads them; empty: all defaults
	// Resolve says what the job is about, in the transaction that makes it: so two
	// first requests that name no revision get the same one.
	Resolve func(ctx context.Context, tx pgx.Tx) (Target, error)
	// Find says the same, where that takes no more than a look; false: it is for
	// Resolve. Asked first, it spares a repeat the transaction. Defaults to not looking.
	Find func(ctx context.Context, q Querier) (Target, bool, error)
}

// Querier is what a look needs of a connection, a pool or a transaction.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Deployed is the answer to a deployment.
type Deployed struct {
	Job Job `json:"job"`
	// Deduplicated says that the job was there, active, with these options: nothing
	// was written.
	Deduplicated bool `json:"deduplicated"`
}

// Deploy makes a job, schedules one again that has ended, or finds the active one.
// The error is a [Conflict] if that has other options, and [ErrStopping] if it is
// being stopped.
func (l *Ledger) Deploy(ctx context.Context, d Deployment) (Deployed, error) {
	kind, err := l.kind(d.Kind)
	if err != nil {
		return Deployed{}, err
	}
	want, err := kind.Options(d.Options)
	if err != nil {
		return Deployed{}, err
	}
	canonical, err := json.Marshal(want)
	if err != nil {
		return Deployed{}, err
	}
	if d.Find != nil {
		// Whatever else it meets, the transaction meets too.
		if target, ok, err := d.Find(ctx, l.pool); err == nil && ok {
			if j, found, err := glance(ctx, l.pool, kind, kind.Key(target), want); err == nil && found {
				return Deployed{Job: j, Deduplicated: true}, nil
			}
		}
	}
	var done Deployed
	err = l.atOnce(ctx, func(tx pgx.Tx) error {
		done = Deployed{}
		target, err := d.Resolve(ctx, tx)
		if err != nil {
			return err
		}
		key := kind.Key(target)
		if err := key.Valid(); err != nil {
			return err
		}
		if j, found, err := glance(ctx, tx, kind, key, want); found || err != nil {
			done = Deployed{Job: j, Deduplicated: true}
			return err
		}
		if err := adopt(ctx, tx, kind.Name(), key, target); err != nil {
			return err
		}
		made, j, err := obtain(ctx, tx, kind.Name(), key, target)
		if err != nil {
			return err
		}
		done.Job = j
		switch {
		case made:
			return l.add(ctx, tx, &done.Job, Event{Type: string(Scheduled), Epoch: 1}, detail{Options: canonical})
		case j.Status.Ended():
			if _, err := tx.Exec(ctx, `DELETE FROM tallyman.job_members WHERE job_id = $1`, j.ID); err != nil {
				return err
			}
			return l.add(ctx, tx, &done.Job, Event{Type: string(Scheduled), Epoch: j.Epoch + 1}, detail{Options: canonical})
		case j.Status == StopRequested || j.Status == Stopping:
			return fmt.Errorf("job %d: %w", j.ID, ErrStopping)
		}
		done.Deduplicated = true
		return same(ctx, tx, kind, &done.Job, want)
	})
	if err != nil {
		return Deployed{}, err
	}
	return done, nil
}

// glance finds an active job with these options, in one statement and without a
// lock: a repeat writes nothing, so nobody has to wait for it. Whatever else it
// sees is for the lock to decide.
func glance(ctx context.Context, q Querier, kind Kind, key Key, want any) (j Job, found bool, err error) {
	var d detail
	err = q.QueryRow(ctx, `SELECT `+columns+`, e.detail FROM tallyman.jobs j JOIN tallyman.job_status s USING (job_id)
		JOIN tallyman.job_events e ON (e.job_id, e.epoch, e.type) = (j.job_id, s.epoch, 'scheduled')
		WHERE idempotency_key = $1 AND status IN ('scheduled', 'running', 'error')`, key).Scan(append(j.fields(), &d)...)
	if errors.Is(err, pgx.ErrNoRows) {
		return j, false, nil
	}
	if err != nil {
		return j, false, err
	}
	have, err := kind.Options(d.Options)
	if err != nil {
		return j, false, nil //nolint:nilerr // the lock's holder says so
	}
	return j, len(differences(have, want)) == 0, nil
}

// adopt gives a job about the target that was there before jobs had keys the key
// that its kind makes, so that no second one appears beside it. One that is active
// goes first.
func adopt(ctx context.Context, tx pgx.Tx, kind string, key Key, t Target) error {
	_, err := tx.Exec(ctx, `UPDATE tallyman.jobs SET idempotency_key = $1 WHERE job_id = (
			SELECT j.job_id FROM tallyman.jobs j JOIN tallyman.job_status s USING (job_id)
			WHERE (kind, dataset, revision_id) = ($2, $3, $4) AND idempotency_key LIKE 'legacy:%'
			ORDER BY status IN ('completed', 'stopped', 'fatal'), job_id LIMIT 1
		) AND idempotency_key LIKE 'legacy:%' AND NOT EXISTS (SELECT FROM tallyman.jobs WHERE idempotency_key = $1)`, key, kind, t.Dataset, t.Revision)
	return err
}

// obtain makes a job, or locks the one that there is, whoever made it.
func obtain(ctx context.Context, tx pgx.Tx, kind string, key Key, t Target) (made bool, j Job, err error) {
	for {
		j = Job{Key: key, Kind: kind, Dataset: t.Dataset, Revision: t.Revision}
		err = tx.QueryRow(ctx, `INSERT INTO tallyman.jobs (idempotency_key, kind, dataset, revision_id) VALUES ($1, $2, $3, $4)
			ON CONFLICT (idempotency_key) DO NOTHING RETURNING job_id, created_at`, key, kind, t.Dataset, t.Revision).Scan(&j.ID, &j.CreatedAt)
		if !errors.Is(err, pgx.ErrNoRows) {
			return true, j, err
		}
		err = tx.QueryRow(ctx, `SELECT job_id FROM tallyman.jobs WHERE idempotency_key = $1 FOR UPDATE`, key).Scan(&j.ID)
		if errors.Is(err, pgx.ErrNoRows) {
			continue // it was deleted in between
		}
		if err == nil {
			j, err = read(ctx, tx, j.ID)
		}
		return false, j, err
	}
}

// same returns a Conflict unless an active job has these options.
func same(ctx context.Context, tx pgx.Tx, kind Kind, j *Job, want any) error {
	raw, _, err := scheduled(ctx, tx, j)
	if err != nil {
		return err
	}
	have, err := kind.Options(raw)
	if err != nil {
		return fmt.Errorf("job %d: what it was scheduled with can't be read: %w", j.ID, err)
	}
	if all := differences(have, want); len(all) > 0 {
		return &Conflict{Job: *j, Differences: all}
	}
	return nil
}

// Replace is Deploy, but for an active job with other options: that is stopped,
// waited for until it has stopped, and scheduled with these. told is called once
// with what is being replaced; nil: nobody is told.
func (l *Ledger) Replace(ctx context.Context, d Deployment, told func(*Conflict)) (Deployed, error) {
	tick := time.NewTicker(replaceEvery)
	defer tick.Stop()
	for {
		done, err := l.Deploy(ctx, d)
		var other *Conflict
		switch {
		case errors.As(err, &other):
			if told != nil {
				told(other)
				told = nil
			}
			if _, err := l.Stop(ctx, other.Job.ID); err != nil && !errors.Is(err, ErrUnknown) {
				return Deployed{}, err
			}
		case !errors.Is(err, ErrStopping):
			return done, err
		}
		// Nobody may be there to work on it, and so to end it.
		if _, err := l.Reconcile(ctx, slog.New(slog.DiscardHandler)); err != nil {
			return Deployed{}, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return Deployed{}, context.Cause(ctx)
		}
	}
}

// replaceEvery is how often Replace looks whether the job has stopped.
const replaceEvery = 250 * time.Millisecond

// Stop asks an active job to stop. Asking again, or a job that has ended, is
// success and changes nothing.
func (l *Ledger) Stop(ctx context.Context, id int64) (Job, error) {
	return l.change(ctx, id, func(_ pgx.Tx, j *Job) (*Event, detail, error) {
		if j.Status.Ended() || j.Status == StopRequested || j.Status == Stopping {
			return nil, detail{}, nil
		}
		return &Event{Type: string(StopRequested), Epoch: j.Epoch}, detail{}, nil
	})
}

// Retry schedules a job in error again at once, with the options that it has. In
// any other status it is refused, or is what was asked for already.
func (l *Ledger) Retry(ctx context.Context, id int64) (Job, error) {
	return l.change(ctx, id, func(_ pgx.Tx, j *Job) (*Event, detail, error) {
		switch j.Status {
		case Failed:
			return &Event{Type: Retried, Epoch: j.Epoch}, detail{}, nil
		case Scheduled, Running:
			return nil, detail{}, nil
		}
		return nil, detail{}, fmt.Errorf("job %d is %s, not in error; deploy it again: %w", j.ID, j.Status, ErrNotRunnable)
	})
}

// Delete removes a job that has ended, with its history. Its key is free then.
func (l *Ledger) Delete(ctx context.Context, id int64) error {
	return l.atOnce(ctx, func(tx pgx.Tx) error {
		j, err := lock(ctx, tx, id)
		if err == nil && !j.Status.Ended() {
			err = fmt.Errorf("job %d is %s: %w", id, j.Status, ErrActive)
		}
		if err == nil {
			_, err = tx.Exec(ctx, `DELETE FROM tallyman.jobs WHERE job_id = $1`, id)
		}
		return err
	})
}

// change locks a job and lets decide say which event follows; nil: none.
func (l *Ledger) change(ctx context.Context, id int64, decide func(tx pgx.Tx, j *Job) (*Event, detail, error)) (Job, error) {
	var j Job
	err := l.atOnce(ctx, func(tx pgx.Tx) (err error) {
		if j, err = lock(ctx, tx, id); err != nil {
			return err
		}
		e, d, err := decide(tx, &j)
		if err == nil && e != nil {
			err = l.add(ctx, tx, &j, *e, d)
		}
		return err
	})
	return j, err
}
