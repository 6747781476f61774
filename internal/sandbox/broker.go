package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// BrokerConfig describes an embedded broker.
type BrokerConfig struct {
	// Brokers is the number of brokers in the cluster, each with a port; more
	// than one lets partitions change leaders. Defaults to 1.
	Brokers int
	// Port is the first broker's port on 127.0.0.1. Defaults to a free one.
	Port int
	// DataDir keeps topics, records and groups on disk, so that they outlive a
	// Stop and take no memory. It must exist or be creatable. Defaults to
	// memory, which a Stop empties.
	DataDir string
	// Partitions is the number of partitions of a topic that is created
	// without one. Defaults to 4.
	Partitions int
	// MinSessionTimeout is the shortest session timeout that a consumer group
	// may ask for. Defaults to 100 ms; Kafka's own default is 6 s.
	MinSessionTimeout time.Duration
	// Users are names and passwords that clients need, by PLAIN, SCRAM-SHA-256
	// or SCRAM-SHA-512; the methods that ask the broker itself then can't.
	// Defaults to none: whoever connects may do everything.
	Users map[string]string
	// Settings are broker settings such as message.max.bytes. Defaults to
	// Kafka's own, as far as the embedded broker knows them.
	Settings map[string]string
	// Logger gets the broker's own lines at debug level. Defaults to none.
	Logger *slog.Logger
	// Listen makes the listeners, so that a test can stand between brokers and
	// clients. Defaults to net.Listen.
	Listen func(network, address string) (net.Listener, error)
}

// Fault is what a broker's Cluster can be told to answer instead of the truth.
type Fault = kfake.Fault

// Broker is an embedded Kafka cluster. Topics are never created by asking for
// them.
type Broker struct {
	config BrokerConfig
	ports  []int // taken by the first start, kept over restarts

	mu      sync.Mutex
	cluster *kfake.Cluster // nil while stopped
}

// ErrBrokerStopped is returned by calls that need a running broker.
var ErrBrokerStopped = errors.New("the embedded broker is stopped")

// StartBroker starts a cluster and returns once it listens.
func StartBroker(ctx context.Context, c BrokerConfig) (*Broker, error) {
	c.Brokers = max(c.Brokers, 1)
	if c.Partitions == 0 {
		c.Partitions = 4
	}
	if c.MinSessionTimeout == 0 {
		c.MinSessionTimeout = 100 * time.Millisecond
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	b := &Broker{config: c, ports: make([]int, c.Brokers)}
	b.ports[0] = c.Port
	if err := b.Start(ctx); err != nil {
		return nil, err
	}
	return b, nil
}

// Start starts a stopped cluster again on the same ports: with a DataDir with
// everything it had, without one empty.
func (b *Broker) Start(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cluster != nil {
		return errors.New("start embedded broker: it is running")
	}
	options := []kfake.Opt{
		kfake.Ports(b.ports...),
		kfake.ClusterID("tallyman-sandbox"),
		kfake.DefaultNumPartitions(b.config.Partitions),
		kfake.GroupMinSessionTimeout(b.config.MinSessionTimeout),
		kfake.BrokerConfigs(b.config.Settings),
		kfake.WithLogger(brokerLogger{b.config.Logger}),
	}
	if b.config.DataDir != "" {
		options = append(options, kfake.DataDir(b.config.DataDir))
	}
	for user, password := range b.config.Users {
		options = append(options, kfake.EnableSASL())
		for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
			options = append(options, kfake.Superuser(mechanism, user, password))
		}
	}
	if b.config.Listen != nil {
		options = append(options, kfake.ListenFn(b.config.Listen))
	}
	cluster, err := kfake.NewCluster(options...)
	if err != nil {
		return fmt.Errorf("start embedded broker: %w", err)
	}
	for i, addr := range cluster.ListenAddrs() {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			cluster.Close()
			return fmt.Errorf("start embedded broker: %w", err)
		}
		b.ports[i], _ = strconv.Atoi(port)
	}
	b.cluster = cluster
	return nil
}

// Stop closes every connection and port. What was acknowledged is kept if
// there is a DataDir. A stopped broker is no error.
func (b *Broker) Stop() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cluster != nil {
		b.cluster.Close()
		b.cluster = nil
	}
	return nil
}

// Close stops the cluster for good. DataDir is left as it is.
func (b *Broker) Close() error { return b.Stop() }

// Addr returns the first broker's address, host:port.
func (b *Broker) Addr() string { return b.Addrs()[0] }

// Addrs returns every broker's address.
func (b *Broker) Addrs() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	addrs := make([]string, len(b.ports))
	for i, port := range b.ports {
		addrs[i] = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	}
	return addrs
}

// Cluster returns the running cluster, nil while the broker is stopped, for
// injecting faults and moving leaders. A restart makes another one.
func (b *Broker) Cluster() *kfake.Cluster {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cluster
}

// CreateTopic makes a topic; partitions of 0 means the configured number, and
// configs may be nil.
func (b *Broker) CreateTopic(name string, partitions int32, configs map[string]string) error {
	return b.do("create topic "+name, func(c *kfake.Cluster) error {
		return c.CreateTopic(name, partitions, configs)
	})
}

// DeleteTopic removes a topic and every group's offsets in it. Made again, it
// has another topic id, and its offsets start at 0.
func (b *Broker) DeleteTopic(name string) error {
	return b.do("delete topic "+name, func(c *kfake.Cluster) error { return c.DeleteTopic(name) })
}

// DeleteRecords moves the partition's log start to the offset before, as
// retention would; -1 means the high watermark.
func (b *Broker) DeleteRecords(topic string, partition int32, before int64) error {
	return b.do(fmt.Sprintf("delete records of %s/%d", topic, partition), func(c *kfake.Cluster) error {
		return c.DeleteRecords(topic, partition, before)
	})
}

func (b *Broker) do(what string, f func(*kfake.Cluster) error) error {
	cluster := b.Cluster()
	if cluster == nil {
		return fmt.Errorf("%s: %w", what, ErrBrokerStopped)
	}
	if err := f(cluster); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// AddPartitions makes the topic have total partitions, which must be more than
// it has.
func (b *Broker) AddPartitions(ctx context.Context, topic string, total int32) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Addrs()...))
	if err != nil {
		return fmt.Errorf("add partitions to %s: %w", topic, err)
	}
	defer client.Close()
	asked := kmsg.NewCreatePartitionsRequestTopic()
	asked.Topic, asked.Count = topic, total
	request := kmsg.NewPtrCreatePartitionsRequest()
	request.Topics = append(request.Topics, asked)
	answer, err := request.RequestWith(ctx, client)
	if err != nil {
		return fmt.Errorf("add partitions to %s: %w", topic, err)
	}
	for _, t := range answer.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return fmt.Errorf("add partitions to %s: %w", topic, err)
		}
	}
	return nil
}

// brokerLogger passes the cluster's lines on.
type brokerLogger struct{ log *slog.Logger }

// Logf implements kfake.Logger.
func (l brokerLogger) Logf(level kfake.LogLevel, format string, args ...any) {
	if level == kfake.LogLevelDebug || !l.log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	l.log.Debug(fmt.Sprintf(format, args...), "part", "broker")
}
