package job_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/loader/job"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

// copying is a kind of the tests.
type copying struct{ name string }

type copyOptions struct {
	Parallelism int     `json:"parallelism"`
	End         string  `json:"end"`
	Rate        float64 `json:"rate"`
	Placement   string  `json:"placement"`
	Most        int     `json:"most"`
}

// Members implements job.Limited.
func (o *copyOptions) Members() int { return o.Most }

func (k copying) Name() string             { return k.name }
func (k copying) Key(t job.Target) job.Key { return job.HashKey(k.name, t) }
func (copying) Options(raw json.RawMessage) (any, error) {
	o := &copyOptions{Parallelism: 1, Rate: 1.5}
	return o, job.ReadOptions(raw, o)
}

// rig is a ledger in a database of its own.
type rig struct {
	t    testing.TB
	dsn  string
	pool *pgxpool.Pool
	*job.Ledger
}

// many is how many connections the concurrent tests have.
const many = 50

// each runs f on every version, in a ledger of its own.
func each(t *testing.T, f func(t *testing.T, r *rig)) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			f(t, newRig(t, version))
		})
	}
}

func newRig(t testing.TB, version string) *rig {
	t.Helper()
	r := newBareRig(t, version)
	for _, name := range []string{"00001_ledger", "00014_jobs", "00015_job_keys"} {
		r.run(migration(t, name))
	}
	return r
}

// versions are those of PostgreSQL that everything runs on.
func versions() []string { return sandboxtest.Versions() }

// newBareRig is a rig whose ledger has no tables yet.
func newBareRig(t testing.TB, version string) *rig {
	t.Helper()
	r := &rig{t: t, dsn: sandboxtest.Postgres(t, version)}
	config, err := pgxpool.ParseConfig(r.dsn)
	r.no(err)
	config.MaxConns = many
	r.pool, err = pgxpool.NewWithConfig(t.Context(), config)
	r.no(err)
	t.Cleanup(r.pool.Close)
	r.run("CREATE SCHEMA tallyman")
	r.Ledger = job.New(r.pool, copying{"copy"}, copying{"other"})
	r.Backoff = func(int) time.Duration { return 0 }
	return r
}

// migration returns the statements of a migration of the warehouse, which the
// ledger's tables are in.
func migration(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../sink/postgres/migrations/" + name + ".sql")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (r *rig) no(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) run(sql string, args ...any) {
	r.t.Helper()
	if len(args) > 0 {
		_, err := r.pool.Exec(r.t.Context(), sql, args...)
		r.no(err)
		return
	}
	conn, err := r.pool.Acquire(r.t.Context())
	r.no(err)
	defer conn.Release()
	_, err = conn.Conn().PgConn().Exec(r.t.Context(), sql).ReadAll()
	r.no(err)
}

func (r *rig) count(sql string, args ...any) (n int64) {
	r.t.Helper()
	r.no(r.pool.QueryRow(r.t.Context(), sql, args...).Scan(&n))
	return n
}

// on is a target by its revision.
func on(revision int64) job.Target {
	return job.Target{Dataset: "ads/clicks", Manifest: strings.Repeat("a", 64), Revision: revision}
}

// wanted is a deployment of the kind copy about a revision.
func wanted(revision int64, options string) job.Deployment {
	return job.Deployment{Kind: "copy", Options: json.RawMessage(options), Resolve: func(context.Context, pgx.Tx) (job.Target, error) { return on(revision), nil }}
}

// deploy deploys what must succeed.
func (r *rig) deploy(revision int64, options string) job.Deployed {
	r.t.Helper()
	d, err := r.Deploy(r.t.Context(), wanted(revision, options))
	r.no(err)
	return d
}

// running deploys a job that a member works on.
func (r *rig) running(revision int64, member string) *job.Run {
	r.t.Helper()
	run, err := r.Join(r.t.Context(), r.deploy(revision, "").Job.ID, member, time.Minute)
	r.no(err)
	return run
}

