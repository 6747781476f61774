package sandboxtest

import (
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
