package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"tallyman/cmd/tallyman/internal/peek"
	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/source/journal"
)

func newJournalShow(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show ID|INCARNATION/SEQUENCE",
		Short: "Show a batch of a journal: its headers and its rows",
		Long: `Show a batch of a journal: its headers, as they go to Kafka, and its rows.

NDJSON is shown as it is; native rows are decoded by their manifest. Control characters are
escaped; as JSON, values are as they came, and the whole value is there too, in base64.`,
		Example: `  tallyman source journal show 0192f0c1-2b3c-7d4e-8f50-617283940a1b --manifest conversions.yaml
  tallyman source journal show 5f0d0e0f-0d2b-4b53-9f6c-6a3d1c1f6f55/17 --rows 0 -o json | jq -r .payload | base64 --decode > batch.ndjson`,
		Args: cobra.ExactArgs(1),
	}
	root := journalFlag(cmd)
	dataset := cmd.Flags().String("dataset", "", "only of this dataset (`NS/NAME`)")
	manifests := manifestsFlag(cmd)
	limit := cmd.Flags().Uint32("rows", 20, "how many rows to show, from the first (`count`; 0: all)")
	output := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		names, err := parseBatchNames(cmd, args)
		if err != nil {
			return err
		}
		s := &batchSelector{dataset: *dataset, state: "all"}
		if err := s.check(cmd); err != nil {
			return err
		}
		known, err := manifests.read()
		if err != nil {
			return err
		}
		o, err := p.openJournal(cmd, *root)
		if err != nil {
			return err
		}
		defer o.close()
		found, err := pick(s.choose(o.Contents()), names)
		if err != nil {
			return err
		}
		r, err := o.Get(found[0].key)
		if err != nil {
			return err
		}
		shown := o.shown(found[0], r, known, int(*limit))
		if *output == asJSON {
			return printJSON(p.stdout, shown)
		}
		return p.printJournaled(shown)
	}
	return cmd
}

// manifestList is the flag --manifest: files and directories.
type manifestList []string

func manifestsFlag(cmd *cobra.Command) *manifestList {
	var l manifestList
	cmd.Flags().StringSliceVar((*[]string)(&l), "manifest", nil, "manifests to read native rows by (YAML `files` or directories, comma-separated)")
	return &l
}

// read reads the manifests. One dataset may have several, of different times.
func (l manifestList) read() (all []schema.Manifest, err error) {
	if len(l) == 0 {
		return nil, nil
	}
	files, err := manifestFiles(l)
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		m, err := readManifest(file)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

// manifestOf returns the manifest that a batch names, or if it names none, one
// of its dataset.
func manifestOf(known []schema.Manifest, b *batch.Batch) (*schema.Manifest, error) {
	of := schema.Ref{Dataset: b.Dataset, Hash: b.Schema}
	others := ""
	for i, m := range known {
		switch {
		case m.Dataset != b.Dataset:
		case b.Schema == "" || m.Hash() == b.Schema:
			return &known[i], nil
		default:
			others += "; given was " + schema.Ref{Dataset: m.Dataset, Hash: m.Hash()}.String()
		}
	}
	return nil, fmt.Errorf("its manifest, %s, was not given with --manifest%s", of, others)
}

// journaledJSON is what show prints of a batch.
type journaledJSON struct {
	batchJSON
	Topic   string       `json:"topic"`
	Key     string       `json:"key"`
	Headers []headerJSON `json:"headers"`
	Content peek.Sheet   `json:"content"`
	Payload []byte       `json:"payload"`
}

func (o *opened) shown(c chosen, r *journal.Record, known []schema.Manifest, limit int) journaledJSON {
	m, problem := manifestOf(known, r.Batch)
	j := journaledJSON{batchJSON: o.batch(c), Topic: r.Topic, Key: string(r.Batch.Key()), Headers: headersToJSON(r.Batch.Headers()),
		Content: peek.Batch(r.Batch, m, limit), Payload: r.Batch.Value}
	if j.Content.Problem != "" && m == nil {
		j.Content.Problem = "the batch has native rows, and " + problem.Error()
	}
	return j
}

func (p *program) printJournaled(s journaledJSON) error {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(p.stdout, "%-9s %s\n", name, printable(fmt.Sprintf(format, args...)))
	}
	line("batch", "%s, %s", s.ID, count(s.Rows, "row"))
	line("stream", "%s, sequence %d of incarnation %s", s.Dataset, s.Sequence, s.Incarnation)
	state := s.State
	if s.Reason != "" {
		state += ": " + s.Reason
	}
	line("state", "%s", state)
	line("topic", "%s", s.Topic)
	line("value", "%s", count(len(s.Payload), "byte"))
	fmt.Fprintln(p.stdout)
	if err := p.printHeaders(s.Headers); err != nil {
		return err
	}
	fmt.Fprintln(p.stdout)
	return p.printSheet(s.Content)
}
