package job_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tallyman/loader/job"
)

// The first deployment is a job, a status, an event with all options and a
// notification, or none of them.
func TestFirstDeploy(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		heard := r.heard()
		broken := wanted(1, "")
		broken.Resolve = func(ctx context.Context, tx pgx.Tx) (job.Target, error) {
			_, err := tx.Exec(ctx, "CREATE TABLE made_on_the_way ()")
			return job.Target{Revision: 1}, errors.Join(err, errors.New("planted"))
		}
		if _, err := r.Deploy(t.Context(), broken); err == nil {
			t.Error("a resolution that fails deploys a job")
		}
		if n := r.count("SELECT (SELECT count(*) FROM tallyman.jobs) + (SELECT count(*) FROM pg_class WHERE relname = 'made_on_the_way')"); n != 0 || len(heard()) != 0 {
			t.Errorf("%d things are left of it", n)
		}

		d := r.deploy(1, `{"end": "latest"}`)
		events, err := r.Events(t.Context(), d.Job.ID)
		r.no(err)
		if d.Deduplicated || d.Job.Status != job.Scheduled || d.Job.Epoch != 1 || d.Job.Key != job.HashKey("copy", on(1)) || len(events) != 1 {
			t.Errorf("%+v, events %+v", d, events)
		}
		var got struct{ Options copyOptions }
		r.no(json.Unmarshal(events[0].Detail, &got))
		if want := (copyOptions{Parallelism: 1, End: "latest", Rate: 1.5}); got.Options != want {
			t.Errorf("options %+v, want %+v", got.Options, want)
		}
		if n := heard(); !reflect.DeepEqual(n, []string{fmt.Sprint(d.Job.ID)}) {
			t.Errorf("notified of %v", n)
		}
	})
}

// A repeat with options that mean the same finds the job and writes nothing.
func TestRepeatedDeploy(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		first := r.deploy(1, `{"parallelism": 2, "end": "latest"}`)
		run, err := r.Join(t.Context(), first.Job.ID, "m", time.Minute)
		r.no(err)
		heard, before := r.heard(), r.show(first.Job.ID)
		for _, options := range []string{
			`{"end":"latest","parallelism":2}`, "\n\t{ \"parallelism\" : 2 , \"end\" : \"latest\" }\n", `{"parallelism": 2, "end": "latest", "rate": 1.5}`,
			`{"rate": 15e-1, "placement": "", "parallelism": 2, "end": "\u006catest"}`,
			`{"parallelism": 2.0, "end": "latest"}`, `{"parallelism": 0.2e1, "end": "latest"}`,
		} {
			if d := r.deploy(1, options); !d.Deduplicated || d.Job.ID != first.Job.ID {
				t.Errorf("%s: %+v", options, d)
			}
		}
		if after := r.show(first.Job.ID); !reflect.DeepEqual(before, after) || len(heard()) != 0 {
			t.Errorf("%+v became %+v", before, after)
		}
		r.told(first.Job.ID, "scheduled running")
		_, err = r.Complete(t.Context(), run)
		r.no(err)
	})
}

// Other options are a conflict that names each, whatever the placement is.
func TestDeployWithOtherOptions(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		first := r.deploy(1, `{"parallelism": 2}`)
		_, err := r.Deploy(t.Context(), wanted(1, `{"parallelism": 3, "placement": "west"}`))
		var c *job.Conflict
		if !errors.As(err, &c) || c.Job.ID != first.Job.ID || c.Job.Status != job.Scheduled {
			t.Fatalf("%v, want a conflict", err)
		}
		if want := []job.Difference{{Option: "parallelism", Have: 2, Want: 3}, {Option: "placement", Have: "", Want: "west"}}; !reflect.DeepEqual(c.Differences, want) {
			t.Errorf("differences %+v", c.Differences)
		}
		if !strings.Contains(err.Error(), "parallelism is 2, not 3") {
			t.Error(err)
		}
		r.told(first.Job.ID, "scheduled")
	})
}

