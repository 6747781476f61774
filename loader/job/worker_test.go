package job_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tallyman/loader/job"
)

// hand is a worker of the tests.
type hand struct {
	*job.Worker
	r     *rig
	began chan *job.Run // each time it begins to work
	end   chan error    // what its work returns when it is given something
	stop  func()        // ends the worker, and waits for that
}

// hand starts a worker whose work goes on until it is stopped, or is given an end.
func (r *rig) hand(name string, change func(*job.WorkerConfig)) *hand {
	r.t.Helper()
	h := &hand{r: r, began: make(chan *job.Run, 100), end: make(chan error)}
	c := job.WorkerConfig{Ledger: r.Ledger, Member: name, Every: time.Minute, Do: map[string]func(context.Context, *job.Run) error{
		"copy": func(ctx context.Context, run *job.Run) error {
			h.began <- run
			select {
			case err := <-h.end:
				return err
			case <-ctx.Done():
				return nil
			}
		},
	}}
	if change != nil {
		change(&c)
	}
	h.Worker = job.NewWorker(c)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { h.Run(ctx); close(ended) }()
	h.stop = sync.OnceFunc(func() { cancel(); <-ended })
	r.t.Cleanup(h.stop)
	return h
}

// begins waits until the worker begins to work.
func (h *hand) begins() *job.Run {
	h.r.t.Helper()
	select {
	case run := <-h.began:
		return run
	case <-time.After(20 * time.Second):
		h.r.t.Fatal("the worker did not begin")
		return nil
	}
}

// becomes waits for a status, and returns how long that took.
func (r *rig) becomes(id int64, want job.Status) time.Duration {
	r.t.Helper()
	begin := time.Now()
	for r.show(id).Status != want {
		if time.Since(begin) > 20*time.Second {
			r.t.Fatalf("job %d is %s, want %s", id, r.show(id).Status, want)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(begin)
}

// Workers share a job, hear of a stop by its notification, and work on it again
// when it is deployed again.
func TestWorkersShareAJob(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		a, b := r.hand("a", nil), r.hand("b", nil)
		id := r.deploy(1, "").Job.ID
		if run := a.begins(); run.Job.ID != id || run.Job.Epoch != 1 || run.Options.(*copyOptions).Rate != 1.5 || run.Scheduled.IsZero() {
			t.Errorf("a began %+v", run)
		}
		b.begins()
		_, err := r.Stop(t.Context(), id)
		r.no(err)
		if took := r.becomes(id, job.Stopped); took > 10*time.Second { // they look every minute
			t.Errorf("the stop took %v", took)
		}
		r.told(id, "scheduled running stop_requested stopping stopped")
		if d := r.deploy(1, `{"rate": 2}`); d.Job.Epoch != 2 {
			t.Errorf("deployed %+v", d)
		}
		if run := b.begins(); run.Job.Epoch != 2 || run.Options.(*copyOptions).Rate != 2 {
			t.Errorf("b began %+v", run)
		}
		a.begins()
		a.stop()
		b.stop()
		r.is(id, job.Running) // that everybody has left ends nothing
		if n := r.count("SELECT count(*) FROM tallyman.job_members"); n != 0 {
			t.Errorf("%d members are left", n)
		}
	})
}

// What no notification tells is seen one look later.
func TestWorkerLooksByItself(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		a := r.hand("a", func(c *job.WorkerConfig) { c.Every = 200 * time.Millisecond })
		id := r.deploy(1, "").Job.ID
		a.begins()
		r.run(`INSERT INTO tallyman.job_events (job_id, epoch, type, worker, detail) VALUES ($1, 1, 'stop_requested', '', '{}')`, id)
		r.run(`UPDATE tallyman.job_status SET status = 'stop_requested' WHERE job_id = $1`, id)
		r.becomes(id, job.Stopped)
	})
}

