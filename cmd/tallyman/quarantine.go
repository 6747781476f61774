package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"tallyman/cmd/tallyman/internal/settings"
	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

func newQuarantine(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "quarantine",
		GroupID: groupRun,
		Short:   "Look at batches that could not be loaded, try them again, give them up",
		Long: `Look at batches that could not be loaded, try them again, give them up.

A batch that can't be loaded through a fault of its own is kept in the warehouse, whole up to
8 MiB, with the reason, and loading goes on behind it. It leaves quarantine when it is redriven,
when a good copy of it loads, or when somebody discards it. ID is the beginning of what list
prints, as long as it is the only one of that beginning.`,
		Example: `  tallyman quarantine list
  tallyman quarantine show 5b1f0c7de2a4
  tallyman quarantine redrive 5b1f0c7de2a4
  tallyman quarantine discard 5b1f0c7de2a4 --reason "sent by a test"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newQuarantineList(p), newQuarantineShow(p), newQuarantineRedrive(p), newQuarantineDiscard(p))
	return cmd
}

// shortID is how many digits of a message's key a table shows.
const shortID = 12

func newQuarantineList(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List batches that could not be loaded, the newest first",
		Long: `List batches that could not be loaded, the newest first.

The state is open until the batch is loaded (redriven) or given up (discarded). A time is
one of RFC 3339, a date (UTC), or how long ago, like 90m or 24h.`,
		Example: `  tallyman quarantine list
  tallyman quarantine list --dataset ads/conversions --reason constraint --since 24h
  tallyman quarantine list --state all --limit 0 -o json | jq -r '.batches[].reason' | sort | uniq -c`,
		Args: cobra.NoArgs,
	}
	s := selectionFlags(cmd)
	state := cmd.Flags().String("state", "open", "open, redriven, discarded or all")
	limit := cmd.Flags().Uint32("limit", 50, "how many to list at most (`count`; 0: all)")
	output := formatFlag(cmd)
	settingFlags(cmd, "warehouse")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		selection, err := s.selection()
		if err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		switch selection.State = sink.KeptState(*state); selection.State {
		case sink.Open, sink.Redriven, sink.Discarded:
		case "all":
			selection.State = ""
		default:
			return &usageError{command: cmd.CommandPath(), err: fmt.Errorf("--state %q is none of open, redriven, discarded and all", *state)}
		}
		w, err := p.quarantineWarehouse(cmd)
		if err != nil {
			return err
		}
		defer w.Close()
		listing, err := w.Quarantine().List(cmd.Context(), selection, int(*limit))
		if err != nil {
			return err
		}
		if *output == asJSON {
			return printJSON(p.stdout, listingToJSON(listing))
		}
		return p.printListing(listing)
	}
	return cmd
}

// quarantineWarehouse connects to the warehouse, for commands that need nothing else.
func (p *program) quarantineWarehouse(cmd *cobra.Command) (*postgres.Warehouse, error) {
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

// selector is the flags by which messages in quarantine are selected.
type selector struct{ dataset, id, reason, since, until string }

func selectionFlags(cmd *cobra.Command) *selector {
	s := &selector{}
	f := cmd.Flags()
	f.StringVar(&s.dataset, "dataset", "", "only of this dataset (`NS/NAME`)")
	f.StringVar(&s.id, "id", "", "only of the batch with this id (`UUID`)")
	f.StringVar(&s.reason, "reason", "", "only for this reason, as list prints it (`REASON`)")
	f.StringVar(&s.since, "since", "", "only what came then or later (`TIME`)")
	f.StringVar(&s.until, "until", "", "only what came before (`TIME`)")
	return s
}

// any says that something was selected.
func (s *selector) any() bool { return *s != selector{} }

func (s *selector) selection() (sink.Selection, error) {
	found := sink.Selection{Dataset: s.dataset, Reason: batch.Reason(s.reason)}
	var errs []error
	if s.dataset != "" {
		_, err := schema.ParseDataset(s.dataset)
		errs = append(errs, err)
	}
	if s.id != "" {
		id, err := uuid.Parse(s.id)
		if err != nil {
			err = fmt.Errorf("--id %q is not a UUID", s.id)
		}
		found.ID = id
		errs = append(errs, err)
	}
	var err error
	found.Since, err = parseTime("--since", s.since)
	errs = append(errs, err)
	found.Until, err = parseTime("--until", s.until)
	return found, errors.Join(append(errs, err)...)
}

// parseTime reads a time of RFC 3339, a date or how long ago; zero: not given.
func parseTime(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return time.Now().Add(-ago), nil
	}
	return time.Time{}, fmt.Errorf("%s %q is no time: want one like 2026-01-31T12:00:00Z, a date like 2026-01-31, or how long ago, like 90m", flag, text)
}

var keyDigits = regexp.MustCompile(`^[0-9a-f]{4,64}$`)

// checkIDs refuses what can't be the beginning of a key.
func checkIDs(cmd *cobra.Command, ids []string) error {
	for _, id := range ids {
		if !keyDigits.MatchString(id) {
			return &usageError{command: cmd.CommandPath(), err: fmt.Errorf(
				"%q is not an ID as tallyman quarantine list prints it: at least 4 of the digits 0-9a-f (a batch's UUID goes with --id)", id)}
		}
	}
	return nil
}

// named finds the message of each ID: in every revision of its dataset that has it
// in quarantine. Nothing is done for an ID that is not one.
func named(ctx context.Context, q sink.Quarantine, ids []string) ([]sink.Kept, error) {
	listing, err := q.List(ctx, sink.Selection{Prefixes: ids}, 0)
	if err != nil {
		return nil, err
	}
	var found []sink.Kept
	for _, id := range ids {
		messages := map[batch.Digest]bool{}
		for _, k := range listing.Kept {
			if strings.HasPrefix(k.Key.SHA256.String(), id) {
				messages[k.Key.SHA256] = true
				found = append(found, k)
			}
		}
		switch {
		case len(messages) == 0:
			return nil, fmt.Errorf("quarantine has nothing with the ID %s: see tallyman quarantine list --state all", id)
		case len(messages) > 1:
			return nil, fmt.Errorf("%d in quarantine have an ID that begins with %s: give more digits, or select with --dataset", len(messages), id)
		}
	}
	return found, nil
}

// keptJSON is a message in quarantine as list and show print it.
type keptJSON struct {
	ID          string       `json:"id"`
	Dataset     string       `json:"dataset"`
	Revision    int64        `json:"revision"`
	Reason      batch.Reason `json:"reason"`
	Detail      string       `json:"detail"`
	State       string       `json:"state"`
	Seen        time.Time    `json:"seen_at"`
	Closed      *time.Time   `json:"closed_at"`
	ClosedBy    string       `json:"closed_by,omitempty"`
	ClosedWhy   string       `json:"closed_why,omitempty"`
	Cluster     string       `json:"cluster"`
	Topic       string       `json:"topic"`
	Partition   int32        `json:"partition"`
	Offset      int64        `json:"offset"`
	Published   *time.Time   `json:"published_at"`
	Batch       *uuid.UUID   `json:"unique_id"` // these are to be believed as far as the reason lets them
	Source      string       `json:"source,omitempty"`
	Incarnation *uuid.UUID   `json:"incarnation"`
	Sequence    uint64       `json:"sequence,omitempty"`
	Rows        int64        `json:"rows,omitempty"`
	Bytes       int64        `json:"bytes"`
	Whole       bool         `json:"kept_whole"`
}

func keptToJSON(k sink.Kept) keptJSON {
	j := keptJSON{
		ID: k.Key.SHA256.String(), Dataset: k.Dataset.String(), Revision: k.Key.Revision, Reason: k.Reason, Detail: k.Detail,
		State: string(k.State), Seen: k.Seen, ClosedBy: k.ClosedBy, ClosedWhy: k.ClosedWhy,
		Cluster: k.Partition.Cluster, Topic: k.Partition.Topic, Partition: k.Partition.Number, Offset: k.Offset,
		Source: k.Source, Sequence: k.Sequence, Rows: k.Rows, Bytes: k.Size, Whole: k.Whole,
	}
	if !k.Closed.IsZero() {
		j.Closed = &k.Closed
	}
	if !k.Published.IsZero() {
		j.Published = &k.Published
	}
	if k.ID != uuid.Nil {
		j.Batch = &k.ID
	}
	if k.Incarnation != uuid.Nil {
		j.Incarnation = &k.Incarnation
	}
	return j
}

// listingJSON is what list prints.
type listingJSON struct {
	Total   int64      `json:"total"` // of all that were selected, however many are listed
	Batches []keptJSON `json:"batches"`
}

func listingToJSON(l sink.Listing) listingJSON {
	j := listingJSON{Total: l.Total, Batches: []keptJSON{}}
	for _, k := range l.Kept {
		j.Batches = append(j.Batches, keptToJSON(k))
	}
	return j
}

func (p *program) printListing(l sink.Listing) error {
	if l.Total == 0 {
		_, err := fmt.Fprintln(p.stdout, "nothing in quarantine that was asked for")
		return err
	}
	var rows [][]string
	for _, k := range l.Kept {
		rows = append(rows, []string{
			k.Key.SHA256.String()[:shortID], k.Dataset.String(), string(k.State), string(k.Reason), k.Seen.Format(time.DateTime),
			batchID(k), fmt.Sprintf("%d/%d", k.Partition.Number, k.Offset), cut(k.Detail, 80),
		})
	}
	if err := printTable(p.stdout, []string{"ID", "DATASET", "STATE", "REASON", "SINCE", "BATCH", "AT", "DETAIL"}, rows); err != nil {
		return err
	}
	more := ""
	if int64(len(l.Kept)) < l.Total {
		more = "; --limit 0 lists all"
	}
	_, err := fmt.Fprintf(p.stdout, "\n%d of %d%s\n", len(l.Kept), l.Total, more)
	return err
}

// batchID is a batch's id in a table.
func batchID(k sink.Kept) string {
	if k.ID == uuid.Nil {
		return "none"
	}
	return k.ID.String()
}

// cut shortens a text to at most n characters.
func cut(s string, n int) string {
	runes := []rune(s)
	if len(runes) <= n {
		return s
	}
	return string(runes[:n-1]) + "…"
}
