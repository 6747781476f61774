package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"tallyman/schema"
	"tallyman/sink"
)

func newRetire(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "retire NS/NAME",
		Short: "Let a crashed source hold a dataset back no more",
		Long: `Let a crashed source hold a dataset back no more.

A source that ended without a word holds its dataset's completeness where it last was, until its
journal is opened again. Retire it if that will not be: its disk is lost, or it was replaced. What
it announced and never published is not listed as missing from then on; who retired it, when and
why is kept. It stays retired whatever it may still announce, and what it publishes loads like
any other; a source that is opened again begins another stream, which counts.

Without --incarnation every stream of the source is retired that holds the dataset back and was not
heard of for a minute. A source that the manifest marks as continuous goes on holding the dataset
back at its last announcement, until it comes back or the manifest expects it no more.`,
		Example: `  tallyman source retire ads/conversions --source eu-west-3 --reason disk-lost
  tallyman source retire ads/conversions --source eu-west-3 --incarnation 5d0a1c52-7e0b-4c35-9a43-3f4c1b1f6b0e --reason disk-lost`,
		Args: cobra.ExactArgs(1),
	}
	var name, incarnation, why string
	cmd.Flags().StringVar(&name, "source", "", "the source's `NAME`, as tallyman wait and missing list print it (required)")
	cmd.Flags().StringVar(&incarnation, "incarnation", "", "only this stream (`UUID`), also if it lives")
	cmd.Flags().StringVar(&why, "reason", "", "why, for the record (`TEXT`; required)")
	output := formatFlag(cmd)
	settingFlags(cmd, "warehouse")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		_, err := schema.ParseDataset(args[0])
		if name == "" {
			err = errors.Join(err, errors.New("--source is required: the name of the source"))
		}
		if why == "" {
			err = errors.Join(err, errors.New("--reason is required: it is kept for whoever asks later"))
		}
		r := sink.Retirement{Source: name, By: person(), Why: why}
		if incarnation != "" {
			var idErr error
			if r.Incarnation, idErr = uuid.Parse(incarnation); idErr != nil || r.Incarnation == uuid.Nil {
				err = errors.Join(err, fmt.Errorf("--incarnation %q is no stream: want its UUID, as tallyman wait and missing list print it", incarnation))
			}
		}
		if err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		w, err := p.quarantineWarehouse(cmd)
		if err != nil {
			return err
		}
		defer w.Close()
		active, err := activeRevision(cmd, w, args[0])
		if err != nil {
			return err
		}
		r.Revision = active.ID
		all, err := w.RetireSource(cmd.Context(), r)
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		return p.printRetired(args[0], name, all, *output)
	}
	return cmd
}

// retiredJSON is what became of a stream.
type retiredJSON struct {
	Incarnation string           `json:"incarnation"`
	State       sink.StreamState `json:"state_before"`
	Announced   uint64           `json:"announced"`
	Missing     int64            `json:"missing"`
	Heard       time.Time        `json:"last_heard"`
	Retired     bool             `json:"retired"`
}

func (p *program) printRetired(dataset, source string, all []sink.RetiredStream, output format) error {
	streams := []retiredJSON{}
	var rows [][]string
	for _, s := range all {
		j := retiredJSON{Incarnation: s.Incarnation.String(), State: s.State, Announced: s.Announced, Missing: s.Missing, Heard: s.Heard, Retired: !s.Alive}
		streams = append(streams, j)
		result := "retired"
		if s.Alive {
			result = "lives: name it with --incarnation, if it is to be retired"
		}
		rows = append(rows, []string{j.Incarnation, string(j.State), strconv.FormatUint(j.Announced, 10), strconv.FormatInt(j.Missing, 10), j.Heard.Format(time.DateTime), result})
	}
	switch {
	case output == asJSON:
		return printJSON(p.stdout, map[string]any{"dataset": dataset, "source": source, "streams": streams})
	case rows == nil:
		_, err := fmt.Fprintf(p.stdout, "no stream of source %s holds %s back\n", printable(source), dataset)
		return err
	}
	return printTable(p.stdout, []string{"STREAM", "WAS", "ANNOUNCED", "MISSING", "LAST HEARD", "NOW"}, rows)
}
