// Orders publishes rows as batches that Tallyman loads exactly once, with the
// library that Tallyman has for Go.
//
// It reads orders from standard input, CSV without a header: number, time,
// amount, note. A row is on this machine's disk when Append returns, and is
// published for as long as that takes, by the next run if need be.
//
//	go run . -brokers 127.0.0.1:9092 -manifest ../orders.yaml -dir /var/lib/orders < orders.csv
package main

import (
	"context"
	"encoding/csv"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"tallyman/schema"
	"tallyman/source"
)

func main() {
	brokers := flag.String("brokers", "127.0.0.1:9092", "Kafka's addresses, separated by commas")
	manifest := flag.String("manifest", "../orders.yaml", "the dataset's manifest")
	dir := flag.String("dir", "orders", "directory of the journal, which keeps the batches")
	name := flag.String("name", "orders-go", "this producer's name")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, source.Config{
		Kafka: source.Kafka{Brokers: strings.Split(*brokers, ",")}, Dir: *dir, Name: *name,
	}, *manifest, os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run appends the rows of in and returns when all of them are published.
func run(ctx context.Context, config source.Config, manifest string, in io.Reader) error {
	text, err := os.ReadFile(manifest)
	if err != nil {
		return err
	}
	if config.Manifest, err = schema.ParseManifest(text); err != nil {
		return err
	}
	orders, err := source.Open(ctx, config)
	if err != nil {
		return err
	}
	n, err := appendAll(ctx, orders, csv.NewReader(in))
	if err == nil {
		err = orders.Flush(ctx)
	}
	if err := errors.Join(err, orders.Close()); err != nil {
		return err
	}
	fmt.Printf("published %d rows\n", n)
	return nil
}

// appendAll appends rows in calls of a hundred: one call's rows are loaded
// together, and wait for the disk together.
func appendAll(ctx context.Context, orders *source.Source, in *csv.Reader) (n int, err error) {
	var rows [][]any
	flush := func() error {
		err := orders.Append(ctx, rows)
		n += len(rows)
		rows = rows[:0]
		return err
	}
	for {
		record, err := in.Read()
		if errors.Is(err, io.EOF) {
			return n, flush()
		}
		if err != nil {
			return n, err
		}
		row, err := order(record)
		if err != nil {
			line, _ := in.FieldPos(0)
			return n, fmt.Errorf("line %d: %w", line, err)
		}
		if rows = append(rows, row); len(rows) == 100 {
			if err := flush(); err != nil {
				return n, err
			}
		}
	}
}

// order makes a record a row: its values in the manifest's order.
func order(record []string) ([]any, error) {
	if len(record) != 4 {
		return nil, fmt.Errorf("%d fields, want 4", len(record))
	}
	number, err := strconv.ParseInt(record[0], 10, 64)
	if err != nil {
		return nil, err
	}
	at, err := time.Parse(time.RFC3339Nano, record[1])
	if err != nil {
		return nil, err
	}
	amount, err := strconv.ParseFloat(record[2], 64)
	if err != nil {
		return nil, err
	}
	var note any // NULL
	if record[3] != "" {
		note = record[3]
	}
	return []any{number, at, amount, note}, nil
}
