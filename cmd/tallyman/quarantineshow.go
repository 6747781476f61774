package main

import (
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"tallyman/cmd/tallyman/internal/peek"
	"tallyman/schema/batch"
	"tallyman/sink"
)

func newQuarantineShow(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show a batch that could not be loaded, with its rows as far as they can be read",
		Long: `Show a batch that could not be loaded, with its rows as far as they can be read.

The row at fault, where that is known, is marked with > and is shown wherever it is. Control
characters are escaped; as JSON, values are as they came, and the whole value is there too,
in base64.`,
		Example: `  tallyman quarantine show 5b1f0c7de2a4
  tallyman quarantine show 5b1f0c7de2a4 --rows 0
  tallyman quarantine show 5b1f0c7de2a4 -o json | jq -r .payload | base64 --decode > batch.ndjson`,
		Args: cobra.ExactArgs(1),
	}
	limit := cmd.Flags().Uint32("rows", 20, "how many rows to show, from the first (`count`; 0: all)")
	output := formatFlag(cmd)
	settingFlags(cmd, "warehouse")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkIDs(cmd, args); err != nil {
			return err
		}
		w, err := p.quarantineWarehouse(cmd)
		if err != nil {
			return err
		}
		defer w.Close()
		q := w.Quarantine()
		found, err := named(cmd.Context(), q, args)
		if err != nil {
			return err
		}
		k, err := q.Get(cmd.Context(), found[0].Key)
		if err != nil {
			return err
		}
		shown := shownJSON{keptJSON: keptToJSON(k.Kept), Key: bytesText(k.Message.Key), Headers: headersToJSON(k.Message.Headers),
			Payload: k.Message.Value, Content: peek.Rows(&k, int(*limit))}
		if *output == asJSON {
			return printJSON(p.stdout, shown)
		}
		return p.printShown(k.Kept, shown)
	}
	return cmd
}

// shownJSON is what show prints of a message.
type shownJSON struct {
	keptJSON
	Key     string       `json:"key"`
	Headers []headerJSON `json:"headers"`
	Content peek.Sheet   `json:"content"`
	Payload []byte       `json:"payload"`
}

type headerJSON struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// bytesText is text as it is, and other bytes as Go would quote them.
func bytesText(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	quoted := strconv.Quote(string(b))
	return quoted[1 : len(quoted)-1]
}

// Widths of a terminal's columns, in characters.
const (
	valueWidth = 60
	lineWidth  = 160
)

func (p *program) printShown(k sink.Kept, s shownJSON) error {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(p.stdout, "%-9s %s\n", name, printable(fmt.Sprintf(format, args...)))
	}
	line("id", "%s", s.ID)
	line("dataset", "%s, revision %d", s.Dataset, s.Revision)
	line("read from", "topic %s of cluster %s, partition %d, offset %d%s", s.Topic, s.Cluster, s.Partition, s.Offset, published(k))
	line("batch", "%s%s", batchID(k), origin(k))
	line("state", "%s", state(k))
	line("reason", "%s", s.Reason)
	line("detail", "%s", s.Detail)
	whole := "kept whole"
	if !s.Whole {
		whole = fmt.Sprintf("of which the first %d are kept", len(s.Payload))
	}
	line("value", "%d bytes, %s", s.Bytes, whole)
	fmt.Fprintln(p.stdout)
	if err := p.printHeaders(s.Headers); err != nil {
		return err
	}
	fmt.Fprintln(p.stdout)
	return p.printSheet(s.Content)
}

func headersToJSON(headers []batch.Header) []headerJSON {
	all := []headerJSON{}
	for _, h := range headers {
		all = append(all, headerJSON{bytesText([]byte(h.Key)), bytesText(h.Value)})
	}
	return all
}

func (p *program) printHeaders(headers []headerJSON) error {
	var rows [][]string
	for _, h := range headers {
		rows = append(rows, []string{cut(h.Key, valueWidth), cut(h.Value, lineWidth)})
	}
	return printTable(p.stdout, []string{"HEADER", "VALUE"}, rows)
}

func published(k sink.Kept) string {
	if k.Published.IsZero() {
		return ""
	}
	return ", published " + k.Published.Format(time.DateTime)
}

// origin says what else the envelope tells of a batch.
func origin(k sink.Kept) (text string) {
	if k.Rows > 0 {
		text += fmt.Sprintf(", %d rows", k.Rows)
	}
	if k.Source != "" {
		text += ", of source " + k.Source
	}
	if k.Incarnation != uuid.Nil {
		text += fmt.Sprintf(", sequence %d of incarnation %s", k.Sequence, k.Incarnation)
	}
	return text
}

func state(k sink.Kept) string {
	text := fmt.Sprintf("%s, came %s", k.State, k.Seen.Format(time.DateTime))
	if !k.Closed.IsZero() {
		text += ", closed " + k.Closed.Format(time.DateTime)
	}
	if k.ClosedBy != "" {
		text += " by " + k.ClosedBy
	}
	if k.ClosedWhy != "" {
		text += ": " + k.ClosedWhy
	}
	return text
}

// printSheet prints rows, the bad one marked.
func (p *program) printSheet(s peek.Sheet) error {
	header := append([]string{"", "ROW"}, s.Columns...)
	if s.Columns == nil {
		header = append(header, "LINE")
	}
	var rows [][]string
	for _, r := range s.Rows {
		mark := ""
		if r.Number == s.Bad {
			mark = ">"
		}
		row := []string{mark, strconv.Itoa(r.Number)}
		for i, v := range r.Values {
			text := "NULL"
			if v != nil {
				text = cut(*v, valueWidth)
			}
			if mark != "" && i < len(s.Columns) && s.Columns[i] == s.BadColumn {
				text = "> " + text
			}
			row = append(row, text)
		}
		if s.Columns == nil {
			row = append(row, cut(bytesText([]byte(r.Line)), lineWidth))
		}
		for len(row) < len(header) {
			row = append(row, "")
		}
		rows = append(rows, row)
	}
	for i := range header {
		header[i] = printable(header[i])
	}
	if err := printTable(p.stdout, header, rows); err != nil {
		return err
	}
	text := fmt.Sprintf("%d of %d rows", len(s.Rows), s.Total)
	if s.Bad > 0 {
		text += fmt.Sprintf("; row %d is at fault", s.Bad)
		if s.BadColumn != "" {
			text += fmt.Sprintf(" in column %s", s.BadColumn)
		}
	}
	if s.Problem != "" {
		text += "; " + s.Problem
	}
	_, err := fmt.Fprintf(p.stdout, "\n%s\n", printable(text))
	return err
}