// ended brings a job about a revision to each end.
func (r *rig) ended(revision int64, status job.Status) job.Job {
	r.t.Helper()
	run := r.running(revision, "m")
	var err error
	switch status {
	case job.Completed:
		_, err = r.Complete(r.t.Context(), run)
	case job.Fatal:
		_, err = r.GiveUp(r.t.Context(), run, errors.New("planted"))
	default:
		_, err = r.Stop(r.t.Context(), run.Job.ID)
		r.no(err)
		_, err = r.Leave(r.t.Context(), run)
	}
	r.no(err)
	r.is(run.Job.ID, status)
	return r.show(run.Job.ID)
}

func (r *rig) show(id int64) job.Job {
	r.t.Helper()
	j, err := r.Show(r.t.Context(), id)
	r.no(err)
	return j
}

// is checks a job's status.
func (r *rig) is(id int64, want job.Status) {
	r.t.Helper()
	if j := r.show(id); j.Status != want {
		r.t.Errorf("job %d is %s, want %s", id, j.Status, want)
	}
}

// story returns the types of a job's events.
func (r *rig) story(id int64) string {
	r.t.Helper()
	events, err := r.Events(r.t.Context(), id)
	r.no(err)
	var types []string
	for _, e := range events {
		types = append(types, e.Type)
	}
	return strings.Join(types, " ")
}

// sums returns an error unless a job's events add up to its status.
func (r *rig) sums(j job.Job) error {
	events, err := r.Events(r.t.Context(), j.ID)
	if err != nil {
		return err
	}
	var sum job.State
	for _, e := range events {
		sum = sum.After(e)
	}
	if sum.RetryAt != nil && j.RetryAt != nil && sum.RetryAt.Equal(*j.RetryAt) {
		sum.RetryAt = j.RetryAt
	}
	if !reflect.DeepEqual(sum, j.State) {
		return fmt.Errorf("job %d: events add up to %+v, its status is %+v", j.ID, sum, j.State)
	}
	return nil
}

// adds checks that a job's events add up to its status.
func (r *rig) adds(j job.Job) {
	r.t.Helper()
	if err := r.sums(j); err != nil {
		r.t.Error(err)
	}
}

// conflict is the conflict that an error has to be.
func (r *rig) conflict(err error) *job.Conflict {
	r.t.Helper()
	var c *job.Conflict
	if !errors.As(err, &c) {
		r.t.Fatalf("%v, want a conflict", err)
	}
	return c
}

// told checks a job's events.
func (r *rig) told(id int64, want string) {
	r.t.Helper()
	if got := r.story(id); got != want {
		r.t.Errorf("job %d: %s, want %s", id, got, want)
	}
}

// fails checks that an error is of a kind.
func (r *rig) fails(err, want error) {
	r.t.Helper()
	if !errors.Is(err, want) {
		r.t.Errorf("%v, want %v", err, want)
	}
}

// together calls f that many times at once, and returns the errors.
func together(n int, f func(i int) error) []error {
	errs, start := make([]error, n), make(chan struct{})
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			<-start
			errs[i] = f(i)
		})
	}
	close(start)
	group.Wait()
	return errs
}

// heard listens for notifications; the function returns what came so far.
func (r *rig) heard() func() []string {
	r.t.Helper()
	conn, err := pgx.Connect(r.t.Context(), r.dsn)
	r.no(err)
	r.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	_, err = conn.Exec(r.t.Context(), "LISTEN "+job.Channel)
	r.no(err)
	return func() (all []string) {
		r.t.Helper()
		_, err := conn.Exec(r.t.Context(), fmt.Sprintf("NOTIFY %s, 'end'", job.Channel)) // in the order of commits
		r.no(err)
		for {
			n, err := conn.WaitForNotification(r.t.Context())
			r.no(err)
			if n.Payload == "end" {
				return all
			}
			all = append(all, n.Payload)
		}
	}
}