// A worker whose connections all broke goes on, and still hears of a stop.
func TestWorkerSurvivesLostConnections(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		a := r.hand("a", func(c *job.WorkerConfig) { c.Every = 200 * time.Millisecond })
		id := r.deploy(1, "").Job.ID
		a.begins()
		admin, err := pgx.Connect(t.Context(), r.dsn)
		r.no(err)
		defer func() { _ = admin.Close(context.Background()) }()
		for range 5 {
			_, err := admin.Exec(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
			r.no(err)
		}
		for {
			if _, err := r.Stop(t.Context(), id); err == nil {
				break
			}
		}
		r.becomes(id, job.Stopped)
		if n := len(a.began); n != 0 {
			t.Errorf("it began %d times more", n)
		}
	})
}

// Work that is done completes its job, and work that fails is tried again.
func TestWorkerTellsWhatCameOfIt(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		var failed, completed atomic.Int64
		a := r.hand("a", func(c *job.WorkerConfig) {
			c.Every = 50 * time.Millisecond
			c.Ended = func(_ job.Job, err error) {
				if err != nil {
					failed.Add(1)
				} else {
					completed.Add(1)
				}
			}
		})
		id := r.deploy(1, "").Job.ID
		a.begins()
		a.end <- errors.New("planted")
		a.begins()
		a.end <- nil
		r.becomes(id, job.Completed)
		r.told(id, "scheduled running error retry running completed")
		a.stop()
		if failed.Load() != 1 || completed.Load() != 1 {
			t.Errorf("%d failures and %d completions were told", failed.Load(), completed.Load())
		}
	})
}

// A member that fails leaves; the job goes on by the others.
func TestFailureOfOneMember(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		a, b := r.hand("a", nil), r.hand("b", nil)
		id := r.deploy(1, "").Job.ID
		a.begins()
		b.begins()
		a.end <- errors.New("planted")
		for r.count("SELECT count(*) FROM tallyman.job_members WHERE member = 'a'") != 0 {
			time.Sleep(5 * time.Millisecond)
		}
		r.told(id, "scheduled running")
		b.end <- errors.New("planted too")
		r.becomes(id, job.Failed)
	})
}

// No more members work on a job than its options allow; a spare one takes over
// from one that leaves.
func TestSpareMembers(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		quick := func(c *job.WorkerConfig) { c.Every = 50 * time.Millisecond }
		hands := map[string]*hand{"a": r.hand("a", quick), "b": r.hand("b", quick), "c": r.hand("c", quick)}
		id := r.deploy(1, `{"most": 1}`).Job.ID
		for range 3 {
			for r.count("SELECT count(*) FROM tallyman.job_members") != 1 {
				time.Sleep(5 * time.Millisecond)
			}
			d, err := r.Describe(t.Context(), id, "")
			r.no(err)
			if len(d.Members) != 1 {
				t.Fatalf("members %+v", d.Members)
			}
			one := hands[d.Members[0].Name]
			one.begins()
			one.stop()
		}
		r.told(id, "scheduled running")
		_, err := r.Join(t.Context(), id, "d", time.Minute)
		r.no(err)
		_, err = r.Join(t.Context(), id, "e", time.Minute)
		r.fails(err, job.ErrFull)
		_, err = r.Join(t.Context(), id, "d", time.Minute)
		r.no(err)
	})
}

// An end of an epoch, and the beginning of a further one, is fenced in its
// transaction: one that fails ends nothing, and a lock that is held is waited for.
func TestEpochsAreFenced(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		var (
			fenced []job.Status
			fail   error
		)
		r.Fence = func(_ context.Context, _ pgx.Tx, j job.Job) error {
			if err := fail; err != nil {
				if errors.As(err, new(*pgconn.PgError)) {
					fail = nil
				}
				return err
			}
			fenced = append(fenced, j.Status)
			return nil
		}
		run := r.running(1, "m")
		_, err := r.Stop(t.Context(), run.Job.ID)
		r.no(err)
		fail = errors.New("planted")
		if _, err := r.Leave(t.Context(), run); !errors.Is(err, fail) {
			t.Errorf("leaving: %v", err)
		}
		r.is(run.Job.ID, job.StopRequested)
		fail = &pgconn.PgError{Code: "55P03"}
		_, err = r.Leave(t.Context(), run)
		r.no(err)
		r.is(run.Job.ID, job.Stopped)
		r.deploy(1, "")
		again, err := r.Join(t.Context(), run.Job.ID, "m", time.Minute)
		r.no(err)
		_, err = r.Complete(t.Context(), again)
		r.no(err)
		want := []job.Status{job.Stopped, job.Scheduled, job.Completed}
		if len(fenced) != 3 || fenced[0] != want[0] || fenced[1] != want[1] || fenced[2] != want[2] {
			t.Errorf("fenced at %v, want %v", fenced, want)
		}
	})
}

