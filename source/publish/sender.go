package publish

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/segmentio/kafka-go"

	"tallyman/source/journal"
)

const (
	requestTimeout = 10 * time.Second
	gatherTime     = 5 * time.Millisecond // small batches share a request
	gatherMessages = 100                  // at most; the writer sets memory aside for as many
	firstRetry     = 50 * time.Millisecond
	longestRetry   = 5 * time.Second
	reminder       = time.Minute
	closeTimeout   = 2 * time.Second // for the requests under way at Close
)

// ErrRefused: the broker will never take the batch, because of what it is.
var ErrRefused = errors.New("the broker refuses the batch")

// Sender puts batches into Kafka, one message each. It keeps no account of
// them; a [Publisher] does. It is safe for concurrent use.
type Sender struct {
	shared    *kafka.Writer // gathers small messages into one request
	alone     *kafka.Writer // one message a request, to find the one that is refused
	transport *transport
	own       *kafka.Transport // to be closed with the sender; nil: the transport is somebody else's
	log       *slog.Logger
	failed    func(topic string) // counts attempts that failed
}

// NewSender returns a sender without a publisher, for who sends batches of a
// journal that nobody publishes. It needs neither Config.Journal nor Registerer.
func NewSender(cfg Config) (*Sender, error) {
	if len(cfg.Brokers) == 0 {
		return nil, errors.New("sender: Brokers are required")
	}
	return newSender(cfg.withDefaults(), func(string) {}), nil
}

func newSender(cfg Config, failed func(topic string)) *Sender {
	s := &Sender{log: cfg.Logger, failed: failed}
	if cfg.Transport == nil {
		s.own = &kafka.Transport{}
		cfg.Transport = s.own
	}
	s.transport = newTransport(cfg.Transport)
	writer := func(size int, bytes int64) *kafka.Writer {
		return &kafka.Writer{
			Addr:         kafka.TCP(cfg.Brokers...),
			Balancer:     &kafka.Hash{},
			MaxAttempts:  1, // retrying is done here, where it can be seen and ended
			BatchSize:    size,
			BatchBytes:   bytes,
			BatchTimeout: gatherTime,
			ReadTimeout:  requestTimeout,
			WriteTimeout: requestTimeout,
			RequiredAcks: kafka.RequireAll,
			Compression:  cfg.Compression,
			Transport:    s.transport,
		}
	}
	s.shared = writer(gatherMessages, int64(cfg.MaxMessageBytes))
	// The writer would compare the size before compression with a limit that is
	// perhaps no longer the topic's. What is alone is for the broker to judge.
	s.alone = writer(1, math.MaxInt64)
	return s
}

// transport is a kafka.Transport whose requests can be ended together. A
// writer's requests end with no context of its caller.
type transport struct {
	kafka.RoundTripper
	ended context.Context // of all requests
	end   context.CancelFunc
}

func newTransport(inner kafka.RoundTripper) *transport {
	t := &transport{RoundTripper: inner}
	t.ended, t.end = context.WithCancel(context.Background())
	return t
}

// RoundTrip implements kafka.RoundTripper.
func (t *transport) RoundTrip(ctx context.Context, addr net.Addr, request kafka.Request) (kafka.Response, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.ended, cancel)()
	return t.RoundTripper.RoundTrip(ctx, addr, request)
}

// refused is the error for a message that the broker will never take.
type refused struct{ err error }

func (r *refused) Error() string   { return ErrRefused.Error() + ": " + r.err.Error() }
func (r *refused) Unwrap() []error { return []error{ErrRefused, r.err} }

// Send returns nil once all in-sync replicas have the batch. It tries until the
// broker refuses it for good, with an error that wraps [ErrRefused], or ctx ends.
func (s *Sender) Send(ctx context.Context, r *journal.Record) error {
	m := message(r)
	wait := &backoff.ExponentialBackOff{
		InitialInterval: firstRetry, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: longestRetry,
	}
	wait.Reset()
	began, said := time.Now(), time.Time{}
	for {
		err := s.attempt(ctx, r, m)
		var no *refused
		if err == nil || errors.As(err, &no) || ctx.Err() != nil {
			if err == nil && !said.IsZero() {
				s.log.Info("publishing again", "topic", r.Topic, "batch", r.Batch.ID, "after", time.Since(began))
			}
			return err
		}
		s.failed(r.Topic)
		if time.Since(said) > reminder {
			said = time.Now()
			s.log.Warn("batch can't be published, trying again", "topic", r.Topic, "batch", r.Batch.ID, "error", err)
		}
		pause := time.NewTimer(wait.NextBackOff())
		select {
		case <-ctx.Done():
			pause.Stop()
			return fmt.Errorf("publish batch %s: %w: last error: %w", r.Batch.ID, ctx.Err(), err)
		case <-pause.C:
		}
	}
}

// attempt sends m, of r, once; if it is refused in company, once more alone.
func (s *Sender) attempt(ctx context.Context, r *journal.Record, m kafka.Message) error {
	err := cause(s.shared.WriteMessages(ctx, m))
	if err != nil {
		r.Keep() // the client may still be writing a request that it has given up
	}
	if final(err) {
		err = cause(s.alone.WriteMessages(ctx, m))
		if final(err) {
			return &refused{err: err}
		}
	}
	return err
}

// cause takes the one message's error out of the writer's list.
func cause(err error) error {
	var list kafka.WriteErrors
	if errors.As(err, &list) && len(list) == 1 {
		return list[0]
	}
	return err
}

// final says whether an error is about the message itself.
func final(err error) bool {
	var tooLarge kafka.MessageTooLargeError
	if errors.As(err, &tooLarge) {
		return true
	}
	var code kafka.Error
	if !errors.As(err, &code) {
		return false
	}
	switch code {
	case kafka.MessageSizeTooLarge, kafka.RecordListTooLarge, kafka.InvalidRecord, kafka.InvalidTimestamp,
		kafka.UnsupportedForMessageFormat, kafka.PolicyViolation:
		return true
	}
	return false
}

func message(r *journal.Record) kafka.Message {
	headers := r.Batch.Headers()
	m := kafka.Message{Topic: r.Topic, Key: r.Batch.Key(), Value: r.Batch.Value, Headers: make([]kafka.Header, len(headers))}
	for i, h := range headers {
		m.Headers[i] = kafka.Header{Key: h.Key, Value: h.Value}
	}
	return m
}

// Close gives the requests under way closeTimeout and then ends them: of a broker
// that does not answer there may be a queue, each with a time-out of its own.
func (s *Sender) Close() error {
	patience := time.AfterFunc(closeTimeout, s.transport.end)
	defer patience.Stop()
	err := errors.Join(s.shared.Close(), s.alone.Close())
	s.transport.end()
	if s.own != nil {
		s.own.CloseIdleConnections()
	}
	return err
}
