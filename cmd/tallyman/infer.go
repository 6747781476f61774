package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"tallyman/schema"
	"tallyman/source/intake"
	"tallyman/source/intake/infer"
)

// inferFlags are the flags that say how to infer a manifest.
type inferFlags struct {
	name, format, null string
	sample             int64
}

func newDatasetInfer(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "infer FILE|-",
		Short: "Write a first manifest for a CSV or NDJSON file",
		Long: `Write a first manifest for a CSV or NDJSON file, or for standard input, to standard output.

All rows are read, and a column gets the narrowest type that takes all its values and gives them
back as they were written: 1.50 is a decimal, 00123 and 31.01.2024 stay text. A push of the same
file goes through with it. With --sample it rests on the first rows alone, and says so.

Comments tell what is yours to decide: which columns were never empty, which could be keys, and why
a column is text. Columns keep the file's names, because a push finds them by these.`,
		Example: `  tallyman dataset infer monday.csv.gz --name ads/conversions > conversions.yaml
  tallyman dataset infer flights.csv --null NA
  zcat huge.gz | tallyman dataset infer - --format ndjson --sample 100000`,
		Args: cobra.ExactArgs(1),
	}
	var f inferFlags
	flags := cmd.Flags()
	flags.StringVar(&f.name, "name", "", "the dataset, `namespace/name` (default files/ and the file's name)")
	flags.StringVar(&f.format, "format", "", "`csv or ndjson`, whatever the name says; needed for standard input")
	flags.StringVar(&f.null, "null", "", "the `text` of a CSV field that, without quotes, means NULL (default the empty text)")
	flags.Int64Var(&f.sample, "sample", 0, "look at so many `rows` only (default all)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		file, dataset, err := f.parse(args[0])
		if err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		result, err := p.infer(cmd.Context(), file, infer.Config{
			Dataset: dataset, Layout: intake.Layout{Format: file.Format, Null: f.null}, Sample: f.sample,
		})
		if err != nil {
			return err
		}
		_, err = p.stdout.Write(result.YAML(shownName(file.Name)))
		return err
	}
	return cmd
}

// shownName is how a manifest names the file that it was made from.
func shownName(name string) string {
	if name == intake.Stdin {
		return "standard input"
	}
	return filepath.Base(name)
}

// parse reads what the command line says of the file.
func (f *inferFlags) parse(name string) (file intake.File, d schema.Dataset, err error) {
	file = intake.File{Name: name, Format: intake.Format(f.format)}
	switch {
	case f.sample < 0:
		return file, d, errors.New("--sample must not be negative")
	case f.format != "" && file.Format != intake.CSV && file.Format != intake.NDJSON:
		return file, d, fmt.Errorf("--format %q is neither csv nor ndjson", f.format)
	case f.format == "" && name == intake.Stdin:
		return file, d, errors.New("--format is needed for standard input: csv or ndjson")
	case f.format == "":
		if file.Format, err = intake.FormatOf(name); err != nil {
			return file, d, fmt.Errorf("%w; --format tells it", err)
		}
	}
	if f.name == "" {
		return file, infer.DatasetOf(name), nil
	}
	d, err = schema.ParseDataset(f.name)
	return file, d, err
}

// infer reads a file and shows how far it came.
func (p *program) infer(ctx context.Context, file intake.File, c infer.Config) (*infer.Result, error) {
	stream, size, err := p.openStream(ctx, file.Name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = stream.Close() }()
	shown := newProgress(p.stderr)
	defer shown.end()
	counted := &countedReader{Reader: stream}
	if size > 0 {
		counted.bar = shown.add(printable(filepath.Base(file.Name))+": bytes read", size)
	}
	result, err := infer.Infer(ctx, counted, c)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file.Name, err)
	}
	return result, nil
}

// openStream opens a file, or standard input as a stream that ends with ctx; a
// read from a terminal or a pipe can't be called back. The size is 0 if nobody
// knows it.
func (p *program) openStream(ctx context.Context, name string) (io.ReadCloser, int64, error) {
	if name == intake.Stdin {
		read, write := io.Pipe()
		context.AfterFunc(ctx, func() { _ = write.CloseWithError(context.Cause(ctx)) })
		go func() {
			_, err := io.Copy(write, p.stdin)
			_ = write.CloseWithError(err)
		}()
		return read, 0, nil
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, 0, errors.Join(err, file.Close())
	case info.IsDir():
		return nil, 0, errors.Join(fmt.Errorf("%s: it is a directory", name), file.Close())
	case info.Mode().IsRegular():
		return file, info.Size(), nil
	}
	return file, 0, nil
}

// countedReader tells a bar how much was read.
type countedReader struct {
	io.Reader
	bar  *bar // nil: nobody
	read int64
}

func (r *countedReader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	r.read += int64(n)
	if r.bar != nil {
		r.bar.set(r.read)
	}
	return n, err
}
