package consume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
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
	// ReadAhead bounds the memory, in bytes, of records that were handed over
	// and not yet released. Defaults to 32 MiB.
	ReadAhead int64
	// MaxBatchBytes bounds a record batch, compressed and decompressed; larger
	// ones are refused. Defaults to 32 MiB.
	MaxBatchBytes int64
	// FetchBytes is how much a broker is asked for at a time, compressed. Defaults to 2 MiB.
	FetchBytes int32
	// RequestTimeout bounds one request, the broker's own wait not counted. Defaults to 10 s.
	RequestTimeout time.Duration
	// MetadataEvery is how often the topic's layout is looked at. Defaults to 3 s.
	MetadataEvery time.Duration
	// StallAfter is how long a broker may have something and not send it before
	// the session starts anew on fresh connections. Defaults to 60 s.
	StallAfter time.Duration
	// DrainTimeout bounds the wait for commits in flight when partitions are given up. Defaults to 6 s.
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
	def(&c.MaxBatchBytes, 32<<20)
	def(&c.FetchBytes, 2<<20)
	def(&c.RequestTimeout, 10*time.Second)
	def(&c.MetadataEvery, 3*time.Second)
	def(&c.StallAfter, time.Minute)
	def(&c.DrainTimeout, 6*time.Second)
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
	config    Config
	cluster   *cluster
	budget    *budget
	inflaters *inflaters
	examining chan struct{} // held by whoever examines a log
	balancer  *balancer
	metrics   *metrics

	mu       sync.Mutex
	session  *session          // nil between generations
	hints    map[int]int64     // positions that the group has not been told yet
	troubles map[trouble]error // why something is not read
}

// trouble is what does not work, with the number of the partition or broker
// where it has one.
type trouble struct {
	what   troubled
	number int32
}

// troubled is a kind of trouble, in the order in which it is told.
type troubled uint8

const (
	atStart    troubled = iota // Kafka can't be asked what has to be known first
	membership                 // the group was not joined
	layout                     // the topic's leaders are not known
	aBroker                    // it does not answer
	aPartition                 // it can't be read
	aStall                     // it is not sent
)

// examinations is how many logs are examined at the same time.
const examinations = 4

// New builds a Consumer; Run makes it work.
func New(config Config) (*Consumer, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Consumer{
		config: config,
		cluster: &cluster{
			transport: config.Conn.Transport(), addr: config.Conn.Addr(), clientID: config.Conn.Dialer().ClientID,
			topic: config.Topic, timeout: config.RequestTimeout, maxBatch: config.MaxBatchBytes,
		},
		budget:    newBudget(config.ReadAhead),
		examining: make(chan struct{}, examinations),
		balancer:  &balancer{},
		hints:     map[int]int64{},
		troubles:  map[trouble]error{},
	}
	c.setSession(nil)
	if c.inflaters, err = newInflaters(min(runtime.GOMAXPROCS(0), 4), config.MaxBatchBytes, c.budget); err != nil {
		return nil, err
	}
	if c.metrics, err = newMetrics(config.Registerer, c); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return c, nil
}

// Run reads until ctx ends, which is no error; then it has given up its
// partitions and left the group.
func (c *Consumer) Run(ctx context.Context) error {
	switch err := c.prepare(ctx); {
	case ctx.Err() != nil:
		return nil //nolint:nilerr // the end is no error
	case err != nil:
		return err
	}
	group, err := kafka.NewConsumerGroup(c.groupConfig())
	if err != nil {
		return fmt.Errorf("consumer group %s: %w", c.config.Group, err)
	}
	last, err := c.generations(ctx, group)
	if !c.leave(group, last) {
		c.config.Logger.Warn("left the consumer group without its coordinator's word", "group", c.config.Group)
	}
	return err
}

func (c *Consumer) groupConfig() kafka.ConsumerGroupConfig {
	return kafka.ConsumerGroupConfig{
		ID:                c.config.Group,
		Brokers:           c.config.Conn.Brokers(),
		Dialer:            c.config.Conn.Dialer(),
		Topics:            []string{c.config.Topic},
		GroupBalancers:    []kafka.GroupBalancer{c.balancer},
		HeartbeatInterval: min(c.config.SessionTimeout/4, time.Second), // a rebalance is noticed at the next one
		SessionTimeout:    c.config.SessionTimeout,
		RebalanceTimeout:  c.config.DrainTimeout + 7*time.Second,
		JoinGroupBackoff:  500 * time.Millisecond,
		Timeout:           c.config.RequestTimeout,
	}
}

