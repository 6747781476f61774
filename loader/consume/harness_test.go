package consume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tallyman/internal/kafkaconn"
	"tallyman/internal/sandbox"
	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/sink"
)

const topic = "ads.clicks"

// patience bounds every wait of these tests; none is expected to come near it.
const patience = 60 * time.Second

// warehouse is positions and a handler reduced to their contracts: what it is
// handed it commits at once, by compare-and-set, unless it is told to hold.
type warehouse struct {
	mu        sync.Mutex
	positions map[int32]sink.Position
	read      map[int32][]Record // that were committed, in order; those that a rewind repeats too
	begins    map[int32][]sink.Position
	gaps      map[int32][]sink.Move
	owner     map[int32]string // by Begin and End
	hold      map[int32]bool   // records of these partitions are kept and not committed
	held      []Record
	refuse    func(op string) error // asked before Assign and Move
	changed   chan struct{}
}

func newWarehouse() *warehouse {
	return &warehouse{
		positions: map[int32]sink.Position{}, read: map[int32][]Record{}, begins: map[int32][]sink.Position{},
		gaps: map[int32][]sink.Move{}, owner: map[int32]string{}, hold: map[int32]bool{}, changed: make(chan struct{}),
	}
}

// update changes the warehouse and wakes who waits for a change.
func (w *warehouse) update(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	close(w.changed)
	w.changed = make(chan struct{})
}

// Assign implements sink.Positions.
func (w *warehouse) Assign(_ context.Context, _ sink.Revision, ps []sink.Partition) (out []sink.Position, err error) {
	w.update(func() {
		if w.refuse != nil {
			if err = w.refuse("assign"); err != nil {
				return
			}
		}
		for _, p := range ps {
			if _, ok := w.positions[p.Number]; !ok {
				w.positions[p.Number] = sink.Position{Partition: p, Era: 1, LogStart: -1}
			}
			out = append(out, w.positions[p.Number])
		}
	})
	return out, err
}

// Move implements sink.Positions.
func (w *warehouse) Move(_ context.Context, _ sink.Revision, m sink.Move) (p sink.Position, err error) {
	w.update(func() {
		if w.refuse != nil {
			if err = w.refuse("move"); err != nil {
				return
			}
		}
		p = w.positions[m.Partition.Number]
		if p.Era != m.Era || p.Next != m.From {
			err = &sink.Error{Class: sink.Fenced, Err: errors.New("the position is elsewhere")}
			return
		}
		p.Next, p.Anchor = m.To, nil
		if m.LogStart >= 0 {
			p.LogStart = m.LogStart
		}
		if m.Rewind {
			p.Era++
		}
		w.positions[m.Partition.Number] = p
		if m.Gap != "" {
			w.gaps[m.Partition.Number] = append(w.gaps[m.Partition.Number], m)
		}
	})
	return p, err
}

// place puts a position somewhere, as another member's commit would.
func (w *warehouse) place(number int32, change func(p *sink.Position)) {
	w.update(func() {
		p := w.positions[number]
		change(&p)
		w.positions[number] = p
	})
}

// member is a handler for one consumer.
type member struct {
	*warehouse
	name     string
	consumer *Consumer
}

// Begin implements Handler.
func (m *member) Begin(p sink.Position) {
	m.update(func() {
		m.drop(p.Partition.Number)
		m.owner[p.Partition.Number] = m.name
		m.begins[p.Partition.Number] = append(m.begins[p.Partition.Number], p)
	})
}

// drop releases what is held of a partition.
func (w *warehouse) drop(number int32) {
	var kept []Record
	for _, r := range w.held {
		if r.Partition.Number == number {
			r.Release()
		} else {
			kept = append(kept, r)
		}
	}
	w.held = kept
}

// Handle implements Handler.
func (m *member) Handle(ctx context.Context, number int32, records []Record) error {
	m.update(func() {
		for _, r := range records {
			if m.hold[number] {
				m.held = append(m.held, r)
			} else {
				m.commit(number, r)
			}
		}
	})
	return ctx.Err()
}

