package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"tallyman/cmd/tallyman/internal/settings"
	"tallyman/loader/job"
	"tallyman/schema"
	"tallyman/sink/postgres"
)

func newJob(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "job",
		GroupID: groupChange,
		Short:   "Deploy, stop and look at jobs",
		Long: `Deploy, stop and look at jobs.

A job is work that was promised to be done: load keeps a revision of a dataset loaded. It is known
by a key that is made of its kind, the dataset, its manifest and its revision, so a request that is
repeated, by a pipeline or a person, finds the job that is there. A request with other options is
refused, with what differs, unless --replace says that the job shall be stopped and started again.`,
		Example: `  tallyman job deploy load ads/conversions
  tallyman job list
  tallyman job stop 7`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newJobDeploy(p), newJobList(p), newJobShow(p), newJobEvents(p), newJobStop(p), newJobRetry(p), newJobDelete(p))
	return cmd
}

// jobs opens the ledger of jobs, of the warehouse that is configured.
func (p *program) jobs(cmd *cobra.Command) (*job.Ledger, *postgres.Warehouse, error) {
	cfg, err := p.settings(cmd, settings.Warehouse)
	if err != nil {
		return nil, nil, err
	}
	w, err := p.warehouse(cmd.Context(), cfg)
	if err != nil {
		return nil, nil, err
	}
	if err := checkTarget(cmd.Context(), w, cfg.WarehouseTarget); err != nil {
		w.Close()
		return nil, nil, err
	}
	return newLedger(w), w, nil
}

// onLedger is a command's work on the ledger of jobs.
func (p *program) onLedger(do func(ctx context.Context, l *job.Ledger, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		l, w, err := p.jobs(cmd)
		if err != nil {
			return err
		}
		defer w.Close()
		return ledgerError(w, do(cmd.Context(), l, args))
	}
}

// jobID reads the id of a job.
func jobID(cmd *cobra.Command, text string) (int64, error) {
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id < 1 {
		return 0, &usageError{command: cmd.CommandPath(), err: fmt.Errorf("%q is no job's id: tallyman job list shows them", text)}
	}
	return id, nil
}

// aboutJob makes a command that is about one job.
func (p *program) aboutJob(cmd *cobra.Command, do func(ctx context.Context, l *job.Ledger, id int64) error) *cobra.Command {
	cmd.Args = cobra.ExactArgs(1)
	settingFlags(cmd, "warehouse")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id, err := jobID(cmd, args[0])
		if err != nil {
			return err
		}
		return p.onLedger(func(ctx context.Context, l *job.Ledger, _ []string) error { return do(ctx, l, id) })(cmd, args)
	}
	return cmd
}

func newJobList(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list [NS/NAME]",
		Short: "List jobs, the newest first",
		Long:  `List jobs, the newest first; of all datasets or of one.`,
		Example: `  tallyman job list
  tallyman job list ads/conversions -o json | jq '.jobs[] | select(.status == "running")'`,
		Args: cobra.MaximumNArgs(1),
	}
	output := formatFlag(cmd)
	settingFlags(cmd, "warehouse")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			if _, err := schema.ParseDataset(args[0]); err != nil {
				return &usageError{command: cmd.CommandPath(), err: err}
			}
		}
		return p.onLedger(func(ctx context.Context, l *job.Ledger, args []string) error {
			all, err := l.List(ctx)
			if err != nil {
				return err
			}
			found := []job.Job{}
			for _, j := range all {
				if len(args) == 0 || j.Dataset == args[0] {
					found = append(found, j)
				}
			}
			return p.printJobs(found, *output)
		})(cmd, args)
	}
	return cmd
}

func (p *program) printJobs(all []job.Job, output format) error {
	switch {
	case output == asJSON:
		return printJSON(p.stdout, map[string]any{"jobs": all})
	case len(all) == 0:
		_, err := fmt.Fprintln(p.stdout, "there are no jobs")
		return err
	}
	var rows [][]string
	for _, j := range all {
		rows = append(rows, []string{strconv.FormatInt(j.ID, 10), j.Kind, j.Dataset, strconv.FormatInt(j.Revision, 10),
			string(j.Status), strconv.FormatInt(j.Epoch, 10), j.UpdatedAt.UTC().Format(time.DateTime)})
	}
	return printTable(p.stdout, []string{"JOB", "KIND", "DATASET", "REVISION", "STATUS", "EPOCH", "SINCE"}, rows)
}

