package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/segmentio/kafka-go"

	"tallyman/internal/kafkaconn"
	"tallyman/schema/batch"
	"tallyman/sink"
)

// requestReplay asks the sources, by a message each that whichever has the journal
// carries out, to publish missing batches again for a target.
func requestReplay(ctx context.Context, conn *kafkaconn.Conn, target string, missing []sink.Missing) error {
	now := time.Now().UTC().Truncate(time.Microsecond)
	var messages []kafka.Message
	for _, group := range requestRanges(slices.Clone(missing)) {
		r := batch.Replay{
			ID: uuid.New(), Target: target, Dataset: group[0].Dataset, Source: group[0].Source, Incarnation: group[0].Incarnation,
			RequestedBy: person(), At: now, Expires: now.Add(requestLife),
		}
		for _, m := range group {
			r.Ranges = append(r.Ranges, batch.Range{First: m.First, Last: m.Last})
		}
		value, err := r.Value()
		if err != nil {
			return err
		}
		message := kafka.Message{Key: r.Key(), Value: value}
		for _, h := range r.Headers() {
			message.Headers = append(message.Headers, kafka.Header{Key: h.Key, Value: h.Value})
		}
		messages = append(messages, message)
	}
	w := &kafka.Writer{
		Addr: conn.Addr(), Topic: batch.ReceiptsTopic, Transport: conn.Transport(), Balancer: &kafka.Hash{},
		RequiredAcks: kafka.RequireAll, BatchTimeout: time.Millisecond, Compression: conn.Compression(),
	}
	err := errors.Join(w.WriteMessages(ctx, messages...), w.Close())
	if errors.Is(err, kafka.UnknownTopicOrPartition) {
		err = fmt.Errorf("%w: tallyman dataset apply makes the topic %s; until then, name journals with --journal", err, batch.ReceiptsTopic)
	}
	if err != nil {
		return fmt.Errorf("ask the sources: %w", err)
	}
	return nil
}
