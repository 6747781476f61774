package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"tallyman/cmd/tallyman/internal/settings"
	"tallyman/internal/kafkaconn"
	"tallyman/loader/commit"
	"tallyman/loader/consume"
	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/sink"
	"tallyman/sink/postgres"
	"tallyman/source/journal"
)

// What is compared at a time.
const (
	compareBytes   = 16 << 20
	compareBatches = 2_000
)

// anyTime lets a batch be of any time: it is loaded already.
const anyTime = 100 * 365 * 24 * time.Hour

// errCompared ends the reading of a topic that has nothing more to tell.
var errCompared = errors.New("every batch was compared")

// comparer compares messages with the table, some at a time.
type comparer struct {
	revision  sink.Revision
	verifier  *postgres.Verifier
	judge     sink.Judge
	manifests map[string]*schema.Manifest
	piece     []sink.Element
	bytes     int
	left      int // batches to be compared
}

func newComparer(d postgres.DatasetInfo, v *postgres.Verifier) (*comparer, error) {
	judge, err := commit.NewJudge(d.Revision, anyTime)
	if err != nil {
		return nil, err
	}
	c := &comparer{revision: d.Revision, verifier: v, judge: judge, manifests: map[string]*schema.Manifest{}}
	for i := range d.Manifests {
		c.manifests[d.Manifests[i].Hash] = &d.Manifests[i].Manifest
	}
	return c, nil
}

// read has a source of messages call take, and compares them. The source may end
// early, with errCompared.
func (c *comparer) read(ctx context.Context, source func(take func(sink.Message) error) error) error {
	c.piece, c.bytes, c.left = nil, 0, c.verifier.Unsettled()
	err := source(func(m sink.Message) error { return c.take(ctx, m) })
	if err == nil {
		err = c.compare(ctx)
	}
	if errors.Is(err, errCompared) {
		err = nil
	}
	return err
}

// take takes a message, if it is a batch that is to be compared.
func (c *comparer) take(ctx context.Context, m sink.Message) error {
	id, err := batch.ParseID(m.Header("ce_id"))
	if err != nil || !c.verifier.Wants(id) {
		return nil //nolint:nilerr // nothing under that id was loaded
	}
	var by *schema.Manifest
	if ref, err := schema.ParseRef(m.Header("ce_dataschema")); err == nil {
		by = c.manifests[ref.Hash]
	}
	element, _ := c.judge(m, by)
	if element == nil {
		return nil
	}
	c.piece = append(c.piece, *element)
	if c.bytes += len(element.Tuples); c.bytes < compareBytes && len(c.piece) < compareBatches && len(c.piece) < c.left {
		return nil
	}
	return c.compare(ctx)
}

// compare compares what was taken.
func (c *comparer) compare(ctx context.Context) error {
	if err := c.verifier.Compare(ctx, c.piece); err != nil {
		return err
	}
	c.piece, c.bytes = nil, 0
	if c.left = c.verifier.Unsettled(); c.left == 0 {
		return errCompared
	}
	return nil
}

// compareTopic compares the slice that was counted last with what the topic has.
func (p *program) compareTopic(ctx context.Context, cfg settings.Config, c *comparer, progress *progress) error {
	conn, err := p.kafka(cfg)
	if err != nil {
		return err
	}
	defer conn.Close()
	topic := c.revision.Manifest.Topic
	spans, total, err := wholeTopic(ctx, conn, topic)
	if errors.Is(err, kafkaconn.ErrNoTopic) {
		return nil // it has nothing to compare with
	}
	if err != nil {
		return err
	}
	bar := progress.add("offsets of the topic", total)
	scanner := &consume.Scanner{Conn: conn, Topic: topic}
	err = c.read(ctx, func(take func(sink.Message) error) error {
		done := int64(0)
		for _, span := range spans {
			err := scanner.Scan(ctx, []consume.Span{span}, func(m sink.Message, next int64) error {
				bar.set(done + next - span.From)
				return take(m)
			})
			if err != nil {
				return err
			}
			done += span.To - span.From
		}
		return nil
	})
	if err == nil {
		bar.set(total)
	}
	return err
}

// compareJournal compares the slice that was counted last with what the journal
// at or below a directory has. A batch that is damaged there is told of, and is
// as good as not there.
func (p *program) compareJournal(cmd *cobra.Command, root string, c *comparer) error {
	if c.verifier.Unsettled() == 0 {
		return nil
	}
	j, err := p.openJournal(cmd, root)
	if err != nil {
		return err
	}
	defer j.close()
	return c.read(cmd.Context(), func(take func(sink.Message) error) error {
		s := batchSelector{dataset: c.revision.Manifest.Dataset.String(), state: "all"}
		for _, one := range s.choose(j.Contents()) {
			if !c.verifier.Wants(one.held.ID) {
				continue
			}
			record, err := j.Get(one.key)
			if errors.Is(err, journal.ErrCorrupt) {
				j.log.Warn("a batch of the journal can't be read", "batch", one.held.ID, "cause", err)
				continue
			}
			if err != nil {
				return err
			}
			b := record.Batch
			if err := take(sink.Message{Key: b.Key(), Headers: b.Headers(), Value: b.Value}); err != nil {
				return err
			}
		}
		return nil
	})
}

// wholeTopic is everything that a topic has now, and how many offsets that is.
func wholeTopic(ctx context.Context, conn *kafkaconn.Conn, topic string) (spans []consume.Span, total int64, err error) {
	starts, err := conn.LogStarts(ctx, topic)
	if err != nil {
		return nil, 0, err
	}
	ends, err := conn.HighWaters(ctx, topic)
	if err != nil {
		return nil, 0, err
	}
	for _, number := range slices.Sorted(maps.Keys(starts)) {
		spans = append(spans, consume.Span{Partition: number, From: starts[number], To: ends[number]})
		total += ends[number] - starts[number]
	}
	return spans, total, nil
}