// generations takes one generation of the group after another. It returns the
// session of the last one, which may still be ending; nil: there was none.
func (c *Consumer) generations(ctx context.Context, group *kafka.ConsumerGroup) (last *session, err error) {
	for {
		gen, err := group.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return last, nil //nolint:nilerr // the end is no error
		case err != nil:
			c.note(trouble{what: membership}, fmt.Errorf("join consumer group %s: %w", c.config.Group, err))
			c.config.Logger.Info("consumer group is not ready; trying again", "group", c.config.Group, "cause", err)
			continue
		}
		last = newSession(c, gen)
		gen.Start(last.run)
		select {
		case <-last.done:
		case <-ctx.Done():
			return last, nil // leave waits for the session
		}
		if last.fatal != nil {
			return last, last.fatal
		}
	}
}

// leaveLimit is how long the group is waited for once the last session has
// ended; what the library does beyond that ends with the process.
const leaveLimit = time.Second

// leave leaves the group, which ends the last session. It returns false if that
// took too long.
func (c *Consumer) leave(group *kafka.ConsumerGroup, last *session) bool {
	left := make(chan struct{})
	go func() {
		defer close(left)
		_ = group.Close() // tells what Next would have told
	}()
	timer := time.NewTimer(c.config.DrainTimeout + lastWait + leaveLimit)
	defer timer.Stop()
	if last != nil {
		select {
		case <-last.done:
			timer.Reset(leaveLimit) // a coordinator that is away must not use up the whole limit
		case <-timer.C:
			return false
		}
	}
	select {
	case <-left:
		return true
	case <-timer.C:
		return false
	}
}

// prepare checks, once, what a person would have to mend. An outage is waited for.
func (c *Consumer) prepare(ctx context.Context) error {
	wait := newBackOff()
	for {
		err := c.check(ctx)
		var missing *kafkaconn.MissingAPIError
		var refused *kafkaconn.SecurityError
		if err == nil || ctx.Err() != nil || errors.As(err, &missing) || errors.As(err, &refused) || errors.Is(err, errUnfit) {
			c.note(trouble{what: atStart}, nil)
			return err
		}
		pause := wait.NextBackOff()
		c.note(trouble{what: atStart}, err)
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

// note keeps why something does not work; nil: it does.
func (c *Consumer) note(what trouble, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		delete(c.troubles, what)
	} else {
		c.troubles[what] = err
	}
}

// Healthy returns nil, or why this member does not read something that it
// should: it has not joined the group, a broker or the warehouse's positions
// are away, the topic is missing, or a partition makes no progress.
func (c *Consumer) Healthy() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, what := range slices.SortedFunc(maps.Keys(c.troubles), func(a, b trouble) int {
		return cmp.Or(cmp.Compare(a.what, b.what), cmp.Compare(a.number, b.number))
	}) {
		errs = append(errs, c.troubles[what])
	}
	return errors.Join(errs...)
}

// Reset has the positions of partitions read again; what is handed over of them
// before their next Begin is out of date. It does not block.
func (c *Consumer) Reset(partitions []int32) {
	if s := c.current(); s != nil {
		s.reset(partitions)
	}
}

// HighWater returns a partition's high watermark as the last fetch told it;
// false if this member does not read the partition.
func (c *Consumer) HighWater(partition int32) (int64, bool) {
	if s := c.current(); s != nil {
		if f := s.flows[partition]; f != nil {
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

// setSession notes which partitions are owned; nil: none.
func (c *Consumer) setSession(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session = s
	if s == nil {
		// What is missing without a session is the session, and an old stall.
		maps.DeleteFunc(c.troubles, func(t trouble, _ error) bool { return t.what != aStall && t.what != layout })
		c.troubles[trouble{what: membership}] = fmt.Errorf("not a member of consumer group %s", c.config.Group)
		return
	}
	delete(c.troubles, trouble{what: membership})
	maps.DeleteFunc(c.troubles, func(t trouble, _ error) bool { return t.what == aStall && s.flows[t.number] == nil })
}
