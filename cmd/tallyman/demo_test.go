package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"tallyman/cmd/tallyman/internal/demo"
)

// demoProgram is a program whose children are this test binary.
func demoProgram() (p *program, stdout, stderr *bytes.Buffer) {
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	return &program{stdin: strings.NewReader(""), stdout: stdout, stderr: stderr, env: append(os.Environ(), asProgram, "TALLYMAN_LOADER_RECEIPT_INTERVAL=100ms")}, stdout, stderr
}

// runDemo runs a demo and returns its result and status.
func runDemo(t *testing.T, o demoOptions, sabotage demo.Sabotage) (demoResult, int) {
	t.Helper()
	p, stdout, stderr := demoProgram()
	output := asJSON
	o.output, o.seed = &output, 1
	status := p.report(p.demo(t.Context(), o, sabotage))
	if _, logs, kept := strings.Cut(stderr.String(), "the logs of what ran are in "); kept {
		logs, _, _ = strings.Cut(logs, "\n")
		defer func() { _ = os.RemoveAll(filepath.Dir(logs)) }()
	}
	if stdout.Len() == 0 {
		t.Fatalf("status %d and no result:\n%s", status, stderr)
	}
	var r demoResult
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v\n%s", r, stderr)
	return r, status
}

func TestDemo(t *testing.T) {
	p, stdout, stderr := demoProgram()
	if status := p.run(t.Context(), []string{"demo", "--rows", "30000", "--loaders", "1", "-o", "json"}); status != exitDone {
		t.Fatalf("status %d\n%s", status, stderr)
	}
	var keys map[string]any
	if err := json.Unmarshal(stdout.Bytes(), &keys); err != nil {
		t.Fatalf("standard output is not one JSON object: %v\n%s", err, stdout)
	}
	want := []string{"altered", "batches_loaded", "batches_sent", "brokers", "doubled", "dsn", "duplicates_refused",
		"kills", "lost", "rows_loaded", "rows_per_second", "rows_sent", "seconds", "table", "topic"}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(keys))); diff != "" {
		t.Error(diff)
	}
	if keys["rows_sent"] != 30_000.0 || keys["rows_loaded"] != 30_000.0 || keys["batches_sent"] != 60.0 {
		t.Errorf("result is %v", keys)
	}
}

func TestDemoChaos(t *testing.T) {
	r, status := runDemo(t, demoOptions{rows: 300_000, loaders: 2, chaos: true}, demo.NoSabotage)
	if status != exitDone || r.RowsLoaded != 300_000 || r.Lost+r.Doubled+r.Altered != 0 {
		t.Errorf("status %d: %+v", status, r)
	}
	if r.Kills < 4 || r.DuplicatesRefused < r.BatchesSent/2 {
		t.Errorf("%d kills, %d duplicates refused: that is no chaos", r.Kills, r.DuplicatesRefused)
	}
}

// Without the ledger's key the same chaos doubles rows, and the demo says so.
func TestDemoSeesDoubledRows(t *testing.T) {
	r, status := runDemo(t, demoOptions{rows: 100_000, loaders: 2, chaos: true}, demo.LedgerKey)
	if status != exitFound || r.Doubled == 0 || r.Lost != 0 || r.Altered != 0 {
		t.Errorf("status %d: %+v", status, r)
	}
}

// Records that vanish before they are read are rows lost, and the demo says so.
func TestDemoSeesLostRows(t *testing.T) {
	r, status := runDemo(t, demoOptions{rows: 30_000, loaders: 1}, demo.DeleteRecords)
	if status != exitFound || r.Lost == 0 || r.Doubled != 0 || r.Altered != 0 {
		t.Errorf("status %d: %+v", status, r)
	}
}

