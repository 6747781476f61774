package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/segmentio/kafka-go"

	"tallyman/internal/kafkaconn"
	"tallyman/internal/sandbox"
	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/schema/rows"
)

// The benchmark's dataset: seven columns of about 190 bytes a row.
const (
	benchManifest = `
dataset: bench/events
columns:
  - {name: event_id, type: uuid}
  - {name: occurred_at, type: timestamptz}
  - {name: server, type: text}
  - {name: campaign, type: int64}
  - {name: converted, type: bool}
  - {name: revenue, type: float64, nullable: true}
  - {name: attributes, type: json, nullable: true}
`
	benchRows = 600_000
)

// bench is a broker, a warehouse and the program.
type bench struct {
	b      *testing.B
	binary string
	conn   *pgx.Conn
	pg     *sandbox.Postgres
	broker *sandbox.Broker
	env    []string
	rows   int           // that the topic holds
	used   time.Duration // processor time of the loader that ended last
	whole  time.Duration // of the last load, from when the loader had the partitions
}

func newBench(b *testing.B, c loadCase) *bench {
	b.Helper()
	dir := b.TempDir()
	x := &bench{b: b, binary: filepath.Join(dir, "tallyman"), rows: benchRows}
	if c.replayed {
		x.rows *= 4 // what the process takes to begin and to end is not what is compared
	}
	if out, err := exec.Command("go", "build", "-o", x.binary, ".").CombinedOutput(); err != nil {
		b.Fatalf("build: %v\n%s", err, out)
	}
	var err error
	if x.pg, err = sandbox.StartPostgres(b.Context(), sandbox.PostgresConfig{
		Version: "18", Settings: map[string]string{"shared_buffers": "256MB", "max_wal_size": "4GB"}, Progress: os.Stderr,
	}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = x.pg.Close() })
	if x.broker, err = sandbox.StartBroker(b.Context(), sandbox.BrokerConfig{DataDir: filepath.Join(dir, "broker")}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = x.broker.Close() })
	if x.conn, err = pgx.Connect(b.Context(), x.pg.DSN("postgres")); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = x.conn.Close(context.Background()) })
	x.env = append(os.Environ(), "DATABASE_URL="+x.pg.DSN("postgres"), "KAFKA_BROKERS="+x.broker.Addr(), "TALLYMAN_ADMIN_LISTEN=off")
	manifest := filepath.Join(dir, "manifest.yaml")
	if err := os.WriteFile(manifest, []byte(benchManifest), 0o644); err != nil {
		b.Fatal(err)
	}
	for _, args := range [][]string{{"init"}, {"dataset", "apply", manifest, "--partitions", "4"}} {
		cmd := exec.Command(x.binary, args...)
		cmd.Env = x.env
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	x.fill(c)
	return x
}