func newJobShow(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show ID | --key KEY",
		Short: "Show a job, with its options and who works on it",
		Long:  `Show a job, by its id or by its idempotency key, with its options and who works on it.`,
		Example: `  tallyman job show 7
  tallyman job show --key 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 -o json`,
		Args: cobra.MaximumNArgs(1),
	}
	key := cmd.Flags().String("key", "", "the job's idempotency `KEY`, 64 hexadecimal digits")
	output := formatFlag(cmd)
	settingFlags(cmd, "warehouse")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if (len(args) == 1) == (*key != "") {
			return &usageError{command: cmd.CommandPath(), err: fmt.Errorf("want a job's id, or --key")}
		}
		var id int64
		if *key == "" {
			var err error
			if id, err = jobID(cmd, args[0]); err != nil {
				return err
			}
		} else if err := job.Key(*key).Valid(); err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		return p.onLedger(func(ctx context.Context, l *job.Ledger, _ []string) error {
			one, err := l.Describe(ctx, id, job.Key(*key))
			if err != nil {
				return err
			}
			return p.printJob(one, *output)
		})(cmd, args)
	}
	return cmd
}

func (p *program) printJob(one job.Description, output format) error {
	if output == asJSON {
		return printJSON(p.stdout, one)
	}
	rows := [][]string{
		{"job", strconv.FormatInt(one.ID, 10)}, {"kind", one.Kind}, {"dataset", one.Dataset},
		{"revision", strconv.FormatInt(one.Revision, 10)}, {"key", string(one.Key)},
		{"status", string(one.Status)}, {"since", one.UpdatedAt.UTC().Format(time.DateTime)},
		{"epoch", strconv.FormatInt(one.Epoch, 10)}, {"options", string(one.Options)},
	}
	if one.Attempts > 0 {
		rows = append(rows, []string{"failed", fmt.Sprintf("%d times since it was scheduled", one.Attempts)})
	}
	if one.RetryAt != nil {
		rows = append(rows, []string{"tried again", one.RetryAt.UTC().Format(time.DateTime)})
	}
	if cause := causeOf(one.Detail); cause != "" {
		rows = append(rows, []string{"cause", cause})
	}
	for _, m := range one.Members {
		rows = append(rows, []string{"member", fmt.Sprintf("%s, until %s", m.Name, m.LeaseUntil.UTC().Format(time.DateTime))})
	}
	return printTable(p.stdout, []string{"", ""}, rows)
}

// causeOf returns why an event happened, as far as it says so.
func causeOf(detail json.RawMessage) string {
	var d struct{ Cause string }
	_ = json.Unmarshal(detail, &d) // what is not there is empty
	return d.Cause
}

func newJobEvents(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "events ID",
		Short: "Show what happened to a job",
		Long: `Show what happened to a job, from when it was first scheduled. An epoch is one life of it, from a
deployment to its end.`,
		Example: `  tallyman job events 7
  tallyman job events 7 -o json`,
	}
	output := formatFlag(cmd)
	return p.aboutJob(cmd, func(ctx context.Context, l *job.Ledger, id int64) error {
		if _, err := l.Show(ctx, id); err != nil {
			return err
		}
		all, err := l.Events(ctx, id)
		if err != nil {
			return err
		}
		if *output == asJSON {
			return printJSON(p.stdout, map[string]any{"events": all})
		}
		var rows [][]string
		for _, e := range all {
			rows = append(rows, []string{e.At.UTC().Format(time.DateTime), strconv.FormatInt(e.Epoch, 10), e.Type, e.Worker, string(e.Detail)})
		}
		return printTable(p.stdout, []string{"AT", "EPOCH", "EVENT", "BY", "DETAIL"}, rows)
	})
}
