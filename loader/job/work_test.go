package job_test

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"tallyman/loader/job"
)

// Members share an epoch: the first one begins it, joining never raises it.
func TestMembersShareAnEpoch(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.deploy(1, `{"parallelism": 4}`).Job.ID
		for _, err := range together(many, func(i int) error {
			run, err := r.Join(t.Context(), id, fmt.Sprint("m", i), time.Minute)
			if err == nil && (run.Job.Epoch != 1 || run.Options.(*copyOptions).Parallelism != 4) {
				err = fmt.Errorf("%+v", run)
			}
			return err
		}) {
			r.no(err)
		}
		r.told(id, "scheduled running")
		if n := r.count("SELECT count(*) FROM tallyman.job_members WHERE epoch = 1"); n != many {
			t.Errorf("%d members", n)
		}
	})
}

// A run has the options of the event that scheduled its epoch, whatever comes later.
func TestOptionsOfTheEpoch(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		id := r.deploy(1, `{"end": "2026-01-01"}`).Job.ID
		run, err := r.Join(t.Context(), id, "m", time.Minute)
		r.no(err)
		_, err = r.Fail(t.Context(), run, errors.New("planted"))
		r.no(err)
		_, err = r.Retry(t.Context(), id)
		r.no(err)
		again, err := r.Join(t.Context(), id, "n", time.Minute)
		r.no(err)
		if o := again.Options.(*copyOptions); o.End != "2026-01-01" || again.Job.Epoch != 1 {
			t.Errorf("the retry has %+v in epoch %d", o, again.Job.Epoch)
		}
		_, err = r.Complete(t.Context(), again)
		r.no(err)
		r.deploy(1, `{"end": "2027-01-01"}`)
		old, err := r.OptionsOf(t.Context(), again.Job)
		r.no(err)
		if !strings.Contains(string(old), "2026") {
			t.Errorf("epoch 1 has %s now", old)
		}
	})
}

// Rows of jobs and of events are not changed, even by somebody who may.
func TestHistoryIsNotRewritten(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.ended(1, job.Completed)
		for _, sql := range []string{"UPDATE tallyman.jobs SET kind = 'other'", "UPDATE tallyman.job_events SET detail = '{}'"} {
			if _, err := r.pool.Exec(t.Context(), sql); err == nil || !strings.Contains(err.Error(), "append-only") {
				t.Errorf("%s: %v", sql, err)
			}
		}
		for _, key := range []any{nil, "", "x", strings.Repeat("G", 64), strings.Repeat("a", 64) + "\n"} {
			if _, err := r.pool.Exec(t.Context(), "INSERT INTO tallyman.jobs (idempotency_key, kind, dataset, revision_id) VALUES ($1, 'copy', 'a/b', 1)", key); err == nil {
				t.Errorf("the table takes the key %q", key)
			}
		}
		_, err := r.pool.Exec(t.Context(), "INSERT INTO tallyman.jobs (idempotency_key, kind, dataset, revision_id) SELECT idempotency_key, kind, dataset, 2 FROM tallyman.jobs")
		if err == nil {
			t.Error("the table takes a key twice")
		}
	})
}

// Whoever works in an epoch that is over is told so, and changes nothing.
func TestStaleMembers(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		old := r.running(1, "m")
		_, err := r.Complete(t.Context(), old)
		r.no(err)
		r.deploy(1, "")
		now, err := r.Join(t.Context(), old.Job.ID, "n", time.Minute)
		r.no(err)
		before := r.story(old.Job.ID)
		for name, act := range map[string]func() error{
			"renew":    func() error { _, err := r.Renew(t.Context(), old, time.Minute); return err },
			"heard":    func() error { _, err := r.Heard(t.Context(), old); return err },
			"complete": func() error { _, err := r.Complete(t.Context(), old); return err },
			"fail":     func() error { _, err := r.Fail(t.Context(), old, errors.New("planted")); return err },
			"give up":  func() error { _, err := r.GiveUp(t.Context(), old, errors.New("planted")); return err },
		} {
			if err := act(); !errors.Is(err, job.ErrStale) {
				t.Errorf("%s: %v", name, err)
			}
		}
		_, err = r.Leave(t.Context(), old)
		r.no(err)
		stranger := *now
		stranger.Member = "x"
		_, err = r.Complete(t.Context(), &stranger)
		r.fails(err, job.ErrStale)
		if after := r.story(old.Job.ID); after != before {
			t.Errorf("%s became %s", before, after)
		}
		if _, err = r.Renew(t.Context(), now, time.Minute); err != nil {
			t.Error(err)
		}
	})
}