// What nobody can have meant is refused, and nothing written.
func TestDeployOfNonsense(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		for options, want := range map[string]error{`{"paralelism": 2}`: job.ErrMalformed, `{"parallelism": "2"}`: job.ErrMalformed, `[]`: job.ErrMalformed,
			`{"parallelism": 2} {}`: job.ErrMalformed, `{`: job.ErrMalformed,
			`{"parallelism": 2.5}`: job.ErrMalformed, `{"parallelism": 1e999999999}`: job.ErrMalformed, `{"parallelism": 9223372036854775808}`: job.ErrMalformed} {
			_, err := r.Deploy(t.Context(), wanted(1, options))
			r.fails(err, want)
		}
		d := wanted(1, "")
		d.Kind = "mend"
		_, err := r.Deploy(t.Context(), d)
		r.fails(err, job.ErrUnknownKind)
		if n := r.count("SELECT count(*) FROM tallyman.jobs"); n != 0 {
			t.Errorf("%d jobs", n)
		}
	})
}

// While a job is being stopped it is not scheduled again.
func TestDeployWhileStopping(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		run := r.running(1, "m")
		_, err := r.Stop(t.Context(), run.Job.ID)
		r.no(err)
		_, err = r.Deploy(t.Context(), wanted(1, ""))
		r.fails(err, job.ErrStopping)
		_, err = r.Heard(t.Context(), run)
		r.no(err)
		_, err = r.Deploy(t.Context(), wanted(1, ""))
		r.fails(err, job.ErrStopping)
		r.told(run.Job.ID, "scheduled running stop_requested stopping")
	})
}

// A job that has ended keeps its id and its history, and gets another epoch.
func TestDeployOverAnEnd(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		for i, status := range []job.Status{job.Completed, job.Stopped, job.Fatal} {
			old := r.ended(int64(i+1), status)
			history := `SELECT string_agg(e::text, '|' ORDER BY event_id) FROM tallyman.job_events e WHERE job_id = $1 AND epoch = 1`
			var before, after string
			r.no(r.pool.QueryRow(t.Context(), history, old.ID).Scan(&before))
			d := r.deploy(int64(i+1), `{"parallelism": 7}`)
			if d.Deduplicated || d.Job.ID != old.ID || d.Job.Epoch != 2 || d.Job.Status != job.Scheduled || d.Job.Attempts != 0 {
				t.Errorf("over %s: %+v", status, d)
			}
			r.no(r.pool.QueryRow(t.Context(), history, old.ID).Scan(&after))
			if before != after {
				t.Errorf("over %s: the history was\n%s\nand is\n%s", status, before, after)
			}
			run, err := r.Join(t.Context(), old.ID, "m", time.Minute)
			r.no(err)
			if o := run.Options.(*copyOptions); o.Parallelism != 7 {
				t.Errorf("the run has %+v", o)
			}
		}
	})
}

// Fifty at once that ask for the same are one job.
func TestManyFirstDeploys(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		heard := r.heard()
		for _, over := range []string{"nothing", "an end"} {
			ids := make([]int64, many)
			var made int
			for i, err := range together(many, func(i int) error {
				d, err := r.Deploy(t.Context(), wanted(1, `{"parallelism": 3}`))
				ids[i] = d.Job.ID
				return err
			}) {
				if err != nil || ids[i] != ids[0] {
					t.Fatalf("over %s: job %d, not %d, %v", over, ids[i], ids[0], err)
				}
				made++
			}
			if n := len(heard()); n != 1 || made != many {
				t.Errorf("over %s: %d notifications", over, n)
			}
			run, err := r.Join(t.Context(), ids[0], "m", time.Minute)
			r.no(err)
			_, err = r.Complete(t.Context(), run)
			r.no(err)
			heard()
		}
		j, err := r.Find(t.Context(), job.HashKey("copy", on(1)))
		r.no(err)
		r.told(j.ID, "scheduled running completed scheduled running completed")
	})
}

