package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/spf13/cobra"

	"tallyman/cmd/tallyman/internal/settings"
	"tallyman/loader/commit"
	"tallyman/schema/batch"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

func newQuarantineRedrive(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "redrive [ID...]",
		Short: "Try batches again that could not be loaded, after the cause is mended",
		Long: `Try batches again that could not be loaded, after the cause is mended.

Each is judged anew and loaded as if it had just been read, in a transaction of its own, once:
one that has loaded since is found by its id. Loaders may go on, and the same batch may be
redriven twice at once. What is still refused stays, with the reason of now. A batch of which
only the beginning is kept has to be published again from its source.

Select with IDs, or all that is open and that the other flags select with --all. The status is
3 if some are still refused.`,
		Example: `  tallyman quarantine redrive 5b1f0c7de2a4 0c11f2a90b3d
  tallyman quarantine redrive --all --dataset ads/conversions --reason constraint
  tallyman quarantine redrive --all --since 24h --yes -o json`,
	}
	s := selectionFlags(cmd)
	all := cmd.Flags().Bool("all", false, "redrive everything that is open and that the other flags select")
	yes := cmd.Flags().Bool("yes", false, "do not ask")
	output := formatFlag(cmd)
	settingFlags(cmd, "warehouse")
	cmd.RunE = func(cmd *cobra.Command, ids []string) error {
		selection, err := s.selection()
		switch {
		case err != nil:
		case *all && len(ids) > 0:
			err = errors.New("either IDs or --all")
		case !*all && s.any():
			err = errors.New("flags that select need --all")
		case !*all && len(ids) == 0:
			err = errors.New("no IDs: name some, or select with --all")
		}
		if err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		if err := checkIDs(cmd, ids); err != nil {
			return err
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
		r := &redriver{w: w, q: w.Quarantine(), skew: cfg.LoaderClockSkew, by: person(), judges: map[int64]judged{}}
		var kept []sink.Kept
		if *all {
			selection.State = sink.Open
			kept, err = r.selected(cmd.Context(), selection)
			if err == nil && len(kept) > 0 && !*yes {
				err = p.confirm(cmd, fmt.Sprintf("redrive %d batches", len(kept)))
			}
		} else {
			kept, err = named(cmd.Context(), r.q, ids)
		}
		if err != nil {
			return err
		}
		return p.redrive(cmd.Context(), r, kept, *output)
	}
	return cmd
}

// redrive redrives one after another and prints what became of them, also of
// those before an error.
func (p *program) redrive(ctx context.Context, r *redriver, kept []sink.Kept, output format) error {
	results := []redrivenJSON{}
	progress := newProgress(p.stderr)
	bar := progress.add("redriven", int64(len(kept)))
	var failed error
	refused := 0
	for i, k := range kept {
		result, err := r.redrive(ctx, k)
		if err != nil {
			failed = fmt.Errorf("redrive %s: %w\n%d of %d were tried; the others are as they were", k.Key.SHA256.String()[:shortID], err, i, len(kept))
			break
		}
		if result.Outcome == outcomeRefused {
			refused++
		}
		results = append(results, result)
		bar.set(int64(i) + 1)
	}
	progress.end()
	if err := p.printRedriven(results, output); err != nil || failed != nil {
		return errors.Join(failed, err)
	}
	if refused > 0 {
		return &foundError{fmt.Sprintf("%d of %d are still refused: see tallyman quarantine show ID", refused, len(kept))}
	}
	return nil
}

// The outcomes of a redrive.
const (
	outcomeLoaded    = "loaded"
	outcomeDuplicate = "duplicate" // its content is loaded already
	outcomeRefused   = "refused"
)

// redrivenJSON is what became of one batch.
type redrivenJSON struct {
	ID      string       `json:"id"`
	Dataset string       `json:"dataset"`
	Batch   string       `json:"unique_id"`
	Outcome string       `json:"outcome"`
	Reason  batch.Reason `json:"reason,omitempty"` // for which it is refused
	Detail  string       `json:"detail,omitempty"`
}

func (p *program) printRedriven(results []redrivenJSON, output format) error {
	if output == asJSON {
		return printJSON(p.stdout, results)
	}
	if len(results) == 0 {
		_, err := fmt.Fprintln(p.stdout, "nothing was redriven")
		return err
	}
	var rows [][]string
	for _, r := range results {
		rows = append(rows, []string{r.ID[:shortID], r.Dataset, r.Batch, r.Outcome, string(r.Reason), cut(r.Detail, 120)})
	}
	return printTable(p.stdout, []string{"ID", "DATASET", "BATCH", "OUTCOME", "REASON", "DETAIL"}, rows)
}

