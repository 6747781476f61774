package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"tallyman/schema"
)

// memory is a Source that checks, at each append, that the batch was noted before.
type memory struct {
	file string

	mu        sync.Mutex
	batches   map[uuid.UUID][][]any
	unnoted   int
	published int
}

func (m *memory) AppendBatch(_ context.Context, id uuid.UUID, rows [][]any) error {
	text, err := os.ReadFile(m.file)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if bytes.Count(text, []byte(id.String()+"\t")) != len(rows) {
		m.unnoted++
	}
	m.batches[id] = rows
	return nil
}

func (m *memory) Flush(context.Context) error { return nil }

func (m *memory) Republish(context.Context) error { m.published++; return nil }

func runSource(t *testing.T, seed uint64) (*memory, string) {
	t.Helper()
	m := &memory{file: filepath.Join(t.TempDir(), "sent"), batches: map[uuid.UUID][][]any{}}
	var report bytes.Buffer
	err := RunSource(t.Context(), SourceConfig{Source: m, Seed: seed, Rows: 5_250, File: m.file,
		Orders: strings.NewReader("republish\n"), Report: &report})
	if err != nil {
		t.Fatal(err)
	}
	var last said
	for dec := json.NewDecoder(&report); ; {
		if err := dec.Decode(&last); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(said{Rows: 5_250, Batches: 11, Passes: 2}, last); diff != "" {
		t.Error(diff)
	}
	return m, m.file
}

func TestSourceNotesBeforeItAppends(t *testing.T) {
	t.Parallel()
	m, _ := runSource(t, 1)
	if len(m.batches) != 11 || m.unnoted != 0 || m.published != 1 {
		t.Errorf("%d batches, %d of them not noted before, published again %d times", len(m.batches), m.unnoted, m.published)
	}
}

// The same seed gives the same rows; the batches' ids carry the time and differ.
func TestSeedDecidesTheRows(t *testing.T) {
	t.Parallel()
	rows := func(seed uint64) map[any][]any {
		m, _ := runSource(t, seed)
		all := map[any][]any{}
		for _, b := range m.batches {
			for _, row := range b {
				all[row[0]] = row
			}
		}
		return all
	}
	first, again, other := rows(7), rows(7), rows(8)
	if len(first) != 5_250 {
		t.Errorf("%d different ids, want one for each row", len(first))
	}
	if diff := cmp.Diff(first, again); diff != "" {
		t.Error(diff)
	}
	if cmp.Equal(first, other) {
		t.Error("another seed gave the same rows")
	}
}

func TestManifestFitsTheRows(t *testing.T) {
	t.Parallel()
	m, err := schema.ParseManifest(conversions)
	if err != nil {
		t.Fatal(err)
	}
	e := newGenerator(1, 0).next()
	if m.Dataset.String() != "ads/conversions" || len(m.Columns) != len(e.values()) {
		t.Errorf("dataset %s of %d columns, rows of %d values", m.Dataset, len(m.Columns), len(e.values()))
	}
}

func TestCopyLine(t *testing.T) {
	t.Parallel()
	attributes, revenue := "{\"a\": \"\\n\"}\t\r\n", 0.1
	e := event{id: uuid.Max, occurredAt: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), server: `\N`, campaign: -1, converted: true, revenue: &revenue, attributes: &attributes}
	want := "00000000-0000-0000-0000-000000000000\tffffffff-ffff-ffff-ffff-ffffffffffff\t2026-01-02T03:04:05.000006Z\t" +
		`\\N` + "\t-1\ttrue\t0.1\t" + `{"a": "\\n"}\t\r\n` + "\n"
	if got := string(e.appendCopy(nil, uuid.Nil)); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	e.revenue, e.attributes = nil, nil
	if got := string(e.appendCopy(nil, uuid.Nil)); !strings.HasSuffix(got, "\ttrue\t\\N\t\\N\n") {
		t.Errorf("got %q", got)
	}
}
