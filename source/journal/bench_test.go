package journal

import (
	"bytes"
	"log/slog"
	"testing"

	"tallyman/schema"
	"tallyman/schema/batch"
)

// BenchmarkAppend appends batches of 95 kB from four callers, each fsynced.
func BenchmarkAppend(b *testing.B) {
	j, err := Open(Config{Dir: b.TempDir(), Source: "bench", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	value := bytes.Repeat([]byte("0123456789abcdefghi"), 5000)
	b.SetBytes(int64(len(value)))
	b.SetParallelism(2)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			id := batch.NewID()
			at, _ := batch.TimeOf(id)
			x := &batch.Batch{ID: id, Time: at, Dataset: schema.Dataset{Namespace: "a", Name: "b"},
				ContentType: batch.Native, Rows: 500, Value: value}
			if _, err := j.Append("topic", x); err != nil {
				b.Error(err)
			}
		}
	})
	b.StopTimer()
	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
}
