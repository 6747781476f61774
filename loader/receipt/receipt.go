// Package receipt tells sources, on a topic of the cluster, what the warehouse
// has of their streams and what is missing, so that they publish that again and
// trim the rest.
//
// Any member does it at any time: the warehouse hands each receipt out to one of
// them, and one that is told twice does no harm. Nothing that goes wrong here
// holds up loading.
package receipt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"

	"tallyman/internal/kafkaconn"
	"tallyman/schema/batch"
	"tallyman/sink"
)

// Config describes a writer of receipts.
type Config struct {
	// Receipts is the warehouse that owes them. Required.
	Receipts sink.Receipts
	// Conn is the way to the cluster. Required.
	Conn *kafkaconn.Conn
	// Revision is whose streams they are of. Required.
	Revision sink.Revision
	// Grace is how long after its announcement a batch counts as missing. Required.
	Grace time.Duration
	// Every is how often it is looked what is due, and how long a stream is left
	// alone after that. Defaults to 5 s.
	Every time.Duration
	// Logger takes alarms. Defaults to none.
	Logger *slog.Logger
	// Registerer takes the metrics. Defaults to none.
	Registerer prometheus.Registerer
}

const (
	defaultEvery = 5 * time.Second
	again        = 5 * time.Minute  // a receipt that has not changed
	lease        = 30 * time.Second // more than sendLimit
	sendLimit    = 15 * time.Second
	endLimit     = 2 * time.Second // after the member was told to end
	atOnce       = 100             // streams that are looked at together
	inARow       = 10              // times that this is done before a pause
	reminder     = time.Minute
)

// Writer writes the receipts of one revision.
type Writer struct {
	cfg      Config
	kafka    *kafka.Writer
	all      bool // that streams announced long ago were looked for, too
	told     time.Time
	waits    atomic.Int64 // Unix time, in ns, since when the source that waits longest does; 0: none
	sent     prometheus.Counter
	failures prometheus.Counter
}

// New makes a writer, and registers its metrics.
func New(c Config) (*Writer, error) {
	if c.Receipts == nil || c.Conn == nil || c.Grace <= 0 {
		return nil, errors.New("receipts: Receipts, Conn and Grace are required")
	}
	if c.Every == 0 {
		c.Every = defaultEvery
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	w := &Writer{
		cfg: c,
		kafka: &kafka.Writer{
			Addr: c.Conn.Addr(), Topic: batch.ReceiptsTopic, Transport: c.Conn.Transport(), Balancer: &kafka.Hash{},
			RequiredAcks: kafka.RequireAll, MaxAttempts: 1, BatchTimeout: time.Millisecond,
			ReadTimeout: sendLimit, WriteTimeout: sendLimit, Compression: c.Conn.Compression(),
		},
		sent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tallyman_receipts_sent_total", Help: "Receipts that told sources what of their streams is loaded and what is missing.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tallyman_receipts_failures_total", Help: "Attempts to tell sources that failed; they are repeated.",
		}),
	}
	if c.Registerer == nil {
		return w, nil
	}
	for _, m := range []prometheus.Collector{w.sent, w.failures, w.age()} {
		if err := c.Registerer.Register(m); err != nil {
			return nil, fmt.Errorf("receipts: register metrics: %w", err)
		}
	}
	return w, nil
}

// age is the metric that grows while sources are told nothing, for whatever reason.
func (w *Writer) age() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tallyman_receipts_age_seconds",
		Help: "For how long the source that waits longest was not told what of its stream is loaded and what is missing; 0: none waits.",
	}, func() float64 {
		since := w.waits.Load()
		if since == 0 {
			return 0
		}
		return max(0, time.Since(time.Unix(0, since)).Seconds())
	})
}

// Run writes receipts until ctx ends.
func (w *Writer) Run(ctx context.Context) {
	defer func() { _ = w.kafka.Close() }()
	for {
		if err := w.round(ctx); err != nil && ctx.Err() == nil {
			w.failures.Inc()
			w.complain(err)
		}
		// Members that started together should not ask together.
		pause := w.cfg.Every/2 + rand.N(w.cfg.Every)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// complain raises the alarm, at most once a minute.
func (w *Writer) complain(err error) {
	if time.Since(w.told) < reminder {
		return
	}
	w.told = time.Now()
	hint := ""
	if errors.Is(err, kafka.UnknownTopicOrPartition) || errors.Is(err, kafkaconn.ErrNoTopic) {
		hint = "; tallyman dataset apply makes the topic " + batch.ReceiptsTopic
	}
	w.cfg.Logger.Warn("sources can't be told what is loaded and what is missing, trying again; loading goes on"+hint, "cause", err)
}

// round tells what is due. What it takes is nobody else's until the lease ends, so
// a member that is told to end sends that first.
func (w *Writer) round(ctx context.Context) error {
	lasting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(endLimit, cancel) })()
	due := sink.Due{
		Revision: w.cfg.Revision, Cluster: w.cfg.Conn.Cluster(), Grace: w.cfg.Grace, Every: w.cfg.Every,
		Again: again, Lease: lease, Limit: atOnce, All: !w.all,
	}
	for range inARow {
		receipts, looked, err := w.cfg.Receipts.TakeReceipts(lasting, due)
		if err != nil {
			return err
		}
		due.All, w.all = false, true
		if err := w.see(lasting, due); err != nil {
			return err
		}
		if err := w.send(lasting, receipts); err != nil {
			return err
		}
		if err := w.cfg.Receipts.ReceiptsSent(lasting, due, receipts); err != nil {
			return err
		}
		if looked < atOnce || ctx.Err() != nil {
			return nil
		}
	}
	return nil
}

// see notes for how long the source that waits longest does.
func (w *Writer) see(ctx context.Context, due sink.Due) error {
	age, err := w.cfg.Receipts.ReceiptsAge(ctx, due)
	switch {
	case err != nil:
		return err
	case age == 0:
		w.waits.Store(0)
	default:
		w.waits.Store(time.Now().Add(-age).UnixNano())
	}
	return nil
}

// send returns nil once all in-sync replicas have the receipts.
func (w *Writer) send(ctx context.Context, receipts []batch.Receipt) error {
	if len(receipts) == 0 {
		return nil
	}
	messages := make([]kafka.Message, len(receipts))
	for i := range receipts {
		r := &receipts[i]
		value, err := r.Value()
		if err != nil {
			return err
		}
		messages[i] = kafka.Message{Key: r.Key(), Value: value}
		for _, h := range r.Headers() {
			messages[i].Headers = append(messages[i].Headers, kafka.Header{Key: h.Key, Value: h.Value})
		}
	}
	ctx, cancel := context.WithTimeout(ctx, sendLimit)
	defer cancel()
	if err := w.kafka.WriteMessages(ctx, messages...); err != nil {
		var list kafka.WriteErrors
		if errors.As(err, &list) { // all of one topic, so mostly of one cause
			for _, e := range list {
				if e != nil {
					return fmt.Errorf("publish receipts on %s: %w", batch.ReceiptsTopic, e)
				}
			}
		}
		return fmt.Errorf("publish receipts on %s: %w", batch.ReceiptsTopic, err)
	}
	w.sent.Add(float64(len(receipts)))
	return nil
}
