package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"tallyman/loader/job"
	"tallyman/loader/job/load"
	"tallyman/loader/job/replay"
	"tallyman/loader/job/resync"
	"tallyman/schema"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

// kindNames are the kinds that a person may deploy.
func kindNames() []string {
	return []string{load.Kind{}.Name(), replay.Kind{}.Name(), resync.Kind{}.Name()}
}

// findFor says what a job of a kind is about, if a look is enough for that.
func findFor(kind string, d schema.Dataset, revision int64) func(context.Context, job.Querier) (job.Target, bool, error) {
	state := sink.Active
	if kind == (resync.Kind{}).Name() {
		state = sink.Building
	}
	return func(ctx context.Context, q job.Querier) (job.Target, bool, error) {
		id, hash, err := postgres.FindRevision(ctx, q, d, revision, state)
		return job.Target{Dataset: d.String(), Manifest: hash, Revision: id}, id != 0, err
	}
}

// resolveFor says what a job of a kind is about.
func resolveFor(w *postgres.Warehouse, kind string, d schema.Dataset, revision int64) func(context.Context, pgx.Tx) (job.Target, error) {
	if kind == (resync.Kind{}).Name() {
		return resolveResync(w, d, revision, "")
	}
	return resolveIn(w, d, revision)
}

func newJobDeploy(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "deploy KIND NS/NAME",
		Short: "Deploy a job, or find the one that is there",
		Long: `Deploy a job, or find the one that is there.

KIND is load, replay or resync. The job is about the dataset's active revision, or for a resync
the one that is being built, unless --revision names another. The loaders that run (tallyman load)
work on it. A job that has ended is scheduled again; one that is active stays as it is, and with
other options this fails and says what differs.

Options of load and resync are end, a batch time or latest, and parallelism, a number of members;
those of replay are source, since and until.`,
		Example: `  tallyman job deploy load ads/conversions
  tallyman job deploy load ads/conversions --option parallelism=2 --replace
  tallyman job deploy load ads/conversions --revision 4 -o json`,
		Args: cobra.ExactArgs(2),
	}
	options := cmd.Flags().StringArray("option", nil, "an option of the job, `NAME=VALUE`; may be repeated")
	revision := cmd.Flags().Int64("revision", 0, "the `ID` of the revision (default the active one)")
	replace := cmd.Flags().Bool("replace", false, "if the job is active with other options, stop it and start it with these")
	output := formatFlag(cmd)
	settingFlags(cmd, "warehouse")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		d, err := deployment(args[0], *options)
		if err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		dataset, err := schema.ParseDataset(args[1])
		if err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		l, w, err := p.jobs(cmd)
		if err != nil {
			return err
		}
		defer w.Close()
		d.Resolve, d.Find = resolveFor(w, d.Kind, dataset, *revision), findFor(d.Kind, dataset, *revision)
		do := l.Deploy
		if *replace {
			do = func(ctx context.Context, d job.Deployment) (job.Deployed, error) {
				return l.Replace(ctx, d, func(c *job.Conflict) { fmt.Fprintf(p.stderr, "stopping job %d to replace it\n", c.Job.ID) })
			}
		}
		done, err := do(cmd.Context(), d)
		if errors.Is(err, job.ErrMalformed) {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		if err != nil {
			return conflictHint(ledgerError(w, err))
		}
		if *output == asJSON {
			return printJSON(p.stdout, done)
		}
		how := "scheduled"
		if done.Deduplicated {
			how = "there already, " + string(done.Job.Status)
		}
		_, err = fmt.Fprintf(p.stdout, "job %d: %s of %s, revision %d: %s\n", done.Job.ID, done.Job.Kind, done.Job.Dataset, done.Job.Revision, how)
		return err
	}
	return cmd
}

