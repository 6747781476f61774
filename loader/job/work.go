package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Run is a member's part in an epoch of a job.
type Run struct {
	Job     Job
	Member  string
	Options any // as the kind reads them, of the event that scheduled the epoch
	// Scheduled is when that event was added, by the clock of the ledger's database:
	// what an option says of "now" or "latest" means this moment, in every attempt.
	Scheduled time.Time
}

// Limited are options that say how many members may work on a job at once.
type Limited interface {
	// Members returns how many; 0: any number.
	Members() int
}

// Join makes a member of whoever works on a job, with a lease. The first one
// begins the run; joining never raises the epoch. A job of an unknown kind, or
// with options that can't be read, is fatal from then on: it would crash whoever
// came next.
func (l *Ledger) Join(ctx context.Context, id int64, member string, lease time.Duration) (*Run, error) {
	r := &Run{Member: member}
	var poison error
	j, err := l.change(ctx, id, func(tx pgx.Tx, j *Job) (*Event, detail, error) {
		poison = nil
		if j.Status != Scheduled && j.Status != Running {
			return nil, detail{}, fmt.Errorf("job %d is %s: %w", id, j.Status, ErrNotRunnable)
		}
		raw, at, err := scheduled(ctx, tx, j)
		if err != nil {
			return nil, detail{}, err
		}
		r.Scheduled = at
		e, d := &Event{Type: string(Running), Epoch: j.Epoch, Worker: member}, detail{}
		if r.Options, poison = l.read(j.Kind, raw); poison != nil {
			e.Type, d.Cause = string(Fatal), poison.Error()
			return e, d, err
		}
		if j.Status == Running {
			e = nil
		}
		if err := room(ctx, tx, j, r); err != nil {
			return nil, d, err
		}
		return e, d, hold(ctx, tx, j, member, lease)
	})
	if err == nil && poison != nil {
		err = fmt.Errorf("job %d can't be worked on: %w", id, poison)
	}
	if err != nil {
		return nil, err
	}
	r.Job = j
	return r, nil
}

// read reads the options of a kind by its name.
func (l *Ledger) read(kind string, raw json.RawMessage) (any, error) {
	k, err := l.kind(kind)
	if err != nil {
		return nil, err
	}
	return k.Options(raw)
}

// room returns ErrFull if there is no room for the member among those that hold a lease.
func room(ctx context.Context, tx pgx.Tx, j *Job, r *Run) error {
	o, ok := r.Options.(Limited)
	if !ok || o.Members() <= 0 {
		return nil
	}
	var n int
	err := tx.QueryRow(ctx, `SELECT count(*) FROM tallyman.job_members WHERE (job_id, epoch) = ($1, $2) AND member <> $3 AND lease_until > clock_timestamp()`,
		j.ID, j.Epoch, r.Member).Scan(&n)
	if err == nil && n >= o.Members() {
		err = fmt.Errorf("job %d has %d members: %w", j.ID, n, ErrFull)
	}
	return err
}

func hold(ctx context.Context, tx pgx.Tx, j *Job, member string, lease time.Duration) error {
	_, err := tx.Exec(ctx, `INSERT INTO tallyman.job_members (job_id, epoch, member, lease_until) VALUES ($1, $2, $3, clock_timestamp() + $4)
		ON CONFLICT (job_id, epoch, member) DO UPDATE SET lease_until = EXCLUDED.lease_until`, j.ID, j.Epoch, member, lease)
	return err
}

// let gives a lease back.
func let(ctx context.Context, tx pgx.Tx, r *Run) error {
	_, err := tx.Exec(ctx, `DELETE FROM tallyman.job_members WHERE (job_id, epoch, member) = ($1, $2, $3)`, r.Job.ID, r.Job.Epoch, r.Member)
	return err
}

// Renew renews a member's lease and returns what the job is now: it notices a
// stop. The error is [ErrStale] once the member's epoch is over, or its lease.
func (l *Ledger) Renew(ctx context.Context, r *Run, lease time.Duration) (Job, error) {
	rows, err := l.pool.Query(ctx, `WITH held AS (
			UPDATE tallyman.job_members SET lease_until = clock_timestamp() + $4
			WHERE (job_id, epoch, member) = ($1, $2, $3) RETURNING job_id)
		SELECT `+columns+` FROM tallyman.jobs j JOIN tallyman.job_status s USING (job_id) JOIN held USING (job_id) WHERE s.epoch = $2`,
		r.Job.ID, r.Job.Epoch, r.Member, lease)
	if err != nil {
		return Job{}, err
	}
	j, err := pgx.CollectExactlyOneRow(rows, scan)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && j.Status.Ended() {
		err = fmt.Errorf("job %d, epoch %d: %w", r.Job.ID, r.Job.Epoch, ErrStale)
	}
	return j, err
}

// Current returns [ErrStale] unless a member's epoch is the job's and has not ended.
func (l *Ledger) Current(ctx context.Context, r *Run) error {
	j, err := l.Show(ctx, r.Job.ID)
	if errors.Is(err, ErrUnknown) || err == nil && (j.Epoch != r.Job.Epoch || j.Status.Ended()) {
		err = r.stale(&j)
	}
	return err
}

