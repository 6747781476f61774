package consume

import (
	"fmt"
	"testing"

	"tallyman/internal/sandbox"
)

// Everything that is in the topic arrives, in order, from every partition and
// every leader, and the positions end behind it.
func TestReads(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{Brokers: 3}, 8)
	for number := range int32(8) {
		r.produce(number, numbered(fmt.Sprintf("a%d-", number), 50)...)
	}
	c := r.start(nil)
	for number := range int32(8) {
		r.untilRead(t, number, numbered(fmt.Sprintf("a%d-", number), 50)...)
		r.produce(number, "late")
		r.untilRead(t, number, "late")
	}
	if err := c.Healthy(); err != nil {
		t.Errorf("Healthy: %v", err)
	}
	if high, ok := c.HighWater(3); high != 51 || !ok {
		t.Errorf("HighWater: %d, %t", high, ok)
	}
	if got := c.metric("tallyman_loader_partitions"); got != 8 {
		t.Errorf("%v partitions owned", got)
	}
	if err := c.stop(); err != nil {
		t.Fatal(err)
	}
	if got := c.metric("tallyman_loader_read_ahead_bytes"); got != 0 {
		t.Errorf("%v bytes of the budget were not given back", got)
	}
	if _, ok := c.HighWater(3); ok {
		t.Error("HighWater of a partition that is not owned")
	}
}
