package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"tallyman/cmd/tallyman/internal/settings"
	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/sink"
	"tallyman/source/journal"
)

func newReplay(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "replay NS/NAME",
		GroupID: groupOutage,
		Short:   "Have exactly the missing batches published again",
		Long: `Have exactly the missing batches published again, and loaded, while the live stream goes on.

Without --apply nothing is changed: it is told what is missing, and where it can come from. Sources
that run hear by themselves what is missing; this is for those that gave up, and for journals whose
source does not run any more.

--journal names a journal, or a directory above several, on this machine or copied from another. It
is read, and not changed; one that a process holds can't be read. With --apply what it has is
published under its own ids. Without --journal, --apply asks the sources themselves: the request
waits on the topic tallyman.receipts for whichever runs with the journal.

--apply then waits until all of it is loaded, or in quarantine; with --timeout, that long. It may
be interrupted, repeated, and run in two places: a batch that comes twice is refused by its id.
The status is 3 if something is left, which is named.`,
		Example: `  tallyman replay ads/conversions
  tallyman replay ads/conversions --apply --timeout 10m
  tallyman replay ads/conversions --journal /mnt/rescued/serve --apply
  tallyman replay ads/conversions --source edge-7 --since 24h -o json`,
		Args: cobra.ExactArgs(1),
	}
	t := replayTask{}
	flags := cmd.Flags()
	flags.BoolVar(&t.apply, "apply", false, "publish them, or ask for it, and wait until they are loaded")
	flags.StringArrayVar(&t.dirs, "journal", nil, "a journal's `directory`, or one above journals; may be repeated")
	flags.StringVar(&t.source, "source", "", "only of this source (`NAME`)")
	since := flags.String("since", "", "only what is missing since this `TIME` or later: RFC 3339, a date, or how long ago, like 24h")
	until := flags.String("until", "", "only what is missing since before this `TIME`")
	flags.DurationVar(&t.timeout, "timeout", 0, "how long --apply waits at most (0: for ever)")
	output := formatFlag(cmd)
	settingFlags(cmd, "warehouse", "kafka")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		t.dataset = args[0]
		_, err = schema.ParseDataset(t.dataset)
		if t.since, t.until, err = within(*since, *until, err); t.timeout < 0 {
			err = errors.Join(err, errors.New("--timeout can't be negative"))
		}
		if err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		report, err := p.replay(cmd, t)
		if err == nil || report.Applied {
			err = errors.Join(p.printReplay(report, *output), err)
		}
		return err
	}
	return cmd
}

// within reads two times that something lies between, and adds what is wrong with them.
func within(since, until string, err error) (from, to time.Time, _ error) {
	from, fault := parseTime("--since", since)
	err = errors.Join(err, fault)
	to, fault = parseTime("--until", until)
	err = errors.Join(err, fault)
	if err == nil && !from.IsZero() && !to.IsZero() && !from.Before(to) {
		err = fmt.Errorf("--since %s is not before --until %s", from.Format(time.RFC3339), to.Format(time.RFC3339))
	}
	return from, to, err
}

// replayTask is what somebody wants to have replayed.
type replayTask struct {
	dataset, source string
	since, until    time.Time // zero: no bound
	apply           bool
	dirs            []string
	timeout         time.Duration
}

// replayReport is what is missing and, with --apply, what became of it.
type replayReport struct {
	Dataset string       `json:"dataset"`
	Missing []replayPart `json:"missing"`
	Batches uint64       `json:"batches"`
	// Applied is false if nothing was done.
	Applied bool `json:"applied"`
	// Sent counts the batches that were published from journals.
	Sent int `json:"sent_batches"`
	// Left is what is still missing of it; null: nothing was done.
	Left []replayPart `json:"left"`
	// Faults are batches that journals have and that were not sent.
	Faults []string `json:"faults"`
}