// Heard says that a member has heard that its job is to stop.
func (l *Ledger) Heard(ctx context.Context, r *Run) (Job, error) {
	return l.move(ctx, r, []Status{StopRequested}, Stopping, detail{})
}

// Complete says that the job is done. It ends the job even while it is being
// stopped.
func (l *Ledger) Complete(ctx context.Context, r *Run) (Job, error) {
	return l.move(ctx, r, []Status{Running, StopRequested, Stopping}, Completed, detail{})
}

// Fail says that a member can't go on, which leaves the job then. If nobody else
// works on it, it will be tried again after a pause that grows with each failure;
// while it is being stopped, it is stopped instead.
func (l *Ledger) Fail(ctx context.Context, r *Run, cause error) (Job, error) {
	return l.changeOf(ctx, r, Failed, func(tx pgx.Tx, j *Job) (*Event, detail, error) {
		d := detail{Cause: cause.Error()}
		if err := let(ctx, tx, r); err != nil {
			return nil, d, err
		}
		if live, err := worked(ctx, tx, j); live || err != nil {
			return nil, d, err
		}
		switch j.Status {
		case Running:
			var at time.Time
			if err := tx.QueryRow(ctx, `SELECT clock_timestamp() + $1::interval`, l.Backoff(j.Attempts+1)).Scan(&at); err != nil {
				return nil, d, err
			}
			at = at.UTC()
			d.RetryAt = &at
			return &Event{Type: string(Failed), Epoch: j.Epoch, Worker: r.Member}, d, nil
		case StopRequested, Stopping:
			return &Event{Type: string(Stopped), Epoch: j.Epoch, Worker: r.Member}, d, nil
		}
		return nil, d, r.stale(j)
	})
}

// GiveUp says that trying again is of no use.
func (l *Ledger) GiveUp(ctx context.Context, r *Run, cause error) (Job, error) {
	return l.move(ctx, r, []Status{Running, StopRequested, Stopping}, Fatal, detail{Cause: cause.Error()})
}

// Leave gives a member's lease back. The last one to leave a job that is being
// stopped ends it.
func (l *Ledger) Leave(ctx context.Context, r *Run) (Job, error) {
	return l.change(ctx, r.Job.ID, func(tx pgx.Tx, j *Job) (*Event, detail, error) {
		err := let(ctx, tx, r)
		if err != nil || j.Epoch != r.Job.Epoch {
			return nil, detail{}, err
		}
		return abandoned(ctx, tx, j, r.Member)
	})
}

// abandoned returns the end of a job that is being stopped and has no live member.
func abandoned(ctx context.Context, tx pgx.Tx, j *Job, worker string) (*Event, detail, error) {
	if j.Status != StopRequested && j.Status != Stopping {
		return nil, detail{}, nil
	}
	if live, err := worked(ctx, tx, j); live || err != nil {
		return nil, detail{}, err
	}
	return &Event{Type: string(Stopped), Epoch: j.Epoch, Worker: worker}, detail{}, nil
}

// worked says whether anybody holds a lease on a job.
func worked(ctx context.Context, tx pgx.Tx, j *Job) (live bool, err error) {
	err = tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM tallyman.job_members WHERE (job_id, epoch) = ($1, $2) AND lease_until > clock_timestamp())`,
		j.ID, j.Epoch).Scan(&live)
	return live, err
}

// stale is the error of a member whose job has moved on.
func (r *Run) stale(j *Job) error {
	return fmt.Errorf("job %d is %s in epoch %d, %s works in epoch %d: %w", j.ID, j.Status, j.Epoch, r.Member, r.Job.Epoch, ErrStale)
}

// move is a member's transition, from some statuses of its own epoch. A
// transition that was made by this member before is success: its answer was lost.
func (l *Ledger) move(ctx context.Context, r *Run, from []Status, to Status, d detail) (Job, error) {
	return l.changeOf(ctx, r, to, func(tx pgx.Tx, j *Job) (*Event, detail, error) {
		for _, s := range from {
			if j.Status != s {
				continue
			}
			var err error
			if to.Ended() {
				err = let(ctx, tx, r)
			}
			return &Event{Type: string(to), Epoch: j.Epoch, Worker: r.Member}, d, err
		}
		return nil, d, r.stale(j)
	})
}

// changeOf is change for a member that holds its lease in the job's epoch.
func (l *Ledger) changeOf(ctx context.Context, r *Run, to Status, decide func(tx pgx.Tx, j *Job) (*Event, detail, error)) (Job, error) {
	return l.change(ctx, r.Job.ID, func(tx pgx.Tx, j *Job) (*Event, detail, error) {
		if j.Epoch != r.Job.Epoch {
			return nil, detail{}, r.stale(j)
		}
		if j.Status == to && j.Worker == r.Member {
			return nil, detail{}, nil
		}
		var held bool
		err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM tallyman.job_members WHERE (job_id, epoch, member) = ($1, $2, $3))`,
			j.ID, j.Epoch, r.Member).Scan(&held)
		if err == nil && !held {
			err = r.stale(j)
		}
		if err != nil {
			return nil, detail{}, err
		}
		return decide(tx, j)
	})
}