// fill publishes the batches, compressed as sources do.
func (x *bench) fill(c loadCase) {
	m, err := schema.ParseManifest([]byte(benchManifest))
	if err != nil {
		x.b.Fatal(err)
	}
	codec, err := rows.NewCodec(m)
	if err != nil {
		x.b.Fatal(err)
	}
	w := &kafka.Writer{Addr: kafka.TCP(x.broker.Addr()), Topic: m.Topic, RequiredAcks: kafka.RequireAll, Compression: kafka.Zstd,
		BatchBytes: 8 << 20, BatchTimeout: time.Millisecond, Balancer: &kafka.RoundRobin{}}
	defer func() { _ = w.Close() }()
	if c.snappy {
		w.Compression = kafka.Snappy
	}
	random := rand.New(rand.NewPCG(1, 2))
	var messages []kafka.Message
	for n := 0; n < x.rows; n += c.batchRows {
		b := &batch.Batch{ID: batch.NewID(), Source: "bench", Dataset: m.Dataset, Schema: m.Hash(), ContentType: c.contentType, Rows: c.batchRows}
		if b.Time, err = batch.TimeOf(b.ID); err != nil {
			x.b.Fatal(err)
		}
		for range c.batchRows {
			if c.contentType == batch.Native {
				b.Value, err = codec.Append(b.Value, b.ID, benchRow(random))
			} else {
				b.Value, err = appendNDJSON(b.Value, m, benchRow(random))
			}
			if err != nil {
				x.b.Fatal(err)
			}
		}
		b.Seal()
		message := kafka.Message{Key: b.Key(), Value: b.Value}
		for _, h := range b.Headers() {
			message.Headers = append(message.Headers, kafka.Header{Key: h.Key, Value: h.Value})
		}
		if messages = append(messages, message); len(messages) == 16 {
			if err := w.WriteMessages(x.b.Context(), messages...); err != nil {
				x.b.Fatal(err)
			}
			messages = messages[:0]
		}
	}
	if err := w.WriteMessages(x.b.Context(), messages...); err != nil {
		x.b.Fatal(err)
	}
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

// appendNDJSON appends a row as a service in any language would write it.
func appendNDJSON(dst []byte, m schema.Manifest, row []any) ([]byte, error) {
	object := make(map[string]any, len(row))
	for i, v := range row {
		object[m.Columns[i].Name] = v
	}
	object["attributes"] = json.RawMessage(row[len(row)-1].(string))
	line, err := json.Marshal(object)
	return append(append(dst, line...), '\n'), err
}

func (x *bench) exec(sql string) time.Duration {
	x.b.Helper()
	began := time.Now()
	if _, err := x.conn.Exec(x.b.Context(), sql); err != nil {
		x.b.Fatalf("%s: %v", sql, err)
	}
	return time.Since(began)
}

// load loads the whole topic into an empty table. The time runs from the start
// of the first transaction, by the server's clock, to the end of the last.
func (x *bench) load(env ...string) (took time.Duration, peak int64) {
	x.b.Helper()
	x.exec("TRUNCATE public.events__r1, tallyman.loaded_elements, tallyman.positions")
	cmd, end := x.loader(env...)
	defer end()
	deadline := time.Now().Add(2 * time.Minute)
	const progress = `SELECT coalesce(sum(row_count), 0)::bigint, extract(epoch FROM clock_timestamp() - min(loaded_at))::float8,
		EXISTS (SELECT FROM tallyman.positions)
		FROM tallyman.loaded_elements`
	var began time.Time
	for time.Now().Before(deadline) {
		var n int64
		var seconds *float64
		var assigned bool
		if err := x.conn.QueryRow(x.b.Context(), progress).Scan(&n, &seconds, &assigned); err != nil {
			x.b.Fatal(err)
		}
		if assigned && began.IsZero() {
			began = time.Now()
		}
		if n == int64(x.rows) {
			x.whole = time.Since(began)
			return time.Duration(*seconds * float64(time.Second)), peakMemory(x.b, cmd.Process.Pid)
		}
		time.Sleep(5 * time.Millisecond)
	}
	x.b.Fatal("not loaded within two minutes")
	return 0, 0
}

// besides are what the sources of a benchmark are compared with: loaders, by how
// batches are compressed. All directories are kept until everything is measured: for
// each new file ext4 looks through those that were deleted in the last minute.
type besides struct {
	b    *testing.B
	made map[string]*bench
}

// of returns a loader of the same rows, in batches of 1,000, compressed in that way.
func (all *besides) of(b *testing.B, compression string) *bench {
	b.Helper()
	x := all.made[compression]
	if x == nil {
		x = newBench(all.b, loadCase{contentType: batch.Native, batchRows: 1_000, snappy: compression == kafkaconn.Snappy})
		all.made[compression] = x
	}
	x.b = b
	x.load() // fills the caches
	return x
}

// quietLoad is load with nothing left to be written to the disk, before and after.
func (x *bench) quietLoad() time.Duration {
	x.b.Helper()
	x.exec("CHECKPOINT")
	took, _ := x.load()
	x.exec("CHECKPOINT")
	return took
}

// loader starts a loader and returns what ends it.
func (x *bench) loader(env ...string) (*exec.Cmd, func()) {
	x.b.Helper()
	cmd := exec.Command(x.binary, "load", "bench/events")
	cmd.Stderr = os.Stderr
	cmd.Env = slices.Concat(x.env, []string{"TALLYMAN_LOG_LEVEL=error"}, env)
	if err := cmd.Start(); err != nil {
		x.b.Fatal(err)
	}
	return cmd, func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		x.used = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
}

// reload has the whole topic read again into the table that has everything. The
// time runs from when the loader has the partitions, before it fetches anything.
func (x *bench) reload() time.Duration {
	x.b.Helper()
	var end int64
	if err := x.conn.QueryRow(x.b.Context(), "SELECT sum(next_offset)::bigint FROM tallyman.positions").Scan(&end); err != nil {
		x.b.Fatal(err)
	}
	x.exec("TRUNCATE tallyman.positions")
	x.exec("CHECKPOINT")
	_, stop := x.loader()
	defer stop()
	var began time.Time
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		var at *int64
		if err := x.conn.QueryRow(x.b.Context(), "SELECT sum(next_offset)::bigint FROM tallyman.positions").Scan(&at); err != nil {
			x.b.Fatal(err)
		}
		if at != nil && began.IsZero() {
			began = time.Now()
		}
		if at != nil && *at >= end {
			took := time.Since(began)
			var batches, rows int64
			const loaded = "SELECT count(*), (SELECT count(*) FROM public.events__r1) FROM tallyman.loaded_elements"
			if err := x.conn.QueryRow(x.b.Context(), loaded).Scan(&batches, &rows); err != nil || rows != int64(x.rows) {
				x.b.Fatalf("%d rows in %d batches, want %d: %v", rows, batches, x.rows, err)
			}
			return took
		}
	}
	x.b.Fatal("not read again within two minutes")
	return 0
}