// redriver redrives messages of any revision.
type redriver struct {
	w      *postgres.Warehouse
	q      sink.Quarantine
	skew   time.Duration
	by     string
	judges map[int64]judged // by revision
}

// judged is a revision with what decides about its messages.
type judged struct {
	revision sink.Revision
	judge    sink.Judge
}

// selected returns what is selected, the oldest first, as it came. A dataset
// that the warehouse doesn't have is an error: that nothing of it is in
// quarantine would be taken for good news.
func (r *redriver) selected(ctx context.Context, s sink.Selection) ([]sink.Kept, error) {
	listing, err := r.q.List(ctx, s, 0)
	if err == nil && listing.Total == 0 && s.Dataset != "" {
		err = checkDataset(ctx, r.w, s.Dataset)
	}
	for i, j := 0, len(listing.Kept)-1; i < j; i, j = i+1, j-1 {
		listing.Kept[i], listing.Kept[j] = listing.Kept[j], listing.Kept[i]
	}
	return listing.Kept, err
}

// patienceLimit is how long an outage, a lock or an unknown outcome is tried again.
const patienceLimit = 30 * time.Second

// redrive tries one message again. After an unknown outcome it runs again, as
// a commit does.
func (r *redriver) redrive(ctx context.Context, k sink.Kept) (redrivenJSON, error) {
	result := redrivenJSON{ID: k.Key.SHA256.String(), Dataset: k.Dataset.String(), Batch: batchID(k)}
	j, err := r.of(ctx, k.Key.Revision)
	if err != nil {
		return result, err
	}
	got, err := patiently(ctx, func() (sink.RedriveResult, error) {
		return r.q.Redrive(ctx, j.revision, k.Key, r.by, j.judge)
	})
	var closed *sink.ClosedError
	switch {
	case errors.As(err, &closed) && closed.State == sink.Redriven:
		result.Outcome, result.Detail = outcomeDuplicate, "it has been redriven already"
	case errors.As(err, &closed):
		result.Outcome, result.Reason, result.Detail = outcomeRefused, k.Reason, closed.Error()
	case err != nil:
		return result, err
	case got.Refusal != nil:
		result.Outcome, result.Reason, result.Detail = outcomeRefused, got.Refusal.Reason, got.Refusal.Detail
	case got.Outcome == sink.Duplicate:
		result.Outcome = outcomeDuplicate
	default:
		result.Outcome = outcomeLoaded
	}
	return result, nil
}

// of finds the revision that a message belongs to.
func (r *redriver) of(ctx context.Context, revision int64) (judged, error) {
	if j, ok := r.judges[revision]; ok {
		return j, nil
	}
	all, err := r.w.Datasets(ctx)
	if err != nil {
		return judged{}, err
	}
	for _, d := range all {
		if d.Revision.ID != revision {
			continue
		}
		judge, err := commit.NewJudge(d.Revision, r.skew)
		if err != nil {
			return judged{}, err
		}
		r.judges[revision] = judged{d.Revision, judge}
		return r.judges[revision], nil
	}
	return judged{}, fmt.Errorf("the warehouse has no revision %d", revision)
}

// patiently tries again what failed for a reason that may pass.
func patiently[T any](ctx context.Context, do func() (T, error)) (T, error) {
	return backoff.Retry(ctx, func() (T, error) {
		got, err := do()
		if err != nil && (sink.ClassOf(err) != sink.Retryable || ctx.Err() != nil) {
			err = backoff.Permanent(err)
		}
		return got, err
	}, backoff.WithMaxElapsedTime(patienceLimit))
}

// confirm asks on a terminal whether to go on; elsewhere --yes has to say it.
func (p *program) confirm(cmd *cobra.Command, what string) error {
	if !isTerminal(p.stdin) {
		return &usageError{command: cmd.CommandPath(), err: fmt.Errorf("%s? Say --yes, there is no terminal to ask on", what)}
	}
	fmt.Fprintf(p.stderr, "%s? [y/N] ", what)
	var answer string
	_, _ = fmt.Fscanln(p.stdin, &answer)
	if answer != "y" && answer != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}

// person names who gives a command, for the record.
func person() string {
	name := "uid " + fmt.Sprint(os.Getuid())
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}
