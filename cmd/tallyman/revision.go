package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"tallyman/cmd/tallyman/internal/settings"
	"tallyman/schema"
	"tallyman/schema/ddl"
	"tallyman/sink/postgres"
)

func newRevision(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "revision",
		GroupID: groupChange,
		Short:   "Make, activate and drop revisions of a dataset",
		Long: `Make, activate and drop revisions of a dataset.

A revision is one table that holds the dataset, with ledger entries and positions of its own. The
dataset's name is a view over the active one. Another is filled beside it, by a load job of its
own, while readers go on; activation puts the view over it. The one before stands by and is loaded
on, so the way back is one more activation. tallyman resync does all of it.`,
		Example: `  tallyman revision create ads/conversions
  tallyman revision list ads/conversions
  tallyman revision activate ads/conversions 2`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newRevisionCreate(p), newRevisionList(p), newRevisionActivate(p), newRevisionCopy(p), newRevisionDrop(p))
	return cmd
}

// owned opens the warehouse for a change that its owner makes.
func (p *program) owned(cmd *cobra.Command) (*postgres.Warehouse, error) {
	cfg, err := p.settings(cmd, settings.Warehouse)
	if err != nil {
		return nil, err
	}
	w, err := p.warehouse(cmd.Context(), cfg)
	if err != nil {
		return nil, err
	}
	if err := checkTarget(cmd.Context(), w, cfg.WarehouseTarget); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// ofRevision reads the arguments NS/NAME and ID.
func ofRevision(cmd *cobra.Command, args []string) (schema.Dataset, int64, error) {
	d, err := schema.ParseDataset(args[0])
	if err != nil {
		return d, 0, &usageError{command: cmd.CommandPath(), err: err}
	}
	id, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil || id < 1 {
		return d, 0, &usageError{command: cmd.CommandPath(), err: fmt.Errorf("%q is no revision's id: tallyman revision list shows them", args[1])}
	}
	return d, id, nil
}

// revisionJSON is a revision that was made or activated.
type revisionJSON struct {
	Dataset  string `json:"dataset"`
	Revision int64  `json:"revision_id"`
	State    string `json:"state"`
	Table    string `json:"table,omitempty"`
	Before   int64  `json:"active_before,omitempty"`
}

func newRevisionCreate(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create NS/NAME",
		Short: "Make a further revision: an empty table like the active one's",
		Long: `Make a further revision: an empty table like the active one's, which readers do not see. It is
filled by a load job of its own: tallyman job deploy load NS/NAME --revision ID.`,
		Example: `  tallyman revision create ads/conversions
  tallyman revision create ads/conversions --table conversions_by_day -o json`,
		Args: cobra.ExactArgs(1),
	}
	table := cmd.Flags().String("table", "", "the `NAME` of its table (default that of the dataset's with __r2, __r3 and so on)")
	output := formatFlag(cmd)
	settingFlags(cmd, "warehouse")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		d, err := schema.ParseDataset(args[0])
		if err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		w, err := p.owned(cmd)
		if err != nil {
			return err
		}
		defer w.Close()
		r, err := w.CreateRevision(cmd.Context(), postgres.NewRevision{Dataset: d, Table: *table})
		if err != nil {
			return err
		}
		if *output == asJSON {
			return printJSON(p.stdout, revisionJSON{Dataset: d.String(), Revision: r.ID, State: string(r.State), Table: ddl.PostgresName(r.Physical)})
		}
		_, err = fmt.Fprintf(p.stdout, "revision %d of %s: the table %s\n", r.ID, d, ddl.PostgresName(r.Physical))
		return err
	}
	return cmd
}

func newRevisionList(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list [NS/NAME]",
		Short: "List revisions, those that were dropped too",
		Long:  `List revisions, those that were dropped too; of all datasets or of one.`,
		Example: `  tallyman revision list
  tallyman revision list ads/conversions -o json`,
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
		w, err := p.owned(cmd)
		if err != nil {
			return err
		}
		defer w.Close()
		if name != "" {
			if err := checkDataset(cmd.Context(), w, name); err != nil {
				return err
			}
		}
		all, err := w.Revisions(cmd.Context(), name)
		if err != nil {
			return err
		}
		if *output == asJSON {
			if all == nil {
				all = []postgres.RevisionInfo{}
			}
			return printJSON(p.stdout, map[string]any{"revisions": all})
		}
		var rows [][]string
		for _, r := range all {
			rows = append(rows, []string{strconv.FormatInt(r.ID, 10), r.Dataset, string(r.State), r.Table, r.Hash[:12],
				strconv.FormatInt(r.Jobs, 10), r.CreatedAt.UTC().Format(time.DateTime)})
		}
		return printTable(p.stdout, []string{"REVISION", "DATASET", "STATE", "TABLE", "MANIFEST", "JOBS", "CREATED"}, rows)
	}
	return cmd
}

