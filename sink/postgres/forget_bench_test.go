package postgres_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema/batch"
	"tallyman/sink/postgres"
)

// BenchmarkForgetMonth has the ledger forget a month of batches of a hundred
// streams, one of which lacks its first batch, beside a loader that commits a
// batch after another: a month of a hundred million in two years, and one of ten
// million. What it reports of the loader is its slowest commit, and of the ones
// just before its slowest, too.
func BenchmarkForgetMonth(b *testing.B) {
	for name, each := range map[string]int{"4.2M": 42_000, "10M": 100_000} {
		b.Run(name, func(b *testing.B) { benchForget(b, each) })
	}
}

func benchForget(b *testing.B, each int) {
	const streams = 100
	dsn := sandboxtest.Postgres(b, "18")
	at := time.Date(2024, time.January, 15, 0, 0, 0, 0, time.UTC)
	first, err := postgres.Open(b.Context(), postgres.Config{URL: dsn})
	if err != nil {
		b.Fatal(err)
	}
	defer first.Close()
	if _, err := first.Init(b.Context(), postgres.InitOptions{Now: func() time.Time { return at }}); err != nil {
		b.Fatal(err)
	}
	w := open(b, dsn, events, postgres.Config{})
	exec := func(sql string, args ...any) {
		b.Helper()
		if _, err := w.conn.Exec(b.Context(), sql, args...); err != nil {
			b.Fatal(err)
		}
	}
	for n := range streams {
		stream, floor := uuid.New(), each
		if n == 0 {
			floor = 0
		}
		exec(`INSERT INTO tallyman.streams (revision_id, incarnation, source, floor, announced) VALUES ($1, $2::text::uuid, 'bench', $3, $4)`, w.revision.ID, stream.String(), floor, each)
		exec(`INSERT INTO tallyman.loaded_elements (revision_id, batch_time, unique_id, outcome, incarnation, sequence, row_count, byte_count, digest)
SELECT $1, $2::timestamptz + n * interval '100 ms', gen_random_uuid(), 'loaded', $3::text::uuid, n + 1, 1000, 100000, sha256('') FROM generate_series(1, $4::bigint) n`,
			w.revision.ID, at, stream.String(), each)
	}
	exec("VACUUM ANALYZE tallyman.loaded_elements_2024_01")
	b.Logf("the month has %d MB", w.count("SELECT pg_total_relation_size('tallyman.loaded_elements_2024_01') / 1000000"))

	began := time.Now()
	exec("SELECT tallyman.fold('tallyman.loaded_elements_2024_01', NULL)")
	b.ReportMetric(time.Since(began).Seconds(), "s/fold")

	began = time.Now()
	if _, err := w.Init(b.Context(), postgres.InitOptions{}); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(time.Since(began).Seconds(), "s/init-idle")
	before := loadFor(b, w, 0, func() { time.Sleep(2 * time.Second) })
	var took time.Duration
	beside := loadFor(b, w, 1, func() {
		began := time.Now()
		o := postgres.InitOptions{Retention: &postgres.Retention{Months: 3}, Now: func() time.Time { return at.AddDate(0, 4, 0) }}
		report, err := w.Init(b.Context(), o)
		if took = time.Since(began); err != nil || len(report.Forgotten) != 2 {
			b.Errorf("%+v, %v", report, err)
		}
	})
	b.ReportMetric(took.Seconds(), "s/init")
	b.ReportMetric(float64(before.Milliseconds()), "ms/slowest-before")
	b.ReportMetric(float64(beside.Milliseconds()), "ms/slowest-beside")
	b.ReportMetric(0, "ns/op")
}

// loadFor commits batches, each in a transaction of its own, while something is
// done, and returns how long the slowest took.
func loadFor(b *testing.B, w *warehouse, partition int32, do func()) (slowest time.Duration) {
	b.Helper()
	stop := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		c := w.NewCommitter()
		defer func() { _ = c.Close() }()
		p := w.partition(partition)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			began := time.Now()
			if _, err := c.Commit(b.Context(), w.group(p, p.Next+1, w.element(batch.NewID(), p, p.Next, []any{int64(n), fmt.Sprint(n)}))); err != nil {
				b.Error(err)
				return
			}
			p.Next++
			if n > 0 { // the first one connects
				slowest = max(slowest, time.Since(began))
			}
		}
	})
	do()
	close(stop)
	group.Wait()
	return slowest
}
