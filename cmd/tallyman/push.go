package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tallyman/cmd/tallyman/internal/settings"
	"tallyman/schema"
	"tallyman/source/intake"
)

// pushFlags are the flags of push that are no settings.
type pushFlags struct {
	manifest, format, null, again string
	to, tokenFile                 string
	wait                          bool
	timeout                       time.Duration
	output                        *format
}

func newPush(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "push NS/NAME [FILE... | -]",
		GroupID: groupRun,
		Short:   "Publish the rows of CSV and NDJSON files",
		Long: `Publish the rows of CSV and NDJSON files, or of standard input, to a dataset's topic.

The same content is loaded once, from whichever machine and under whichever name it is pushed:
a batch's id is derived from the file's bytes, uncompressed. So a push that was interrupted, or
whose outcome is not known, is simply repeated. A file is read whole before its first batch is
published, and a row that can't be read refuses the file, naming line and column. The status is 0
only when Kafka has acknowledged everything.

CSV is as in RFC 4180, with a header that names the columns in any order; columns that may be NULL
can be left out. A field that is empty without quotes is NULL, one that is "" is the empty text.
NDJSON is one object a line. The format is told by the name (.csv, .ndjson, .jsonl); what is
compressed by gzip or zstd is decompressed.

With --to the batches go to a daemon (tallyman source serve), under the same ids, and the status is
0 only when it has all of them on its disk; then no connection to Kafka is needed here.

With --wait-loaded it does not end before loaders have brought every batch into the warehouse, or
somebody else's copy of it. With --timeout it gives that up then, with status 3, and says what is
not loaded.

Each push keeps a journal under push in source.dir. It may be removed once the rows are loaded.`,
		Example: `  tallyman push ads/conversions --manifest conversions.yaml monday.csv tuesday.csv.gz
  tallyman push ads/conversions --manifest conversions.yaml --format ndjson - < rows
  tallyman push ads/conversions --manifest conversions.yaml monday.csv --again "the correction of June"
  tallyman push ads/conversions --manifest conversions.yaml monday.csv --wait-loaded --timeout 10m
  tallyman push ads/conversions --manifest conversions.yaml monday.csv --to https://ingest.example.com --token-file token`,
		Args: cobra.MinimumNArgs(1),
	}
	var f pushFlags
	flags := cmd.Flags()
	flags.StringVar(&f.manifest, "manifest", "", "the dataset's manifest, a YAML `file`")
	flags.StringVar(&f.format, "format", "", "`csv or ndjson`, whatever the names say; needed for standard input")
	flags.StringVar(&f.null, "null", "", "the `text` of a CSV field that, without quotes, means NULL (default the empty text)")
	flags.StringVar(&f.again, "again", "", "load content once more that was pushed before; the `label` is part of the ids")
	flags.StringVar(&f.to, "to", "", "the `URL` of a daemon to hand the batches to, instead of Kafka")
	flags.StringVar(&f.tokenFile, "token-file", "", "a `file` with the token that the daemon asks for, alone or after a name")
	flags.BoolVar(&f.wait, "wait-loaded", false, "wait until the warehouse has every batch")
	flags.DurationVar(&f.timeout, "timeout", 0, "how long to wait for that at most (0: for ever)")
	f.output = formatFlag(cmd)
	settingFlags(cmd, "kafka", "source", "warehouse")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		m, files, err := f.parse(args)
		if err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		need := settings.Kafka
		if f.to != "" {
			need = 0
		}
		cfg, err := p.settings(cmd, need)
		if err != nil {
			return err
		}
		work := pushWork{manifest: m, files: files}
		if f.wait {
			if work.loaded, err = p.newLoadWait(cmd, args[0], f.timeout); err != nil {
				return err
			}
			defer work.loaded.w.Close()
		}
		return p.push(cmd.Context(), cfg, &f, work)
	}
	return cmd
}