// commit moves the position over one record. The caller holds mu.
func (m *member) commit(number int32, r Record) {
	defer r.Release()
	p := m.positions[number]
	if begun := m.begins[number]; p.Era != begun[len(begun)-1].Era {
		m.consumer.Reset([]int32{number})
		return
	}
	if !r.Skip && r.Refused == nil && r.Offset < p.Next || r.Next <= p.Next {
		panic(fmt.Sprintf("partition %d is at %d: handed %d to %d", number, p.Next, r.Offset, r.Next))
	}
	p.Next, p.LogStart = r.Next, r.LogStart
	if !r.Skip && r.Refused == nil {
		p.Anchor = &sink.Anchor{Offset: r.Offset, Timestamp: r.Timestamp, SHA256: r.Fingerprint()}
	}
	m.positions[number] = p
	m.read[number] = append(m.read[number], r)
	m.consumer.Committed(number, r.Next)
}

// End implements Handler.
func (m *member) End(_ context.Context, numbers []int32) {
	m.update(func() {
		for _, number := range numbers {
			m.drop(number)
			if m.owner[number] == m.name {
				delete(m.owner, number)
			}
		}
	})
}

// until waits for a condition on the warehouse.
func (w *warehouse) until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		w.mu.Lock()
		ok, changed := condition(), w.changed
		w.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-timer.C:
			w.mu.Lock()
			defer w.mu.Unlock()
			t.Fatalf("waited %v for %s; positions %+v", patience, what, w.positions)
		}
	}
}

// values returns what was read of a partition, in order. The caller holds mu,
// or nothing is running any more.
func (w *warehouse) values(number int32) []string {
	var values []string
	for _, r := range w.read[number] {
		if !r.Skip && r.Refused == nil {
			values = append(values, string(r.Value))
		}
	}
	return values
}

// untilRead waits until the last n values read of a partition are these.
func (w *warehouse) untilRead(t testing.TB, number int32, want ...string) {
	t.Helper()
	w.until(t, fmt.Sprintf("the end of partition %d to be %.200q", number, want), func() bool {
		got := w.values(number)
		if len(got) < len(want) {
			return false
		}
		return strings.Join(got[len(got)-len(want):], "\n") == strings.Join(want, "\n")
	})
}

// rig is an embedded broker, a warehouse and consumers between them.
type rig struct {
	t      testing.TB
	broker *sandbox.Broker
	*warehouse
}

func newRig(t testing.TB, c sandbox.BrokerConfig, partitions int32) *rig {
	t.Helper()
	r := &rig{t: t, broker: sandboxtest.Broker(t, c), warehouse: newWarehouse()}
	if partitions > 0 {
		r.create(partitions, nil)
	}
	return r
}

func (r *rig) create(partitions int32, settings map[string]string) {
	r.t.Helper()
	if err := r.broker.CreateTopic(topic, partitions, settings); err != nil {
		r.t.Fatal(err)
	}
}

// running is a consumer at work.
type running struct {
	*Consumer
	t        testing.TB
	registry *prometheus.Registry
	checked  bool         // the test asked what Run returned
	wait     func() error // returns what Run returned
	stop     func() error // ends it first
}

