package main

import (
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"tallyman/cmd/tallyman/internal/settings"
	"tallyman/schema"
	"tallyman/schema/ddl"
	"tallyman/sink/postgres"
)

func newVerify(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "verify NS/NAME",
		GroupID: groupOutage,
		Short:   "Compare a dataset's table with the ledger, and with what was published",
		Long: `Compare a dataset's table with the ledger, and with what was published.

Every row says in _batch_id which batch it came with, and the ledger says how many rows each
batch has. What does not agree is listed: a batch that has no rows, too few or too many of
them, and rows of a batch that was given up or that the ledger does not have. Where rows do not
say their batch, all of them are counted together.

With --digest values are compared too: what the topic still has of the batches is loaded into a
temporary table in the way a loader does, and must come out as the dataset's rows. With --journal
a source's journal, or a copy of one, is asked for the batches, before the topic if --digest is
given too. A batch that is nowhere any more can't be compared; how many those are is said.

It may run while loaders load: a million batches at a time are compared as of one moment, in
about 130 MB of memory, and the table is read 64 MiB at a time. It only reads, but until it ends
a change of the table, as by dataset apply, has to wait. Batches of files have no time, so they
are compared only without --since. The status is 3 if anything is not as it should be.

What sources announced is accounted for, stream by stream: every batch is loaded, discarded,
satisfied (loaded under another number, or accepted as lost), in quarantine or missing. One that
is missing longer than loader.missing_grace is a finding. So is one that was accounted for once
and is nowhere any more, and a number that several batches have: a journal was cloned while it
ran. A stream is counted as a whole; with --since, only if it was announced since.`,
		Example: `  tallyman verify ads/conversions
  tallyman verify ads/conversions --since 24h --digest
  tallyman verify ads/conversions --journal /mnt/rescued/serve/ads/conversions
  tallyman verify ads/conversions -o json | jq '.findings[].unique_id'`,
		Args: cobra.ExactArgs(1),
	}
	since := cmd.Flags().String("since", "", "only batches of that time or later (`TIME`)")
	until := cmd.Flags().String("until", "", "only batches of before that time (`TIME`)")
	digest := cmd.Flags().Bool("digest", false, "compare values with what the topic still has")
	journals := cmd.Flags().StringArray("journal", nil, "compare values with this journal (`directory`), more than once for several")
	limit := cmd.Flags().Uint("limit", 20, "list so many findings at most, 0 for all")
	output := formatFlag(cmd)
	settingFlags(cmd, "warehouse", "kafka")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o := postgres.VerifyOptions{Values: *digest || len(*journals) > 0, Limit: int(*limit)}
		_, err := schema.ParseDataset(args[0])
		if err == nil {
			o.Since, err = parseTime("--since", *since)
		}
		if err == nil {
			o.Until, err = parseTime("--until", *until)
		}
		if err == nil && !o.Since.IsZero() && !o.Until.IsZero() && !o.Since.Before(o.Until) {
			err = fmt.Errorf("--since %s is not before --until %s", o.Since.Format(time.RFC3339), o.Until.Format(time.RFC3339))
		}
		if err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		need := settings.Warehouse
		if *digest {
			need |= settings.Kafka
		}
		cfg, err := p.settings(cmd, need)
		if err != nil {
			return err
		}
		report, err := p.verify(cmd, cfg, verifyTask{args[0], o, *journals, *digest})
		if err != nil {
			return err
		}
		if *output == asJSON {
			err = printJSON(p.stdout, report)
		} else {
			err = report.print(p)
		}
		if wrong := report.wrong(); err == nil && wrong != "" {
			err = &foundError{fmt.Sprintf("%s is not as it should be: %s", args[0], wrong)}
		}
		return err
	}
	return cmd
}

// verifyReport is what verify found.
type verifyReport struct {
	Dataset   string        `json:"dataset"`
	Revision  int64         `json:"revision"`
	Table     string        `json:"table"`
	Since     *time.Time    `json:"since"`
	Until     *time.Time    `json:"until"`
	Batches   int64         `json:"batches"` // loaded, by the ledger
	Rows      int64         `json:"rows"`    // of them, by the ledger
	TableRows int64         `json:"table_rows"`
	Streams   streamsReport `json:"streams"`
	// Digest is null if values were not compared.
	Digest   *digestReport                  `json:"digest"`
	Total    int64                          `json:"findings_total"`
	Kinds    map[postgres.FindingKind]int64 `json:"findings_by_kind"`
	Findings []findingJSON                  `json:"findings"`
	// Unchecked says what can't be told.
	Unchecked []string `json:"unchecked"`
}

// digestReport is of how many batches the values were compared.
type digestReport struct {
	Compared    int64       `json:"compared_batches"`
	NotCompared int64       `json:"not_compared_batches"`
	Examples    []uuid.UUID `json:"not_compared_first"`
}

