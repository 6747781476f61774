package torture

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"tallyman/internal/sandbox"
	"tallyman/internal/sandbox/sandboxtest"
)

// machine is what a cluster runs on: an embedded broker or Apache Kafka.
type machine interface {
	Addr() string
	Start(ctx context.Context) error
	Stop() error
}

// cluster is a Kafka cluster that a test hurts by what any administrator can
// do, and by its disk.
type cluster struct {
	t *testing.T
	machine
	empty func() error // the disk of the stopped machine
}

// embedded returns a cluster of the test's own, whose topics outlive a stop.
func embedded(t *testing.T) *cluster {
	t.Helper()
	dir := t.TempDir()
	b := sandboxtest.Broker(t, sandbox.BrokerConfig{DataDir: dir})
	return &cluster{t: t, machine: b, empty: func() error { return emptyDir(dir) }}
}

// apache is Apache Kafka, where it is asked for.
func apache(t *testing.T) *cluster {
	t.Helper()
	k := sandboxtest.Kafka(t)
	return &cluster{t: t, machine: k, empty: func() error { return k.LoseDisk(t.Context()) }}
}

// on runs a test on both kinds of cluster.
func on(t *testing.T, test func(t *testing.T, start func(t *testing.T) *cluster)) {
	for name, start := range map[string]func(t *testing.T) *cluster{"embedded": embedded, "apache": apache} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, start)
		})
	}
}

// stop ends the machine; what it acknowledged stays on its disk.
func (c *cluster) stop() {
	c.t.Helper()
	if err := c.Stop(); err != nil {
		c.t.Fatal(err)
	}
}

// start runs it again.
func (c *cluster) start() {
	c.t.Helper()
	if err := c.Start(c.t.Context()); err != nil {
		c.t.Fatal(err)
	}
}

// loseDisk restarts it on an empty disk, at the same address.
func (c *cluster) loseDisk() {
	c.t.Helper()
	c.stop()
	if err := c.empty(); err != nil {
		c.t.Fatal(err)
	}
	c.start()
}

// client returns a client that speaks as old as it can: later versions name
// topics by ids, which a test has no use for.
func (c *cluster) client() (*kgo.Client, error) {
	return kgo.NewClient(kgo.SeedBrokers(c.Addr()), kgo.MaxVersions(kversion.V3_0_0()))
}

// ask makes a request to the cluster until it is answered without a passing error.
func ask[A any](c *cluster, request func(ctx context.Context, client *kgo.Client) (A, error)) A {
	c.t.Helper()
	client, err := c.client()
	if err != nil {
		c.t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	for tick := time.NewTicker(100 * time.Millisecond); ; <-tick.C {
		answer, err := request(ctx, client)
		if err == nil {
			tick.Stop()
			return answer
		}
		passes := !errors.As(err, new(*kerr.Error)) || kerr.IsRetriable(err) ||
			errors.Is(err, kerr.UnknownMemberID) // until the session of a killed loader has ended
		if ctx.Err() != nil || !passes {
			c.t.Fatal(err)
		}
	}
}

// deleteTopic deletes a topic and returns once it is gone.
func (c *cluster) deleteTopic(topic string) {
	c.t.Helper()
	ask(c, func(ctx context.Context, client *kgo.Client) (struct{}, error) {
		r := kmsg.NewPtrDeleteTopicsRequest()
		named := kmsg.NewDeleteTopicsRequestTopic()
		named.Topic = &topic
		r.TopicNames, r.Topics, r.TimeoutMillis = []string{topic}, append(r.Topics, named), 10_000
		answer, err := r.RequestWith(ctx, client)
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, kerr.ErrorForCode(answer.Topics[0].ErrorCode)
	})
	c.until("topic "+topic+" is gone", func() bool { return c.partitions(topic) == 0 })
}

// partitions returns how many a topic has; 0: there is no such topic.
func (c *cluster) partitions(topic string) int {
	c.t.Helper()
	return ask(c, func(ctx context.Context, client *kgo.Client) (int, error) { return partitions(ctx, client, topic) })
}

func partitions(ctx context.Context, client *kgo.Client, topic string) (int, error) {
	r := kmsg.NewPtrMetadataRequest()
	named := kmsg.NewMetadataRequestTopic()
	named.Topic = &topic
	r.Topics = append(r.Topics, named)
	answer, err := r.RequestWith(ctx, client)
	if err != nil {
		return 0, err
	}
	if err := kerr.ErrorForCode(answer.Topics[0].ErrorCode); errors.Is(err, kerr.UnknownTopicOrPartition) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	return len(answer.Topics[0].Partitions), nil
}

// ends returns the offset behind the last record of each partition.
func (c *cluster) ends(topic string) []int64 {
	c.t.Helper()
	return ask(c, func(ctx context.Context, client *kgo.Client) ([]int64, error) { return offsets(ctx, client, topic, -1) })
}

// offsets returns an offset of each partition, by a time as Kafka has them: -1
// for behind the last record, -2 for the first.
func offsets(ctx context.Context, client *kgo.Client, topic string, at int64) ([]int64, error) {
	n, err := partitions(ctx, client, topic)
	if err != nil {
		return nil, err
	}
	r := kmsg.NewPtrListOffsetsRequest()
	r.ReplicaID = -1
	named := kmsg.NewListOffsetsRequestTopic()
	named.Topic = topic
	for p := range n {
		part := kmsg.NewListOffsetsRequestTopicPartition()
		part.Partition, part.Timestamp = int32(p), at
		named.Partitions = append(named.Partitions, part)
	}
	r.Topics = append(r.Topics, named)
	found := make([]int64, n)
	for _, shard := range client.RequestSharded(ctx, r) {
		if shard.Err != nil {
			return nil, shard.Err
		}
		answer, ok := shard.Resp.(*kmsg.ListOffsetsResponse)
		if !ok {
			return nil, fmt.Errorf("offsets were answered by %T", shard.Resp)
		}
		for _, p := range answer.Topics[0].Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return nil, err
			}
			found[p.Partition] = p.Offset
		}
	}
	return found, nil
}

