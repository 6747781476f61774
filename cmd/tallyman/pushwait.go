package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"tallyman/schema/batch"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

// loadWait waits until the warehouse has everything that was pushed.
type loadWait struct {
	w        *postgres.Warehouse
	revision sink.Revision
	timeout  time.Duration
	total    int64
	pending  []postgres.Awaited
	shown    *progress
	bar      *bar
	told     map[batch.Digest]bool // what was said about quarantine
}

// newLoadWait connects to the warehouse and looks for the dataset there, before
// anything is published. The caller closes the warehouse.
func (p *program) newLoadWait(cmd *cobra.Command, dataset string, timeout time.Duration) (*loadWait, error) {
	w, err := p.quarantineWarehouse(cmd)
	if err != nil {
		return nil, err
	}
	r, err := activeRevision(cmd, w, dataset)
	if err != nil {
		w.Close()
		return nil, err
	}
	return &loadWait{w: w, revision: r, timeout: timeout, told: map[batch.Digest]bool{}}, nil
}

// published notes a batch to wait for.
func (x *loadWait) published(b *batch.Batch) {
	x.total++
	x.pending = append(x.pending, postgres.Awaited{ID: b.ID, Time: b.Time, Content: b.Content()})
}

// run waits. The same batch may be in it twice, of a file that was pushed twice.
func (x *loadWait) run(ctx context.Context, p *program) error {
	x.shown = newProgress(p.stderr)
	defer x.shown.end()
	x.bar = x.shown.add("batches loaded", x.total)
	left, err := waitUntil(ctx, x.timeout, x.holds)
	if err == nil && left != "" {
		err = &foundError{text: fmt.Sprintf("%d of %d batches are published and not loaded after %v:\n%s", len(x.pending), x.total, x.timeout, left)}
	}
	return err
}

// holds returns what is not loaded, a line each for the first. What can never be
// loaded ends the waiting.
func (x *loadWait) holds(ctx context.Context) (string, error) {
	left, err := x.w.Outstanding(ctx, x.revision, x.pending)
	if err != nil {
		return "", err
	}
	x.pending = x.pending[:0]
	lines := &someLines{}
	for _, o := range left {
		x.pending = append(x.pending, o.Awaited)
		switch {
		case o.Discarded:
			return "", &foundError{text: fmt.Sprintf("batch %s was discarded: push its file with --again LABEL to load it after all", o.ID)}
		case o.Conflict:
			return "", &foundError{text: fmt.Sprintf("the warehouse has batch %s with other rows: the same content was pushed elsewhere by another manifest or with another text for NULL", o.ID)}
		case o.Kept != "":
			line := fmt.Sprintf("batch %s is in quarantine (%s): see tallyman quarantine show %s", o.ID, o.Kept, o.Key.String()[:shortID])
			lines.add(line)
			if !x.told[o.Key] {
				x.told[o.Key] = true
				x.shown.note(printable(line))
			}
		default:
			lines.add(fmt.Sprintf("batch %s is not loaded yet", o.ID))
		}
	}
	x.bar.set(x.total - int64(len(left)))
	return lines.String(), nil
}
