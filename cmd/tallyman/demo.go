package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"tallyman/cmd/tallyman/internal/demo"
)

// demoOptions are the flags of demo.
type demoOptions struct {
	rows    int64
	loaders int
	chaos   bool
	keep    bool
	seed    uint64
	output  *format
	file    string
	infer   inferFlags // of the file
	servers *demo.Servers
}

func newDemo(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "demo",
		GroupID: groupTry,
		Short:   "Run everything on this machine, and verify the result",
		Long: `Run everything on this machine, and verify the result.

It starts a Kafka broker and a PostgreSQL in a temporary directory, a source that appends made-up
ad clicks and conversions, and loaders, each a process of its own. The source writes every row to a
file before it appends it; at the end that file is compared with the table, by plain SQL.

With --file it loads your CSV or NDJSON file instead: it infers a manifest, pushes the file, and
compares what another parser reads in the file with what the table holds, value by value.

With --kafka-brokers and --warehouse-url it runs on your servers instead of embedded ones, under a
random name, and removes everything at the end. It runs init only if the warehouse has no schema
tallyman, and removes that, too. Further settings, as for TLS, are those of every other command.

--chaos kills loaders with SIGKILL, each in the middle of a transaction that the server then rolls
back; deletes the topic half way, after which the source publishes again what it hears is missing;
has the topic read again from its start and publishes everything a second time.

The exit status is 3 if a row was lost, doubled or altered.`,
		Example: `  tallyman demo
  tallyman demo --chaos
  tallyman demo --rows 100000 --keep
  tallyman demo --file flights.csv --null NA
  tallyman demo --kafka-brokers kafka:9092 --warehouse-url postgres://loader@db/test
  tallyman demo --chaos --seed 7 -o json`,
		Args: cobra.NoArgs,
	}
	var o demoOptions
	flags := cmd.Flags()
	flags.Int64Var(&o.rows, "rows", 1_000_000, "how many rows to load")
	flags.IntVar(&o.loaders, "loaders", 2, "how many loader processes share the work")
	flags.BoolVar(&o.chaos, "chaos", false, "kill loaders, delete the topic, rewind, publish everything twice")
	flags.BoolVar(&o.keep, "keep", false, "leave everything running afterwards, until interrupted")
	flags.Uint64Var(&o.seed, "seed", 0, "what the rows are made from (default another for each run)")
	flags.StringVar(&o.file, "file", "", "load this CSV or NDJSON `file` instead of made-up rows")
	flags.StringVar(&o.infer.name, "name", "", "the file's dataset, `namespace/name` (default files/ and the file's name)")
	flags.StringVar(&o.infer.format, "format", "", "`csv or ndjson`, whatever the file's name says")
	flags.StringVar(&o.infer.null, "null", "", "the `text` of a CSV field that, without quotes, means NULL (default the empty text)")
	o.output = formatFlag(cmd)
	settingFlags(cmd, "kafka", "warehouse")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if err := o.check(flags); err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		if o.servers, err = p.demoServers(cmd); err != nil {
			return err
		}
		if o.seed == 0 {
			o.seed = rand.Uint64N(1 << 32)
		}
		return p.demo(cmd.Context(), o, demo.NoSabotage)
	}
	return cmd
}

// demo runs one demo; with sabotage, one that must not end well.
func (p *program) demo(ctx context.Context, o demoOptions, sabotage demo.Sabotage) (err error) {
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	config := demo.Config{
		Rows: o.rows, Loaders: o.loaders, Chaos: o.chaos, Keep: o.keep, Seed: o.seed,
		Servers: o.servers, Sabotage: sabotage, Executable: executable, Env: p.env,
	}
	defer func() {
		var left *demo.LeftError
		switch {
		case !errors.Is(err, context.Canceled):
		case errors.As(err, &left):
			err = fmt.Errorf("interrupted; nothing was compared\n%w", left)
		default:
			err = errors.New("interrupted; nothing was compared")
		}
	}()
	if o.file != "" {
		if config.File, config.Rows, err = p.demoFile(ctx, o); err != nil {
			return err
		}
	}
	show := &demoProgress{progress: newProgress(p.stderr)}
	config.Progress = show
	if config.Servers == nil {
		show.Note(fmt.Sprintf("seed %d: starting a Kafka broker and a PostgreSQL", o.seed))
	}
	d, err := demo.Start(ctx, config)
	if err != nil {
		show.end()
		return err
	}
	defer func() { err = errors.Join(err, d.Close(err)) }()
	show.start(config.Rows)
	result, err := d.Run(ctx)
	show.end()
	if err != nil {
		return err
	}
	if err := p.printDemo(result, o); err != nil {
		return err
	}
	if o.keep {
		fmt.Fprintf(p.stderr, "everything goes on running, until interrupted: the table %s, the topic %s\n", result.Table, result.Topic)
		if o.servers == nil {
			fmt.Fprintf(p.stderr, "  DATABASE_URL=%s\n  KAFKA_BROKERS=%s\n", result.DSN, result.Brokers)
		}
		<-ctx.Done()
	}
	if !result.Sound() {
		return &foundError{text: fmt.Sprintf("%d rows lost, %d doubled, %d altered", result.Rows.Lost, result.Rows.Doubled, result.Rows.Altered)}
	}
	return nil
}

