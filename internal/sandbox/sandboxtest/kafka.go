package sandboxtest

import (
	"os"
	"testing"

	"tallyman/internal/sandbox"
)

// Broker returns an embedded broker of the test's own. It is closed when the
// test ends. The zero config is one broker in memory.
func Broker(t testing.TB, c sandbox.BrokerConfig) *sandbox.Broker {
	t.Helper()
	b, err := sandbox.StartBroker(t.Context(), c)
	if err != nil {
		t.Fatalf("start embedded broker: %v", err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close embedded broker: %v", err)
		}
	})
	return b
}

// RealKafka is set in the environment by `make test-all`, where Apache Kafka
// has to be there; without it tests that need it are skipped.
const RealKafka = "TALLYMAN_REAL_KAFKA"

// Kafka returns an Apache Kafka broker of the test's own, with further listeners
// beside the plain one. It is closed when the
// test ends. The test is skipped where real Kafka is not asked for, and fails
// where it is asked for and can't run.
func Kafka(t testing.TB, listeners ...sandbox.KafkaListener) *sandbox.Kafka {
	t.Helper()
	if os.Getenv(RealKafka) == "" {
		t.Skipf("needs real Apache Kafka: run make test-all, or set %s=1 (JDK 17, Maven)", RealKafka)
	}
	k, err := sandbox.StartKafka(startContext(t), sandbox.KafkaConfig{Listeners: listeners, Progress: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Errorf("close Apache Kafka: %v", err)
		}
	})
	return k
}