// Of fifty at once that ask for different things one wins, the others hear of it.
func TestManyDifferentDeploys(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		for epoch := range int64(2) {
			won := 0
			for i, err := range together(many, func(i int) error {
				_, err := r.Deploy(t.Context(), wanted(1, fmt.Sprintf(`{"parallelism": %d}`, i+2)))
				return err
			}) {
				var c *job.Conflict
				switch {
				case err == nil:
					won = i + 2
				case !errors.As(err, &c):
					t.Fatal(err)
				}
			}
			j, err := r.Find(t.Context(), job.HashKey("copy", on(1)))
			r.no(err)
			raw, err := r.OptionsOf(t.Context(), j)
			r.no(err)
			if j.Epoch != epoch+1 || !strings.Contains(string(raw), fmt.Sprintf(`"parallelism": %d`, won)) || r.count("SELECT count(*) FROM tallyman.job_events WHERE type = 'scheduled'") != epoch+1 {
				t.Errorf("%d won, the ledger has %s in epoch %d", won, raw, j.Epoch)
			}
			run, err := r.Join(t.Context(), j.ID, "m", time.Minute)
			r.no(err)
			_, err = r.Complete(t.Context(), run)
			r.no(err)
		}
	})
}

// Whoever waits for a deployment that comes to nothing is the first.
func TestDeployAfterAnAbortedOne(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		tx, err := r.pool.Begin(t.Context())
		r.no(err)
		_, err = tx.Exec(t.Context(), `INSERT INTO tallyman.jobs (idempotency_key, kind, dataset, revision_id) VALUES ($1, 'copy', 'ads/clicks', 1)`, job.HashKey("copy", on(1)))
		r.no(err)
		answer := make(chan error, 1)
		var d job.Deployed
		go func() {
			var err error
			d, err = r.Deploy(t.Context(), wanted(1, ""))
			answer <- err
		}()
		for r.count("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()") == 0 {
			time.Sleep(time.Millisecond)
		}
		r.no(tx.Rollback(t.Context()))
		if err := <-answer; err != nil || d.Deduplicated || d.Job.Status != job.Scheduled {
			t.Errorf("%+v, %v", d, err)
		}
	})
}

// What another session was in the way of begins again, and is done once.
func TestDeployAgainWhenInTheWay(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		for i, code := range []string{"23505", "40001", "40P01"} {
			calls := 0
			d := wanted(int64(i+1), "")
			d.Resolve = func(ctx context.Context, tx pgx.Tx) (job.Target, error) {
				if calls++; calls < 3 {
					_, err := tx.Exec(ctx, fmt.Sprintf(`DO $$ BEGIN RAISE EXCEPTION 'planted' USING ERRCODE = '%s'; END $$`, code))
					return job.Target{}, err
				}
				return on(int64(i + 1)), nil
			}
			got, err := r.Deploy(t.Context(), d)
			if err != nil || calls != 3 || r.story(got.Job.ID) != "scheduled" {
				t.Errorf("%s: %d calls, %v", code, calls, err)
			}
		}
	})
}

// Two first deployments that name no revision get the same one, and are one job.
func TestDeployMakesTheRevision(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.run("CREATE TABLE revisions (id bigint GENERATED ALWAYS AS IDENTITY, active boolean UNIQUE)")
		d := wanted(0, "")
		d.Resolve = func(ctx context.Context, tx pgx.Tx) (job.Target, error) {
			var id int64
			err := tx.QueryRow(ctx, "SELECT id FROM revisions WHERE active").Scan(&id)
			if errors.Is(err, pgx.ErrNoRows) {
				err = tx.QueryRow(ctx, "INSERT INTO revisions (active) VALUES (true) RETURNING id").Scan(&id)
			}
			return on(id), err
		}
		for _, err := range together(many, func(int) error {
			_, err := r.Deploy(t.Context(), d)
			return err
		}) {
			r.no(err)
		}
		if n, m := r.count("SELECT count(*) FROM revisions"), r.count("SELECT count(*) FROM tallyman.jobs"); n != 1 || m != 1 {
			t.Errorf("%d revisions, %d jobs", n, m)
		}
	})
}

// Jobs of other kinds and revisions stand side by side.
func TestOtherJobs(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		a, b := r.deploy(1, ""), r.deploy(2, "")
		d := wanted(1, "")
		d.Kind = "other"
		c, err := r.Deploy(t.Context(), d)
		r.no(err)
		all, err := r.List(t.Context())
		r.no(err)
		if len(all) != 3 || all[0].ID != c.Job.ID || all[1].ID != b.Job.ID || all[2].ID != a.Job.ID {
			t.Errorf("%+v", all)
		}
	})
}