// membersOf returns how many members the loaders' group has, and its state.
func membersOf(ctx context.Context, client *kgo.Client, group string) (n int, state string, err error) {
	r := kmsg.NewPtrDescribeGroupsRequest()
	r.Groups = []string{group}
	for _, shard := range client.RequestSharded(ctx, r) {
		if shard.Err != nil {
			return 0, "", shard.Err
		}
		answer, ok := shard.Resp.(*kmsg.DescribeGroupsResponse)
		if !ok {
			return 0, "", fmt.Errorf("a group was answered by %T", shard.Resp)
		}
		if err := kerr.ErrorForCode(answer.Groups[0].ErrorCode); err != nil {
			return 0, "", err
		}
		n, state = len(answer.Groups[0].Members), answer.Groups[0].State
	}
	return n, state, nil
}

// expire removes all records of a topic, as retention does.
func (c *cluster) expire(topic string) {
	c.t.Helper()
	ends := c.ends(topic)
	ask(c, func(ctx context.Context, client *kgo.Client) (struct{}, error) {
		r := kmsg.NewPtrDeleteRecordsRequest()
		r.TimeoutMillis = 10_000
		named := kmsg.NewDeleteRecordsRequestTopic()
		named.Topic = topic
		for p, end := range ends {
			part := kmsg.NewDeleteRecordsRequestTopicPartition()
			part.Partition, part.Offset = int32(p), end
			named.Partitions = append(named.Partitions, part)
		}
		r.Topics = append(r.Topics, named)
		for _, shard := range client.RequestSharded(ctx, r) {
			if shard.Err != nil {
				return struct{}{}, shard.Err
			}
			answer, ok := shard.Resp.(*kmsg.DeleteRecordsResponse)
			if !ok {
				return struct{}{}, fmt.Errorf("a deletion was answered by %T", shard.Resp)
			}
			for _, p := range answer.Topics[0].Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return struct{}{}, err
				}
			}
		}
		return struct{}{}, nil
	})
}

// commit has a group's offsets say that it has read all there is of a topic.
func (c *cluster) commit(group, topic string) {
	c.t.Helper()
	ends := c.ends(topic)
	ask(c, func(ctx context.Context, client *kgo.Client) (struct{}, error) {
		r := kmsg.NewPtrOffsetCommitRequest()
		r.Group, r.Generation = group, -1
		named := kmsg.NewOffsetCommitRequestTopic()
		named.Topic = topic
		for p, end := range ends {
			part := kmsg.NewOffsetCommitRequestTopicPartition()
			part.Partition, part.Offset = int32(p), end
			named.Partitions = append(named.Partitions, part)
		}
		r.Topics = append(r.Topics, named)
		answer, err := r.RequestWith(ctx, client)
		if err != nil {
			return struct{}{}, err
		}
		for _, p := range answer.Topics[0].Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, nil
	})
}

// until waits until something is so.
func (c *cluster) until(what string, so func() bool) {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	for tick := time.NewTicker(50 * time.Millisecond); ; <-tick.C {
		if so() {
			tick.Stop()
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%s: not so after %v", what, patience)
		}
	}
}