// pushWork is what is pushed.
type pushWork struct {
	manifest schema.Manifest
	files    []intake.File
	loaded   *loadWait // nil: nobody waits
}

// parse reads what the command line names.
func (f *pushFlags) parse(args []string) (m schema.Manifest, files []intake.File, err error) {
	dataset, err := schema.ParseDataset(args[0])
	switch {
	case err != nil:
		return m, nil, err
	case f.timeout < 0:
		return m, nil, errors.New("--timeout can't be negative")
	case f.timeout > 0 && !f.wait:
		return m, nil, errors.New("--timeout is for --wait-loaded: a push goes on until all is published")
	}
	if f.manifest == "" {
		return m, nil, errors.New("--manifest is needed: the file that tallyman dataset apply was given")
	}
	if m, err = readManifest(f.manifest); err != nil {
		return m, nil, err
	}
	if m.Dataset != dataset {
		return m, nil, fmt.Errorf("%s is the manifest of %s, not of %s", f.manifest, m.Dataset, dataset)
	}
	names := args[1:]
	if len(names) == 0 {
		names = []string{intake.Stdin}
	}
	stdin := 0
	for _, name := range names {
		file := intake.File{Name: name, Format: intake.Format(f.format)}
		switch {
		case f.format != "" && file.Format != intake.CSV && file.Format != intake.NDJSON:
			return m, nil, fmt.Errorf("--format %q is neither csv nor ndjson", f.format)
		case f.format == "" && name == intake.Stdin:
			return m, nil, errors.New("--format is needed for standard input: csv or ndjson")
		case f.format == "":
			if file.Format, err = intake.FormatOf(name); err != nil {
				return m, nil, fmt.Errorf("%w; --format tells it", err)
			}
		}
		if name == intake.Stdin {
			stdin++
		}
		files = append(files, file)
	}
	if stdin > 1 {
		return m, nil, errors.New("standard input can be read only once")
	}
	return m, files, nil
}

// remote is the daemon that --to names.
func (f *pushFlags) remote(cfg settings.Config) (*intake.Remote, error) {
	if err := cfg.CheckURL("--to", f.to); err != nil {
		return nil, err
	}
	to := &intake.Remote{URL: f.to}
	if f.tokenFile == "" {
		return to, nil
	}
	text, err := os.ReadFile(f.tokenFile)
	if err != nil {
		return nil, fmt.Errorf("read the token: %w", err)
	}
	words := strings.Fields(string(text))
	if len(words) != 1 && len(words) != 2 {
		return nil, fmt.Errorf("read the token: %s has %d words, want a token, or a name and a token", f.tokenFile, len(words))
	}
	to.Token = words[len(words)-1]
	return to, nil
}

// pushed is what became of one file.
type pushed struct {
	intake.Report
	Error string `json:"error,omitempty"`
	to    string // the daemon that has the batches; empty: Kafka
}

// push pushes one file after another. One that is refused holds up no other.
func (p *program) push(ctx context.Context, cfg settings.Config, f *pushFlags, work pushWork) error {
	dir, err := p.stateDir(cfg)
	if err != nil {
		return err
	}
	name, err := sourceName(cfg)
	if err != nil {
		return err
	}
	ic := intake.Config{Manifest: work.manifest, Dir: dir, Source: name, Null: f.null, Again: f.again, Stdin: p.stdin}
	if f.to != "" {
		if ic.To, err = f.remote(cfg); err != nil {
			return err
		}
	} else {
		if ic.Conn, err = p.kafka(cfg); err != nil {
			return err
		}
		defer ic.Conn.Close()
	}

	if work.loaded != nil {
		ic.Published = work.loaded.published
	}
	results := []pushed{}
	var failed []error
	for _, file := range work.files {
		if ctx.Err() != nil {
			failed = append(failed, fmt.Errorf("%s: not begun: %w", file.Name, context.Cause(ctx)))
			continue
		}
		shown := newPushProgress(p, file.Name)
		ic.Progress, ic.Logger = shown.tell, shown.program(p).logger(cfg)
		in, err := intake.New(ic)
		if err != nil {
			return err
		}
		report, err := in.Push(ctx, file)
		shown.progress.end()
		result := pushed{Report: report, to: f.to}
		if err != nil {
			result.Error = err.Error()
			failed = append(failed, err)
		} else if *f.output == asTable {
			fmt.Fprintln(p.stdout, printable(result.String()))
		}
		results = append(results, result)
	}
	if work.loaded != nil && failed == nil {
		if err := work.loaded.run(ctx, p); err != nil {
			failed = append(failed, err)
		} else if *f.output == asTable {
			fmt.Fprintf(p.stdout, "all of it is loaded: %d batches\n", work.loaded.total)
		}
	}
	return errors.Join(append(failed, p.printPushed(*f.output, results, work.loaded))...)
}