// findingJSON is something that is not as it should be.
type findingJSON struct {
	Kind  postgres.FindingKind `json:"kind"`
	Batch *uuid.UUID           `json:"unique_id"` // null: of no batch
	Time  *time.Time           `json:"batch_time"`
	Want  int64                `json:"ledger_rows"`
	Have  int64                `json:"table_rows"`
}

// verifyTask is what is to be verified, and what values are compared with.
type verifyTask struct {
	dataset  string
	options  postgres.VerifyOptions
	journals []string
	topic    bool
}

func (p *program) verify(cmd *cobra.Command, cfg settings.Config, task verifyTask) (verifyReport, error) {
	ctx, o, name := cmd.Context(), task.options, task.dataset
	w, err := p.warehouse(ctx, cfg)
	if err != nil {
		return verifyReport{}, err
	}
	defer w.Close()
	if err := checkTarget(ctx, w, cfg.WarehouseTarget); err != nil {
		return verifyReport{}, err
	}
	d, err := activeDataset(cmd, w, name)
	if err != nil {
		return verifyReport{}, err
	}
	if !d.Revision.Manifest.BatchID && (!o.Since.IsZero() || !o.Until.IsZero() || o.Values) {
		return verifyReport{}, &usageError{command: cmd.CommandPath(), err: fmt.Errorf(
			"the rows of %s do not say which batch they came with (no _batch_id): only all of them can be counted, without --since, --until, --digest and --journal", name)}
	}
	progress := newProgress(p.stderr)
	defer progress.end()
	var bar *showing
	o.Progress = func(done, total int64) {
		if done == 0 {
			bar = &showing{progress.add("MiB of the table", total>>20)}
		}
		bar.set(done >> 20)
	}
	c, err := newComparer(d, w.NewVerifier(d, o))
	if err != nil {
		return verifyReport{}, err
	}
	v := c.verifier
	for {
		more, err := v.Next(ctx)
		if err != nil {
			return verifyReport{}, err
		}
		if !more {
			r := newVerifyReport(d, o, v.Result())
			r.Streams, err = accounts(ctx, w, d.Revision, postgres.AccountOptions{
				Since: o.Since, Grace: cfg.LoaderMissingGrace, Limit: o.Limit, Progress: counting(progress)})
			if n := r.Streams.Total.Forgotten; n > 0 {
				r.Unchecked = append(r.Unchecked, fmt.Sprintf("%d announced batches that were accounted for, and may have been forgotten with the ledger's old partitions", n))
			}
			return r, err
		}
		for _, root := range task.journals {
			if err := p.compareJournal(cmd, root, c); err != nil {
				return verifyReport{}, err
			}
		}
		if task.topic && v.Unsettled() > 0 {
			if err := p.compareTopic(ctx, cfg, c, progress); err != nil {
				return verifyReport{}, err
			}
		}
	}
}

// showing is a bar that may not be there: nothing is shown of an empty table.
type showing struct{ *bar }

func (s *showing) set(n int64) {
	if s != nil {
		s.bar.set(n)
	}
}

func newVerifyReport(d postgres.DatasetInfo, o postgres.VerifyOptions, found postgres.Verified) verifyReport {
	m := d.Revision.Manifest
	r := verifyReport{
		Dataset: m.Dataset.String(), Revision: d.Revision.ID, Table: ddl.PostgresName(d.Revision.Physical),
		Batches: found.Batches, Rows: found.Rows, TableRows: found.TableRows,
		Kinds: found.Total, Findings: []findingJSON{}, Unchecked: []string{},
	}
	if !o.Since.IsZero() {
		r.Since = &o.Since
	}
	if !o.Until.IsZero() {
		r.Until = &o.Until
	}
	for _, n := range found.Total {
		r.Total += n
	}
	for _, f := range found.Findings {
		j := findingJSON{Kind: f.Kind, Want: f.Want, Have: f.Have}
		if f.Batch != uuid.Nil {
			j.Batch = &f.Batch
		}
		if !f.Time.IsZero() {
			j.Time = &f.Time
		}
		r.Findings = append(r.Findings, j)
	}
	if o.Values {
		r.Digest = &digestReport{Compared: found.Compared, NotCompared: found.Lost, Examples: []uuid.UUID{}}
		r.Digest.Examples = append(r.Digest.Examples, found.FirstLost...)
	}
	unchecked := func(format string, args ...any) { r.Unchecked = append(r.Unchecked, fmt.Sprintf(format, args...)) }
	if !m.BatchID {
		unchecked("the rows do not say which batch they came with: a row that is missing and another that is too many are not told apart")
	}
	if m.Existing && found.TableRows > found.Rows {
		unchecked("%d rows more than the ledger's: the table was there before, so they may be of others", found.TableRows-found.Rows)
	}
	if found.Forgotten > 0 {
		unchecked("%d rows of batches from before the ledger's horizon, or of v4 ids, which may be", found.Forgotten)
	}
	if r.Digest != nil && r.Digest.NotCompared > 0 {
		unchecked("the values of %d batches, which are in nothing that was read", r.Digest.NotCompared)
	}
	return r
}
