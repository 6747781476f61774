package intake

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/google/uuid"

	"tallyman/schema/rows"
)

// BenchmarkCSV makes tuples of a chunk of CSV with quotes in it.
func BenchmarkCSV(b *testing.B) {
	m := manifest(b, `
dataset: bench/events
columns:
  - {name: event_id, type: uuid}
  - {name: occurred_at, type: timestamptz}
  - {name: server, type: text}
  - {name: campaign, type: int64}
  - {name: converted, type: bool}
  - {name: revenue, type: float64, nullable: true}
  - {name: attributes, type: json, nullable: true}
`)
	codec, err := rows.NewCodec(m)
	if err != nil {
		b.Fatal(err)
	}
	text := []byte("event_id,occurred_at,server,campaign,converted,revenue,attributes\n")
	head, err := parseHeader(text, m)
	if err != nil {
		b.Fatal(err)
	}
	text = text[:0]
	for i := range maxChunkRows {
		text = fmt.Appendf(text, `%s,2025-10-09T08:53:20.%06dZ,fra-%d,%d,%t,%g,"{""country"": ""DE"", ""device"": ""ios"", ""keyword"": ""%08x"", ""session"": ""%016x"", ""bid"": %d}"`+"\n",
			uuid.New(), i, i%9, i%4000, i%20 == 0, float64(i*7%50_000)/100, i*7919, i*104729, i%900)
	}
	w := &encoder{encoding: &encoding{manifest: m, codec: codec}, reader: newRowReader(head, "")}
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if n, err := w.csv(chunk{data: text, line: 1}, uuid.Nil); n != maxChunkRows || err != nil {
			b.Fatal(n, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/maxChunkRows, "ns/row")
}

// BenchmarkSplit cuts short rows of CSV into chunks.
func BenchmarkSplit(b *testing.B) {
	text := bytes.Repeat([]byte("5c2a7e1e-8f3b-4b60-9b8e-0d6a3f1c2b4d,2025-10-09T08:53:20.123456Z,fra-1,\"{\"\"country\"\": \"\"DE\"\"}\"\n"), 100_000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		s := newSplitter(bytes.NewReader(text), CSV)
		for {
			if _, err := s.next(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				b.Fatal(err)
			}
		}
	}
}
