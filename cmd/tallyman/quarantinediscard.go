package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"tallyman/sink"
)

func newQuarantineDiscard(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "discard ID...",
		Short: "Give batches up that could not be loaded",
		Long: `Give batches up that could not be loaded.

The batch's id is put in the ledger, without rows, so that a later copy of the batch is a
duplicate and does not load. Who did it, when and why is kept. It can't be taken back.

Where the id is not to be believed (no_id, bad_id, bad_envelope, bad_digest, bad_rows,
unreadable), has no place in the ledger, or stands for other content there (id_conflict), only
this message is closed: a good copy of the batch still loads.`,
		Example: `  tallyman quarantine discard 5b1f0c7de2a4 --reason "sent by a test"
  tallyman quarantine list --reason no_id --limit 0 -o json | jq -r '.batches[].id' |
    xargs -I{} tallyman quarantine discard {} --reason noise`,
		Args: cobra.MinimumNArgs(1),
	}
	why := cmd.Flags().String("reason", "", "why, for the record (`TEXT`; required)")
	output := formatFlag(cmd)
	settingFlags(cmd, "warehouse")
	cmd.RunE = func(cmd *cobra.Command, ids []string) error {
		if *why == "" {
			return &usageError{command: cmd.CommandPath(), err: errors.New("--reason is required: it is kept for whoever asks later")}
		}
		if err := checkIDs(cmd, ids); err != nil {
			return err
		}
		w, err := p.quarantineWarehouse(cmd)
		if err != nil {
			return err
		}
		defer w.Close()
		q := w.Quarantine()
		kept, err := named(cmd.Context(), q, ids)
		if err != nil {
			return err
		}
		results := []discardedJSON{}
		var failed error
		for i, k := range kept {
			result, err := discard(cmd, q, k, sink.Discard{By: person(), Why: *why})
			if err != nil {
				failed = fmt.Errorf("discard %s: %w\n%d of %d were given up; the others are as they were", k.Key.SHA256.String()[:shortID], err, i, len(kept))
				break
			}
			results = append(results, result)
		}
		return errors.Join(failed, p.printDiscarded(results, *output))
	}
	return cmd
}

// discardedJSON is what became of one message.
type discardedJSON struct {
	ID      string `json:"id"`
	Dataset string `json:"dataset"`
	Batch   string `json:"unique_id"`
	State   string `json:"state"` // discarded; or redriven, if that was quicker
	// Changed is false for what was closed before.
	Changed bool `json:"changed"`
	// Refused says that a later copy of the batch is a duplicate from now on.
	Refused bool `json:"id_refused"`
}

func discard(cmd *cobra.Command, q sink.Quarantine, k sink.Kept, d sink.Discard) (discardedJSON, error) {
	result := discardedJSON{ID: k.Key.SHA256.String(), Dataset: k.Dataset.String(), Batch: batchID(k), State: string(sink.Discarded), Changed: true}
	got, err := patiently(cmd.Context(), func() (sink.DiscardResult, error) { return q.Discard(cmd.Context(), k.Key, d) })
	result.Refused = got.Refused
	if closed := (*sink.ClosedError)(nil); errors.As(err, &closed) {
		result.State, result.Changed = string(closed.State), false
		return result, nil
	}
	return result, err
}

func (p *program) printDiscarded(results []discardedJSON, output format) error {
	if output == asJSON {
		return printJSON(p.stdout, results)
	}
	var rows [][]string
	for _, r := range results {
		effect := "only this message is closed"
		switch {
		case !r.Changed:
			effect = "it was closed before"
		case r.Refused:
			effect = "later copies are duplicates"
		}
		rows = append(rows, []string{r.ID[:shortID], r.Dataset, r.Batch, r.State, effect})
	}
	return printTable(p.stdout, []string{"ID", "DATASET", "BATCH", "STATE", "EFFECT"}, rows)
}
