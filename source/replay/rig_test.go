package replay

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"log/slog"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"tallyman/internal/kafkaconn"
	"tallyman/internal/sandbox"
	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/source/journal"
	"tallyman/source/publish"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// limit bounds every wait of a test.
const limit = 15 * time.Second

const topic = "orders"

func orders() schema.Dataset { return schema.Dataset{Namespace: "shop", Name: "orders"} }

// rig is a journal and a broker with the dataset's topic.
type rig struct {
	t       *testing.T
	broker  *sandbox.Broker
	conn    *kafkaconn.Conn
	dir     string
	journal *journal.Journal

	publisher *publish.Publisher
	replayer  *Replayer
	running   bool
	log       *lines
	metrics   *prometheus.Registry
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir()}
	r.broker = sandboxtest.Broker(t, sandbox.BrokerConfig{DataDir: t.TempDir()})
	if err := r.broker.CreateTopic(topic, 2, nil); err != nil {
		t.Fatal(err)
	}
	var err error
	// A short life of metadata, so that a test need not wait until a new topic is seen.
	if r.conn, err = kafkaconn.New(kafkaconn.Config{Brokers: r.broker.Addrs(), MetadataTTL: 50 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.conn.Close)
	r.open()
	return r
}

func (r *rig) open() {
	r.t.Helper()
	j, err := journal.Open(journal.Config{Dir: r.dir, Source: "shop-1", Logger: quiet()})
	if err != nil {
		r.t.Fatal(err)
	}
	r.journal = j
	r.t.Cleanup(func() { noError(r.t, j.Close()) })
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// stream is this opening's.
func (r *rig) stream() journal.Stream {
	return journal.Stream{Incarnation: r.journal.Incarnation(), Dataset: orders()}
}

// add puts n batches into the journal, as published ones.
func (r *rig) add(n int) (all []*batch.Batch) {
	r.t.Helper()
	for i := range n {
		id := batch.NewID()
		at, err := batch.TimeOf(id)
		noError(r.t, err)
		b := &batch.Batch{ID: id, Time: at, Dataset: orders(), ContentType: batch.NDJSON, Rows: 1, Value: fmt.Appendf(nil, "{\"n\":%d}\n", i)}
		answer, err := r.journal.Append(topic, b)
		if err != nil {
			r.t.Fatal(err)
		}
		noError(r.t, r.journal.MarkPublished(answer.Key))
		all = append(all, b)
	}
	return all
}

// addUnpublished puts a batch into the journal that is not published.
func (r *rig) addUnpublished() *journal.Record {
	r.t.Helper()
	id := batch.NewID()
	at, err := batch.TimeOf(id)
	noError(r.t, err)
	b := &batch.Batch{ID: id, Time: at, Dataset: orders(), ContentType: batch.NDJSON, Rows: 1, Value: []byte("{}\n")}
	answer, err := r.journal.Append(topic, b)
	if err != nil {
		r.t.Fatal(err)
	}
	return &journal.Record{Key: answer.Key, Topic: topic, Batch: b}
}

// sender returns a sender of the open journal.
func (r *rig) sender(store Store, l Limits) *Sender {
	r.t.Helper()
	to, err := publish.NewSender(publish.Config{Brokers: r.conn.Brokers(), Transport: r.conn.Transport(), Logger: quiet()})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { noError(r.t, to.Close()) })
	return NewSender(store, to, l)
}

// context is the test's, bounded.
func (r *rig) context() context.Context {
	ctx, cancel := context.WithTimeout(r.t.Context(), limit)
	r.t.Cleanup(cancel)
	return ctx
}

// messages reads everything that a topic holds.
func (r *rig) messages(name string) []*kgo.Record {
	r.t.Helper()
	ctx := r.context()
	client, err := kgo.NewClient(kgo.SeedBrokers(r.broker.Addrs()...), kgo.ConsumeTopics(name))
	if err != nil {
		r.t.Fatal(err)
	}
	defer client.Close()
	end, ends := int64(0), map[int32]int64{} // announcements and receipts may come behind them at any time
	for _, p := range r.broker.Cluster().PartitionInfos(name) {
		end += p.HighWatermark - p.LogStartOffset
		ends[p.Partition] = p.HighWatermark
	}
	var all []*kgo.Record
	for int64(len(all)) < end {
		fetched := client.PollFetches(ctx)
		if err := fetched.Err(); err != nil {
			r.t.Fatal(err)
		}
		for _, record := range fetched.Records() {
			if record.Offset < ends[record.Partition] {
				all = append(all, record)
			}
		}
	}
	return all
}

// batches returns the batches that the topic holds, by their numbers, and how
// often each comes. All must be whole.
func (r *rig) batches() (found map[uint64]*batch.Batch, times map[uint64]int) {
	r.t.Helper()
	found, times = map[uint64]*batch.Batch{}, map[uint64]int{}
	for _, m := range r.messages(topic) {
		headers := headersOf(m)
		if batch.KindOf(headers) != batch.IsBatch {
			continue
		}
		b, err := batch.Parse(m.Key, m.Value, headers)
		if err != nil {
			r.t.Fatal(err)
		}
		found[b.Sequence] = b
		times[b.Sequence]++
	}
	return found, times
}

func headersOf(m *kgo.Record) []batch.Header {
	headers := make([]batch.Header, len(m.Headers))
	for i, h := range m.Headers {
		headers[i] = batch.Header{Key: h.Key, Value: h.Value}
	}
	return headers
}

// wantTimes checks how often each number is in the topic.
func (r *rig) wantTimes(want map[uint64]int) {
	r.t.Helper()
	if _, times := r.batches(); !cmp.Equal(want, times) {
		r.t.Errorf("batches of the topic (-want +got):\n%s", cmp.Diff(want, times))
	}
}

// damage changes the record of a batch in a journal that is closed: a byte of
// its rows, and the checksum too if that is to be right.
func (r *rig) damage(k journal.Key, sum bool) {
	r.t.Helper()
	db, err := pebble.Open(r.dir, &pebble.Options{FormatMajorVersion: pebble.FormatValueSeparation, Logger: pebbleLog{}})
	if err != nil {
		r.t.Fatal(err)
	}
	name := append([]byte{'b'}, k.Incarnation[:]...)
	name = binary.BigEndian.AppendUint64(append(name, k.Dataset.String()+"\x00"...), k.Sequence)
	value, closer, err := db.Get(name)
	if err != nil {
		r.t.Fatal(err)
	}
	value = bytes.Clone(value)
	noError(r.t, closer.Close())
	value[len(value)-6] ^= 1 // before newline and checksum
	if sum {
		body := value[:len(value)-crc32.Size]
		binary.BigEndian.PutUint32(value[len(body):], crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
	}
	noError(r.t, db.Set(name, value, pebble.Sync))
	noError(r.t, db.Close())
}

// pebbleLog is a store's logger that says nothing.
type pebbleLog struct{}

func (pebbleLog) Infof(string, ...any)  {}
func (pebbleLog) Errorf(string, ...any) {}
func (pebbleLog) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...))
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}
