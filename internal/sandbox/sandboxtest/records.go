package sandboxtest

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"tallyman/internal/sandbox"
)

// Records returns everything that a topic of an embedded broker holds now,
// partition by partition in the order of offsets.
func Records(t testing.TB, b *sandbox.Broker, topic string) []*kgo.Record {
	t.Helper()
	from, left := map[int32]kgo.Offset{}, 0
	ends := map[int32]int64{}
	for _, p := range b.Cluster().PartitionInfos(topic) {
		from[p.Partition] = kgo.NewOffset().At(p.LogStartOffset)
		ends[p.Partition] = p.HighWatermark
		left += int(p.HighWatermark - p.LogStartOffset)
	}
	if left == 0 {
		return nil
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Addrs()...), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))
	if err != nil {
		t.Fatalf("read topic %s: %v", topic, err)
	}
	defer client.Close()
	byPartition := make([][]*kgo.Record, len(ends))
	for left > 0 {
		fetches := client.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatalf("read topic %s: %v", topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset < ends[r.Partition] {
				byPartition[r.Partition] = append(byPartition[r.Partition], r)
				left--
			}
		})
	}
	var all []*kgo.Record
	for _, records := range byPartition {
		all = append(all, records...)
	}
	return all
}