// demoResult is what -o json prints.
type demoResult struct {
	RowsSent          int64   `json:"rows_sent"`
	RowsLoaded        int64   `json:"rows_loaded"`
	BatchesSent       int64   `json:"batches_sent"`
	BatchesLoaded     int64   `json:"batches_loaded"`
	DuplicatesRefused int64   `json:"duplicates_refused"`
	Kills             int     `json:"kills"`
	Lost              int64   `json:"lost"`
	Doubled           int64   `json:"doubled"`
	Altered           int64   `json:"altered"`
	Seconds           float64 `json:"seconds"`
	RowsPerSecond     int64   `json:"rows_per_second"`
	DSN               string  `json:"dsn,omitempty"` // of embedded servers; the user's may have a password in it
	Brokers           string  `json:"brokers"`
	Table             string  `json:"table"`
	Topic             string  `json:"topic"`
}

func (p *program) printDemo(r demo.Result, o demoOptions) error {
	if *o.output == asJSON {
		if o.servers != nil {
			r.DSN = ""
		}
		return printJSON(p.stdout, demoResult{
			RowsSent: r.Rows.Sent, RowsLoaded: r.Rows.Loaded, BatchesSent: r.Batches.Sent, BatchesLoaded: r.Batches.Loaded,
			DuplicatesRefused: r.Duplicates, Kills: len(r.Kills), Lost: r.Rows.Lost, Doubled: r.Rows.Doubled, Altered: r.Rows.Altered,
			Seconds: math.Round(r.Duration.Seconds()*1000) / 1000, RowsPerSecond: r.RowsPerSecond(), DSN: r.DSN, Brokers: r.Brokers,
			Table: r.Table, Topic: r.Topic,
		})
	}
	if o.chaos {
		if err := p.printKills(r.Kills); err != nil {
			return err
		}
	}
	count := func(what string, c demo.Count) []string {
		row := []string{what}
		for _, n := range []int64{c.Sent, c.Loaded, c.Lost, c.Doubled, c.Altered} {
			row = append(row, grouped(n))
		}
		return row
	}
	fmt.Fprintln(p.stdout)
	err := printTable(p.stdout, []string{"", "SENT", "LOADED", "LOST", "DOUBLED", "ALTERED"},
		[][]string{count("rows", r.Rows), count("batches", r.Batches)})
	if err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "\n%.1f s, %s rows/s from append to table; %s duplicate batches refused\n",
		r.Duration.Seconds(), grouped(r.RowsPerSecond()), grouped(r.Duplicates))
	if r.Sound() {
		fmt.Fprintln(p.stdout, "Every row that was sent is in the table, once, as it was sent.")
	} else {
		fmt.Fprintln(p.stdout, "The table does not hold what was sent.")
	}
	return nil
}

// printKills prints which loaders were killed, and what that hit.
func (p *program) printKills(kills []demo.Kill) error {
	fmt.Fprintln(p.stdout)
	if len(kills) == 0 {
		fmt.Fprintln(p.stdout, "No loader was killed: none was seen in an open transaction before all was loaded. More --rows give more time.")
		return nil
	}
	var rows [][]string
	for _, k := range kills {
		rows = append(rows, []string{k.Loader, strconv.Itoa(k.PID), "transaction " + k.XID, k.Doing})
	}
	return printTable(p.stdout, []string{"KILLED", "PROCESS", "ROLLED BACK", "CAUGHT"}, rows)
}

// grouped writes a number with its thousands apart.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	var b strings.Builder
	for i, digit := range s {
		if i > 0 && s[i-1] != '-' && (len(s)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(digit)
	}
	return b.String()
}

// demoProgress shows how far a demo has come.
type demoProgress struct {
	*progress
	sent, loaded *bar
}

// start begins to count rows.
func (p *demoProgress) start(rows int64) {
	p.sent, p.loaded = p.add("appended", rows), p.add("loaded", rows)
}

// Note implements demo.Progress.
func (p *demoProgress) Note(line string) { p.note(line) }

// Sent implements demo.Progress.
func (p *demoProgress) Sent(rows int64) {
	if p.sent != nil {
		p.sent.set(rows)
	}
}

// Loaded implements demo.Progress.
func (p *demoProgress) Loaded(rows int64) {
	if p.loaded != nil {
		p.loaded.set(rows)
	}
}
