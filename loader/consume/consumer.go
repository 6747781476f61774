package consume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"

	"tallyman/internal/kafkaconn"
	"tallyman/sink"
)

// Config is what a Consumer works with.
type Config struct {
	// Conn is the way to the cluster. Required.
	Conn *kafkaconn.Conn
	// Topic is the dataset's topic. Required.
	Topic string
	// Group is the consumer group's name. Required.
	Group string
	// Revision is whose positions are read. Required.
	Revision sink.Revision
	// Positions are in the warehouse. Required.
	Positions sink.Positions
	// Handler takes the records. Required.
	Handler Handler
	// SessionTimeout is how long the brokers wait for a silent member. Defaults to 6 s.
	SessionTimeout time.Duration
	// ReadAhead bounds the decompressed bytes that are handed over and not yet released. Defaults to 32 MiB.
	ReadAhead int64
	// MaxBatchBytes bounds a record batch, compressed and decompressed; larger
	// ones are refused. Defaults to 64 MiB.
	MaxBatchBytes int64
	// FetchBytes is how much a broker is asked for at a time, compressed. Defaults to 2 MiB.
	FetchBytes int
	// RequestTimeout bounds one request, the broker's own wait not counted. Defaults to 10 s.
	RequestTimeout time.Duration
	// MetadataEvery is how often the topic's layout is looked at. Defaults to 3 s.
	MetadataEvery time.Duration
	// StallAfter is how long brokers may leave every request unanswered before
	// the session starts anew. Defaults to 60 s.
	StallAfter time.Duration
	// DrainTimeout bounds the wait for commits in flight when partitions are given up. Defaults to 8 s.
	DrainTimeout time.Duration
	// Logger takes what a person should know. Defaults to none.
	Logger *slog.Logger
	// Registerer takes the metrics. Defaults to one that nobody reads.
	Registerer prometheus.Registerer
}

