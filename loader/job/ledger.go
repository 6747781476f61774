package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Channel is where the ids of jobs that changed are notified.
const Channel = "tallyman_jobs"

// Job is a job with its state.
type Job struct {
	ID        int64     `json:"job_id"`
	Key       Key       `json:"idempotency_key"`
	Kind      string    `json:"kind"`
	Dataset   string    `json:"dataset"`
	Revision  int64     `json:"revision_id"`
	CreatedAt time.Time `json:"created_at"`
	State
}

// Ledger is the jobs in one database. It is safe for concurrent use, by any
// number of processes.
type Ledger struct {
	pool  *pgxpool.Pool
	kinds map[string]Kind
	// Backoff is the pause after so many attempts that failed. Tests change it.
	Backoff func(attempts int) time.Duration
	// Fence is called in the transaction that ends an epoch of a job or begins a
	// further one: from its commit on, nothing that members of earlier epochs still
	// have in flight can come to anything. A lock that it can't get in time, 55P03,
	// has the transaction begin again. Defaults to nothing.
	Fence func(ctx context.Context, tx pgx.Tx, j Job) error
}

// New returns the ledger in a database that has the schema tallyman, for some
// kinds of jobs. The pool stays the caller's.
func New(pool *pgxpool.Pool, kinds ...Kind) *Ledger {
	l := &Ledger{pool: pool, kinds: map[string]Kind{}, Backoff: pauseAfter,
		Fence: func(context.Context, pgx.Tx, Job) error { return nil }}
	for _, k := range kinds {
		l.kinds[k.Name()] = k
	}
	return l
}

// pauseAfter doubles from a second to ten minutes.
func pauseAfter(attempts int) time.Duration {
	const first, longest = time.Second, 10 * time.Minute
	if attempts > 10 { // more would pass the longest many times over
		return longest
	}
	return min(first<<max(attempts-1, 0), longest)
}

// kind returns the kind of a name.
func (l *Ledger) kind(name string) (Kind, error) {
	k := l.kinds[name]
	if k == nil {
		return nil, fmt.Errorf("%w: %q", ErrUnknownKind, clip(name))
	}
	return k, nil
}

// atOnce runs f in a transaction at READ COMMITTED, and again from its start when
// another session was in the way: the caller never sees that, and what f did is
// done once.
func (l *Ledger) atOnce(ctx context.Context, f func(tx pgx.Tx) error) error {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval = time.Millisecond, 100*time.Millisecond
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := pgx.BeginTxFunc(ctx, l.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, f)
		if err != nil && !inTheWay(err) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(time.Minute))
	return err
}

// inTheWay says that the transaction may succeed as it is when it begins again.
func inTheWay(err error) bool {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case "23505", "40001", "40P01", "55P03": // unique_violation, serialization_failure, deadlock_detected, lock_not_available
		return true
	}
	return false
}

const columns = `j.job_id, j.idempotency_key, j.kind, j.dataset, j.revision_id, j.created_at,
	s.status, s.epoch, s.worker, s.attempts, s.retry_at, s.detail, s.updated_at`

// fields are where columns are read to.
func (j *Job) fields() []any {
	return []any{&j.ID, &j.Key, &j.Kind, &j.Dataset, &j.Revision, &j.CreatedAt,
		&j.Status, &j.Epoch, &j.Worker, &j.Attempts, &j.RetryAt, &j.Detail, &j.UpdatedAt}
}

func scan(row pgx.CollectableRow) (j Job, err error) {
	err = row.Scan(j.fields()...)
	return j, err
}

// lock locks a job by its id, and reads its state in a statement of its own: the
// one that waited for the lock may have read what was replaced meanwhile.
func lock(ctx context.Context, tx pgx.Tx, id int64) (Job, error) {
	if err := tx.QueryRow(ctx, `SELECT job_id FROM tallyman.jobs WHERE job_id = $1 FOR UPDATE`, id).Scan(&id); err != nil {
		if errors.Is(err, pgx.ErrNoRows) {
			err = fmt.Errorf("%w: %d", ErrUnknown, id)
		}
		return Job{}, err
	}
	return read(ctx, tx, id)
}

func read(ctx context.Context, tx pgx.Tx, id int64) (Job, error) {
	rows, err := tx.Query(ctx, `SELECT `+columns+` FROM tallyman.jobs j JOIN tallyman.job_status s USING (job_id) WHERE job_id = $1`, id)
	if err != nil {
		return Job{}, err
	}
	return pgx.CollectExactlyOneRow(rows, scan)
}

// add adds an event to a locked job, and what the events add up to.
func (l *Ledger) add(ctx context.Context, tx pgx.Tx, j *Job, e Event, d detail) error {
	var err error
	if e.Detail, err = json.Marshal(d); err != nil {
		return err
	}
	err = tx.QueryRow(ctx, `INSERT INTO tallyman.job_events (job_id, epoch, type, worker, detail) VALUES ($1, $2, $3, $4, $5) RETURNING event_id, at, detail`,
		j.ID, e.Epoch, e.Type, e.Worker, e.Detail).Scan(&e.ID, &e.At, &e.Detail)
	if err != nil {
		return err
	}
	j.State = j.After(e)
	_, err = tx.Exec(ctx, `INSERT INTO tallyman.job_status AS s (job_id, status, epoch, worker, attempts, retry_at, detail, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (job_id) DO UPDATE SET (status, epoch, worker, attempts, retry_at, detail, updated_at)
		= (EXCLUDED.status, EXCLUDED.epoch, EXCLUDED.worker, EXCLUDED.attempts, EXCLUDED.retry_at, EXCLUDED.detail, EXCLUDED.updated_at)`,
		j.ID, j.Status, j.Epoch, j.Worker, j.Attempts, j.RetryAt, j.Detail, j.UpdatedAt)
	if err != nil {
		return err
	}
	if j.Status.Ended() || j.Status == Scheduled && j.Epoch > 1 && e.Type != Retried {
		if err := l.Fence(ctx, tx, *j); err != nil {
			return err
		}
	}
	_, err = tx.Exec(ctx, `SELECT pg_notify($1, $2)`, Channel, strconv.FormatInt(j.ID, 10))
	return err
}

// scheduled returns the options of the run that a job's epoch stands for, and
// when it was scheduled.
func scheduled(ctx context.Context, tx pgx.Tx, j *Job) (json.RawMessage, time.Time, error) {
	var (
		d  detail
		at time.Time
	)
	err := tx.QueryRow(ctx, `SELECT detail, at FROM tallyman.job_events WHERE (job_id, epoch, type) = ($1, $2, 'scheduled')`, j.ID, j.Epoch).Scan(&d, &at)
	return d.Options, at, err
}
