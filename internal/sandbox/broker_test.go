package sandbox_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"tallyman/internal/sandbox"
	"tallyman/internal/sandbox/sandboxtest"
)

// write publishes n records to a topic's partition 0.
func write(t *testing.T, addr, topic string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	w := &kafka.Writer{
		Addr:         kafka.TCP(addr),
		Topic:        topic,
		RequiredAcks: kafka.RequireAll,
		Compression:  kafka.Zstd,
		BatchTimeout: time.Millisecond,
		Transport:    &kafka.Transport{},
		Balancer:     kafka.BalancerFunc(func(kafka.Message, ...int) int { return 0 }),
	}
	defer w.Close()
	defer w.Transport.(*kafka.Transport).CloseIdleConnections()
	messages := make([]kafka.Message, n)
	for i := range messages {
		messages[i].Value = fmt.Appendf(nil, "record %d", i)
	}
	if err := w.WriteMessages(ctx, messages...); err != nil {
		t.Fatal(err)
	}
}

// bounds returns a partition's log start and high watermark.
func bounds(t *testing.T, addr, topic string, partition int) (first, last int64) {
	t.Helper()
	transport := &kafka.Transport{}
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(addr), Timeout: 10 * time.Second, Transport: transport}
	answer, err := client.ListOffsets(t.Context(), &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{
		topic: {kafka.FirstOffsetOf(partition), kafka.LastOffsetOf(partition)},
	}})
	if err != nil {
		t.Fatal(err)
	}
	p := answer.Topics[topic][0]
	if p.Error != nil {
		t.Fatal(p.Error)
	}
	return p.FirstOffset, p.LastOffset
}

// A broker with a data directory comes back on its address with its records;
// one without comes back empty.
func TestBrokerRestart(t *testing.T) {
	t.Parallel()
	for name, dir := range map[string]string{"disk": t.TempDir(), "memory": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begun := time.Now()
			b := sandboxtest.Broker(t, sandbox.BrokerConfig{DataDir: dir})
			t.Logf("start: %v", time.Since(begun))
			if err := b.CreateTopic("clicks", 0, nil); err != nil {
				t.Fatal(err)
			}
			addr := b.Addr()
			write(t, addr, "clicks", 10)
			if err := b.Stop(); err != nil {
				t.Fatal(err)
			}
			if err := b.CreateTopic("other", 1, nil); !errors.Is(err, sandbox.ErrBrokerStopped) {
				t.Fatalf("creating a topic on a stopped broker: %v", err)
			}
			if err := b.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if b.Addr() != addr {
				t.Fatalf("address was %s and is now %s", addr, b.Addr())
			}
			info := b.Cluster().PartitionInfo("clicks", 0)
			if dir == "" {
				if info != nil {
					t.Fatalf("a broker in memory kept its topic over a stop: %+v", info)
				}
				return
			}
			if first, last := bounds(t, addr, "clicks", 0); first != 0 || last != 10 {
				t.Fatalf("after a restart the log is %d to %d, want 0 to 10", first, last)
			}
		})
	}
}

func TestBrokerTopics(t *testing.T) {
	t.Parallel()
	b := sandboxtest.Broker(t, sandbox.BrokerConfig{Brokers: 3})
	if got := len(b.Addrs()); got != 3 {
		t.Fatalf("%d addresses, want 3", got)
	}
	if err := b.CreateTopic("clicks", 0, nil); err != nil {
		t.Fatal(err)
	}
	if got := len(b.Cluster().PartitionInfos("clicks")); got != 4 {
		t.Fatalf("%d partitions by default, want 4", got)
	}
	if err := b.AddPartitions(t.Context(), "clicks", 6); err != nil {
		t.Fatal(err)
	}
	if got := len(b.Cluster().PartitionInfos("clicks")); got != 6 {
		t.Fatalf("%d partitions after two more, want 6", got)
	}
	if err := b.AddPartitions(t.Context(), "clicks", 2); err == nil {
		t.Fatal("fewer partitions were taken")
	}
	write(t, b.Addr(), "clicks", 10)
	if err := b.DeleteRecords("clicks", 0, 7); err != nil {
		t.Fatal(err)
	}
	if first, last := bounds(t, b.Addr(), "clicks", 0); first != 7 || last != 10 {
		t.Fatalf("the log is %d to %d, want 7 to 10", first, last)
	}
	if err := b.DeleteTopic("clicks"); err != nil {
		t.Fatal(err)
	}
	if b.Cluster().TopicInfo("clicks") != nil {
		t.Fatal("the topic is still there")
	}
}

// Asking for a topic does not make it.
func TestBrokerMakesNoTopics(t *testing.T) {
	t.Parallel()
	b := sandboxtest.Broker(t, sandbox.BrokerConfig{})
	transport := &kafka.Transport{}
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(b.Addr()), Transport: transport}
	if _, err := client.Metadata(t.Context(), &kafka.MetadataRequest{Topics: []string{"nobody"}}); err != nil {
		t.Fatal(err)
	}
	if b.Cluster().TopicInfo("nobody") != nil {
		t.Fatal("a metadata request made a topic")
	}
}
