package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"tallyman/loader/job"
	"tallyman/loader/job/resync"
	"tallyman/schema"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

// resyncFlags are the flags of resync beside the options of its load.
type resyncFlags struct {
	table            string
	replace          bool
	copyLost, noSwap bool
	wait             time.Duration
}

func newResync(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "resync NS/NAME",
		GroupID: groupChange,
		Short:   "Load a dataset anew beside the table that readers see, and swap",
		Long: `Load a dataset anew beside the table that readers see, and swap.

It makes a further revision, unless one is being built, has the running loaders fill it from the
topic, and from the journals of sources where the topic no longer has something, and activates it
once it has every batch that the active one has. Readers go on meanwhile; sources too. What is in
neither topic nor journal is named, and the exit status is 3; with --copy it is copied from the
active revision. Interrupted, it goes on when it is run again. The revision that was active stands
by and is loaded on, so the way back is tallyman revision activate.`,
		Example: `  tallyman resync ads/conversions
  tallyman resync ads/conversions --table conversions_new --parallelism 2
  tallyman resync ads/conversions --no-activate`,
		Args: cobra.ExactArgs(1),
	}
	var (
		options loadFlags
		o       resyncFlags
	)
	options.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&o.table, "table", "", "the `NAME` of the new table (default that of the dataset's with __r2, __r3 and so on)")
	flags.BoolVar(&o.replace, "replace", false, "if the job is active with other options, stop it and start it with these")
	flags.BoolVar(&o.copyLost, "copy", false, "copy what is neither in the topic nor in a journal from the active revision")
	flags.BoolVar(&o.noSwap, "no-activate", false, "leave it at that once the revision has everything")
	flags.DurationVar(&o.wait, "wait", 30*time.Second, "how long the revision may take at the end to catch up with the active one")
	output := formatFlag(cmd)
	settingFlags(cmd, "warehouse")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		d, err := schema.ParseDataset(args[0])
		if err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		raw, err := options.options()
		if err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		l, w, err := p.jobs(cmd)
		if err != nil {
			return err
		}
		defer w.Close()
		x := &resyncing{p: p, cmd: cmd, w: w, ledger: l, dataset: d, flags: o,
			deployment: job.Deployment{Kind: resync.Kind{}.Name(), Options: raw, Resolve: resolveResync(w, d, 0, o.table)}}
		return x.run(*output)
	}
	return cmd
}

// resolveResync says what a resync of a dataset is about: a revision, or if none is
// named, the one that is being built, which is made if there is none.
func resolveResync(w *postgres.Warehouse, d schema.Dataset, revision int64, table string) func(context.Context, pgx.Tx) (job.Target, error) {
	return func(ctx context.Context, tx pgx.Tx) (job.Target, error) {
		if revision != 0 {
			return resolveIn(w, d, revision)(ctx, tx)
		}
		building, err := w.Building(ctx, tx, d)
		if err != nil {
			return job.Target{}, err
		}
		if building == 0 {
			made, err := w.MakeRevision(ctx, tx, postgres.NewRevision{Dataset: d, Table: table})
			if errors.Is(err, postgres.ErrNoRevision) || errors.Is(err, postgres.ErrWrongRevision) {
				err = &job.TargetError{Err: err}
			}
			if err != nil {
				return job.Target{}, err
			}
			building = made.ID
		}
		return resolveIn(w, d, building)(ctx, tx)
	}
}

// resyncing is a resync under way.
type resyncing struct {
	p          *program
	cmd        *cobra.Command
	w          *postgres.Warehouse
	ledger     *job.Ledger
	dataset    schema.Dataset
	flags      resyncFlags
	deployment job.Deployment
}