// peakMemory returns the most memory that a process had resident, in bytes.
func peakMemory(b *testing.B, pid int) int64 {
	if runtime.GOOS != "linux" {
		return 0
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for scanner := bufio.NewScanner(f); scanner.Scan(); {
		if value, ok := strings.CutPrefix(scanner.Text(), "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			return n << 10
		}
	}
	b.Fatal("no peak of resident memory")
	return 0
}

// loadCase is one line of the table.
type loadCase struct {
	name        string
	contentType string
	batchRows   int
	snappy      bool // how batches are compressed; else zstd
	alone       bool // measure also with a transaction for each batch
	replayed    bool // measure also the same again, when all of it is loaded
}

// BenchmarkLoad loads 600,000 rows from four filled partitions with one loader
// process; broker, PostgreSQL and loader share this machine. ofCOPY is the share
// of the speed of a server-side binary COPY of the same rows from a file, run
// before each load; ofAlone is the speed as a multiple of a load with a
// transaction for each batch, run after it. Of replayed, ofFirst is the speed at
// which the loader passes over the same batches again, as a multiple of the load
// that it follows, both from when it has the partitions to the end, and cpuOfFirst
// how many times less processor time it takes, with the process's start and end.
func BenchmarkLoad(b *testing.B) {
	for _, c := range []loadCase{
		{name: "native", contentType: batch.Native, batchRows: 1_000},
		{name: "native-snappy", contentType: batch.Native, batchRows: 1_000, snappy: true},
		{name: "ndjson", contentType: batch.NDJSON, batchRows: 1_000},
		{name: "native-of-100-rows", contentType: batch.Native, batchRows: 100, alone: true},
		{name: "replayed", contentType: batch.Native, batchRows: 1_000, replayed: true},
	} {
		b.Run(c.name, func(b *testing.B) { benchLoad(b, c) })
	}
}

func benchLoad(b *testing.B, c loadCase) {
	x := newBench(b, c)
	x.load() // fills the file's table, and the caches
	file := filepath.Join(x.pg.Dir(), "data", "rows.copy")
	x.exec("COPY public.events__r1 TO '" + file + "' (FORMAT binary)")
	x.exec("CREATE TABLE raw (LIKE public.events__r1)")
	var raw, loaded, alone, whole, again time.Duration
	var first, second time.Duration // of the processor
	var peak int64
	n := 0
	for b.Loop() {
		x.exec("TRUNCATE raw")
		x.exec("CHECKPOINT")
		raw += x.exec("COPY raw FROM '" + file + "' (FORMAT binary)")
		x.exec("CHECKPOINT")
		took, most := x.load()
		loaded, peak = loaded+took, max(peak, most)
		if c.alone {
			x.exec("CHECKPOINT")
			took, _ := x.load("TALLYMAN_LOADER_GROUP_BYTES=1B")
			alone += took
		}
		if c.replayed {
			first, whole = first+x.used, whole+x.whole
			again += x.reload()
			second += x.used
		}
		n++
	}
	if c.replayed {
		b.ReportMetric(whole.Seconds()/again.Seconds(), "ofFirst")
		b.ReportMetric(first.Seconds()/second.Seconds(), "cpuOfFirst")
		b.ReportMetric(float64(n*x.rows)/again.Seconds(), "replayedrows/s")
	}
	b.ReportMetric(raw.Seconds()/loaded.Seconds(), "ofCOPY")
	b.ReportMetric(float64(n*x.rows)/loaded.Seconds(), "rows/s")
	b.ReportMetric(float64(n*x.rows)/raw.Seconds(), "COPYrows/s")
	b.ReportMetric(float64(peak)/(1<<20), "peakMiB")
	if c.alone {
		b.ReportMetric(alone.Seconds()/loaded.Seconds(), "ofAlone")
	}
	b.ReportMetric(0, "ns/op")
}