// deployment reads a kind and options NAME=VALUE. A value that is JSON is that,
// any other is a text.
func deployment(kind string, options []string) (job.Deployment, error) {
	d := job.Deployment{Kind: kind}
	if !slices.Contains(kindNames(), kind) {
		return d, fmt.Errorf("unknown kind of job %q: want %s", kind, strings.Join(kindNames(), ", "))
	}
	all := map[string]json.RawMessage{}
	for _, o := range options {
		name, value, ok := strings.Cut(o, "=")
		if !ok || name == "" {
			return d, fmt.Errorf("--option %q: want NAME=VALUE", o)
		}
		if _, again := all[name]; again {
			return d, fmt.Errorf("--option %s is given twice", name)
		}
		all[name] = json.RawMessage(value)
		if !json.Valid(all[name]) {
			text, err := json.Marshal(value)
			if err != nil {
				return d, err
			}
			all[name] = text
		}
	}
	raw, err := json.Marshal(all)
	d.Options = raw
	return d, err
}

// resolveIn says what a job of a dataset is about: a revision, or if none is
// named, the active one.
func resolveIn(w *postgres.Warehouse, dataset schema.Dataset, revision int64) func(context.Context, pgx.Tx) (job.Target, error) {
	return func(ctx context.Context, tx pgx.Tx) (job.Target, error) {
		all, err := w.DatasetsIn(ctx, tx)
		if err != nil {
			return job.Target{}, err
		}
		var known []string
		for _, d := range all {
			if d.Revision.Manifest.Dataset != dataset {
				continue
			}
			if d.Revision.ID == revision || revision == 0 && d.Revision.State == sink.Active {
				if d.Revision.State == sink.Retired {
					return job.Target{}, &job.TargetError{Err: fmt.Errorf("revision %d of %s was dropped", revision, dataset), Gone: true}
				}
				return targetOf(d), nil
			}
			known = append(known, fmt.Sprint(d.Revision.ID))
		}
		if known == nil {
			return job.Target{}, &job.TargetError{Err: unknownDataset(dataset.String(), all)}
		}
		return job.Target{}, &job.TargetError{Err: fmt.Errorf("dataset %s has no revision %d; it has %s", dataset, revision, strings.Join(known, ", "))}
	}
}

func newJobStop(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stop ID",
		Short: "Stop a job: its members commit what they have in hand and go idle",
		Long: `Stop a job: its members commit what they have in hand and go idle.

It is success if the job has been stopped already, or has ended. It stays stopped until it is
deployed again, by tallyman job deploy or by a tallyman load NS/NAME that starts. A member that
never answers is given up when its lease ends, and what it does after that comes to nothing.`,
		Example: `  tallyman job stop 7
  tallyman job stop 7 --wait 30s`,
	}
	limit := cmd.Flags().Duration("wait", 0, "wait so long for it to have stopped (default not at all)")
	output := formatFlag(cmd)
	return p.aboutJob(cmd, func(ctx context.Context, l *job.Ledger, id int64) error {
		j, err := l.StopNow(ctx, id)
		if err != nil {
			return err
		}
		if *limit > 0 {
			if j, err = l.AwaitEnd(ctx, id, *limit); err != nil {
				return err
			}
		}
		return p.printChange(j, *output)
	})
}

func newJobRetry(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "retry ID",
		Short:   "Try a job in error again now",
		Long:    `Try a job in error again now, with the options that it has, instead of after its pause.`,
		Example: `  tallyman job retry 7`,
	}
	output := formatFlag(cmd)
	return p.aboutJob(cmd, func(ctx context.Context, l *job.Ledger, id int64) error {
		j, err := l.Retry(ctx, id)
		if err != nil {
			return err
		}
		return p.printChange(j, *output)
	})
}

func newJobDelete(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "delete ID",
		Short:   "Delete a job that has ended, with its history",
		Long:    `Delete a job that has ended, with its history. What it loaded stays, and its key is free again.`,
		Example: `  tallyman job delete 7`,
	}
	output := formatFlag(cmd)
	return p.aboutJob(cmd, func(ctx context.Context, l *job.Ledger, id int64) error {
		if err := l.Delete(ctx, id); err != nil {
			return err
		}
		if *output == asJSON {
			return printJSON(p.stdout, map[string]int64{"deleted": id})
		}
		_, err := fmt.Fprintf(p.stdout, "job %d is deleted\n", id)
		return err
	})
}

func (p *program) printChange(j job.Job, output format) error {
	if output == asJSON {
		return printJSON(p.stdout, j)
	}
	_, err := fmt.Fprintf(p.stdout, "job %d is %s\n", j.ID, j.Status)
	return err
}