// run deploys the job, follows it, and activates the revision.
func (x *resyncing) run(output format) error {
	ctx := x.cmd.Context()
	deploy := x.ledger.Deploy
	if x.flags.replace {
		deploy = func(ctx context.Context, d job.Deployment) (job.Deployed, error) {
			return x.ledger.Replace(ctx, d, nil)
		}
	}
	done, err := deploy(ctx, x.deployment)
	if err != nil {
		return conflictHint(ledgerError(x.w, err))
	}
	x.say("job %d fills revision %d of %s", done.Job.ID, done.Job.Revision, x.dataset)
	j, err := x.follow(ctx, done.Job)
	if err == nil && j.Status == job.Fatal && x.flags.copyLost {
		x.say("%s: copying that from the active revision", causeOf(j.Detail))
		if _, err = x.p.copyRevision(x.cmd, x.w, x.dataset, j.Revision); err != nil {
			return err
		}
		if done, err = x.ledger.Deploy(ctx, x.deployment); err == nil {
			j, err = x.follow(ctx, done.Job)
		}
	}
	switch {
	case err != nil:
		return ledgerError(x.w, err)
	case j.Status == job.Fatal:
		return &foundError{text: fmt.Sprintf("revision %d of %s can't be filled: %s. Nothing was activated; with --copy it is copied from the active revision",
			j.Revision, x.dataset, causeOf(j.Detail))}
	case j.Status != job.Completed:
		return fmt.Errorf("job %d is %s; nothing was activated", j.ID, j.Status)
	case x.flags.noSwap:
		return x.p.printFilled(revisionJSON{Dataset: x.dataset.String(), Revision: j.Revision, State: string(sink.Building)}, output)
	}
	was, err := x.w.Activate(ctx, postgres.Activation{Dataset: x.dataset, Revision: j.Revision, Wait: x.flags.wait})
	if err != nil {
		return asFound(err)
	}
	return x.p.printActivation(revisionJSON{Dataset: x.dataset.String(), Revision: j.Revision, State: string(sink.Active), Before: was}, output)
}

func (p *program) printFilled(r revisionJSON, output format) error {
	if output == asJSON {
		return printJSON(p.stdout, r)
	}
	_, err := fmt.Fprintf(p.stdout, "revision %d of %s has everything: tallyman revision activate %[2]s %[1]d has readers see it\n", r.Revision, r.Dataset)
	return err
}

func (x *resyncing) say(format string, args ...any) { fmt.Fprintf(x.p.stderr, format+"\n", args...) }

// follow waits until a job has ended, and shows how far its revision is behind.
func (x *resyncing) follow(ctx context.Context, j job.Job) (job.Job, error) {
	progress := newProgress(x.p.stderr)
	defer progress.end()
	var (
		all int64
		bar *bar
	)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	idle := time.Now()
	for {
		now, err := x.ledger.Show(ctx, j.ID)
		if err == nil {
			if now.Status == job.Failed && now.Attempts != j.Attempts {
				x.say("job %d failed and is tried again: %s", now.ID, causeOf(now.Detail))
			}
			j = now
		}
		switch {
		case err == nil && j.Status.Ended():
			return j, nil
		case err != nil && sink.ClassOf(ledgerError(x.w, err)) != sink.Retryable:
			return j, err
		case j.Status == job.Scheduled && time.Since(idle) > 10*time.Second:
			x.say("no loader works on job %d yet: run tallyman load, or tallyman load %s", j.ID, x.dataset)
			idle = time.Now()
		}
		if active, err := x.active(ctx); err == nil {
			if behind, err := x.w.Behind(ctx, active, j.Revision); err == nil {
				if bar == nil || behind > all {
					all = behind
				}
				if bar == nil {
					bar = progress.add("messages read", all)
				}
				bar.set(all - behind)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return j, context.Cause(ctx)
		}
	}
}

func (x *resyncing) active(ctx context.Context) (int64, error) {
	all, err := x.w.ActiveRevisions(ctx)
	for _, r := range all {
		if r.Manifest.Dataset == x.dataset {
			return r.ID, nil
		}
	}
	return 0, errors.Join(err, errors.New("no active revision"))
}