// With --keep everything goes on running after the result, until interrupted,
// and nothing is left of it then.
func TestDemoKeep(t *testing.T) {
	p, _, stderr := demoProgram()
	read, write := io.Pipe()
	p.stdout = write
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	ended := make(chan int, 1)
	go func() {
		ended <- p.run(ctx, []string{"demo", "--rows", "20000", "--keep", "-o", "json"})
		_ = write.Close()
	}()
	var r demoResult
	if err := json.NewDecoder(read).Decode(&r); err != nil {
		t.Fatalf("%v\n%s", err, stderr)
	}
	go func() { _, _ = io.Copy(io.Discard, read) }()
	conn, err := pgx.Connect(ctx, r.DSN)
	if err != nil {
		t.Fatal(err)
	}
	var directory string
	var rows, loaders int
	err = conn.QueryRow(ctx, `
		SELECT current_setting('data_directory'), (SELECT count(*) FROM conversions),
		       (SELECT count(DISTINCT application_name) FROM pg_stat_activity WHERE application_name LIKE 'tallyman/loader-%')`).
		Scan(&directory, &rows, &loaders)
	if err != nil || rows != 20_000 || loaders != 2 {
		t.Errorf("%d rows, %d loaders connected: %v", rows, loaders, err)
	}
	_ = conn.Close(ctx)
	if _, err := net.Dial("tcp", r.Brokers); err != nil {
		t.Error(err)
	}
	interrupt()
	if status := <-ended; status != exitDone {
		t.Errorf("status %d\n%s", status, stderr)
	}
	if _, err := os.Stat(filepath.Dir(filepath.Dir(directory))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there: %v", directory, err)
	}
}

// interrupter interrupts once a text is written.
type interrupter struct {
	text      string
	interrupt context.CancelFunc

	mu      sync.Mutex
	written bytes.Buffer
}

func (i *interrupter) Write(b []byte) (int, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.written.Write(b); strings.Contains(i.written.String(), i.text) {
		i.interrupt()
	}
	return len(b), nil
}

func TestDemoInterrupted(t *testing.T) {
	for _, at := range []string{"starting", "killed"} {
		p, stdout, _ := demoProgram()
		ctx, interrupt := context.WithCancel(t.Context())
		stderr := &interrupter{text: at, interrupt: interrupt}
		p.stderr = stderr
		status := p.run(ctx, []string{"demo", "--chaos", "--rows", "200000"})
		if lines := stderr.written.String(); status != exitFailed || stdout.Len() != 0 || strings.Contains(lines, "logs") ||
			!strings.HasSuffix(lines, "tallyman: interrupted; nothing was compared\n") {
			t.Errorf("interrupted when %s: status %d\n%s", at, status, lines)
		}
		interrupt()
	}
}

func TestDemoPrintsItsResult(t *testing.T) {
	kills := []demo.Kill{{Loader: "loader-2", PID: 17, XID: "838", Doing: "between its COPY and its COMMIT"}}
	sound := demo.Result{Rows: demo.Count{Sent: 1_000_000, Loaded: 1_000_000}, Batches: demo.Count{Sent: 2_000, Loaded: 2_000}, Duplicates: 4_000, Duration: 8 * time.Second}
	killed, broken := sound, sound
	killed.Kills, broken.Rows.Lost, broken.Rows.Loaded = kills, 1, 999_999
	for _, tc := range []struct {
		result demo.Result
		chaos  bool
		want   string
	}{
		{sound, false, `
         SENT       LOADED     LOST  DOUBLED  ALTERED
rows     1,000,000  1,000,000  0     0        0
batches  2,000      2,000      0     0        0

8.0 s, 125,000 rows/s from append to table; 4,000 duplicate batches refused
Every row that was sent is in the table, once, as it was sent.
`},
		{killed, true, `
KILLED    PROCESS  ROLLED BACK      CAUGHT
loader-2  17       transaction 838  between its COPY and its COMMIT

         SENT       LOADED     LOST  DOUBLED  ALTERED
rows     1,000,000  1,000,000  0     0        0
batches  2,000      2,000      0     0        0

8.0 s, 125,000 rows/s from append to table; 4,000 duplicate batches refused
Every row that was sent is in the table, once, as it was sent.
`},
		{broken, true, `
No loader was killed: none was seen in an open transaction before all was loaded. More --rows give more time.

         SENT       LOADED   LOST  DOUBLED  ALTERED
rows     1,000,000  999,999  1     0        0
batches  2,000      2,000    0     0        0

8.0 s, 124,999 rows/s from append to table; 4,000 duplicate batches refused
The table does not hold what was sent.
`},
	} {
		p, stdout, _ := demoProgram()
		output := asTable
		if err := p.printDemo(tc.result, demoOptions{chaos: tc.chaos, output: &output}); err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		for line := range strings.Lines(stdout.String()) {
			got.WriteString(strings.TrimRight(line, " \n") + "\n")
		}
		if diff := cmp.Diff(tc.want, got.String()); diff != "" {
			t.Error(diff)
		}
	}
}