// printPushed prints what became of files, if that is asked for as JSON.
func (p *program) printPushed(output format, files []pushed, loaded *loadWait) error {
	if output != asJSON {
		return nil
	}
	report := struct {
		Files  []pushed `json:"files"`
		Loaded *int64   `json:"loaded,omitempty"` // batches that the warehouse is known to have
	}{Files: files}
	if loaded != nil {
		report.Loaded = new(loaded.total - int64(len(loaded.pending)))
	}
	return printJSON(p.stdout, report)
}

// String is the line that a person reads.
func (r pushed) String() string {
	how := "published"
	switch {
	case r.Again && r.to != "":
		how = "handed over before, and once more under the same ids to " + r.to
	case r.Again:
		how = "published before, and once more under the same ids"
	case r.to != "":
		how = "taken by " + r.to
	}
	return fmt.Sprintf("%s: %d rows in %d batches %s", r.File, r.Rows, r.Batches, how)
}

// pushProgress shows a push: a bar, or a count in the lines, for each stage.
type pushProgress struct {
	progress *progress
	name     string
	bars     map[intake.Stage]*bar
}

func newPushProgress(p *program, name string) *pushProgress {
	return &pushProgress{progress: newProgress(p.stderr), name: printable(filepath.Base(name)), bars: map[intake.Stage]*bar{}}
}

func (s *pushProgress) tell(at intake.Progress) {
	b := s.bars[at.Stage]
	if b == nil {
		unit := map[intake.Stage]string{intake.Hashing: "bytes read", intake.Encoding: "bytes encoded", intake.Publishing: "batches published"}
		b = s.progress.add(s.name+": "+unit[at.Stage], at.Total)
		s.bars[at.Stage] = b
	}
	b.set(at.Done)
}

// program returns p with its log above the bars.
func (s *pushProgress) program(p *program) *program {
	with := *p
	with.stderr = s
	return &with
}

// Write prints lines of the log.
func (s *pushProgress) Write(lines []byte) (int, error) {
	s.progress.note(strings.TrimSuffix(string(lines), "\n"))
	return len(lines), nil
}

// stateDir returns where sources keep their journals.
func (p *program) stateDir(cfg settings.Config) (string, error) {
	if cfg.SourceDir != "" {
		return cfg.SourceDir, nil
	}
	var home string
	for _, e := range p.env {
		name, value, _ := strings.Cut(e, "=")
		switch {
		case name == "XDG_STATE_HOME" && filepath.IsAbs(value): // others are to be ignored, by its specification
			return filepath.Join(value, "tallyman"), nil
		case name == "HOME":
			home = value
		}
	}
	if home == "" {
		return "", errors.New("there is no directory for journals: set source.dir, TALLYMAN_SOURCE_DIR or --source-dir")
	}
	return filepath.Join(home, ".local", "state", "tallyman"), nil
}

// sourceName returns what sources call themselves.
func sourceName(cfg settings.Config) (string, error) {
	if cfg.SourceName != "" {
		return cfg.SourceName, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("set source.name: %w", err)
	}
	return host, nil
}
