package job_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"tallyman/loader/job"
)

// legacy returns a ledger with the jobs of a release from before keys, migrated.
func legacy(t *testing.T, version string) *rig {
	r := newBareRig(t, version)
	for _, name := range []string{"00001_ledger", "00014_jobs"} {
		r.run(migration(t, name))
	}
	dump, err := os.ReadFile("testdata/jobs_without_keys.sql")
	r.no(err)
	r.run(string(dump))
	r.run(migration(t, "00015_job_keys"))
	return r
}

// statusesOfDump are those of the dump's jobs, by id.
func statusesOfDump() []job.Status {
	return []job.Status{job.Scheduled, job.Running, job.Completed, job.StopRequested, job.Stopping, job.Stopped, job.Failed, job.Fatal, job.Running, job.Stopped}
}

// Jobs from before keys get keys of their own, and the migration may run again.
func TestJobsWithoutKeysGetLegacyOnes(t *testing.T) {
	t.Parallel()
	for _, version := range versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			r := legacy(t, version)
			const all = `SELECT md5(string_agg(j::text || s::text || e::text, ' ' ORDER BY e.event_id)) FROM tallyman.jobs j JOIN tallyman.job_status s USING (job_id) JOIN tallyman.job_events e USING (job_id)`
			var before, after string
			r.no(r.pool.QueryRow(t.Context(), all).Scan(&before))
			r.run(migration(t, "00015_job_keys"))
			r.no(r.pool.QueryRow(t.Context(), all).Scan(&after))
			if before != after {
				t.Error("running the migration again changed something")
			}
			for i, want := range statusesOfDump() {
				id := int64(i + 1)
				j := r.show(id)
				if j.Key != job.Key(fmt.Sprint("legacy:", id)) || j.Status != want {
					t.Errorf("job %d has the key %s and is %s, want legacy:%[1]d and %[4]s", id, j.Key, j.Status, want)
				}
				found, err := r.Find(t.Context(), j.Key)
				if err != nil || found.ID != id {
					t.Errorf("%s finds job %d: %v", j.Key, found.ID, err)
				}
			}
			if _, err := r.pool.Exec(t.Context(), "INSERT INTO tallyman.jobs (kind, dataset, revision_id) VALUES ('copy', 'a/b', 1)"); err == nil {
				t.Error("the table takes a job without a key")
			}
			if _, err := r.pool.Exec(t.Context(), "INSERT INTO tallyman.jobs (idempotency_key, kind, dataset, revision_id) VALUES ('legacy:3', 'copy', 'a/b', 1)"); err == nil {
				t.Error("the table takes a key twice")
			}
		})
	}
}

// After the migration every job has a scheduled event with options, whatever its
// status, and its events add up to that; the old column is still there.
func TestJobsWithoutKeysKeepTheirOptions(t *testing.T) {
	t.Parallel()
	for _, version := range versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			r := legacy(t, version)
			for i := range statusesOfDump() {
				j := r.show(int64(i + 1))
				raw, err := r.OptionsOf(t.Context(), j)
				if want := fmt.Sprintf(`"parallelism": %d`, i+1); err != nil || !strings.Contains(string(raw), want) {
					t.Errorf("job %d has the options %s, want %s: %v", j.ID, raw, want, err)
				}
				r.adds(j)
			}
			if n := r.count("SELECT count(*) FROM tallyman.jobs WHERE descriptor ? 'parallelism'"); n != 10 {
				t.Errorf("%d jobs have what they had in the old column", n)
			}
			_, err := r.Join(t.Context(), 2, "n", time.Minute)
			r.no(err)
		})
	}
}

// A deployment about what a job from before keys is about finds that job, the
// active one first, however many ask at once: no second writer appears.
func TestADeploymentAdoptsAJobWithoutAKey(t *testing.T) {
	t.Parallel()
	for _, version := range versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			r := legacy(t, version)
			for _, err := range together(many, func(int) error {
				d, err := r.Deploy(t.Context(), wanted(9, `{"parallelism": 9}`))
				if err == nil && (d.Job.ID != 9 || !d.Deduplicated || d.Job.Epoch != 2) {
					err = fmt.Errorf("%+v", d)
				}
				return err
			}) {
				r.no(err)
			}
			r.told(9, "scheduled running completed scheduled running")
			if j := r.show(9); j.Key != job.HashKey("copy", on(9)) {
				t.Errorf("its key is %s", j.Key)
			}
			if j := r.show(10); j.Key != "legacy:10" {
				t.Errorf("the other one has the key %s", j.Key)
			}
			_, err := r.Deploy(t.Context(), wanted(2, `{"parallelism": 3}`))
			if other := r.conflict(err); other.Job.ID != 2 {
				t.Errorf("the conflict is with job %d", other.Job.ID)
			}
			if d := r.deploy(6, `{"parallelism": 1}`); d.Job.ID != 6 || d.Job.Epoch != 2 {
				t.Errorf("what had stopped is scheduled as %+v", d.Job)
			}
			if n := r.count("SELECT count(*) FROM tallyman.jobs"); n != 10 {
				t.Errorf("there are %d jobs, want the 10 of before", n)
			}
			for _, sql := range []string{"UPDATE tallyman.jobs SET idempotency_key = 'legacy:77' WHERE job_id = 1", "UPDATE tallyman.jobs SET idempotency_key = repeat('a', 64) WHERE job_id = 9",
				"UPDATE tallyman.jobs SET idempotency_key = repeat('a', 64), kind = 'x' WHERE job_id = 1"} {
				if _, err := r.pool.Exec(t.Context(), sql); err == nil || !strings.Contains(err.Error(), "append-only") {
					t.Errorf("%s: %v", sql, err)
				}
			}
		})
	}
}

// What was loaded before there were jobs is a job after the migration, that any
// number of members may join.
func TestWhatRanBeforeJobsIsAdopted(t *testing.T) {
	t.Parallel()
	for _, version := range versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			r := newBareRig(t, version)
			r.run(migration(t, "00001_ledger"))
			r.run(`INSERT INTO tallyman.datasets (dataset, manifest_hash, manifest, topic) SELECT 'a/' || n, repeat('a', 64), '{}', 't' || n FROM generate_series(1, 3) n`)
			r.run(`INSERT INTO tallyman.revisions (dataset, manifest_hash, physical_schema, physical_table, state)
				SELECT 'a/' || n, repeat('a', 64), 'public', 't' || n, CASE n WHEN 3 THEN 'retired' ELSE 'active' END FROM generate_series(1, 3) n`)
			r.run(migration(t, "00014_jobs"))
			r.run(migration(t, "00015_job_keys"))
			all, err := r.List(t.Context())
			r.no(err)
			if len(all) != 2 {
				t.Fatalf("%d jobs, want one of each active revision", len(all))
			}
			for _, j := range all {
				if j.Kind != "load" || j.Status != job.Running {
					t.Errorf("%+v", j)
				}
				r.adds(j)
			}
		})
	}
}
