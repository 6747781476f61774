package commit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tallyman/loader/consume"
	"tallyman/sink"
)

// Config is what a Handler works with.
type Config struct {
	Revision sink.Revision
	// Committers has one committer for each lane. A lane's share of the
	// partitions is those whose number leaves its index, divided by the lanes.
	Committers []sink.Committer
	// Manifests is asked for a manifest that a batch names and that is not known
	// yet. Defaults to none: there is only the one of Revision.
	Manifests sink.Manifests
	// Ledger is asked for what is loaded while a topic is read again. Defaults to
	// none: then every batch goes into a transaction, which refuses what is loaded.
	Ledger sink.Ledger
	// Reset asks for the positions of partitions to be read again; it must not block.
	Reset func(partitions []int32)
	// Committed hears of every position that a transaction moved; it must not block. Defaults to nothing.
	Committed func(partition int32, next int64)
	// HighWater returns a partition's high watermark. Defaults to what the records told.
	HighWater func(partition int32) (int64, bool)
	// GroupBytes bounds a group's rows, in bytes; one larger batch goes alone. Defaults to 4 MiB.
	GroupBytes int64
	// GroupBatches bounds a group's messages. Defaults to 1,000.
	GroupBatches int
	// PassEvery is how long a position waits that passes nothing to load. Defaults to 1 s.
	PassEvery time.Duration
	// ClockSkew is how far ahead of this clock a batch time may be. Defaults to 1 h.
	ClockSkew time.Duration
	// Grace is how long a missing foreign key is waited for. Defaults to 30 s.
	Grace time.Duration
	// Probe is how often a stopped load tries again. Defaults to 1 min.
	Probe time.Duration
	// BreakerWindow is the number of newest batches of which at most half may go
	// to quarantine; more stops the load. Defaults to 100.
	BreakerWindow int
	// Now is the clock. Defaults to time.Now.
	Now func() time.Time
	// Logger takes what a person should know. Defaults to none.
	Logger *slog.Logger
	// Registerer takes the metrics. Defaults to one that nobody reads.
	Registerer prometheus.Registerer
}

// withDefaults returns c with every default filled in.
func (c Config) withDefaults() Config {
	def(&c.GroupBytes, 4<<20)
	def(&c.GroupBatches, 1000)
	def(&c.PassEvery, time.Second)
	def(&c.ClockSkew, time.Hour)
	def(&c.Grace, 30*time.Second)
	def(&c.Probe, time.Minute)
	def(&c.BreakerWindow, 100)
	if c.Committed == nil {
		c.Committed = func(int32, int64) {}
	}
	if c.HighWater == nil {
		c.HighWater = func(int32) (int64, bool) { return 0, false }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	return c
}

// def sets *p to value where it is zero.
func def[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}

// Handler commits the records that it is handed. It implements consume.Handler.
type Handler struct {
	config  Config
	decoder *decoder
	breaker *breaker
	metrics *metrics
	lanes   []*lane
}

var _ consume.Handler = (*Handler)(nil)

// New builds a Handler; Run makes it work.
func New(config Config) (*Handler, error) {
	config = config.withDefaults()
	if len(config.Committers) == 0 || config.Reset == nil {
		return nil, errors.New("commit: Committers and Reset are required")
	}
	decoder, err := newDecoder(config.Revision, config.ClockSkew, config.Now)
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(config.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	h := &Handler{
		config: config, decoder: decoder, metrics: m, breaker: newBreaker(config.BreakerWindow),
	}
	decoder.refused = func(m sink.Message, fault sink.AnnouncementFault, err error) {
		h.refused(fault, "cause", err, "topic", m.Partition.Topic, "partition", m.Partition.Number, "offset", m.Offset)
	}
	for _, c := range config.Committers {
		h.lanes = append(h.lanes, newLane(h, c))
	}
	if err := config.Registerer.Register(newLag(h)); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return h, nil
}

// refused counts and tells an announcement that was not taken. It changes
// nothing: what was announced before stays.
func (h *Handler) refused(fault sink.AnnouncementFault, details ...any) {
	h.metrics.refused.WithLabelValues(string(fault)).Inc()
	h.config.Logger.Warn("announcement is not taken", append([]any{"fault", fault}, details...)...)
}

// Run works until ctx ends, then closes the committers. A transaction that is
// open then is abandoned by rollback, unless its COMMIT is already on its way.
func (h *Handler) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, l := range h.lanes {
		wg.Go(func() { l.decode(ctx) })
		wg.Go(func() { l.commit(ctx) })
	}
	wg.Wait()
	var errs []error
	for _, l := range h.lanes {
		l.drop(func(int32) bool { return true })
		errs = append(errs, l.committer.Close())
	}
	return errors.Join(errs...)
}

// lane returns the lane that a partition belongs to.
func (h *Handler) lane(partition int32) *lane { return h.lanes[int(partition)%len(h.lanes)] }

// Begin implements consume.Handler.
func (h *Handler) Begin(p sink.Position) { h.lane(p.Partition.Number).begin(p) }

// Handle implements consume.Handler. It does not block: what is queued is
// bounded by the budget from which records are taken until their Release.
func (h *Handler) Handle(ctx context.Context, partition int32, records []consume.Record) error {
	h.lane(partition).handle(partition, records)
	return ctx.Err()
}

// End implements consume.Handler.
func (h *Handler) End(ctx context.Context, partitions []int32) {
	for _, l := range h.lanes {
		l.drop(func(p int32) bool { return slices.Contains(partitions, p) })
	}
	for _, l := range h.lanes {
		l.settle(ctx)
	}
}

// Lag is how far a partition's committed position is behind.
type Lag struct {
	Partition sink.Partition
	Next      int64         // the committed position
	Age       time.Duration // of the oldest batch handed over and not committed, by Kafka's timestamp; 0: none
	Messages  int64         // offsets up to the high watermark
}

// Lags returns the lag of every partition that this member owns.
func (h *Handler) Lags() []Lag {
	var lags []Lag
	now := h.config.Now()
	for _, l := range h.lanes {
		lags = append(lags, l.lags(now)...)
	}
	return lags
}

// Healthy returns nil, or why some partitions are not being committed: an
// outage of the warehouse, or the named cause of a stop.
func (h *Handler) Healthy() error {
	var errs []error
	for _, l := range h.lanes {
		errs = append(errs, l.condition())
	}
	return errors.Join(errs...)
}

// Outage says that a transaction waits for the warehouse to take it.
func (h *Handler) Outage() bool {
	return slices.ContainsFunc(h.lanes, func(l *lane) bool {
		err := l.condition()
		return err != nil && sink.ClassOf(err) == sink.Retryable
	})
}