// replayPart is a range of missing batches, and where it can come from.
type replayPart struct {
	Source      string    `json:"source"`
	Incarnation uuid.UUID `json:"incarnation"`
	First       uint64    `json:"first"`
	Last        uint64    `json:"last"`
	Batches     uint64    `json:"batches"`
	Since       time.Time `json:"since"`
	// Found is what the journals have of it; null: no journal was named.
	Found *foundPart `json:"found"`
	From  string     `json:"from"`
}

// foundPart is what journals have of a range.
type foundPart struct {
	Batches int64 `json:"batches"`
	Rows    int64 `json:"rows"`
	Bytes   int64 `json:"bytes"`
	Damaged int64 `json:"damaged_batches"`
	// First are the first of the batches, at most a hundred.
	First []foundBatch `json:"first"`
}

// foundBatch is a missing batch that a journal has.
type foundBatch struct {
	Sequence uint64    `json:"sequence"`
	ID       uuid.UUID `json:"unique_id"`
	Rows     int       `json:"rows"`
	Bytes    int64     `json:"bytes"`
	Damage   string    `json:"damage,omitempty"`
}

const listedBatches = 100

// replay says what is missing, and does something about it if it should.
func (p *program) replay(cmd *cobra.Command, t replayTask) (report replayReport, err error) {
	need := settings.Warehouse
	if t.apply {
		need |= settings.Kafka
	}
	cfg, err := p.settings(cmd, need)
	if err != nil {
		return report, err
	}
	w, err := p.quarantineWarehouse(cmd)
	if err != nil {
		return report, err
	}
	defer w.Close()
	if _, err := activeRevision(cmd, w, t.dataset); err != nil {
		return report, err
	}
	x := &replaying{p: p, cfg: cfg, w: w, task: t}
	defer x.close()
	if err := x.openJournals(); err != nil {
		return report, err
	}
	missing, err := x.missing(cmd.Context())
	if err != nil {
		return report, err
	}
	report = replayReport{Dataset: t.dataset, Missing: []replayPart{}}
	for _, m := range missing {
		part, err := x.part(m)
		if err != nil {
			return report, err
		}
		report.Missing = append(report.Missing, part)
		report.Batches += part.Batches
	}
	if !t.apply || len(missing) == 0 {
		return report, nil
	}
	report.Applied = true
	return report, x.apply(cmd.Context(), missing, &report)
}

// openJournals opens every journal that was named.
func (x *replaying) openJournals() error {
	for _, dir := range x.task.dirs {
		found, err := journal.Find(dir)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return fmt.Errorf("there is no journal at or below %s", dir)
		}
		for _, at := range found {
			r, err := journal.OpenReader(at, x.p.logger(x.cfg))
			if errors.Is(err, journal.ErrInUse) {
				err = fmt.Errorf("%w: its source runs and can be asked: leave --journal out, or end the source, or read a copy of the directory", err)
			}
			if err != nil {
				return err
			}
			x.journals = append(x.journals, &opened{Reader: r, dir: at, log: x.p.logger(x.cfg)})
		}
	}
	return nil
}

// missing returns what is missing of what was asked for.
func (x *replaying) missing(ctx context.Context) ([]sink.Missing, error) {
	all, err := x.w.Missing(ctx, x.task.dataset, x.cfg.LoaderMissingGrace)
	t := x.task
	return slices.DeleteFunc(all, func(m sink.Missing) bool {
		return t.source != "" && m.Source != t.source || m.Since.Before(t.since) || !t.until.IsZero() && !m.Since.Before(t.until)
	}), err
}