// A transition whose answer was lost is made again: success, and no second event.
func TestTransitionsAgain(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		run := r.running(1, "m")
		for range 3 {
			_, err := r.Fail(t.Context(), run, errors.New("planted"))
			r.no(err)
		}
		_, err := r.Retry(t.Context(), run.Job.ID)
		r.no(err)
		_, err = r.Retry(t.Context(), run.Job.ID)
		r.no(err)
		run, err = r.Join(t.Context(), run.Job.ID, "m", time.Minute)
		r.no(err)
		_, err = r.Stop(t.Context(), run.Job.ID)
		r.no(err)
		for range 2 {
			_, err = r.Heard(t.Context(), run)
			r.no(err)
		}
		for range 2 {
			_, err = r.Complete(t.Context(), run)
			r.no(err)
		}
		r.told(run.Job.ID, "scheduled running error retry running stop_requested stopping completed")
	})
}

// Stopping is success however often and by however many it is asked for, and one event.
func TestStop(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		_, err := r.Stop(t.Context(), 4711)
		r.fails(err, job.ErrUnknown)
		run := r.running(1, "m")
		heard := r.heard()
		for _, err := range together(many, func(int) error { _, err := r.Stop(t.Context(), run.Job.ID); return err }) {
			r.no(err)
		}
		if n := heard(); len(n) != 1 {
			t.Errorf("%d notifications", len(n))
		}
		r.told(run.Job.ID, "scheduled running stop_requested")
		j, err := r.Renew(t.Context(), run, time.Minute)
		if err != nil || j.Status != job.StopRequested {
			t.Errorf("the member sees %s, %v", j.Status, err)
		}
		for i, status := range []job.Status{job.Completed, job.Stopped, job.Fatal} {
			old := r.ended(int64(i+2), status)
			before := r.story(old.ID)
			if j, err := r.Stop(t.Context(), old.ID); err != nil || j.Status != status || r.story(old.ID) != before {
				t.Errorf("stopping what is %s: %s, %v", status, r.story(old.ID), err)
			}
		}
		failed := r.running(9, "m")
		_, err = r.Fail(t.Context(), failed, errors.New("planted"))
		r.no(err)
		_, err = r.Stop(t.Context(), failed.Job.ID)
		r.no(err)
		_, err = r.Leave(t.Context(), failed)
		r.no(err)
		r.reconcile()
		r.told(failed.Job.ID, "scheduled running error stop_requested stopped")
	})
}

func (r *rig) reconcile() int {
	r.t.Helper()
	n, err := r.Reconcile(r.t.Context(), slog.New(slog.DiscardHandler))
	r.no(err)
	return n
}

// A completion or a failure that races a stop ends the job, one way or the other.
func TestEndRacesStop(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		for i := range int64(20) {
			run := r.running(i+1, "m")
			for _, err := range together(2, func(k int) (err error) {
				switch {
				case k == 0:
					_, err = r.Stop(t.Context(), run.Job.ID)
				case i%2 == 0:
					_, err = r.Complete(t.Context(), run)
				default:
					_, err = r.Fail(t.Context(), run, errors.New("planted"))
				}
				return err
			}) {
				r.no(err)
			}
			_, err := r.Leave(t.Context(), run)
			r.no(err)
			r.reconcile()
			if j := r.show(run.Job.ID); !j.Status.Ended() && j.Status != job.Scheduled { // its retry is due at once
				t.Errorf("%s: %s", j.Status, r.story(j.ID))
			}
		}
	})
}

