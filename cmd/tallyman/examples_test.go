package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// examples is the directory of the programs that show how to publish.
const examples = "../../examples"

// anOrder is a row of examples/orders.yaml.
type anOrder struct {
	Number int     `json:"number"`
	At     string  `json:"ordered_at"`
	Amount float64 `json:"amount"`
	Note   *string `json:"note"`
}

// someOrders returns the orders of a range of numbers, as sameOrders expects them.
func someOrders(from, to int) (all []anOrder) {
	for n := from; n <= to; n++ {
		at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(n) * 1001 * time.Millisecond)
		o := anOrder{Number: n, At: at.Format(time.RFC3339Nano), Amount: float64(n) * 0.25}
		if n%3 != 0 {
			note := fmt.Sprintf("Zürich, \"%d\"\nThe End", n)
			o.Note = &note
		}
		all = append(all, o)
	}
	return all
}

const (
	// What someOrders makes, in PostgreSQL's words.
	ordersWanted = `SELECT i, timestamptz '2026-01-01T00:00:00Z' + i * interval '1001 milliseconds', i * 0.25::float8,
		CASE WHEN i % 3 <> 0 THEN format(E'Zürich, "%s"\nThe End', i) END FROM generate_series(1, $1::int) i`
	ordersLoaded = `SELECT number, ordered_at, amount, note FROM public.orders`

	ordersDiffer = `SELECT (SELECT count(*) FROM (` + ordersWanted + ` EXCEPT ALL ` + ordersLoaded + `) missing),
		(SELECT count(*) FROM (` + ordersLoaded + ` EXCEPT ALL ` + ordersWanted + `) extra)`
)

// sameOrders waits until that many orders are loaded, and compares them with
// those that someOrders makes.
func (st *stream) sameOrders(p *process, count int) {
	t := st.site.t
	t.Helper()
	p.until(fmt.Sprint(count, " orders"), func() bool {
		var n int
		if err := st.site.owner.QueryRow(t.Context(), "SELECT count(*) FROM public.orders").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n >= count
	})
	var missing, extra int
	if err := st.site.owner.QueryRow(t.Context(), ordersDiffer, count).Scan(&missing, &extra); err != nil {
		t.Fatal(err)
	}
	if missing != 0 || extra != 0 {
		t.Errorf("of %d orders %d are missing, and %d are loaded that nobody sent", count, missing, extra)
	}
}

// ordersSite has the examples' dataset and a loader of it.
func ordersSite(t *testing.T) (*stream, *process) {
	t.Helper()
	manifest, err := os.ReadFile(filepath.Join(examples, "orders.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	st := newBadSite(t, nil).stream(string(manifest))
	return st, st.site.load()
}

// runExample runs a command with an input and checks what it prints.
func runExample(t *testing.T, in io.Reader, says string, command ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Stdin = in
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || strings.TrimSpace(string(out)) != says {
		t.Fatalf("%s: %v, printed %q, want %q\n%s", strings.Join(command, " "), err, out, says, &stderr)
	}
}

// The Go example is a module of its own: it can import what others can.
func TestExampleInGo(t *testing.T) {
	t.Parallel()
	st, p := ordersSite(t)
	dir := t.TempDir()
	program := filepath.Join(dir, "orders")
	// Beside a copy of its go.mod, so that a newer library of ours changes nothing in the tree.
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(examples, "go", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-mod=mod", "-modfile", filepath.Join(dir, "go.mod"), "-o", program, ".")
	build.Dir = filepath.Join(examples, "go")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	const count = 2_500
	var in bytes.Buffer
	w := csv.NewWriter(&in)
	for _, o := range someOrders(1, count) {
		note := ""
		if o.Note != nil {
			note = *o.Note
		}
		if err := w.Write([]string{fmt.Sprint(o.Number), o.At, fmt.Sprint(o.Amount), note}); err != nil {
			t.Fatal(err)
		}
	}
	w.Flush()
	runExample(t, &in, fmt.Sprintf("published %d rows", count), program, "-brokers", st.site.broker.Addr(),
		"-manifest", filepath.Join(examples, "orders.yaml"), "-dir", filepath.Join(dir, "journal"))
	st.sameOrders(p, count)
}

// python is set in the environment by `make test-all`, where Python 3 has to be
// there, and can install from its package index.
const python = "TALLYMAN_PYTHON"

// pythonWith returns an interpreter that has what a file of requirements names.
func pythonWith(t *testing.T, requirements string) string {
	t.Helper()
	if os.Getenv(python) == "" {
		t.Skipf("needs Python: run make test-all, or set %s=1 (Python 3.8 with venv)", python)
	}
	dir := t.TempDir()
	interpreter := filepath.Join(dir, "bin", "python")
	for _, command := range [][]string{
		{"python3", "-m", "venv", dir},
		{interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "-r", requirements},
	} {
		if out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
		}
	}
	return interpreter
}

// The Python example was written from FORMAT.md, with a client of Kafka that
// shares nothing with ours. It publishes under ids of three versions, and then
// all of it again.
func TestExampleInPython(t *testing.T) {
	t.Parallel()
	interpreter := pythonWith(t, filepath.Join(examples, "python", "requirements.txt"))
	st, p := ordersSite(t)
	publish := func(in io.Reader, says string, args ...string) {
		t.Helper()
		runExample(t, in, says, append([]string{interpreter, filepath.Join(examples, "python", "producer.py"),
			"--brokers", st.site.broker.Addr(), "--topic", st.manifest.Topic, "--dataset", st.manifest.Dataset.String(),
			"--source", "till-7", "--outbox", filepath.Join(filepath.Dir(interpreter), "outbox.db"), "--rows", "100"}, args...)...)
	}
	for _, run := range []struct {
		version, from, to int
		says              string
	}{
		{7, 1, 1000, "published 10 batches, 1000 rows"},
		{1, 1001, 1650, "published 7 batches, 650 rows"},
		{4, 1651, 2500, "published 9 batches, 850 rows"},
	} {
		var in bytes.Buffer
		lines := json.NewEncoder(&in)
		for _, o := range someOrders(run.from, run.to) {
			if err := lines.Encode(o); err != nil {
				t.Fatal(err)
			}
		}
		publish(&in, run.says, "--ids", fmt.Sprint(run.version))
		st.sameOrders(p, run.to)
	}
	publish(strings.NewReader(""), "published 26 batches, 2500 rows", "--again")
	duplicates := fmt.Sprintf("tallyman_loader_batches_total{dataset=%q,outcome=\"duplicate\"}", st.manifest.Dataset)
	p.until("26 duplicates", func() bool { return p.metric(duplicates) == "26" })
	st.sameOrders(p, 2500)

	var versions string
	if err := st.site.owner.QueryRow(t.Context(), `
		SELECT string_agg(format('%s of v%s', batches, version), ', ' ORDER BY version) || format(', %s with a time',  (SELECT count(*) FROM tallyman.v4_ids))
		FROM (SELECT get_byte(uuid_send(unique_id), 6) >> 4, count(*) FROM tallyman.loaded_elements GROUP BY 1) l (version, batches)`).Scan(&versions); err != nil {
		t.Fatal(err)
	}
	if want := "7 of v1, 9 of v4, 10 of v7, 9 with a time"; versions != want {
		t.Errorf("the ledger has %s, want %s", versions, want)
	}
}
