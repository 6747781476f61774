package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tallyman/schema"
	"tallyman/schema/ddl"
	"tallyman/sink/postgres"
)

// listedDataset is a dataset as list and show print it. Hash and manifest are of
// the newest manifest, which has every column.
type listedDataset struct {
	Dataset   string           `json:"dataset"`
	Revision  int64            `json:"revision"`
	State     string           `json:"state"`
	Table     string           `json:"table"`
	Existing  bool             `json:"existing_table"`
	Physical  string           `json:"physical_table"`
	Topic     string           `json:"topic"`
	Hash      string           `json:"manifest_hash"`
	CreatedAt time.Time        `json:"created_at"`
	Manifests []listedManifest `json:"manifests"`
	Manifest  json.RawMessage  `json:"manifest,omitempty"`
}

// listedManifest is a manifest that the table takes rows by.
type listedManifest struct {
	Hash      string    `json:"hash"`
	AppliedAt time.Time `json:"applied_at"`
	// Changes is in what it differs from the one before it.
	Changes []schema.Difference `json:"changes"`
}

// newest returns the manifest that has every column of the table.
func newest(d postgres.DatasetInfo) postgres.AppliedManifest { return d.Manifests[len(d.Manifests)-1] }

func listed(d postgres.DatasetInfo) listedDataset {
	m := d.Revision.Manifest
	l := listedDataset{
		Dataset: m.Dataset.String(), Revision: d.Revision.ID, State: string(d.Revision.State), Table: ddl.PostgresName(m.Table), Existing: m.Existing,
		Physical: ddl.PostgresName(d.Revision.Physical), Topic: m.Topic, Hash: newest(d).Hash, CreatedAt: d.CreatedAt.UTC(),
	}
	before := d.Manifests[0].Manifest
	for _, a := range d.Manifests {
		l.Manifests = append(l.Manifests, listedManifest{
			Hash: a.Hash, AppliedAt: a.AppliedAt.UTC(), Changes: append([]schema.Difference{}, schema.Compare(before, a.Manifest)...)})
		before = a.Manifest
	}
	return l
}

func newDatasetList(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the datasets of the warehouse",
		Example: "  tallyman dataset list\n  tallyman dataset list -o json",
		Args:    cobra.NoArgs,
	}
	output := formatFlag(cmd)
	settingFlags(cmd, "warehouse")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		all, err := p.datasets(cmd, "")
		if err != nil {
			return err
		}
		list := []listedDataset{}
		var rows [][]string
		for _, d := range all {
			l := listed(d)
			list = append(list, l)
			rows = append(rows, []string{l.Dataset, l.State, l.Table, l.Topic, l.Hash[:12], strconv.Itoa(len(l.Manifests)), l.CreatedAt.Format(time.DateTime)})
		}
		if *output == asJSON {
			return printJSON(p.stdout, list)
		}
		return printTable(p.stdout, []string{"DATASET", "STATE", "TABLE", "TOPIC", "MANIFEST", "MANIFESTS", "CREATED"}, rows)
	}
	return cmd
}

func newDatasetShow(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "show NS/NAME",
		Short:   "Show a dataset: where its rows are, and its columns",
		Example: "  tallyman dataset show ads/conversions\n  tallyman dataset show ads/conversions -o json",
		Args:    cobra.ExactArgs(1),
	}
	output := formatFlag(cmd)
	settingFlags(cmd, "warehouse")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if _, err := schema.ParseDataset(args[0]); err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		found, err := p.datasets(cmd, args[0])
		if err != nil {
			return err
		}
		d := found[len(found)-1]
		l := listed(d)
		l.Manifest = newest(d).Manifest.Canonical()
		if *output == asJSON {
			return printJSON(p.stdout, l)
		}
		return l.print(p, d)
	}
	return cmd
}

// keyLines tells of a table's primary key, indexes and partitions, one a line.
func keyLines(m schema.Manifest) []string {
	var lines []string
	if m.PrimaryKey != nil {
		lines = append(lines, "key       "+strings.Join(m.PrimaryKey, ", "))
	}
	for _, x := range m.Indexes {
		line := "index     " + strings.Join(x.Columns, ", ")
		if x.Unique {
			line += " (unique)"
		}
		lines = append(lines, line)
	}
	if m.Partition != nil {
		lines = append(lines, fmt.Sprintf("parts     by %s, one every %s", m.Partition.By, m.Partition.Every))
	}
	return lines
}

// print shows a dataset to a person.
func (l listedDataset) print(p *program, d postgres.DatasetInfo) error {
	where := "over " + l.Physical
	if l.Existing {
		where = "used as it is"
	}
	fmt.Fprint(p.stdout, printable(fmt.Sprintf("dataset   %s, %s", l.Dataset, l.State)), "\nmanifest  ", l.Hash, "\ntopic     ", l.Topic,
		"\ntable     ", printable(l.Table+" "+where), "\n")
	for _, line := range keyLines(newest(d).Manifest) {
		fmt.Fprintln(p.stdout, printable(line))
	}
	fmt.Fprintln(p.stdout)
	var rows [][]string
	for _, c := range newest(d).Manifest.Columns {
		null := "no"
		if c.Nullable {
			null = "yes"
		}
		rows = append(rows, []string{c.Name, string(c.Type), null})
	}
	err := printTable(p.stdout, []string{"COLUMN", "TYPE", "NULLABLE"}, rows)
	if err != nil || len(l.Manifests) == 1 {
		return err
	}
	fmt.Fprintf(p.stdout, "\nBatches load by %d manifests; columns that one lacks are null.\n\n", len(l.Manifests))
	rows = nil
	for _, m := range l.Manifests {
		row := []string{m.Hash[:12], m.AppliedAt.Format(time.DateTime), "the first"}
		for i, c := range m.Changes {
			if row[2] = c.Subject + " " + c.Change; i > 0 {
				row[0], row[1] = "", ""
			}
			rows = append(rows, slices.Clone(row))
		}
		if len(m.Changes) == 0 {
			rows = append(rows, row)
		}
	}
	return printTable(p.stdout, []string{"MANIFEST", "APPLIED", "DIFFERENCE"}, rows)
}
