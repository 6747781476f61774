package main

import (
	"bufio"
	"encoding/csv"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyman/internal/kafkaconn"
	"tallyman/internal/sandbox"
	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema"
	"tallyman/source/intake"
)

// BenchmarkPush pushes the rows that BenchmarkLoad loads, as a file, until
// everything is acknowledged by a broker in the same process. ofLoader is the speed
// as a multiple of that of a loader, which loads the same rows before each push.
// cpu-s/Mrow is the
// processor time, broker included, of a million rows; it says more than rows/s
// where others use the machine, too.
func BenchmarkPush(b *testing.B) {
	fastCompression()
	all := &besides{b: b, made: map[string]*bench{}}
	for _, format := range []intake.Format{intake.CSV, intake.NDJSON} {
		for _, compression := range benchCompressions() {
			b.Run(string(format)+"/"+compression, func(sub *testing.B) { benchPush(sub, all, format, compression) })
		}
	}
}

func benchPush(b *testing.B, all *besides, format intake.Format, compression string) {
	m, err := schema.ParseManifest([]byte(benchManifest))
	if err != nil {
		b.Fatal(err)
	}
	file := intake.File{Name: filepath.Join(all.b.TempDir(), "rows."+string(format)), Format: format}
	if err := writeBenchFile(file, m); err != nil {
		b.Fatal(err)
	}
	x := all.of(b, compression)
	var took, used, loaded time.Duration
	n := 0
	for b.Loop() {
		b.StopTimer()
		loaded += x.quietLoad()
		broker := sandboxtest.Broker(b, sandbox.BrokerConfig{DataDir: all.b.TempDir()})
		if err := broker.CreateTopic(m.Topic, 4, nil); err != nil {
			b.Fatal(err)
		}
		conn, err := kafkaconn.New(kafkaconn.Config{Brokers: broker.Addrs(), Compression: compression})
		if err != nil {
			b.Fatal(err)
		}
		in, err := intake.New(intake.Config{Manifest: m, Conn: conn, Dir: all.b.TempDir(), Source: "bench", Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		began, before := time.Now(), processorTime(b)
		report, err := in.Push(b.Context(), file)
		if err != nil || report.Rows != benchRows {
			b.Fatalf("%d rows, %v", report.Rows, err)
		}
		took += time.Since(began)
		used += processorTime(b) - before
		b.StopTimer()
		conn.Close()
		if err := broker.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		n++
	}
	rows := float64(n * benchRows)
	b.ReportMetric(rows/took.Seconds(), "rows/s")
	b.ReportMetric(loaded.Seconds()/took.Seconds(), "ofLoader")
	b.ReportMetric(used.Seconds()*1e6/rows, "cpu-s/Mrow")
	b.ReportMetric(0, "ns/op")
}

// processorTime returns what this process used, in user and system mode.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// writeBenchFile writes the benchmark's rows.
func writeBenchFile(file intake.File, m schema.Manifest) error {
	f, err := os.Create(file.Name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	buffered := bufio.NewWriterSize(f, 1<<20)
	random := rand.New(rand.NewPCG(1, 2))
	if file.Format == intake.NDJSON {
		var line []byte
		for range benchRows {
			if line, err = appendNDJSON(line[:0], m, benchRow(random)); err != nil {
				return err
			}
			if _, err := buffered.Write(line); err != nil {
				return err
			}
		}
		return buffered.Flush()
	}
	var header []string
	for _, c := range m.Columns {
		header = append(header, c.Name)
	}
	w := csv.NewWriter(buffered)
	if err := w.Write(header); err != nil {
		return err
	}
	for range benchRows {
		if err := w.Write(csvFields(benchRow(random))); err != nil {
			return err
		}
	}
	w.Flush()
	if err := w.Error(); err != nil {
		return err
	}
	return buffered.Flush()
}

// csvFields returns a row's values as text.
func csvFields(row []any) []string {
	fields := make([]string, len(row))
	for i, v := range row {
		switch v := v.(type) {
		case uuid.UUID:
			fields[i] = v.String()
		case time.Time:
			fields[i] = v.Format(time.RFC3339Nano)
		case float64:
			fields[i] = strconv.FormatFloat(v, 'g', -1, 64)
		default:
			fields[i] = fmt.Sprint(v)
		}
	}
	return fields
}