// Replace stops an active job with other options, waits for that, and schedules
// it with the new ones; with equal ones it does nothing.
func TestReplace(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		a := r.hand("a", nil)
		id := r.deploy(1, "").Job.ID
		a.begins()
		told := 0
		d, err := r.Replace(t.Context(), wanted(1, `{"rate": 3}`), func(*job.Conflict) { told++ })
		r.no(err)
		if d.Job.ID != id || d.Job.Epoch != 2 || d.Deduplicated || told != 1 {
			t.Errorf("%+v, told %d times", d, told)
		}
		if run := a.begins(); run.Options.(*copyOptions).Rate != 3 {
			t.Errorf("it runs with %+v", run.Options)
		}
		d, err = r.Replace(t.Context(), wanted(1, `{"rate": 3.0}`), nil)
		r.no(err)
		if !d.Deduplicated {
			t.Errorf("%+v", d)
		}
		r.told(id, "scheduled running stop_requested stopping stopped scheduled running")
		a.stop()
		// Nobody works on it, and nobody has to.
		if d, err = r.Replace(t.Context(), wanted(1, `{"rate": 4}`), nil); err != nil || d.Job.Epoch != 3 {
			t.Errorf("%+v: %v", d, err)
		}
	})
}

// A job that nobody works on is stopped at once, and may be deployed again.
func TestStopOfWhatNobodyWorksOn(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.deploy(1, "").Job.ID
		j, err := r.StopNow(t.Context(), id)
		r.no(err)
		if j.Status != job.Stopped {
			t.Errorf("it is %s", j.Status)
		}
		if d := r.deploy(1, ""); d.Job.Epoch != 2 {
			t.Errorf("%+v", d)
		}
		run, err := r.Join(t.Context(), id, "m", time.Minute)
		r.no(err)
		j, err = r.StopNow(t.Context(), id)
		r.no(err)
		if j.Status != job.StopRequested {
			t.Errorf("with a member it is %s", j.Status)
		}
		r.run("UPDATE tallyman.job_members SET lease_until = now() - interval '2 hours'")
		_, err = r.StopNow(t.Context(), id)
		r.no(err)
		r.is(id, job.Stopped)
		if n := r.count("SELECT count(*) FROM tallyman.job_members"); n != 0 {
			t.Errorf("%d members are remembered", n)
		}
		_, err = r.Renew(t.Context(), run, time.Minute)
		r.fails(err, job.ErrStale)
	})
}

// A job that the ledger has forgotten while it was worked on, or has in an earlier
// epoch, is told of, so that who wanted it can ask for it again; one that was stopped
// and then deleted is not.
func TestJobsThatWentBack(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		gone := make(chan job.Job, 10)
		h := r.hand("m", func(c *job.WorkerConfig) {
			c.Every = 100 * time.Millisecond
			c.Vanished = func(j job.Job) { gone <- j }
		})
		for _, restore := range []string{"DELETE FROM tallyman.jobs", "DELETE FROM tallyman.job_members; UPDATE tallyman.job_status SET epoch = epoch - 1, status = 'stopped'"} {
			id := r.deploy(1, "").Job.ID
			h.begins()
			r.run(restore)
			select {
			case j := <-gone:
				if j.ID != id {
					t.Errorf("job %d, want %d", j.ID, id)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("nobody was told")
			}
		}
		id := r.deploy(2, "").Job.ID
		h.begins()
		_, err := r.Stop(t.Context(), id)
		r.no(err)
		r.becomes(id, job.Stopped)
		r.no(r.Delete(t.Context(), id))
		time.Sleep(300 * time.Millisecond)
		if len(gone) != 0 {
			t.Error("a job that was stopped and deleted was told of")
		}
	})
}