// start runs a consumer. change may be nil.
func (r *rig) start(change func(c *Config)) *running {
	r.t.Helper()
	conn, err := kafkaconn.New(kafkaconn.Config{Brokers: r.broker.Addrs(), MetadataTTL: 100 * time.Millisecond})
	if err != nil {
		r.t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	m := &member{warehouse: r.warehouse, name: fmt.Sprintf("member %p", registry)}
	c := Config{
		Conn: conn, Topic: topic, Group: "test", Positions: r.warehouse, Handler: m,
		SessionTimeout: time.Second, MetadataEvery: 50 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(testLog{r.t}, nil)), Registerer: registry,
	}
	if change != nil {
		change(&c)
	}
	consumer, err := New(c)
	if err != nil {
		r.t.Fatal(err)
	}
	m.consumer = consumer
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- consumer.Run(ctx) }()
	run := &running{Consumer: consumer, t: r.t, registry: registry}
	run.wait = sync.OnceValue(func() error {
		defer cancel()
		defer conn.Close()
		run.checked = true
		select {
		case err := <-ended:
			return err
		case <-time.After(patience):
			return errors.New("Run goes on")
		}
	})
	run.stop = func() error {
		cancel()
		return run.wait()
	}
	r.t.Cleanup(func() {
		if run.checked {
			return
		}
		if err := run.stop(); err != nil {
			r.t.Errorf("Run: %v", err)
		}
	})
	return run
}

// untilHealthy waits until the consumer has no trouble.
func (r *running) untilHealthy() {
	r.t.Helper()
	r.untilHealth("no trouble", func(err error) bool { return err == nil })
}

// untilUnhealthy waits until the consumer tells of a trouble.
func (r *running) untilUnhealthy(want string) {
	r.t.Helper()
	r.untilHealth(want, func(err error) bool { return err != nil && strings.Contains(err.Error(), want) })
}

// untilHealth asks as a probe would, which has no other way.
func (r *running) untilHealth(what string, condition func(error) bool) {
	r.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; <-tick.C {
		err := r.Healthy()
		if condition(err) {
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("waited %v for %s, Healthy: %v", patience, what, err)
		}
	}
}

// metric returns the sum of a metric's samples.
func (r *running) metric(name string) (sum float64) {
	r.t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// testLog writes a consumer's log to the test's.
type testLog struct{ t testing.TB }

func (l testLog) Write(b []byte) (int, error) {
	l.t.Logf("%s", strings.TrimSuffix(string(b), "\n"))
	return len(b), nil
}

// producer returns a client that writes records to the partitions they name.
func (r *rig) producer(options ...kgo.Opt) *kgo.Client {
	r.t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(r.broker.Addrs()...), kgo.DefaultProduceTopic(topic),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(10 * time.Millisecond),
	}, options...)...)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(client.Close)
	return client
}

// produce writes values to a partition as one record batch.
func (r *rig) produce(number int32, values ...string) {
	r.t.Helper()
	client := r.producer(kgo.ProducerLinger(0))
	defer client.Close()
	if err := client.ProduceSync(r.t.Context(), records(number, values...)...).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
}

// lie has the broker answer, once, that a partition's log begins far ahead.
func (r *rig) lie(number int32) *atomic.Int64 {
	var told atomic.Int64
	r.broker.Cluster().ControlKey(int16(kmsg.ListOffsets), func(request kmsg.Request) (kmsg.Response, error, bool) {
		told.Add(1)
		answer := request.ResponseKind().(*kmsg.ListOffsetsResponse)
		t, p := kmsg.NewListOffsetsResponseTopic(), kmsg.NewListOffsetsResponseTopicPartition()
		p.Partition, p.Offset = number, 1<<40
		t.Topic, t.Partitions = topic, append(t.Partitions, p)
		answer.Topics = append(answer.Topics, t)
		return answer, nil, true
	})
	return &told
}

func records(number int32, values ...string) []*kgo.Record {
	var records []*kgo.Record
	for _, v := range values {
		records = append(records, &kgo.Record{
			Partition: number, Key: []byte("key of " + v), Value: []byte(v),
			Headers: []kgo.RecordHeader{{Key: "ce_id", Value: []byte("id of " + v)}, {Key: "ce_type", Value: []byte("test")}},
		})
	}
	return records
}

// numbered returns n values that differ.
func numbered(prefix string, n int) []string {
	var values []string
	for i := range n {
		values = append(values, fmt.Sprintf("%s%d", prefix, i))
	}
	return values
}