// A job that nobody can do is fatal, once, and holds up no other.
func TestPoison(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		strange := job.New(r.pool, copying{"copy"})
		d := wanted(1, "")
		d.Kind = "other"
		other, err := r.Deploy(t.Context(), d)
		r.no(err)
		_, err = strange.Join(t.Context(), other.Job.ID, "m", time.Minute)
		r.fails(err, job.ErrUnknownKind)
		r.told(other.Job.ID, "scheduled fatal")

		id := r.deploy(2, "").Job.ID
		r.run("ALTER TABLE tallyman.job_events DISABLE TRIGGER append_only")
		r.run(`UPDATE tallyman.job_events SET detail = '{"options": {"parallelism": "many"}}' WHERE job_id = $1`, id)
		_, err = r.Join(t.Context(), id, "m", time.Minute)
		r.fails(err, job.ErrMalformed)
		r.told(id, "scheduled fatal")
		_, err = r.Join(t.Context(), id, "m", time.Minute)
		r.fails(err, job.ErrNotRunnable)
	})
}

// A job that is being stopped ends by itself when its members never come back.
func TestAbandonedWhileStopping(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		run := r.running(1, "m")
		gone, err := r.Join(t.Context(), run.Job.ID, "gone", time.Hour)
		r.no(err)
		_, err = r.Stop(t.Context(), run.Job.ID)
		r.no(err)
		_, err = r.Heard(t.Context(), gone)
		r.no(err)
		_, err = r.Leave(t.Context(), run)
		r.no(err)
		if r.reconcile() > 0 {
			t.Error("it was ended while a member had its lease")
		}
		r.run("UPDATE tallyman.job_members SET lease_until = clock_timestamp()")
		r.reconcile()
		r.told(run.Job.ID, "scheduled running stop_requested stopping stopped")
		if n := r.reconcile(); n != 0 {
			t.Errorf("%d jobs were moved once more", n)
		}
		_, err = r.Renew(t.Context(), gone, time.Minute)
		r.fails(err, job.ErrStale)

		never := r.deploy(2, "").Job.ID // nobody has ever worked on it
		_, err = r.Stop(t.Context(), never)
		r.no(err)
		r.reconcile()
		r.told(never, "scheduled stop_requested stopped")
	})
}

// Only what is still in error is tried again, by one of all controllers.
func TestRetryByManyControllers(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		run := r.running(1, "m")
		_, err := r.Fail(t.Context(), run, errors.New("planted"))
		r.no(err)
		for _, err := range together(many, func(i int) (err error) {
			if i%2 == 0 {
				_, err = r.Reconcile(t.Context(), slog.New(slog.DiscardHandler))
			} else {
				_, err = r.Retry(t.Context(), run.Job.ID)
			}
			return err
		}) {
			r.no(err)
		}
		r.told(run.Job.ID, "scheduled running error retry")
		for i, status := range []job.Status{job.Completed, job.Stopped, job.Fatal} {
			_, err := r.Retry(t.Context(), r.ended(int64(i+2), status).ID)
			r.fails(err, job.ErrNotRunnable)
		}
	})
}

// A retry that races a stop, a deletion or a deployment has one outcome.
func TestRetryRaces(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		for i := range int64(20) {
			run := r.running(i+1, "m")
			id := run.Job.ID
			_, err := r.Fail(t.Context(), run, errors.New("planted"))
			r.no(err)
			var dedup job.Deployed
			errs := together(4, func(k int) (err error) {
				switch k {
				case 0:
					_, err = r.Stop(t.Context(), id)
				case 1:
					_, err = r.Retry(t.Context(), id)
				case 2:
					err = r.Delete(t.Context(), id)
				default:
					dedup, err = r.Deploy(t.Context(), wanted(i+1, ""))
				}
				return err
			})
			r.no(errs[0])
			r.fails(errs[2], job.ErrActive)
			if errs[1] != nil && !errors.Is(errs[1], job.ErrNotRunnable) || errs[3] != nil && !errors.Is(errs[3], job.ErrStopping) || errs[3] == nil && !dedup.Deduplicated {
				t.Errorf("%v, %+v", errs, dedup)
			}
			if s := r.story(id); s != "scheduled running error stop_requested" && s != "scheduled running error retry stop_requested" {
				t.Error(s)
			}
		}
	})
}

