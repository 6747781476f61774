package main

import (
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"tallyman/internal/kafkaconn"
	"tallyman/internal/sandbox"
	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/source"
)

const (
	benchCallers   = 128
	benchBatchRows = 500
	benchBatches   = benchRows / benchBatchRows
)

// BenchmarkAppend appends the rows that BenchmarkLoad loads, 500 a call, from 128
// callers, until everything is fsynced and acknowledged by a broker in the same
// process. rows/s counts to the last acknowledgement, accepted/s to the last
// answer of the journal; ofLoader and cpu-s/Mrow are as in BenchmarkPush.
func BenchmarkAppend(b *testing.B) {
	fastCompression()
	all := &besides{b: b, made: map[string]*bench{}}
	appends := map[string]func(*source.Source, [][]any) error{
		"rows":  func(s *source.Source, r [][]any) error { return s.Append(b.Context(), r) },
		"batch": func(s *source.Source, r [][]any) error { return s.AppendBatch(b.Context(), batch.NewID(), r) },
	}
	for _, name := range []string{"batch", "rows"} {
		for _, compression := range benchCompressions() {
			b.Run(name+"/"+compression, func(sub *testing.B) { benchAppend(sub, compression, all, appends[name]) })
		}
	}
}

// benchCompressions are the default and the one that costs least.
func benchCompressions() []string { return []string{kafkaconn.Zstd, kafkaconn.Snappy} }

func benchAppend(b *testing.B, compression string, all *besides, add func(*source.Source, [][]any) error) {
	m, err := schema.ParseManifest([]byte(benchManifest))
	if err != nil {
		b.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	calls := make([][][]any, 64)
	for i := range calls {
		for range benchBatchRows {
			calls[i] = append(calls[i], benchRow(random))
		}
	}
	x := all.of(b, compression)
	var accepted, published, used, loaded time.Duration
	n := 0
	for b.Loop() {
		b.StopTimer()
		loaded += x.quietLoad()
		broker := sandboxtest.Broker(b, sandbox.BrokerConfig{DataDir: all.b.TempDir()})
		if err := broker.CreateTopic(m.Topic, 4, nil); err != nil {
			b.Fatal(err)
		}
		s, err := source.Open(b.Context(), source.Config{Manifest: m, Kafka: source.Kafka{Brokers: broker.Addrs(), Compression: compression}, Dir: all.b.TempDir(), Name: "bench", Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		began, before := time.Now(), processorTime(b)
		var group errgroup.Group
		for caller := range benchCallers {
			group.Go(func() error {
				for i := caller; i < benchBatches; i += benchCallers {
					if err := add(s, calls[i%len(calls)]); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			b.Fatal(err)
		}
		accepted += time.Since(began)
		if err := s.Flush(b.Context()); err != nil {
			b.Fatal(err)
		}
		published += time.Since(began)
		used += processorTime(b) - before
		b.StopTimer()
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		if err := broker.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		n++
	}
	rows := float64(n * benchBatches * benchBatchRows)
	b.ReportMetric(rows/published.Seconds(), "rows/s")
	b.ReportMetric(loaded.Seconds()/published.Seconds(), "ofLoader")
	b.ReportMetric(rows/accepted.Seconds(), "accepted/s")
	b.ReportMetric(used.Seconds()*1e6/rows, "cpu-s/Mrow")
	b.ReportMetric(0, "ns/op")
}
