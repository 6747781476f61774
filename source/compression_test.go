package source

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"tallyman/internal/kafkaconn"
)

// The numbers are those of Kafka's record batches.
func TestCompression(t *testing.T) {
	codes := map[string]uint8{"": 4, kafkaconn.Zstd: 4, kafkaconn.LZ4: 3, kafkaconn.Snappy: 2, kafkaconn.Gzip: 1, kafkaconn.None: 0}
	for _, name := range append(kafkaconn.Compressions(), "") {
		t.Run("by "+name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t).topic(nil)
			s := r.open(func(c *Config) { c.Kafka.Compression = name })
			want := orders(100, "as good as gold")
			noError(t, s.Append(t.Context(), want))
			r.flush(s)
			r.wantTopic(want)
			client, err := kgo.NewClient(kgo.SeedBrokers(r.broker.Addrs()...), kgo.ConsumeTopics(r.manifest.Topic))
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			fetched := client.PollFetches(r.context())
			if err := fetched.Err(); err != nil {
				t.Fatal(err)
			}
			for _, record := range fetched.Records() {
				if got := record.Attrs.CompressionType(); got != codes[name] {
					t.Errorf("a message is compressed by %d, want %d", got, codes[name])
				}
			}
		})
	}
}
