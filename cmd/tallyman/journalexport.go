package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"tallyman/cmd/tallyman/internal/peek"
	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/source/journal"
)

func newJournalExport(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export [ID|INCARNATION/SEQUENCE...]",
		Short: "Write batches of a journal as messages, or their rows as NDJSON or CSV",
		Long: `Write batches of a journal as messages, or their rows as NDJSON or CSV.

As messages each batch is a line, {"topic":…,"key":…,"headers":[{"key":…,"value":…}…],"value":…}:
what goes to Kafka, with the value in base64 and the rest as text. Published to the topic as it is,
by whatever program, it is the same batch, and is loaded once.

The rows, of one dataset and without _batch_id, are as tallyman push reads them, and need the
manifest. Pushed, they are other batches: what was loaded already would be loaded again.

A batch that can't be read or written is left out and named, and the status is 1.`,
		Example: `  tallyman source journal export --state unpublished --file rescued.ndjson
  tallyman source journal export --dataset ads/conversions --format csv --manifest conversions.yaml > rows.csv
  tallyman source journal export 0192f0c1-2b3c-7d4e-8f50-617283940a1b --format ndjson --manifest conversions.yaml`,
	}
	e := &exporting{}
	root := journalFlag(cmd)
	s := batchSelectorFlags(cmd)
	manifests := manifestsFlag(cmd)
	cmd.Flags().StringVar(&e.format, "format", "messages", "messages, or rows as ndjson or csv")
	file := cmd.Flags().String("file", "", "a new `file` to write to (default standard output)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		names, err := parseBatchNames(cmd, args)
		if err != nil {
			return err
		}
		if err := errors.Join(s.check(cmd), e.check(cmd, *manifests)); err != nil {
			return err
		}
		if e.known, err = manifests.read(); err != nil {
			return err
		}
		if e.opened, err = p.openJournal(cmd, *root); err != nil {
			return err
		}
		defer e.close()
		contents := e.Contents()
		batches := s.choose(contents)
		if names != nil {
			if batches, err = pick(batches, names); err != nil {
				return err
			}
		}
		e.warn(p.stderr, contents.Faults)
		return e.export(cmd.Context(), p, *file, batches)
	}
	return cmd
}

// exporting is the work of one export.
type exporting struct {
	*opened
	format string
	known  []schema.Manifest
	out    io.Writer
	rows   *peek.Writer // nil: no row was written yet
	by     schema.Manifest
}

// check refuses a format that can't be written.
func (e *exporting) check(cmd *cobra.Command, manifests manifestList) error {
	var err error
	switch {
	case e.format != "messages" && e.format != "ndjson" && e.format != "csv":
		err = fmt.Errorf("--format %q is none of messages, ndjson and csv", e.format)
	case e.format != "messages" && len(manifests) == 0:
		err = errors.New("--manifest is needed: rows are written by it")
	}
	if err != nil {
		return &usageError{command: cmd.CommandPath(), err: err}
	}
	return nil
}

// warn tells what the keys alone show: that there may be batches that are not listed.
func (e *exporting) warn(w io.Writer, faults []journal.Fault) {
	if len(faults) > 0 {
		fmt.Fprintf(w, "tallyman: warning: journal %s has %s: see tallyman source journal verify\n", printable(e.dir), count(len(faults), "fault"))
	}
}

// export writes the batches to a new file, or to standard output.
func (e *exporting) export(ctx context.Context, p *program, name string, batches []chosen) (err error) {
	e.out = p.stdout
	var file *os.File
	if name != "" {
		if file, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
			return err // a file that is there stays as it is
		}
		e.out = file
	}
	buffered := bufio.NewWriterSize(e.out, 1<<20)
	e.out = buffered
	rows, failures, err := e.all(ctx, batches)
	err = errors.Join(err, buffered.Flush())
	if file != nil {
		err = errors.Join(err, file.Sync(), file.Close())
	}
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	written := len(batches) - len(failures)
	if len(failures) > 0 {
		return errors.Join(append(failures, fmt.Errorf("%d of %s left out, %d written", len(failures), count(len(batches), "batch"), written))...)
	}
	if file != nil {
		fmt.Fprintf(p.stdout, "%s with %s written to %s\n", count(written, "batch"), count(rows, "row"), printable(name))
	}
	return nil
}

// all writes the batches; failures are about one each, err ends it.
func (e *exporting) all(ctx context.Context, batches []chosen) (rows int, failures []error, err error) {
	for _, c := range batches {
		if err := ctx.Err(); err != nil {
			return rows, failures, err
		}
		r, err := e.Get(c.key)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		var of *peek.OutError
		switch err := e.one(r); {
		case errors.As(err, &of):
			return rows, failures, err
		case err != nil:
			failures = append(failures, fmt.Errorf("batch %s %s: %w", c.key.Dataset, c.name(), err))
		default:
			rows += r.Batch.Rows
		}
	}
	return rows, failures, nil
}

// messageJSON is a line of an export of messages.
type messageJSON struct {
	Topic   string       `json:"topic"`
	Key     string       `json:"key"`
	Headers []headerJSON `json:"headers"`
	Value   []byte       `json:"value"`
}

// one writes a batch.
func (e *exporting) one(r *journal.Record) error {
	if e.format != "messages" {
		return e.batchRows(r.Batch)
	}
	enc := json.NewEncoder(e.out)
	enc.SetEscapeHTML(false)
	m := messageJSON{Topic: r.Topic, Key: string(r.Batch.Key()), Headers: headersToJSON(r.Batch.Headers()), Value: r.Batch.Value}
	if err := enc.Encode(m); err != nil {
		return &peek.OutError{Err: err}
	}
	return nil
}

// batchRows writes a batch's rows. All are of one manifest: the columns of the
// file are.
func (e *exporting) batchRows(b *batch.Batch) error {
	m, err := manifestOf(e.known, b)
	if err != nil {
		return err
	}
	if e.rows == nil {
		if e.rows, err = peek.NewWriter(e.out, *m, e.format == "csv"); err != nil {
			return err
		}
		e.by = *m
	}
	if m.Hash() != e.by.Hash() {
		return fmt.Errorf("it is of another dataset or manifest than the rows before; select one with --dataset and --manifest")
	}
	return e.rows.Batch(b)
}
