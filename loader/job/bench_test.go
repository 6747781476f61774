package job_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"tallyman/loader/job"
)

// BenchmarkDeploy deploys again what is active: with a look for what it is about,
// which takes one message more to the server than reading the job's row, and in a
// transaction, which takes two.
func BenchmarkDeploy(b *testing.B) {
	r := newRig(b, "18")
	id := r.deploy(1, "").Job.ID
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			r.show(id)
		}
	})
	b.Run("found", func(b *testing.B) {
		d := wanted(1, "")
		d.Find = func(ctx context.Context, q job.Querier) (job.Target, bool, error) {
			t := on(1)
			return t, true, q.QueryRow(ctx, "SELECT revision_id FROM tallyman.jobs WHERE job_id = $1", id).Scan(&t.Revision)
		}
		for b.Loop() {
			if done, err := r.Deploy(b.Context(), d); err != nil || !done.Deduplicated {
				b.Fatal("it was not there: ", err)
			}
		}
	})
	b.Run("again", func(b *testing.B) {
		for b.Loop() {
			if d := r.deploy(1, ""); !d.Deduplicated {
				b.Fatal("it was not there")
			}
		}
	})
}

// BenchmarkStop is how long after a stop a member of the job has heard of it, and
// stopped.
func BenchmarkStop(b *testing.B) {
	r := newRig(b, "18")
	h := r.hand("m", nil)
	var took time.Duration
	n := 0
	for ; b.Loop(); n++ {
		id := r.deploy(1, "").Job.ID
		h.begins()
		began := time.Now()
		if _, err := r.Stop(b.Context(), id); err != nil {
			b.Fatal(err)
		}
		r.becomes(id, job.Stopped)
		took += time.Since(began)
	}
	b.ReportMetric(float64(took.Milliseconds())/float64(n), "ms/stop")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkList lists ten thousand jobs.
func BenchmarkList(b *testing.B) {
	r := newRig(b, "18")
	r.run(`INSERT INTO tallyman.jobs (idempotency_key, kind, dataset, revision_id) SELECT encode(sha256(int8send(n)), 'hex'), 'copy', 'a/b', n FROM generate_series(1::bigint, 10000) n`)
	r.run(`INSERT INTO tallyman.job_status SELECT job_id, 'completed', 1, 'm', 0, NULL, '{}', now() FROM tallyman.jobs; ANALYZE`)
	for b.Loop() {
		all, err := r.List(b.Context())
		if err != nil || len(all) != 10_000 {
			b.Fatal(fmt.Sprint(len(all), err))
		}
	}
}