func (c Config) withDefaults() (Config, error) {
	if c.Conn == nil || c.Topic == "" || c.Group == "" || c.Positions == nil || c.Handler == nil {
		return c, errors.New("consume: Conn, Topic, Group, Positions and Handler are required")
	}
	def(&c.SessionTimeout, 6*time.Second)
	def(&c.ReadAhead, 32<<20)
	def(&c.MaxBatchBytes, 64<<20)
	def(&c.FetchBytes, 2<<20)
	def(&c.RequestTimeout, 10*time.Second)
	def(&c.MetadataEvery, 3*time.Second)
	def(&c.StallAfter, time.Minute)
	def(&c.DrainTimeout, 8*time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	return c, nil
}

// def sets *p to value where it is zero.
func def[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}

// Consumer is one member of a consumer group on one topic.
type Consumer struct {
	config  Config
	cluster *cluster
	budget  *budget
	large   chan struct{} // see inflater
	metrics *metrics

	mu      sync.Mutex
	session *session         // nil between generations
	hints   map[int]int64    // positions that the group has not been told yet
	trouble map[string]error // why nothing is read, by what has the trouble
}

// New builds a Consumer; Run makes it work.
func New(config Config) (*Consumer, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Consumer{
		config: config,
		cluster: &cluster{
			transport: config.Conn.Transport(), addr: config.Conn.Addr(), clientID: "tallyman",
			topic: config.Topic, timeout: config.RequestTimeout, maxBatch: config.MaxBatchBytes,
		},
		budget:  newBudget(config.ReadAhead),
		large:   make(chan struct{}, 1),
		hints:   map[int]int64{},
		trouble: map[string]error{"group": errors.New("not a member of the consumer group yet")},
	}
	if c.metrics, err = newMetrics(config.Registerer, c); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return c, nil
}

// Run reads until ctx ends, which is no error; then it has given up its
// partitions and left the group.
func (c *Consumer) Run(ctx context.Context) error {
	if err := c.prepare(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	group, err := kafka.NewConsumerGroup(c.groupConfig())
	if err != nil {
		return fmt.Errorf("consumer group %s: %w", c.config.Group, err)
	}
	err = c.generations(ctx, group)
	c.leave(group)
	return err
}

func (c *Consumer) groupConfig() kafka.ConsumerGroupConfig {
	return kafka.ConsumerGroupConfig{
		ID:                c.config.Group,
		Brokers:           c.config.Conn.Brokers(),
		Dialer:            c.config.Conn.Dialer(),
		Topics:            []string{c.config.Topic},
		GroupBalancers:    []kafka.GroupBalancer{kafka.RangeGroupBalancer{}},
		HeartbeatInterval: c.config.SessionTimeout / 4,
		SessionTimeout:    c.config.SessionTimeout,
		RebalanceTimeout:  c.config.DrainTimeout + 7*time.Second,
		JoinGroupBackoff:  500 * time.Millisecond,
		Timeout:           c.config.RequestTimeout,
	}
}

// generations takes one generation of the group after another.
func (c *Consumer) generations(ctx context.Context, group *kafka.ConsumerGroup) error {
	for {
		gen, err := group.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			c.note("group", fmt.Errorf("join consumer group %s: %w", c.config.Group, err))
			c.config.Logger.Info("consumer group is not ready; trying again", "group", c.config.Group, "cause", err)
			continue
		}
		s := newSession(c, gen)
		gen.Start(func(ended context.Context) { s.run(ctx, ended) })
		select {
		case <-s.done:
		case <-ctx.Done():
			return nil // leave waits for the session
		}
		if s.fatal != nil {
			return s.fatal
		}
	}
}

// leaveLimit is how long the group is waited for; what the library does beyond
// that ends with the process.
const leaveLimit = 2 * time.Second

// leave leaves the group, which waits for the session's end.
func (c *Consumer) leave(group *kafka.ConsumerGroup) {
	left := make(chan struct{})
	go func() {
		defer close(left)
		_ = group.Close() // tells what Next would have told
	}()
	timer := time.NewTimer(c.config.DrainTimeout + leaveLimit)
	defer timer.Stop()
	select {
	case <-left:
	case <-timer.C:
		c.config.Logger.Warn("left the consumer group without its coordinator's word", "group", c.config.Group)
	}
}

// prepare checks, once, what a person would have to mend. An outage is waited for.
func (c *Consumer) prepare(ctx context.Context) error {
	wait := newBackOff()
	for {
		err := c.check(ctx)
		var missing *kafkaconn.MissingAPIError
		if err == nil || ctx.Err() != nil || errors.As(err, &missing) || errors.Is(err, errUnfit) {
			c.note("brokers", nil)
			return err
		}
		pause := wait.NextBackOff()
		c.note("brokers", err)
		c.config.Logger.Warn("Kafka is not there; waiting", "cause", err, "pause", pause)
		if !sleep(ctx, pause) {
			return ctx.Err()
		}
	}
}

// errUnfit marks a topic that can't be loaded from.
var errUnfit = errors.New("topic can't be loaded from")

func (c *Consumer) check(ctx context.Context) error {
	if err := c.config.Conn.APICheck(ctx); err != nil {
		return err
	}
	config, err := c.config.Conn.TopicConfig(ctx, c.config.Topic)
	switch {
	case errors.Is(err, kafkaconn.ErrNoTopic):
		return fmt.Errorf("%w: topic %s does not exist: make it with tallyman dataset apply", errUnfit, c.config.Topic)
	case err != nil:
		return err
	case config.CleanupPolicy != "" && config.CleanupPolicy != "delete":
		return fmt.Errorf("%w: topic %s has cleanup.policy=%s, which drops batches: set it to delete", errUnfit, c.config.Topic, config.CleanupPolicy)
	}
	return nil
}

// newBackOff returns growing pauses from 100 ms to 5 s, with jitter.
func newBackOff() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = 100*time.Millisecond, 5*time.Second
	return b
}

// sleep returns false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// note keeps why something does not work, or that it does.
func (c *Consumer) note(what string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		delete(c.trouble, what)
	} else {
		c.trouble[what] = err
	}
}

// Healthy returns nil, or why this member reads nothing.
func (c *Consumer) Healthy() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, err := range c.trouble {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Reset has the positions of partitions read again; until their next Begin
// nothing more is handed over of them. It does not block.
func (c *Consumer) Reset(partitions []int32) {
	if s := c.current(); s != nil {
		for _, number := range partitions {
			s.reopen(number, "the position moved elsewhere")
		}
	}
}

// Committed tells the group, a little later, that a position moved: a hint for
// lag tools, which nothing here reads. It does not block.
func (c *Consumer) Committed(partition int32, next int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hints[int(partition)] = next
}

// HighWater returns a partition's high watermark as the last fetch told it;
// false if this member does not read the partition.
func (c *Consumer) HighWater(partition int32) (int64, bool) {
	if s := c.current(); s != nil {
		if f := s.flow(partition); f != nil {
			high := f.high.Load()
			return high, high >= 0
		}
	}
	return 0, false
}

func (c *Consumer) current() *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session
}

func (c *Consumer) setSession(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session = s
	if s != nil {
		clear(c.hints)
		delete(c.trouble, "group")
	} else {
		c.trouble = map[string]error{"group": errors.New("not a member of the consumer group")}
	}
}

// takeHints returns what the group has not been told yet.
func (c *Consumer) takeHints() map[int]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	hints := c.hints
	c.hints = map[int]int64{}
	return hints
}
