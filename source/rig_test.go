package source

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"tallyman/internal/sandbox"
	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/schema/rows"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		fmt.Fprintln(os.Stderr, child(dir))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// limit bounds every wait of a test.
const limit = 15 * time.Second

// rig is a broker, and the directory of the one source that publishes to it.
type rig struct {
	t        *testing.T
	broker   *sandbox.Broker
	manifest schema.Manifest
	dir      string
	told     []*batch.Announcement // what read found beside batches, in no order
	again    bool                  // batches may be in the topic more than once
}

const manifest = `
dataset: shop/orders
topic: orders
columns:
  - {name: order_id, type: uuid}
  - {name: amount, type: int64}
  - {name: note, type: text, nullable: true}
`

// newRig returns a rig without a topic.
func newRig(t *testing.T) *rig {
	t.Helper()
	m, err := schema.ParseManifest([]byte(manifest))
	if err != nil {
		t.Fatal(err)
	}
	broker := sandboxtest.Broker(t, sandbox.BrokerConfig{DataDir: t.TempDir()})
	return &rig{t: t, broker: broker, manifest: m, dir: t.TempDir()}
}

// topic makes the topic; settings may be nil.
func (r *rig) topic(settings map[string]string) *rig {
	r.t.Helper()
	if err := r.broker.CreateTopic(r.manifest.Topic, 2, settings); err != nil {
		r.t.Fatal(err)
	}
	return r
}

// tryOpen opens the source after change, which may be nil, had its way.
func (r *rig) tryOpen(change func(*Config)) (*Source, error) {
	c := Config{
		// A short life of metadata, so that a test need not wait until a new
		// topic or a broker's return is seen.
		Manifest: r.manifest, Kafka: Kafka{Brokers: r.broker.Addrs(), MetadataTTL: 50 * time.Millisecond},
		Dir: r.dir, Name: "shop-1", CloseTimeout: 50 * time.Millisecond,
		Logger: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&c)
	}
	s, err := Open(r.t.Context(), c)
	if err == nil {
		r.t.Cleanup(func() { noError(r.t, s.Close()) })
	}
	return s, err
}

func (r *rig) open(change func(*Config)) *Source {
	r.t.Helper()
	s, err := r.tryOpen(change)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// context is the test's, bounded.
func (r *rig) context() context.Context {
	ctx, cancel := context.WithTimeout(r.t.Context(), limit)
	r.t.Cleanup(cancel)
	return ctx
}

// flush waits until everything is published.
func (r *rig) flush(s *Source) {
	r.t.Helper()
	noError(r.t, s.Flush(r.context()))
}

// read returns what the topic holds, stream by stream in the order of
// sequences, which must be 1, 2, 3, … in each.
func (r *rig) read() []*batch.Batch {
	r.t.Helper()
	ctx := r.context()
	client, err := kgo.NewClient(kgo.SeedBrokers(r.broker.Addrs()...), kgo.ConsumeTopics(r.manifest.Topic))
	if err != nil {
		r.t.Fatal(err)
	}
	defer client.Close()
	end, ends := int64(0), map[int32]int64{} // an announcement may come behind them at any time
	for _, p := range r.broker.Cluster().PartitionInfos(r.manifest.Topic) {
		end += p.HighWatermark
		ends[p.Partition] = p.HighWatermark
	}
	var all []*batch.Batch
	r.told = nil
	for seen := int64(0); seen < end; {
		fetched := client.PollFetches(ctx)
		if err := fetched.Err(); err != nil {
			r.t.Fatal(err)
		}
		for _, record := range fetched.Records() {
			if record.Offset >= ends[record.Partition] {
				continue
			}
			seen++
			headers := make([]batch.Header, len(record.Headers))
			for i, h := range record.Headers {
				headers[i] = batch.Header{Key: h.Key, Value: h.Value}
			}
			if batch.KindOf(headers) == batch.IsAnnouncement {
				a, err := batch.ParseAnnouncement(record.Value, headers)
				if err != nil {
					r.t.Fatal(err)
				}
				r.told = append(r.told, a)
				continue
			}
			b, err := batch.Parse(record.Key, record.Value, headers)
			if err != nil {
				r.t.Fatal(err)
			}
			all = append(all, b)
		}
	}
	slices.SortFunc(all, func(a, b *batch.Batch) int {
		if c := bytes.Compare(a.Incarnation[:], b.Incarnation[:]); c != 0 {
			return c
		}
		return int(a.Sequence) - int(b.Sequence)
	})
	last := map[uuid.UUID]uint64{}
	for _, b := range all {
		if last[b.Incarnation]++; b.Sequence != last[b.Incarnation] && !r.again {
			r.t.Errorf("stream %s has number %d where %d is next", b.Incarnation, b.Sequence, last[b.Incarnation])
		}
	}
	return all
}

// wantTopic checks that the topic holds batches of exactly these rows, in this
// order of their sequences.
func (r *rig) wantTopic(want ...[][]any) {
	r.t.Helper()
	codec, err := rows.NewCodec(r.manifest)
	if err != nil {
		r.t.Fatal(err)
	}
	all := r.read()
	counts, wanted := []int{}, []int{}
	for _, b := range all {
		counts = append(counts, b.Rows)
	}
	for _, w := range want {
		wanted = append(wanted, len(w))
	}
	if diff := cmp.Diff(wanted, counts); diff != "" {
		r.t.Errorf("rows of the topic's batches (-want +got):\n%s", diff)
		return
	}
	for i, b := range all {
		var value []byte
		for _, row := range want[i] {
			if value, err = codec.Append(value, b.ID, row); err != nil {
				r.t.Fatal(err)
			}
		}
		if b.Source != "shop-1" || b.Dataset != r.manifest.Dataset || !bytes.Equal(b.Value, value) {
			r.t.Errorf("batch %d of %s, %s does not hold the rows that were appended", i+1, b.Source, b.Dataset)
		}
	}
}

// order is a row.
func order(amount int64, note string) []any {
	return []any{uuid.UUID{15: byte(amount)}, amount, note}
}

// orders are n rows.
func orders(n int, note string) [][]any {
	all := make([][]any, n)
	for i := range all {
		all[i] = order(int64(i), note)
	}
	return all
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// placed puts rows into the open batch, as Append does before it waits.
func placed(s *Source, all [][]any) ([]part, error) {
	var e encoded
	if err := s.encode(&e, uuid.Nil, all); err != nil {
		return nil, err
	}
	return s.place(&e)
}
