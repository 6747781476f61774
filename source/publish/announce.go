package publish

import (
	"context"
	"fmt"

	"github.com/cenkalti/backoff/v5"
	"github.com/segmentio/kafka-go"

	"tallyman/source/journal"
)

// Announce publishes announcements, in their order, and returns once all in-sync
// replicas have them. It tries until ctx ends or the publisher closes. Those
// that are final are noted in the journal.
func (p *Publisher) Announce(ctx context.Context, all ...journal.Announced) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	for _, a := range all {
		if err := p.sender.announce(ctx, a); err != nil {
			return fmt.Errorf("announce stream %s of %s: %w", a.Announcement.Incarnation, a.Announcement.Dataset, err)
		}
		if !a.Announcement.Final {
			continue
		}
		if err := p.cfg.Journal.Finished(a); err != nil {
			return err
		}
	}
	return nil
}

// announce sends one announcement. Failures are counted and not logged: batches
// fail for the same reasons, and say so.
func (s *Sender) announce(ctx context.Context, a journal.Announced) error {
	m := kafka.Message{Topic: a.Topic, Key: a.Announcement.Key(), Value: []byte{}}
	for _, h := range a.Announcement.Headers() {
		m.Headers = append(m.Headers, kafka.Header{Key: h.Key, Value: h.Value})
	}
	wait := &backoff.ExponentialBackOff{
		InitialInterval: firstRetry, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: longestRetry,
	}
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := cause(s.alone.WriteMessages(ctx, m)) // at once: nothing is gathered with it
		if err != nil && ctx.Err() == nil {
			s.failed(a.Topic)
		}
		if final(err) {
			return struct{}{}, backoff.Permanent(&refused{err: err})
		}
		return struct{}{}, err
	}, backoff.WithBackOff(wait), backoff.WithMaxElapsedTime(0))
	return err
}
