package job_test

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/loader/job"
)

// Whatever is done to jobs, and whatever of it is refused, the status of each is
// what its events add up to.
func TestStatusIsWhatEventsAddUpTo(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandboxtest.Versions()[0])
	log := slog.New(slog.DiscardHandler)
	rapid.Check(t, func(t *rapid.T) {
		var runs []*job.Run
		revision := func() int64 { return rapid.Int64Range(1, 3).Draw(t, "revision") }
		find := func() int64 {
			j, err := r.Find(r.t.Context(), job.HashKey("copy", on(revision())))
			if err != nil {
				return 0
			}
			return j.ID
		}
		by := func(act func(*job.Run) error) func() error {
			return func() error {
				if len(runs) == 0 {
					return nil
				}
				return act(runs[rapid.IntRange(0, len(runs)-1).Draw(t, "run")])
			}
		}
		acts := []func() error{
			func() error {
				_, err := r.Deploy(r.t.Context(), wanted(revision(), fmt.Sprintf(`{"parallelism": %d}`, rapid.IntRange(1, 2).Draw(t, "parallelism"))))
				return err
			},
			func() error {
				run, err := r.Join(r.t.Context(), find(), fmt.Sprint("m", rapid.IntRange(0, 2).Draw(t, "member")), time.Hour)
				if err == nil {
					runs = append(runs, run)
				}
				return err
			},
			func() error { _, err := r.Stop(r.t.Context(), find()); return err },
			func() error { _, err := r.Retry(r.t.Context(), find()); return err },
			func() error { return r.Delete(r.t.Context(), find()) },
			func() error { _, err := r.Reconcile(r.t.Context(), log); return err },
			by(func(run *job.Run) error { _, err := r.Heard(r.t.Context(), run); return err }),
			by(func(run *job.Run) error { _, err := r.Complete(r.t.Context(), run); return err }),
			by(func(run *job.Run) error { _, err := r.Fail(r.t.Context(), run, errors.New("planted")); return err }),
			by(func(run *job.Run) error { _, err := r.GiveUp(r.t.Context(), run, errors.New("planted")); return err }),
			by(func(run *job.Run) error { _, err := r.Leave(r.t.Context(), run); return err }),
		}
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			err := acts[rapid.IntRange(0, len(acts)-1).Draw(t, "act")]()
			var conflict *job.Conflict
			if err != nil && !errors.As(err, &conflict) && !errors.Is(err, job.ErrUnknown) && !errors.Is(err, job.ErrStale) && !errors.Is(err, job.ErrActive) &&
				!errors.Is(err, job.ErrStopping) && !errors.Is(err, job.ErrNotRunnable) {
				t.Fatal(err)
			}
		}
		all, err := r.List(r.t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, j := range all {
			if err := r.sums(j); err != nil {
				t.Fatal(err)
			}
		}
	})
}