func newRevisionActivate(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "activate NS/NAME ID",
		Short: "Have readers see another revision",
		Long: `Have readers see another revision, in one transaction: they see the old table or the new one. The
revision has to have every batch that the active one has; if it still lacks some after --wait,
nothing is changed, it is said which, and the exit status is 3. Grants and views that depend on the
dataset's view stay. The revision that was active stands by and is loaded on.`,
		Example: `  tallyman revision activate ads/conversions 2
  tallyman revision activate ads/conversions 1 --wait 5m`,
		Args: cobra.ExactArgs(2),
	}
	limit := cmd.Flags().Duration("wait", 30*time.Second, "how long it may take to catch up with the active one")
	uncovered := cmd.Flags().Bool("uncovered", false, "even if readers lose batches by it")
	output := formatFlag(cmd)
	settingFlags(cmd, "warehouse")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		d, id, err := ofRevision(cmd, args)
		if err != nil {
			return err
		}
		if *limit <= 0 {
			return &usageError{command: cmd.CommandPath(), err: errors.New("--wait has to be positive")}
		}
		w, err := p.owned(cmd)
		if err != nil {
			return err
		}
		defer w.Close()
		was, err := w.Activate(cmd.Context(), postgres.Activation{Dataset: d, Revision: id, Uncovered: *uncovered, Wait: *limit})
		if err != nil {
			return asFound(err)
		}
		return p.printActivation(revisionJSON{Dataset: d.String(), Revision: id, State: "active", Before: was}, *output)
	}
	return cmd
}

// asFound makes a gate that found something the check that it is.
func asFound(err error) error {
	var lacks *postgres.UncoveredError
	if errors.As(err, &lacks) {
		return &foundError{text: err.Error() + ". Nothing was changed"}
	}
	return err
}

func (p *program) printActivation(a revisionJSON, output format) error {
	if output == asJSON {
		return printJSON(p.stdout, a)
	}
	if a.Before == a.Revision {
		_, err := fmt.Fprintf(p.stdout, "revision %d of %s is active already\n", a.Revision, a.Dataset)
		return err
	}
	_, err := fmt.Fprintf(p.stdout, "revision %d of %s is active; revision %d stands by and is loaded on: tallyman revision activate %[2]s %[3]d goes back\n",
		a.Revision, a.Dataset, a.Before)
	return err
}

func newRevisionCopy(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "copy NS/NAME ID",
		Short: "Copy to a revision the batches that only the active one still has",
		Long: `Copy to a revision the batches that only the active one still has, each with its entry in the
ledger, which refuses it if it comes from Kafka after all; and the rows of batches that the ledger
has forgotten. It is for what is neither in the topic nor in a journal any more. A copy has what
was done to its rows since they were loaded. Interrupted or repeated, it copies each batch once.`,
		Example: `  tallyman revision copy ads/conversions 2`,
		Args:    cobra.ExactArgs(2),
	}
	output := formatFlag(cmd)
	settingFlags(cmd, "warehouse")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		d, id, err := ofRevision(cmd, args)
		if err != nil {
			return err
		}
		w, err := p.owned(cmd)
		if err != nil {
			return err
		}
		defer w.Close()
		done, err := p.copyRevision(cmd, w, d, id)
		if err != nil {
			return err
		}
		if *output == asJSON {
			return printJSON(p.stdout, done)
		}
		_, err = fmt.Fprintf(p.stdout, "copied %d batches, %d rows\n", done.Batches, done.Rows)
		return err
	}
	return cmd
}

// copyRevision copies from the active revision of a dataset to another of it.
func (p *program) copyRevision(cmd *cobra.Command, w *postgres.Warehouse, d schema.Dataset, id int64) (postgres.Copied, error) {
	active, err := activeRevision(cmd, w, d.String())
	if err != nil {
		return postgres.Copied{}, err
	}
	to, err := revisionOf(cmd.Context(), w, id)
	if err == nil && to.Revision.Manifest.Dataset != d {
		err = fmt.Errorf("revision %d belongs to %s, not to %s", id, to.Revision.Manifest.Dataset, d)
	}
	if err != nil {
		return postgres.Copied{}, err
	}
	progress := newProgress(p.stderr)
	defer progress.end()
	var all int64
	var bar *bar
	return w.CopyUncovered(cmd.Context(), active, to.Revision, func(left postgres.Uncovered) {
		if bar == nil {
			all, bar = left.Batches, progress.add("copied batches", left.Batches)
		}
		bar.set(all - left.Batches)
	})
}

func newRevisionDrop(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drop NS/NAME ID",
		Short: "Drop a revision that is neither active nor loaded",
		Long: `Drop a revision that is neither active nor loaded: its table, its ledger entries and its positions.
Stop its jobs first (tallyman job stop). Interrupted, it goes on when it is run again.`,
		Example: `  tallyman revision drop ads/conversions 1`,
		Args:    cobra.ExactArgs(2),
	}
	output := formatFlag(cmd)
	settingFlags(cmd, "warehouse")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		d, id, err := ofRevision(cmd, args)
		if err != nil {
			return err
		}
		w, err := p.owned(cmd)
		if err != nil {
			return err
		}
		defer w.Close()
		if err := w.DropRevision(cmd.Context(), d, id); err != nil {
			return err
		}
		if *output == asJSON {
			return printJSON(p.stdout, revisionJSON{Dataset: d.String(), Revision: id, State: "retired"})
		}
		_, err = fmt.Fprintf(p.stdout, "revision %d of %s is dropped\n", id, d)
		return err
	}
	return cmd
}
