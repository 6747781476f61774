package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"tallyman/cmd/tallyman/internal/settings"
	"tallyman/schema"
	"tallyman/sink"
)

func newMissing(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "missing",
		GroupID: groupOutage,
		Short:   "Look for batches that sources announced and that never came",
		Long: `Look for batches that sources announced and that never came.

A source numbers its batches and announces every few seconds how far it is. What was announced
longer ago than loader.missing_grace, and is neither loaded nor in quarantine nor given up, is
missing. It is no longer so as soon as it is published again and loaded.`,
		Example: `  tallyman missing list
  tallyman missing accept ads/conversions 5d0a1c52-7e0b-4c35-9a43-3f4c1b1f6b0e 17-19 --reason disk-lost`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newMissingList(p), newMissingAccept(p))
	return cmd
}

func newMissingList(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list [NS/NAME]",
		Short: "List what is missing, by source and stream",
		Long: `List what is missing, by source and stream; of all datasets or of one.

A stream is one opening of a source. Its batches are numbered from 1; SINCE is when the
warehouse first heard of the first one that is missing.`,
		Example: `  tallyman missing list
  tallyman missing list ads/conversions -o json | jq '[.missing[].batches] | add'`,
		Args: cobra.MaximumNArgs(1),
	}
	output := formatFlag(cmd)
	settingFlags(cmd, "warehouse")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		name := ""
		if len(args) == 1 {
			name = args[0]
			if _, err := schema.ParseDataset(name); err != nil {
				return &usageError{command: cmd.CommandPath(), err: err}
			}
		}
		cfg, err := p.settings(cmd, settings.Warehouse)
		if err != nil {
			return err
		}
		w, err := p.quarantineWarehouse(cmd)
		if err != nil {
			return err
		}
		defer w.Close()
		if name != "" {
			if _, err := activeRevision(cmd, w, name); err != nil {
				return err
			}
		}
		found, err := w.Missing(cmd.Context(), name, cfg.LoaderMissingGrace)
		if err != nil {
			return err
		}
		return p.printMissing(found, *output)
	}
	return cmd
}

// missingJSON is a range of missing batches.
type missingJSON struct {
	Dataset     string    `json:"dataset"`
	Source      string    `json:"source"`
	Incarnation string    `json:"incarnation"`
	First       uint64    `json:"first"`
	Last        uint64    `json:"last"`
	Batches     uint64    `json:"batches"`
	Since       time.Time `json:"since"`
}

func (p *program) printMissing(found []sink.Missing, output format) error {
	all := []missingJSON{}
	var rows [][]string
	for _, m := range found {
		j := missingJSON{Dataset: m.Dataset.String(), Source: m.Source, Incarnation: m.Incarnation.String(),
			First: m.First, Last: m.Last, Batches: m.Last - m.First + 1, Since: m.Since}
		all = append(all, j)
		rows = append(rows, []string{j.Dataset, j.Source, j.Incarnation, span(j.First, j.Last), strconv.FormatUint(j.Batches, 10), j.Since.Format(time.DateTime)})
	}
	switch {
	case output == asJSON:
		return printJSON(p.stdout, map[string]any{"missing": all})
	case rows == nil:
		_, err := fmt.Fprintln(p.stdout, "nothing is missing")
		return err
	}
	return printTable(p.stdout, []string{"DATASET", "SOURCE", "STREAM", "MISSING", "BATCHES", "SINCE"}, rows)
}

// span writes a range as it is given to accept.
func span(first, last uint64) string {
	if first == last {
		return strconv.FormatUint(first, 10)
	}
	return fmt.Sprintf("%d-%d", first, last)
}

// parseSpan reads what span writes.
func parseSpan(text string) (first, last uint64, err error) {
	from, to, both := strings.Cut(text, "-")
	if !both {
		to = from
	}
	first, err = strconv.ParseUint(from, 10, 63)
	if err == nil {
		last, err = strconv.ParseUint(to, 10, 63)
	}
	if err != nil || first < 1 || last < first {
		return 0, 0, fmt.Errorf("%q is no range of batch numbers: want 17 or 17-19, as tallyman missing list prints it", text)
	}
	return first, last, nil
}

func newMissingAccept(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "accept NS/NAME STREAM FIRST[-LAST]",
		Short: "Give up missing batches that exist nowhere any more",
		Long: `Give up missing batches that exist nowhere any more.

The range counts as accounted for from now on and does not hold the dataset back; who did it,
when and why is kept. Only what is missing within the range is touched. If one of the batches
comes after all, it is loaded like any other.`,
		Example: `  tallyman missing accept ads/conversions 5d0a1c52-7e0b-4c35-9a43-3f4c1b1f6b0e 17-19 --reason disk-lost`,
		Args:    cobra.ExactArgs(3),
	}
	why := cmd.Flags().String("reason", "", "why, for the record (`TEXT`; required)")
	output := formatFlag(cmd)
	settingFlags(cmd, "warehouse")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		_, err := schema.ParseDataset(args[0])
		stream, idErr := uuid.Parse(args[1])
		if idErr != nil {
			err = errors.Join(err, fmt.Errorf("%q is no stream: want its UUID, as tallyman missing list prints it", args[1]))
		}
		first, last, spanErr := parseSpan(args[2])
		if err = errors.Join(err, spanErr); *why == "" {
			err = errors.Join(err, errors.New("--reason is required: it is kept for whoever asks later"))
		}
		if err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		w, err := p.quarantineWarehouse(cmd)
		if err != nil {
			return err
		}
		defer w.Close()
		r, err := activeRevision(cmd, w, args[0])
		if err != nil {
			return err
		}
		n, err := w.AcceptMissing(cmd.Context(), sink.Acceptance{
			Revision: r.ID, Incarnation: stream, First: first, Last: last, By: person(), Why: *why})
		switch {
		case err != nil:
			return err
		case *output == asJSON:
			return printJSON(p.stdout, map[string]any{"dataset": args[0], "incarnation": stream, "accepted": n})
		case n == 0:
			_, err = fmt.Fprintf(p.stdout, "nothing of that is missing: see tallyman missing list %s\n", args[0])
		default:
			_, err = fmt.Fprintf(p.stdout, "%d batches are given up\n", n)
		}
		return err
	}
	return cmd
}
