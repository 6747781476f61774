package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tallyman/cmd/tallyman/internal/demo"
)

// demoProgram is a program whose children are this test binary.
func demoProgram() (p *program, stdout, stderr *bytes.Buffer) {
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	return &program{stdin: strings.NewReader(""), stdout: stdout, stderr: stderr, env: append(os.Environ(), asProgram)}, stdout, stderr
}

// runDemo runs a demo and returns its result and status.
func runDemo(t *testing.T, o demoOptions, sabotage demo.Sabotage) (demoResult, int) {
	t.Helper()
	p, stdout, stderr := demoProgram()
	output := asJSON
	o.output, o.seed = &output, 1
	status := p.report(p.demo(t.Context(), o, sabotage))
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
		"kills", "lost", "rows_loaded", "rows_per_second", "rows_sent", "seconds"}
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
	if r.Kills < 2 || r.DuplicatesRefused < r.BatchesSent/2 {
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
