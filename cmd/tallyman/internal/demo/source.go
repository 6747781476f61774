package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"tallyman/schema/batch"
)

// Source is what the demo's source process appends to.
type Source interface {
	// AppendBatch makes a batch durable under the id.
	AppendBatch(ctx context.Context, id uuid.UUID, rows [][]any) error
	// Flush returns when everything appended is published.
	Flush(ctx context.Context) error
	// Republish publishes everything in the journal again, under the same ids.
	Republish(ctx context.Context) error
}

// SourceConfig is the work of the source process.
type SourceConfig struct {
	Source Source
	Seed   uint64    // what the events are made from
	Rows   int64     // how many
	File   string    // where they are noted before they are appended
	Orders io.Reader // from the demo: a line "republish", and its end to stop
	Report io.Writer // to the demo: JSON lines
}

// said is one line of the source's report.
type said struct {
	Rows    int64 `json:"rows"`
	Batches int64 `json:"batches"`
	Passes  int   `json:"passes"` // how often everything was published
}

// RunSource is the source process: it notes and appends rows for every
// attribution server at the same time, publishes them, and once more for each
// order to do so. It returns when the orders end.
func RunSource(ctx context.Context, c SourceConfig) error {
	file, err := os.Create(c.File)
	if err != nil {
		return fmt.Errorf("create the generator's file: %w", err)
	}
	defer func() { _ = file.Close() }()
	w := &writer{config: c, file: file, report: json.NewEncoder(c.Report)}
	if err := w.appendAll(ctx); err != nil {
		return err
	}
	if err := c.Source.Flush(ctx); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	if err := w.published(); err != nil {
		return err
	}
	orders := bufio.NewScanner(c.Orders)
	for orders.Scan() {
		if err := c.Source.Republish(ctx); err != nil {
			return fmt.Errorf("publish again: %w", err)
		}
		if err := c.Source.Flush(ctx); err != nil {
			return fmt.Errorf("publish again: %w", err)
		}
		if err := w.published(); err != nil {
			return err
		}
	}
	return orders.Err()
}

// writer writes the file and the report.
type writer struct {
	config SourceConfig

	mu     sync.Mutex
	file   *os.File
	report *json.Encoder
	said   said
}

// appendAll deals the batches out to the servers, which append them side by side.
func (w *writer) appendAll(ctx context.Context) error {
	batches := (w.config.Rows + batchRows - 1) / batchRows
	count := int64(len(servers()))
	group, ctx := errgroup.WithContext(ctx)
	for number := range count {
		group.Go(func() error {
			g := newGenerator(w.config.Seed, int(number))
			for b := number; b < batches; b += count {
				n := min(batchRows, w.config.Rows-b*batchRows)
				if err := w.appendOne(ctx, g, int(n)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// appendOne notes one batch, and only then appends it.
func (w *writer) appendOne(ctx context.Context, g *generator, n int) error {
	id := batch.NewID()
	rows := make([][]any, n)
	var note []byte
	for i := range rows {
		e := g.next()
		rows[i] = e.values()
		note = e.appendCopy(note, id)
	}
	if err := w.note(note); err != nil {
		return fmt.Errorf("write the generator's file: %w", err)
	}
	if err := w.config.Source.AppendBatch(ctx, id, rows); err != nil {
		return fmt.Errorf("append: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said.Rows += int64(n)
	w.said.Batches++
	return w.report.Encode(w.said)
}

func (w *writer) note(lines []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.file.Write(lines)
	return err
}

func (w *writer) published() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said.Passes++
	return w.report.Encode(w.said)
}
