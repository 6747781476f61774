package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"tallyman/schema/batch"
	"tallyman/source/journal"
	"tallyman/source/replay"
)

func newJournalList(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the streams of a journal, or the batches of some",
		Long: `List the streams of a journal, or, with any of --dataset, --incarnation and --state, their batches.

A stream is one dataset's batches in one incarnation, which is one opening of the journal. A batch
is published once Kafka has acknowledged it, and aside if the broker refuses it for good. It is
confirmed once every warehouse in serve.targets (none: every one that was heard of) has accounted
for it, as far as the journal knows. A daemon trims what is confirmed after serve.retention, if
serve.targets is set.`,
		Example: `  tallyman source journal list
  tallyman source journal list --dataset ads/conversions --limit 0
  tallyman source journal list --state unpublished -o json | jq '.batches | map(.rows) | add'`,
		Args: cobra.NoArgs,
	}
	root := journalFlag(cmd)
	s := batchSelectorFlags(cmd)
	limit := cmd.Flags().Uint32("limit", 50, "how many batches to list at most (`count`; 0: all)")
	output := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := s.check(cmd); err != nil {
			return err
		}
		o, err := p.openJournal(cmd, *root)
		if err != nil {
			return err
		}
		defer o.close()
		c := o.Contents()
		listing := journalJSON{Journal: o.dir, Source: o.Source(), Faults: faultsToJSON(c.Faults)}
		if *s == (batchSelector{state: "all"}) {
			if listing.Streams, err = o.streams(cmd.Context(), c, o.targets); err != nil {
				return err
			}
		} else {
			all := s.choose(c)
			listing.Total = new(len(all))
			if *limit > 0 {
				all = all[:min(len(all), int(*limit))]
			}
			if listing.Batches, err = o.batches(cmd.Context(), all); err != nil {
				return err
			}
		}
		if *output == asJSON {
			return printJSON(p.stdout, listing)
		}
		return p.printJournal(listing)
	}
	return cmd
}

// journalJSON is what list prints: streams or batches.
type journalJSON struct {
	Journal string         `json:"journal"`
	Source  string         `json:"source"`
	Streams []streamJSON   `json:"streams,omitzero"`
	Total   *int           `json:"total,omitempty"` // of all batches that were selected, however many are listed
	Batches []batchJSON    `json:"batches,omitzero"`
	Faults  []journalFault `json:"faults,omitempty"` // those that the keys alone show
}

type streamJSON struct {
	Dataset     string     `json:"dataset"`
	Incarnation uuid.UUID  `json:"incarnation"`
	Opened      *time.Time `json:"opened_at"`
	First       uint64     `json:"first"`
	Last        uint64     `json:"last"`
	Batches     int        `json:"batches"`
	Rows        int64      `json:"rows"`
	Bytes       int64      `json:"bytes"`
	Unpublished int        `json:"unpublished"` // without those set aside
	Aside       int        `json:"aside"`
	Damaged     int        `json:"damaged"`
	// Confirmed are the batches that every target had when the journal was closed.
	Confirmed int    `json:"confirmed"`
	Trimmed   uint64 `json:"trimmed"` // let go, once every target had confirmed them
}

type batchJSON struct {
	Dataset     string     `json:"dataset"`
	Incarnation uuid.UUID  `json:"incarnation"`
	Sequence    uint64     `json:"sequence"`
	ID          *uuid.UUID `json:"unique_id"`
	Time        *time.Time `json:"batch_time"`
	Rows        int        `json:"rows"`
	Bytes       int64      `json:"bytes"`
	State       string     `json:"state"`
	Reason      string     `json:"reason,omitempty"`  // why it was set aside
	Problem     string     `json:"problem,omitempty"` // why it can't be read
}

// streams reads every batch to sum streams up.
func (o *opened) streams(ctx context.Context, c *journal.Contents, targets []string) ([]streamJSON, error) {
	all := []streamJSON{}
	notes, err := o.Notes(replay.NotePrefix)
	if err != nil {
		return nil, err
	}
	receipts := replay.Receipts(notes)
	for _, s := range c.Streams {
		one := streamJSON{Dataset: s.Dataset.String(), Incarnation: s.Incarnation, Batches: len(s.Batches), Trimmed: s.Trimmed.Batches()}
		if !s.Opened.IsZero() {
			one.Opened = &s.Opened
		}
		if len(s.Batches) > 0 { // else all are trimmed
			one.First, one.Last = s.Batches[0].Sequence, s.Batches[len(s.Batches)-1].Sequence
		}
		for _, h := range s.Batches {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			b := o.batch(chosen{journal.Key{Stream: s.Stream, Sequence: h.Sequence}, h})
			if confirmed(receipts, s.Stream, h.Sequence, targets) {
				one.Confirmed++
			}
			one.Rows += int64(b.Rows)
			one.Bytes += b.Bytes
			switch b.State {
			case stateUnpublished:
				one.Unpublished++
			case stateAside:
				one.Aside++
			}
			if b.Problem != "" {
				one.Damaged++
			}
		}
		all = append(all, one)
	}
	return all, nil
}

