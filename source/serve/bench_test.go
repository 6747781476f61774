package serve

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tallyman/source"
)

// clients post at the same time, each its next request when the last is answered.
const clients = 64

// BenchmarkRows posts rows from 64 clients to /rows, in requests of several
// sizes, over kept connections to a daemon in the same process, with a broker
// beside it. Every answer is after the fsync. It reports rows/s, and the time
// that 99 of 100 requests were answered in.
func BenchmarkRows(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { benchPost(b, "/rows", n) })
	}
}

// BenchmarkBatches posts the same to /batches, each request a batch of its own.
func BenchmarkBatches(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { benchPost(b, "/batches", n) })
	}
}

// benchTime is how long clients post for each measurement.
const benchTime = 3 * time.Second

func benchPost(b *testing.B, path string, size int) {
	r := newRig(b, func(s *setup) {
		s.Rate = 1_000_000
		s.source = func(c *source.Config) { c.CloseTimeout = time.Minute }
	})
	var text strings.Builder
	for i := range size {
		fmt.Fprintf(&text, `{"n":%d,"note":"an order of %d things, by courier, to be left at the door of the neighbours"}`+"\n", i, i%100)
	}
	body := text.String()
	r.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	times := make([][]time.Duration, clients)
	var took time.Duration
	for b.Loop() {
		began := time.Now()
		var group sync.WaitGroup
		for c := range clients {
			group.Go(func() {
				for time.Since(began) < benchTime {
					start := time.Now()
					got, err := r.try(post(path, body))
					if err != nil || got.status != http.StatusAccepted {
						b.Errorf("%v, %d %s", err, got.status, got.body)
						return
					}
					times[c] = append(times[c], time.Since(start))
				}
			})
		}
		group.Wait()
		took += time.Since(began)
	}
	all := slices.Concat(times...)
	rows := len(all) * size
	slices.Sort(all)
	b.ReportMetric(float64(rows)/took.Seconds(), "rows/s")
	b.ReportMetric(float64(len(all))/took.Seconds(), "requests/s")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(0, "ns/op")
}