// Pauses count failures since the job was scheduled, grow, and never pass ten minutes.
func TestPauses(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		fresh := job.New(r.pool)
		last := time.Duration(0)
		for _, n := range []int{-1, 0, 1, 2, 5, 10, 11, 63, 64, 65, 1000, math.MaxInt} {
			if p := fresh.Backoff(n); p < last || p < time.Second || p > 10*time.Minute {
				t.Errorf("after %d attempts %v, before %v", n, p, last)
			} else {
				last = p
			}
		}
		r.Backoff = func(n int) time.Duration { return time.Duration(n) * time.Hour }
		run := r.running(1, "m")
		for n := 1; n <= 3; n++ {
			j, err := r.Fail(t.Context(), run, errors.New("planted"))
			r.no(err)
			if p := j.RetryAt.Sub(j.UpdatedAt).Round(time.Minute); j.Attempts != n || p != time.Duration(n)*time.Hour {
				t.Errorf("failure %d is number %d, with a pause of %v", n, j.Attempts, p)
			}
			if moved := r.reconcile(); moved != 0 {
				t.Error("it is tried again before its pause is over")
			}
			_, err = r.Retry(t.Context(), run.Job.ID)
			r.no(err)
			run, err = r.Join(t.Context(), run.Job.ID, "m", time.Minute)
			r.no(err)
		}
		_, err := r.Complete(t.Context(), run)
		r.no(err)
		if d := r.deploy(1, ""); d.Job.Attempts != 0 {
			t.Errorf("%d attempts before the first", d.Job.Attempts)
		}
	})
}

// One odd job does not hold up the others that are due.
func TestReconcileGoesOn(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		var ids []int64
		for i := range int64(5) {
			run := r.running(i+1, "m")
			_, err := r.Fail(t.Context(), run, errors.New("planted"))
			r.no(err)
			ids = append(ids, run.Job.ID)
		}
		r.run(`CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.job_id = 3 THEN RAISE 'odd'; END IF; RETURN NEW; END $$;
			CREATE TRIGGER odd BEFORE INSERT ON tallyman.job_events FOR EACH ROW EXECUTE FUNCTION odd()`)
		if n := r.reconcile(); n != 4 {
			t.Errorf("%d jobs were moved on, want 4", n)
		}
		for _, id := range ids {
			if want := map[bool]job.Status{true: job.Failed, false: job.Scheduled}[id == 3]; r.show(id).Status != want {
				t.Errorf("job %d is %s", id, r.show(id).Status)
			}
		}
	})
}

// Only what has ended is deleted; then its key is free. Racing a deployment, one
// of them comes first.
func TestDelete(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.fails(r.Delete(t.Context(), 4711), job.ErrUnknown)
		run := r.running(1, "m")
		r.fails(r.Delete(t.Context(), run.Job.ID), job.ErrActive)
		_, err := r.Complete(t.Context(), run)
		r.no(err)
		r.no(r.Delete(t.Context(), run.Job.ID))
		_, err = r.Show(t.Context(), run.Job.ID)
		r.fails(err, job.ErrUnknown)
		if n := r.count("SELECT (SELECT count(*) FROM tallyman.job_events) + (SELECT count(*) FROM tallyman.job_status) + (SELECT count(*) FROM tallyman.job_members)"); n != 0 {
			t.Errorf("%d rows are left", n)
		}
		if d := r.deploy(1, ""); d.Deduplicated || d.Job.ID == run.Job.ID {
			t.Errorf("%+v", d)
		}
		for i := range int64(20) {
			old := r.ended(i+2, job.Stopped)
			var d job.Deployed
			errs := together(2, func(k int) (err error) {
				if k == 0 {
					return r.Delete(t.Context(), old.ID)
				}
				d, err = r.Deploy(t.Context(), wanted(i+2, ""))
				return err
			})
			r.no(errs[1])
			removed := errs[0] == nil && d.Job.ID != old.ID
			refused := errors.Is(errs[0], job.ErrActive) && d.Job.ID == old.ID
			if !removed && !refused {
				t.Errorf("%v, deployed %d over %d", errs[0], d.Job.ID, old.ID)
			}
			r.is(d.Job.ID, job.Scheduled)
		}
	})
}