// confirmed says whether every target has a batch; without names, every one that
// sent a receipt of the stream.
func confirmed(receipts []*batch.Receipt, s journal.Stream, n uint64, targets []string) bool {
	sure := map[string]bool{}
	for _, r := range receipts {
		if r.Incarnation != s.Incarnation || r.Dataset != s.Dataset {
			continue
		}
		if sure[r.Target] = r.Covers(n); !sure[r.Target] && len(targets) == 0 {
			return false
		}
	}
	for _, name := range targets {
		if !sure[name] {
			return false
		}
	}
	return len(sure) > 0
}

func (o *opened) batches(ctx context.Context, of []chosen) ([]batchJSON, error) {
	all := []batchJSON{}
	for _, c := range of {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		all = append(all, o.batch(c))
	}
	return all, nil
}

// batch reads a batch, as far as it can be read.
func (o *opened) batch(c chosen) batchJSON {
	b := batchJSON{Dataset: c.key.Dataset.String(), Incarnation: c.key.Incarnation, Sequence: c.key.Sequence, State: stateOf(c.held)}
	if c.held.ID != uuid.Nil {
		b.ID = &c.held.ID
	}
	if c.held.Aside != nil {
		b.Reason = *c.held.Aside
	}
	r, err := o.Get(c.key)
	if err != nil {
		b.Problem = err.Error()
		return b
	}
	b.ID, b.Rows, b.Bytes = &r.Batch.ID, r.Batch.Rows, r.Size()
	if !r.Batch.Time.IsZero() {
		b.Time = &r.Batch.Time
	}
	return b
}

func (p *program) printJournal(l journalJSON) error {
	fmt.Fprintf(p.stdout, "journal %s of source %s\n\n", printable(l.Journal), printable(l.Source))
	if l.Total == nil {
		if err := p.printStreams(l.Streams); err != nil {
			return err
		}
	} else if err := p.printBatches(l.Batches, *l.Total); err != nil {
		return err
	}
	if len(l.Faults) > 0 {
		fmt.Fprintf(p.stdout, "\n%d faults: see tallyman source journal verify\n", len(l.Faults))
	}
	return nil
}

func (p *program) printStreams(streams []streamJSON) error {
	if len(streams) == 0 {
		_, err := fmt.Fprintln(p.stdout, "no batches")
		return err
	}
	var rows [][]string
	for _, s := range streams {
		at := "not known"
		if s.Opened != nil {
			at = s.Opened.UTC().Format(time.DateTime)
		}
		held := "none"
		if s.Batches > 0 {
			held = fmt.Sprintf("%d-%d", s.First, s.Last)
		}
		rows = append(rows, []string{
			s.Dataset, s.Incarnation.String(), at, held, strconv.Itoa(s.Batches), strconv.FormatInt(s.Rows, 10),
			strconv.FormatInt(s.Bytes, 10), strconv.Itoa(s.Unpublished), strconv.Itoa(s.Aside), strconv.Itoa(s.Damaged),
			strconv.Itoa(s.Confirmed), strconv.FormatUint(s.Trimmed, 10),
		})
	}
	return printTable(p.stdout, []string{"DATASET", "INCARNATION", "OPENED", "SEQUENCES", "BATCHES", "ROWS", "BYTES", "UNPUBLISHED", "ASIDE", "DAMAGED", "CONFIRMED", "TRIMMED"}, rows)
}

func (p *program) printBatches(batches []batchJSON, total int) error {
	if total == 0 {
		_, err := fmt.Fprintln(p.stdout, "nothing in the journal that was asked for")
		return err
	}
	var rows [][]string
	for _, b := range batches {
		id, at, why := "not known", "none", b.Reason
		if b.ID != nil {
			id = b.ID.String()
		}
		if b.Time != nil {
			at = batchTime(*b.Time)
		}
		if b.Problem != "" {
			why = b.Problem
		}
		rows = append(rows, []string{b.Dataset, fmt.Sprintf("%s/%d", b.Incarnation, b.Sequence), id, at,
			strconv.Itoa(b.Rows), strconv.FormatInt(b.Bytes, 10), b.State, cut(why, lineWidth)})
	}
	if err := printTable(p.stdout, []string{"DATASET", "INCARNATION/SEQUENCE", "ID", "TIME", "ROWS", "BYTES", "STATE", "DETAIL"}, rows); err != nil {
		return err
	}
	more := ""
	if len(batches) < total {
		more = "; --limit 0 lists all"
	}
	_, err := fmt.Fprintf(p.stdout, "\n%d of %d%s\n", len(batches), total, more)
	return err
}
