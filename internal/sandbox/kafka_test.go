package sandbox_test

import (
	"strings"
	"testing"

	"github.com/segmentio/kafka-go"

	"tallyman/internal/sandbox/sandboxtest"
)

// What was acknowledged outlives SIGKILL, on the same address.
func TestKafkaKeepsWhatItAcknowledged(t *testing.T) {
	k := sandboxtest.Kafka(t)
	out, err := k.Tool(t.Context(), "org.apache.kafka.tools.TopicCommand", "--create", "--topic", "kept", "--partitions", "2")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "Created topic kept") {
		t.Errorf("the tool said %q", out)
	}
	transport := &kafka.Transport{} // the default one outlives the test
	defer transport.CloseIdleConnections()
	w := &kafka.Writer{Addr: kafka.TCP(k.Addr()), Topic: "kept", RequiredAcks: kafka.RequireAll, Transport: transport}
	if err := w.WriteMessages(t.Context(), kafka.Message{Value: []byte("here")}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := k.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := k.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for partition := range 2 {
		conn, err := kafka.DialLeader(t.Context(), "tcp", k.Addr(), "kept", partition)
		if err != nil {
			t.Fatal(err)
		}
		first, last, err := conn.ReadOffsets()
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		if last-first == 1 {
			return
		}
	}
	t.Error("no partition has the message")
}
