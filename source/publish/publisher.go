package publish

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"

	"tallyman/source/journal"
)

// Config describes a publisher.
type Config struct {
	// Journal is what is published. Required.
	Journal *journal.Journal
	// Brokers are host:port. Required.
	Brokers []string
	// Transport connects to them. The publisher does not close it. Defaults to plain TCP.
	Transport *kafka.Transport
	// MaxMessageBytes is the topic's message limit: messages share a request up
	// to it. What exceeds it is sent alone, for the broker to judge. Defaults to 1 MiB.
	MaxMessageBytes int
	// Compression is of the requests. Defaults to none.
	Compression kafka.Compression
	// InFlightBytes bounds the bytes of one stream that wait for the broker. Defaults to 8 MiB.
	InFlightBytes int64
	// Logger gets alarms. Defaults to slog.Default().
	Logger *slog.Logger
	// Registerer takes the metrics. Defaults to none.
	Registerer prometheus.Registerer
}

const (
	defaultMaxMessageBytes = 1 << 20
	defaultInFlightBytes   = 8 << 20
)

func (c Config) withDefaults() Config {
	if c.MaxMessageBytes == 0 {
		c.MaxMessageBytes = defaultMaxMessageBytes
	}
	if c.InFlightBytes == 0 {
		c.InFlightBytes = defaultInFlightBytes
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Publisher sends a journal's batches to Kafka. It is safe for concurrent use.
type Publisher struct {
	cfg     Config
	sender  *Sender
	metrics *metrics
	ctx     context.Context // ends with Close: the lifetime of the goroutines below
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex
	started bool
	lanes   map[journal.Stream]*lane
	changed chan struct{} // closed and replaced whenever a batch left a lane
}

// New returns a publisher that does nothing yet. Its metrics are registered.
func New(cfg Config) (*Publisher, error) {
	if cfg.Journal == nil || len(cfg.Brokers) == 0 {
		return nil, errors.New("publisher: Journal and Brokers are required")
	}
	cfg = cfg.withDefaults()
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("publisher: %w", err)
	}
	p := &Publisher{cfg: cfg, metrics: m, lanes: map[journal.Stream]*lane{}, changed: make(chan struct{})}
	p.sender = newSender(cfg, func(topic string) { m.failures.WithLabelValues(topic).Inc() })
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p, nil
}

// Sender returns what the publisher sends with, until it closes.
func (p *Publisher) Sender() *Sender { return p.sender }

// Since returns runs of numbers of a stream, in no order, among which is
// everything that was published for the first time after t, which is at most ten
// minutes ago.
func (p *Publisher) Since(s journal.Stream, t time.Time) []journal.Range {
	p.mu.Lock()
	l := p.lanes[s]
	p.mu.Unlock()
	if l == nil {
		return nil
	}
	return l.since(t)
}

// Start begins to publish: what earlier openings of the journal left, and what
// [Publisher.Appended] announced and will announce.
func (p *Publisher) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.started {
		return nil
	}
	for key, err := range p.cfg.Journal.Unpublished() {
		if err != nil {
			return fmt.Errorf("start publisher: %w", err)
		}
		if key.Incarnation != p.cfg.Journal.Incarnation() { // this opening's are announced one by one
			p.lane(key.Stream).announce(key.Sequence, nil)
		}
	}
	p.started = true
	for _, l := range p.lanes {
		p.run(l)
	}
	return nil
}

// lane returns a stream's lane. Callers hold p.mu.
func (p *Publisher) lane(s journal.Stream) *lane {
	l := p.lanes[s]
	if l == nil {
		l = newLane(p, s)
		p.lanes[s] = l
		if p.started {
			p.run(l)
		}
	}
	return l
}

// Appended announces a batch of this opening that the journal now holds.
func (p *Publisher) Appended(r *journal.Record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lane(r.Key.Stream).announce(r.Key.Sequence, r)
}

// run starts a lane's goroutine, unless the publisher is closed. Callers hold p.mu.
func (p *Publisher) run(l *lane) {
	if p.ctx.Err() == nil {
		p.running.Go(func() { l.run(p.ctx) })
	}
}

// Wait returns nil once everything announced is published; before that, ctx's
// error or, if nothing else is left, [ErrSetAside].
func (p *Publisher) Wait(ctx context.Context) error {
	for {
		waiting, aside, changed := p.pending()
		switch {
		case waiting == 0 && aside == 0:
			return nil
		case waiting == 0:
			return fmt.Errorf("%d batches: %w", aside, ErrSetAside)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait until %d batches are published: %w", waiting, ctx.Err())
		case <-p.ctx.Done():
			return fmt.Errorf("wait until %d batches are published: %w", waiting, journal.ErrClosed)
		}
	}
}

// ErrSetAside: the broker refuses some batches for good; the journal's
// statistics list them.
var ErrSetAside = errors.New("set aside, because the broker refuses them")

// Pending returns how many announced batches are neither published nor set
// aside, and how many are set aside.
func (p *Publisher) Pending() (waiting, aside int) {
	waiting, aside, _ = p.pending()
	return waiting, aside
}

func (p *Publisher) pending() (waiting, aside int, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lanes {
		w, a := l.counts()
		waiting, aside = waiting+w, aside+a
	}
	return waiting, aside, p.changed
}

// left tells those who wait that a batch left a lane.
func (p *Publisher) left() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.changed)
	p.changed = make(chan struct{})
}

// Close ends publishing and waits for the requests under way, for 2 s at most.
// What is not published stays in the journal.
func (p *Publisher) Close() error {
	p.mu.Lock()
	p.cancel()
	p.mu.Unlock()
	p.running.Wait()
	p.metrics.unregister()
	if err := p.sender.Close(); err != nil {
		return fmt.Errorf("close publisher: %w", err)
	}
	return nil
}
