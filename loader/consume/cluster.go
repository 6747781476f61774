package consume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/fetch"
	"github.com/segmentio/kafka-go/protocol/listoffsets"
	"github.com/segmentio/kafka-go/protocol/metadata"
)

// The fetch versions that readAnswer decodes: 10 brought zstd (Kafka 2.1).
const (
	minFetch = 10
	maxFetch = 11
)

// Isolation levels of a fetch.
const (
	readUncommitted = int8(0)
	readCommitted   = int8(1)
)

// errNoTopic says that the cluster doesn't know the topic.
var errNoTopic = errors.New("unknown topic")

// errNoAnswer says that a broker did not answer in time.
var errNoAnswer = errors.New("no answer")

// cluster asks brokers about one topic, each question with a deadline.
type cluster struct {
	transport kafka.RoundTripper
	addr      net.Addr
	clientID  string
	topic     string
	timeout   time.Duration
	maxBatch  int64
}

// exchange is a request to the broker that its sender chose; the answer is read
// by this package. The transport would route by metadata up to its time to live
// old, and read in a goroutine where a panic ends the process.
type exchange struct {
	protocol.Message
	broker   int32 // -1: any
	clientID string
	version  int16
	read     func(r io.Reader, version int16) (protocol.Message, error)
}

// Broker routes the request.
func (e *exchange) Broker(protocol.Cluster) (protocol.Broker, error) {
	return protocol.Broker{ID: e.broker}, nil
}

// Required takes note of the version that the broker and the library share.
func (e *exchange) Required(versions map[protocol.ApiKey]int16) bool {
	e.version = versions[e.ApiKey()]
	return true
}

// RawExchange sends the request and reads the answer.
func (e *exchange) RawExchange(rw io.ReadWriter) (m protocol.Message, err error) {
	defer func() {
		if p := recover(); p != nil {
			m, err = nil, &errFrame{detail: fmt.Sprint(p)}
		}
	}()
	if err := protocol.WriteRequest(rw, e.version, correlation, e.clientID, e.Message); err != nil {
		return nil, err
	}
	return e.read(rw, e.version)
}

// correlation numbers every request: a connection carries one at a time.
const correlation = 1

func (c *cluster) ask(ctx context.Context, e *exchange, wait time.Duration) (protocol.Message, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout+wait,
		fmt.Errorf("%w to %s within %s", errNoAnswer, e.ApiKey(), c.timeout+wait))
	defer cancel()
	e.clientID = c.clientID
	m, err := c.transport.RoundTrip(ctx, c.addr, e)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	default:
		return nil, err
	}
	return m, nil
}

// leader is who leads a partition, and since which election.
type leader struct {
	broker int32 // -1: nobody
	epoch  int32
}

// layout returns the leader of each of the topic's partitions, from a broker
// and not from the transport's cache.
func (c *cluster) layout(ctx context.Context) (map[int32]leader, error) {
	m, err := c.ask(ctx, &exchange{
		Message: &metadata.Request{TopicNames: []string{c.topic}},
		broker:  -1,
		read:    readTopic,
	}, 0)
	if err != nil {
		return nil, fmt.Errorf("ask for metadata: %w", err)
	}
	t, ok := m.(*topicAnswer)
	if !ok || t.topic != c.topic {
		return nil, &errFrame{detail: "metadata of another topic"}
	}
	switch err := kafka.Error(t.code); {
	case err == kafka.UnknownTopicOrPartition:
		return nil, errNoTopic
	case t.code != 0:
		return nil, fmt.Errorf("ask for metadata: %w", err)
	}
	return t.leaders, nil
}

// logStart asks a partition's leader where its log begins.
func (c *cluster) logStart(ctx context.Context, broker, partition int32) (int64, error) {
	m, err := c.ask(ctx, &exchange{
		Message: &listoffsets.Request{
			ReplicaID: -1,
			Topics: []listoffsets.RequestTopic{{
				Topic: c.topic,
				Partitions: []listoffsets.RequestPartition{{
					Partition: partition, CurrentLeaderEpoch: -1, Timestamp: kafka.FirstOffset,
				}},
			}},
		},
		broker: broker,
		read:   readOffset,
	}, 0)
	if err != nil {
		return 0, fmt.Errorf("ask for the log's start: %w", err)
	}
	p, ok := m.(*offsetAnswer)
	if !ok || p.topic != c.topic || p.partition != partition {
		return 0, &errFrame{detail: "offsets of another partition"}
	}
	if p.code != 0 {
		return 0, fmt.Errorf("ask for the log's start: %w", kafka.Error(p.code))
	}
	if p.offset < 0 {
		return 0, &errFrame{detail: fmt.Sprintf("a log that starts at %d", p.offset)}
	}
	return p.offset, nil
}

// query is one fetch from one broker.
type query struct {
	broker    int32
	isolation int8
	wait      time.Duration
	maxBytes  int32
	wants     []want
}

// want is a partition in a query.
type want struct {
	partition int32
	offset    int64
	maxBytes  int32
}

// fetch asks a broker for records. The answer speaks of partitions that were
// asked for, of each once.
func (c *cluster) fetch(ctx context.Context, q query) (*answer, error) {
	partitions := make([]fetch.RequestPartition, len(q.wants))
	asked := make(map[int32]bool, len(q.wants))
	for i, w := range q.wants {
		asked[w.partition] = true
		partitions[i] = fetch.RequestPartition{
			Partition: w.partition, CurrentLeaderEpoch: -1, FetchOffset: w.offset,
			LogStartOffset: -1, PartitionMaxBytes: w.maxBytes,
		}
	}
	m, err := c.ask(ctx, &exchange{
		Message: &fetch.Request{
			ReplicaID: -1, MaxWaitTime: int32(q.wait / time.Millisecond), MinBytes: 1, MaxBytes: q.maxBytes,
			IsolationLevel: q.isolation, SessionEpoch: -1,
			Topics: []fetch.RequestTopic{{Topic: c.topic, Partitions: partitions}},
		},
		broker: q.broker,
		read: func(r io.Reader, version int16) (protocol.Message, error) {
			if err := checkVersion("fetch", version, minFetch, maxFetch); err != nil {
				return nil, err
			}
			return readAnswer(r, correlation, version, c.maxBatch)
		},
	}, q.wait)
	if err != nil {
		return nil, fmt.Errorf("fetch: %w", err)
	}
	a, ok := m.(*answer)
	if !ok {
		return nil, &errFrame{detail: "not an answer to a fetch"}
	}
	if a.code != 0 {
		return nil, fmt.Errorf("fetch: %w", kafka.Error(a.code))
	}
	for _, p := range a.partitions {
		if p.topic != c.topic || !asked[p.partition] {
			return nil, &errFrame{detail: "a partition that was not asked for, or twice"}
		}
		delete(asked, p.partition)
	}
	return a, nil
}
