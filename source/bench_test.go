package source

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"tallyman/internal/sandbox"
	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema"
	"tallyman/schema/batch"
)

const (
	benchCallers   = 4
	benchBatchRows = 500
	benchBatches   = 1200 // 600,000 rows
)

// BenchmarkAppend appends rows of seven columns and about 190 bytes, 500 a
// call, from four callers, until everything is fsynced and acknowledged by a
// broker in the same process. rows/s counts to the last acknowledgement,
// accepted/s to the last answer of the journal.
func BenchmarkAppend(b *testing.B) {
	appends := map[string]func(*Source, [][]any) error{
		"rows":  func(s *Source, r [][]any) error { return s.Append(b.Context(), r) },
		"batch": func(s *Source, r [][]any) error { return s.AppendBatch(b.Context(), batch.NewID(), r) },
	}
	for _, name := range []string{"batch", "rows"} {
		b.Run(name, func(b *testing.B) { benchAppend(b, appends[name]) })
	}
}

func benchAppend(b *testing.B, add func(*Source, [][]any) error) {
	m, err := schema.ParseManifest([]byte(`
dataset: bench/events
columns:
  - {name: event_id, type: uuid}
  - {name: occurred_at, type: timestamptz}
  - {name: server, type: text}
  - {name: campaign, type: int64}
  - {name: converted, type: bool}
  - {name: revenue, type: float64, nullable: true}
  - {name: attributes, type: json, nullable: true}
`))
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
	var accepted, published time.Duration
	n := 0
	for b.Loop() {
		b.StopTimer()
		broker := sandboxtest.Broker(b, sandbox.BrokerConfig{DataDir: b.TempDir()})
		if err := broker.CreateTopic(m.Topic, 4, nil); err != nil {
			b.Fatal(err)
		}
		s, err := Open(b.Context(), Config{Manifest: m, Kafka: Kafka{Brokers: broker.Addrs()}, Dir: b.TempDir(), Name: "bench", Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		began := time.Now()
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
	all := float64(n * benchBatches * benchBatchRows)
	b.ReportMetric(all/published.Seconds(), "rows/s")
	b.ReportMetric(all/accepted.Seconds(), "accepted/s")
	b.ReportMetric(0, "ns/op")
}

func benchRow(r *rand.Rand) []any {
	id := uuid.UUID{}
	for i := range id {
		id[i] = byte(r.Uint32())
	}
	at := time.UnixMicro(1_760_000_000_000_000 + r.Int64N(1e12)).UTC()
	attributes := fmt.Sprintf(`{"country": "DE", "device": "ios", "keyword": "%08x", "session": "%016x", "bid": %d}`, r.Uint32(), r.Uint64(), r.IntN(900))
	return []any{id, at, "fra-" + strconv.Itoa(r.IntN(9)), r.Int64N(4000), r.IntN(20) == 0, float64(r.IntN(50_000)) / 100, attributes}
}
