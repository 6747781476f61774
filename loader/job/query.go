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

// List returns all jobs, the newest first.
func (l *Ledger) List(ctx context.Context) ([]Job, error) {
	rows, err := l.pool.Query(ctx, `SELECT `+columns+` FROM tallyman.jobs j JOIN tallyman.job_status s USING (job_id) ORDER BY job_id DESC`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scan)
}

// Show returns a job.
func (l *Ledger) Show(ctx context.Context, id int64) (Job, error) {
	return l.one(ctx, fmt.Sprint(id), `job_id = $1`, id)
}

// Find returns the job of a key.
func (l *Ledger) Find(ctx context.Context, key Key) (Job, error) {
	if err := key.Valid(); err != nil {
		return Job{}, err
	}
	return l.one(ctx, "with key "+string(key), `idempotency_key = $1`, key)
}

func (l *Ledger) one(ctx context.Context, what, where string, arg any) (Job, error) {
	rows, err := l.pool.Query(ctx, `SELECT `+columns+` FROM tallyman.jobs j JOIN tallyman.job_status s USING (job_id) WHERE `+where, arg)
	if err != nil {
		return Job{}, err
	}
	j, err := pgx.CollectExactlyOneRow(rows, scan)
	if errors.Is(err, pgx.ErrNoRows) {
		err = fmt.Errorf("%w: %s", ErrUnknown, what)
	}
	return j, err
}

// Events returns what happened to a job, in order.
func (l *Ledger) Events(ctx context.Context, id int64) ([]Event, error) {
	rows, err := l.pool.Query(ctx, `SELECT event_id, epoch, type, worker, detail, at FROM tallyman.job_events WHERE job_id = $1 ORDER BY event_id`, id)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Event])
}

// Member is somebody who works on a job.
type Member struct {
	Name       string    `json:"name"`
	LeaseUntil time.Time `json:"lease_until"`
}

// Description is a job with the options of its present run and who works on it.
type Description struct {
	Job
	Options json.RawMessage `json:"options"`
	Members []Member        `json:"members"` // whose leases are not over
}

// Describe returns a job by its id, or if that is 0, by its key.
func (l *Ledger) Describe(ctx context.Context, id int64, key Key) (d Description, err error) {
	if id == 0 {
		d.Job, err = l.Find(ctx, key)
	} else {
		d.Job, err = l.Show(ctx, id)
	}
	if err != nil {
		return d, err
	}
	if d.Options, err = l.OptionsOf(ctx, d.Job); err != nil {
		return d, err
	}
	rows, err := l.pool.Query(ctx, `SELECT member, lease_until FROM tallyman.job_members
		WHERE (job_id, epoch) = ($1, $2) AND lease_until > clock_timestamp() ORDER BY member`, d.ID, d.Epoch)
	if err != nil {
		return d, err
	}
	d.Members, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Member])
	return d, err
}

// StopNow is Stop, and ends the job at once if nobody works on it: there may be
// nobody who would find out.
func (l *Ledger) StopNow(ctx context.Context, id int64) (Job, error) {
	if _, err := l.Stop(ctx, id); err != nil {
		return Job{}, err
	}
	if _, err := l.Reconcile(ctx, slog.New(slog.DiscardHandler)); err != nil {
		return Job{}, err
	}
	return l.Show(ctx, id)
}

// AwaitEnd waits until a job has ended, which may need others to work on it, but
// no longer than limit.
func (l *Ledger) AwaitEnd(ctx context.Context, id int64, limit time.Duration) (Job, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("job %d has not ended in %v", id, limit))
	defer cancel()
	for {
		if _, err := l.Reconcile(ctx, slog.New(slog.DiscardHandler)); err != nil && ctx.Err() == nil {
			return Job{}, err
		}
		if ctx.Err() != nil {
			return Job{}, context.Cause(ctx)
		}
		j, err := l.Show(ctx, id)
		if err != nil && ctx.Err() == nil || err == nil && j.Status.Ended() {
			return j, err
		}
		wait(ctx, replaceEvery)
	}
}

// OptionsOf returns the options of the run that a job's epoch stands for.
func (l *Ledger) OptionsOf(ctx context.Context, j Job) (json.RawMessage, error) {
	var raw json.RawMessage
	err := l.atOnce(ctx, func(tx pgx.Tx) (err error) {
		raw, _, err = scheduled(ctx, tx, &j)
		return err
	})
	return raw, err
}

// Reconcile does what nobody else is there to do: it schedules jobs in error
// whose pause is over, and ends those that are being stopped and that nobody
// works on any more. It forgets members that were not heard of for an hour: one that
// comes back joins again. Any number of processes may do so. A job that resists does
// not hold up the others; it is logged. It returns how many jobs it moved.
func (l *Ledger) Reconcile(ctx context.Context, log *slog.Logger) (int, error) {
	if _, err := l.pool.Exec(ctx, `DELETE FROM tallyman.job_members WHERE lease_until < clock_timestamp() - interval '1 hour'`); err != nil {
		return 0, err
	}
	rows, err := l.pool.Query(ctx, `SELECT job_id, epoch FROM tallyman.job_status
		WHERE status = 'error' AND retry_at <= clock_timestamp() OR status IN ('stop_requested', 'stopping')`)
	if err != nil {
		return 0, err
	}
	type due struct{ ID, Epoch int64 }
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[due])
	if err != nil {
		return 0, err
	}
	moved := 0
	for _, d := range all {
		did := false
		_, err := l.change(ctx, d.ID, func(tx pgx.Tx, j *Job) (e *Event, with detail, err error) {
			did = false
			switch {
			case j.Epoch != d.Epoch:
			case j.Status == Failed:
				var due bool
				err = tx.QueryRow(ctx, `SELECT coalesce($1 <= clock_timestamp(), false)`, j.RetryAt).Scan(&due)
				if due {
					e = &Event{Type: Retried, Epoch: j.Epoch}
				}
			default:
				e, with, err = abandoned(ctx, tx, j, "")
			}
			did = err == nil && e != nil
			return e, with, err
		})
		switch {
		case errors.Is(err, ErrUnknown): // deleted meanwhile
		case err != nil:
			log.Warn("job can't be moved on; the others are", "job", d.ID, "cause", err)
		case did:
			moved++
		}
		if ctx.Err() != nil {
			return moved, ctx.Err()
		}
	}
	return moved, nil
}