// part says where a range can come from.
func (x *replaying) part(m sink.Missing) (replayPart, error) {
	part := replayPart{Source: m.Source, Incarnation: m.Incarnation, First: m.First, Last: m.Last, Batches: m.Last - m.First + 1, Since: m.Since,
		From: "the journal of " + m.Source + ", when it runs"}
	if x.journals == nil {
		return part, nil
	}
	part.Found = &foundPart{First: []foundBatch{}}
	var dirs []string
	for _, j := range x.journals {
		before := part.Found.Batches
		if err := part.Found.look(j, journal.Stream{Incarnation: m.Incarnation, Dataset: m.Dataset}, m.First, m.Last); err != nil {
			return part, err
		}
		if part.Found.Batches > before {
			dirs = append(dirs, j.dir)
		}
	}
	switch {
	case dirs != nil:
		part.From = strings.Join(dirs, ", ")
	case slices.ContainsFunc(x.journals, func(j *opened) bool { return j.Source() == m.Source }):
		part.From = "nowhere: the journal of " + m.Source + " has none of it, perhaps because it is another one of that name"
	default:
		part.From = "not here: none of the journals is of " + m.Source
	}
	return part, nil
}

// look finds what a journal has of a range.
func (f *foundPart) look(j *opened, s journal.Stream, first, last uint64) error {
	const page = 1000
	for first <= last {
		numbers, err := j.Held(s, first, last, page)
		if err != nil {
			return err
		}
		for _, n := range numbers {
			b := foundBatch{Sequence: n}
			record, err := j.Get(journal.Key{Stream: s, Sequence: n})
			switch {
			case err != nil:
				b.Damage = err.Error()
				f.Damaged++
			default:
				b.ID, b.Rows, b.Bytes = record.Batch.ID, record.Batch.Rows, record.Size()
				f.Rows += int64(b.Rows)
				f.Bytes += b.Bytes
			}
			f.Batches++
			if len(f.First) < listedBatches {
				f.First = append(f.First, b)
			}
		}
		if len(numbers) < page {
			return nil
		}
		first = numbers[len(numbers)-1] + 1
	}
	return nil
}

// printReplay prints what is missing, or what is left of it.
func (p *program) printReplay(r replayReport, output format) error {
	if output == asJSON {
		return printJSON(p.stdout, r)
	}
	if len(r.Missing) == 0 {
		_, err := fmt.Fprintln(p.stdout, "nothing is missing")
		return err
	}
	var rows [][]string
	for _, m := range r.Missing {
		line := []string{m.Source, m.Incarnation.String(), span(m.First, m.Last), strconv.FormatUint(m.Batches, 10), m.Since.Format(time.DateTime), "", "", m.From}
		if f := m.Found; f != nil {
			line[5], line[6] = strconv.FormatInt(f.Rows, 10), strconv.FormatInt(f.Bytes, 10)
			if f.Batches != int64(m.Batches) || f.Damaged > 0 {
				line[7] += fmt.Sprintf(" (%d of %d, %d damaged)", f.Batches, m.Batches, f.Damaged)
			}
		}
		rows = append(rows, line)
	}
	err := printTable(p.stdout, []string{"SOURCE", "STREAM", "MISSING", "BATCHES", "SINCE", "ROWS", "BYTES", "FROM"}, rows)
	if err != nil {
		return err
	}
	if !r.Applied {
		_, err = fmt.Fprintf(p.stdout, "\n%d batches are missing; --apply has them published again\n", r.Batches)
		return err
	}
	var left uint64
	for _, m := range r.Left {
		left += m.Batches
	}
	_, err = fmt.Fprintf(p.stdout, "\n%d of %d batches are accounted for now\n", r.Batches-left, r.Batches)
	return err
}

// requestRanges groups ranges by stream, as requests take them.
func requestRanges(missing []sink.Missing) [][]sink.Missing {
	slices.SortFunc(missing, func(a, b sink.Missing) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), strings.Compare(a.Incarnation.String(), b.Incarnation.String()), cmp.Compare(a.First, b.First))
	})
	var groups [][]sink.Missing
	for _, m := range missing {
		last := len(groups) - 1
		if last < 0 || groups[last][0].Incarnation != m.Incarnation || len(groups[last]) == batch.MaxReceiptRanges {
			groups, last = append(groups, nil), last+1
		}
		groups[last] = append(groups[last], m)
	}
	return groups
}
