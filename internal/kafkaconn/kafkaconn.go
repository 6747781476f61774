// Package kafkaconn makes every connection to a Kafka cluster from one
// configuration: the Transport and Client for requests, and the Dialer that
// kafka-go's consumer group takes instead. It also answers the few questions
// about brokers and topics that several parts have.
//
// Metadata is served from the transport's cache, at most Config.MetadataTTL
// old: a topic made or a leader moved elsewhere is seen that much later.
package kafkaconn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
)

// Config says which cluster to talk to and how.
type Config struct {
	// Brokers are the addresses, host:port, to find the cluster by. At least
	// one is required.
	Brokers []string
	// Cluster is the name that positions in the warehouse are kept under; it
	// is given by the operator, since cluster ids are fixed in some images.
	// Defaults to "default".
	Cluster string
	// ClientID is what brokers see in their logs and quotas. Defaults to "tallyman".
	ClientID string
	// TLS encrypts connections. Defaults to none: what is sent can be read on the way.
	TLS *TLS
	// SASL authenticates connections. Defaults to none.
	SASL *SASL
	// Compression is how what is published is compressed: one of Compressions.
	// Defaults to zstd.
	Compression string
	// DialTimeout bounds the making of a connection. Defaults to 5 s.
	DialTimeout time.Duration
	// RequestTimeout bounds each request of Client and of this package's
	// helpers; a RoundTrip is bounded by its context alone. Defaults to 30 s.
	RequestTimeout time.Duration
	// IdleTimeout is how long an unused connection is kept. Defaults to 30 s.
	IdleTimeout time.Duration
	// MetadataTTL is how long what is known of topics and leaders is used.
	// Defaults to 3 s.
	MetadataTTL time.Duration
}

// The compressions, by the names that Kafka gives them.
const (
	Zstd   = "zstd"
	LZ4    = "lz4"
	Snappy = "snappy"
	Gzip   = "gzip"
	None   = "none"
)

// Compressions returns the compressions that there are, the smallest messages first.
func Compressions() []string { return []string{Zstd, Gzip, LZ4, Snappy, None} }

// compression returns what kafka-go calls a compression.
func compression(name string) (kafka.Compression, error) {
	switch name {
	case Zstd, "":
		return kafka.Zstd, nil
	case LZ4:
		return kafka.Lz4, nil
	case Snappy:
		return kafka.Snappy, nil
	case Gzip:
		return kafka.Gzip, nil
	case None:
		return 0, nil
	}
	return 0, fmt.Errorf("kafka.compression: %q is none of %s", name, strings.Join(Compressions(), ", "))
}

// Conn is the way to one cluster. It is safe for concurrent use. Nothing is
// dialled before the first request.
type Conn struct {
	config    Config
	pack      kafka.Compression
	addr      net.Addr
	transport *kafka.Transport
	dialer    *kafka.Dialer
}

// New checks the configuration and reads the files that it names. It does not
// connect. The error has a line for each fault of compression, TLS and SASL.
func New(c Config) (*Conn, error) {
	if len(c.Brokers) == 0 {
		return nil, errors.New("no Kafka brokers are configured")
	}
	for _, broker := range c.Brokers {
		if host, port, err := net.SplitHostPort(broker); err != nil || host == "" || port == "" {
			return nil, fmt.Errorf("Kafka broker %q: must be host:port", broker)
		}
	}
	if strings.ContainsAny(c.Cluster, "/ \t\n") {
		return nil, fmt.Errorf("Kafka cluster name %q: must not contain a slash or white space", c.Cluster)
	}
	pack, fault := compression(c.Compression)
	if err := errors.Join(fault, c.TLS.check(), c.SASL.check()); err != nil {
		return nil, err
	}
	setDefault(&c.Cluster, "default")
	setDefault(&c.ClientID, "tallyman")
	setDefault(&c.DialTimeout, 5*time.Second)
	setDefault(&c.RequestTimeout, 30*time.Second)
	setDefault(&c.IdleTimeout, 30*time.Second)
	setDefault(&c.MetadataTTL, 3*time.Second)
	dial := (&dialer{net: net.Dialer{Timeout: c.DialTimeout}, tls: c.TLS, sasl: c.SASL}).dial
	conn := &Conn{
		config: c,
		pack:   pack,
		addr:   kafka.TCP(c.Brokers...),
		transport: &kafka.Transport{
			Dial:        dial,
			DialTimeout: c.DialTimeout,
			IdleTimeout: c.IdleTimeout,
			MetadataTTL: c.MetadataTTL,
			ClientID:    c.ClientID,
		},
		dialer: &kafka.Dialer{
			ClientID: c.ClientID,
			DialFunc: dial,
			Timeout:  c.DialTimeout,
		},
	}
	if c.SASL != nil {
		conn.transport.SASL, conn.dialer.SASLMechanism = fresh{c.SASL}, fresh{c.SASL}
	}
	return conn, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Cluster returns the configured name.
func (c *Conn) Cluster() string { return c.config.Cluster }

// Brokers returns the configured addresses.
func (c *Conn) Brokers() []string { return c.config.Brokers }

// Addr returns the address to send requests to; the transport passes them on
// to the broker that can answer.
func (c *Conn) Addr() net.Addr { return c.addr }

// Transport returns the one transport, for kafka.Writer and for RoundTrip.
func (c *Conn) Transport() *kafka.Transport { return c.transport }

// Compression returns how what is published is compressed.
func (c *Conn) Compression() kafka.Compression { return c.pack }

// Client returns a client on the one transport.
func (c *Conn) Client() *kafka.Client {
	return &kafka.Client{Addr: c.addr, Timeout: c.config.RequestTimeout, Transport: c.transport}
}

// Dialer returns what kafka.ConsumerGroup connects with.
func (c *Conn) Dialer() *kafka.Dialer { return c.dialer }

// Close closes the connections; those in use close when their request ends.
// The Conn can be used again and connects anew.
func (c *Conn) Close() { c.transport.CloseIdleConnections() }

// bound gives a request of this package's helpers its time limit.
func (c *Conn) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, c.config.RequestTimeout,
		fmt.Errorf("no answer from Kafka (%s) in %v", c.addr, c.config.RequestTimeout))
}
