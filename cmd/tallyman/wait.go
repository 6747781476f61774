package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"tallyman/cmd/tallyman/internal/settings"
	"tallyman/schema"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

func newWait(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "wait NS/NAME",
		GroupID: groupRun,
		Short:   "Wait until a dataset is loaded up to a time",
		Long: `Wait until a dataset is loaded up to a time: until every batch that its sources announced by
then, by their clocks, is loaded or discarded.

It first waits until everything is read that the topic holds when it starts, so that nothing
that was published before is unknown. It speaks for the sources that the manifest expects; where
it names none, for the known ones: those that the warehouse has heard of.
With --timeout it gives up then, with status 3, and says what holds the dataset back. TIME is
now, a time of RFC 3339, a date (UTC), or how long ago, like 90m or 24h.`,
		Example: `  tallyman push ads/conversions monday.csv
  tallyman wait ads/conversions --complete-through now
  tallyman wait ads/conversions --complete-through 2026-11-25T00:00:00Z --timeout 30m`,
		Args: cobra.ExactArgs(1),
	}
	through := cmd.Flags().String("complete-through", "", "up to when (`TIME`; required)")
	timeout := cmd.Flags().Duration("timeout", 0, "how long to wait at most (0: for ever)")
	settingFlags(cmd, "warehouse", "kafka")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		_, err := schema.ParseDataset(args[0])
		until, timeErr := parseThrough(*through)
		if err = errors.Join(err, timeErr); *timeout < 0 {
			err = errors.Join(err, errors.New("--timeout can't be negative"))
		}
		if err != nil {
			return &usageError{command: cmd.CommandPath(), err: err}
		}
		cfg, err := p.settings(cmd, settings.Warehouse|settings.Kafka)
		if err != nil {
			return err
		}
		w, err := p.quarantineWarehouse(cmd)
		if err != nil {
			return err
		}
		defer w.Close()
		r, err := activeRevision(cmd, w, args[0])
		if err != nil {
			return err
		}
		ends, err := p.ends(cmd.Context(), cfg, r.Manifest.Topic)
		if err != nil {
			return err
		}
		one := waiting{w: w, revision: r, until: until, ends: ends, grace: cfg.LoaderMissingGrace}
		return one.run(cmd.Context(), *timeout)
	}
	return cmd
}

// parseThrough reads up to when a dataset shall be complete.
func parseThrough(text string) (time.Time, error) {
	switch text {
	case "":
		return time.Time{}, errors.New("--complete-through is required: now, or a time")
	case "now":
		return time.Now(), nil
	}
	return parseTime("--complete-through", text)
}

// ends asks Kafka where the topic's partitions end now.
func (p *program) ends(ctx context.Context, cfg settings.Config, topic string) (map[sink.Partition]int64, error) {
	conn, err := p.kafka(cfg)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	numbers, err := conn.HighWaters(ctx, topic)
	if err != nil {
		return nil, err
	}
	ends := map[sink.Partition]int64{}
	for number, end := range numbers {
		ends[sink.Partition{Cluster: conn.Cluster(), Topic: topic, Number: number}] = end
	}
	return ends, nil
}

// waiting is what somebody waits for.
type waiting struct {
	w        *postgres.Warehouse
	revision sink.Revision
	until    time.Time
	ends     map[sink.Partition]int64 // that are to be read first
	grace    time.Duration
	expected int64 // sources, when the warehouse was last asked
}

// speaksFor says whose batches are waited for.
func (x *waiting) speaksFor() string { return speaksFor(x.expected) }

// speaksFor says for which sources it is told how complete a dataset is.
func speaksFor(expected int64) string {
	switch expected {
	case 0:
		return "known sources"
	case 1:
		return "the 1 source expected"
	default:
		return fmt.Sprintf("the %d sources expected", expected)
	}
}

// run waits.
func (x *waiting) run(ctx context.Context, timeout time.Duration) error {
	left, err := waitUntil(ctx, timeout, x.holds)
	if err == nil && left != "" {
		err = &foundError{text: fmt.Sprintf("%s is not complete through %s after %v (%s):\n%s",
			x.revision.Manifest.Dataset, x.until.UTC().Format(time.RFC3339), timeout, x.speaksFor(), left)}
	}
	return err
}

// holds returns what holds the dataset back, a line each; empty: nothing.
func (x *waiting) holds(ctx context.Context) (string, error) {
	positions, err := x.w.ReadPositions(ctx, x.revision)
	if err != nil {
		return "", err
	}
	next := map[sink.Partition]int64{}
	for _, at := range positions {
		next[at.Partition] = at.Next
	}
	var lines []string
	for _, part := range slices.SortedFunc(maps.Keys(x.ends), func(a, b sink.Partition) int { return int(a.Number) - int(b.Number) }) {
		if behind := x.ends[part] - next[part]; behind > 0 {
			lines = append(lines, fmt.Sprintf("%d messages of partition %d are not read yet", behind, part.Number))
		}
	}
	if len(lines) > 0 {
		return strings.Join(lines, "\n"), nil
	}
	c, err := x.w.Completeness(ctx, x.revision, x.grace)
	if err != nil { // the time may be over
		return "", err
	}
	x.expected = c.Expected
	switch {
	case c.Streams == 0 && c.Expected == 0:
		return "no source has announced anything yet", nil
	case c.All, !c.Through.Before(x.until):
		return "", nil
	}
	for _, h := range c.Holds {
		if h.Through.Before(x.until) {
			lines = append(lines, holdLine(h))
		}
	}
	return strings.Join(lines, "\n"), nil
}

// holdLine says how a stream holds its dataset back.
func holdLine(h sink.Hold) string {
	if h.Incarnation == uuid.Nil && h.Through.IsZero() {
		return fmt.Sprintf("source %s: the manifest expects it, and it was never heard of", printable(h.Source))
	}
	if h.Incarnation == uuid.Nil {
		return fmt.Sprintf("source %s: it is continuous and has no open stream; its last announcement was at %s", printable(h.Source), h.Through.Format(time.DateTime))
	}
	line := fmt.Sprintf("source %s, stream %s: ", printable(h.Source), h.Incarnation)
	switch {
	case h.Covered < h.Announced:
		line += fmt.Sprintf("batch %d of %d is not loaded", h.Covered+1, h.Announced)
	case h.Heard.IsZero():
		line += "nothing is known of it"
	default:
		line += "it was last heard of at " + h.Heard.Format(time.DateTime)
	}
	if h.Fault != "" {
		line += fmt.Sprintf("; %d of its announcements were not taken (%s)", h.Refused, h.Fault)
	}
	return line
}
