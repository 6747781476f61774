package main

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"tallyman/internal/sandbox/sandboxtest"
)

const tills = "id,at,amount\n1,2024-02-29T12:00:00Z,1.5\n2,,NA\n"

const tillsManifest = `# From tills.csv: 2 rows, all of them.
# Where a value must never be missing, take away nullable: true.
dataset: files/tills
columns:
  - {name: id, type: int64, nullable: true}  # never empty, unique: a key?
  - {name: at, type: timestamptz, nullable: true}
  - {name: amount, type: text, nullable: true}  # never empty, unique: a key?; decimal(18,1) if NA is NULL, as --null NA says
`

func TestDatasetInfer(t *testing.T) {
	t.Parallel()
	if diff := cmp.Diff(tillsManifest, succeed(t, nil, "dataset", "infer", file(t, "tills.csv", tills))); diff != "" {
		t.Error(diff)
	}

	var gz, zst bytes.Buffer
	w := gzip.NewWriter(&gz)
	if _, err := w.Write([]byte(tills)); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewWriter(&zst)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write([]byte(tills)); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"tills.csv.gz": gz.String(), "tills.csv.zst": zst.String()} {
		out := succeed(t, nil, "dataset", "infer", file(t, name, text), "--null", "NA", "--name", "shop/tills")
		contains(t, out, "# From "+name, "dataset: shop/tills", `{name: amount, type: "decimal(18,1)", nullable: true}`)
	}
	contains(t, succeed(t, nil, "dataset", "infer", file(t, "tills.csv", tills), "--sample", "1"),
		"1 row, the first of more; a later row may need a wider type", `type: "decimal(18,1)"`)

	var stdout, stderr bytes.Buffer
	p := program{stdin: strings.NewReader(`{"a":[1]}`), stdout: &stdout, stderr: &stderr}
	if status := p.run(t.Context(), []string{"dataset", "infer", "-", "--format", "ndjson"}); status != exitDone {
		t.Errorf("status %d: %s", status, &stderr)
	}
	contains(t, stdout.String(), "# From standard input", "dataset: files/rows", `{name: a, type: "int64[]"`)
}

func TestDatasetInferRefuses(t *testing.T) {
	t.Parallel()
	good := file(t, "tills.csv", tills)
	for _, tc := range []struct {
		status int
		args   []string
		says   string
	}{
		{exitUsage, []string{"-"}, "--format is needed for standard input"},
		{exitUsage, []string{good, "--format", "xml"}, "neither csv nor ndjson"},
		{exitUsage, []string{good, "--name", "Tills"}, "is not namespace/name"},
		{exitUsage, []string{good, "--sample=-1"}, "--sample must not be negative"},
		{exitUsage, []string{file(t, "tills.txt", tills)}, "--format tells it"},
		{exitFailed, []string{filepath.Join(t.TempDir(), "none.csv")}, "no such file"},
		{exitFailed, []string{t.TempDir(), "--format", "csv"}, "it is a directory"},
		{exitFailed, []string{file(t, "empty.csv", "")}, "empty.csv: line 1: the file is empty"},
		{exitFailed, []string{file(t, "ragged.csv", "a,b\n1\n")}, "ragged.csv: line 2: 1 fields, the header has 2"},
		{exitFailed, []string{file(t, "cut.csv.gz", "\x1f\x8b\x08")}, "cut.csv.gz: "},
	} {
		fail(t, tc.status, nil, append([]string{"dataset", "infer"}, tc.args...), tc.says)
	}
}

// What infer prints is what apply takes, and a push of the same file goes through.
func TestDatasetInferApplyPush(t *testing.T) {
	t.Parallel()
	s := newSite(t, sandboxtest.Versions()[0])
	succeed(t, s.env, "init")
	files, err := filepath.Glob("../../source/intake/infer/testdata/*.golden")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, golden := range files {
		text, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(string(text), "error: ") {
			continue
		}
		data := strings.TrimSuffix(golden, ".golden")
		name := "files/" + strings.ToLower(strings.Split(filepath.Base(data), ".")[0])
		manifest := file(t, "manifest.yaml", succeed(t, nil, "dataset", "infer", data))
		succeed(t, s.env, "dataset", "apply", manifest)
		contains(t, succeed(t, s.env, "push", name, data, "--manifest", manifest), "in 1 batches published")
	}
}
