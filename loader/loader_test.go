package loader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"tallyman/internal/kafkaconn"
	"tallyman/internal/sandbox"
	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/sink"
)

// patience bounds every wait of these tests.
const patience = 60 * time.Second

// memory is a warehouse in memory: positions, and how often each id was loaded.
type memory struct {
	mu        sync.Mutex
	positions map[sink.Partition]sink.Position
	loaded    map[uuid.UUID]int
	away      error         // what everything answers during an outage
	frozen    chan struct{} // a COMMIT in flight hangs until it is closed; nil: none does
	hanging   chan struct{} // closed when one does
}

func newMemory() *memory {
	return &memory{positions: map[sink.Partition]sink.Position{}, loaded: map[uuid.UUID]int{}, hanging: make(chan struct{})}
}

// setAway begins or, with nil, ends an outage.
func (m *memory) setAway(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.away = err
}

// count returns how many ids were loaded.
func (m *memory) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.loaded)
}

// Assign implements sink.Positions.
func (m *memory) Assign(_ context.Context, _ sink.Revision, ps []sink.Partition) ([]sink.Position, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []sink.Position
	for _, p := range ps {
		if _, ok := m.positions[p]; !ok {
			m.positions[p] = sink.Position{Partition: p, Era: 1, LogStart: -1}
		}
		out = append(out, m.positions[p])
	}
	return out, m.away
}

// Move implements sink.Positions; nothing of these tests moves a position.
func (m *memory) Move(context.Context, sink.Revision, sink.Move) (sink.Position, error) {
	return sink.Position{}, errors.New("moved")
}

// Manifest implements sink.Manifests: there is only the revision's own.
func (m *memory) Manifest(context.Context, sink.Revision, string) (*schema.Manifest, error) {
	return nil, nil
}

// Window implements Warehouse.
func (m *memory) Window(context.Context) (sink.Window, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return sink.Window{End: time.Now().Add(365 * 24 * time.Hour)}, m.away
}

// NewCommitter implements Warehouse.
func (m *memory) NewCommitter() sink.Committer { return m }

// Close implements sink.Committer.
func (m *memory) Close() error { return nil }

// Commit implements sink.Committer.
func (m *memory) Commit(_ context.Context, g *sink.Group) (res sink.Result, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away != nil {
		return res, m.away
	}
	if frozen := m.frozen; frozen != nil {
		close(m.hanging)
		m.mu.Unlock()
		<-frozen
		m.mu.Lock()
	}
	for _, a := range g.Advances {
		if p := m.positions[a.Partition]; p.Era != a.Era || p.Next != a.From {
			return res, &sink.Error{Class: sink.Fenced, Err: errors.New("the position is elsewhere")}
		}
	}
	for _, a := range g.Advances {
		p := m.positions[a.Partition]
		p.Next, p.Anchor = a.To, a.Anchor
		m.positions[a.Partition] = p
	}
	for _, e := range g.Elements {
		m.loaded[e.Batch.ID]++
		res.Outcomes = append(res.Outcomes, sink.Loaded)
	}
	return res, nil
}

// rig is a topic with batches and a loader of them.
type rig struct {
	*memory
	*Loader
	t        testing.TB
	manifest schema.Manifest
	broker   *sandbox.Broker
	registry *prometheus.Registry
	stop     func() error
}

func newRig(t testing.TB, tune func(m *memory)) *rig {
	t.Helper()
	manifest, err := schema.ParseManifest([]byte("dataset: ads/clicks\ncolumns:\n- {name: n, type: int64}\n"))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{memory: newMemory(), t: t, manifest: manifest, broker: sandboxtest.Broker(t, sandbox.BrokerConfig{}), registry: prometheus.NewRegistry()}
	if tune != nil {
		tune(r.memory)
	}
	if err := r.broker.CreateTopic(manifest.Topic, 2, nil); err != nil {
		t.Fatal(err)
	}
	conn, err := kafkaconn.New(kafkaconn.Config{Brokers: r.broker.Addrs(), MetadataTTL: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	r.Loader, err = New(Config{
		Revision: sink.Revision{ID: 1, Manifest: manifest, State: sink.Active}, Conn: conn, Warehouse: r.memory,
		Registerer: r.registry, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	r.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return r
}

// publish writes batches of one row to both partitions.
func (r *rig) publish(n int) {
	r.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(r.broker.Addrs()...), kgo.DefaultProduceTopic(r.manifest.Topic),
		kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		r.t.Fatal(err)
	}
	defer client.Close()
	for i := range n {
		b := &batch.Batch{
			ID: batch.NewID(), Source: "test", Dataset: r.manifest.Dataset, ContentType: batch.NDJSON, Rows: 1,
			Value: fmt.Appendf(nil, `{"n":%d}`+"\n", i),
		}
		b.Time, _ = batch.TimeOf(b.ID)
		b.Seal()
		record := &kgo.Record{Partition: int32(i % 2), Key: b.Key(), Value: b.Value}
		for _, h := range b.Headers() {
			record.Headers = append(record.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
		if err := client.ProduceSync(r.t.Context(), record).FirstErr(); err != nil {
			r.t.Fatal(err)
		}
	}
}

// until asks again and again, as probes and scrapes do.
func (r *rig) until(what string, condition func() bool) {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !condition(); <-tick.C {
		if time.Now().After(end) {
			r.t.Fatalf("waited %v for %s; Ready: %v", patience, what, r.Ready())
		}
	}
}

// up returns the gauge's value.
func (r *rig) up() float64 {
	families, err := r.registry.Gather()
	if err != nil {
		r.t.Error(err)
	}
	for _, f := range families {
		if f.GetName() == "tallyman_warehouse_up" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	return -1
}

// TestLoads sees batches through, and the end of a load that has nothing to do.
func TestLoads(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.publish(20)
	r.until("all to be loaded", func() bool { return r.count() == 20 })
	r.until("the warehouse to be up", func() bool { return r.up() == 1 })
	r.until("no trouble", func() bool { return r.Ready() == nil })
	began := time.Now()
	if err := r.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the end took %v", took)
	}
	for id, n := range r.loaded {
		if n != 1 {
			t.Errorf("batch %s was loaded %d times", id, n)
		}
	}
	if err := r.Ready(); err == nil || !strings.HasPrefix(err.Error(), "ads/clicks: not a member") {
		t.Errorf("Ready: %v", err)
	}
}

// TestWarehouseUp sees an outage told where a transaction waits, and where
// nothing does.
func TestWarehouseUp(t *testing.T) {
	t.Parallel()
	away := &sink.Error{Class: sink.Retryable, Err: errors.New("planted")}
	r := newRig(t, func(m *memory) { m.away = away })
	if got := r.up(); got != 0 {
		t.Errorf("up is %v before anybody asked", got)
	}
	r.setAway(nil)
	r.until("the warehouse to be up", func() bool { return r.up() == 1 })
	r.setAway(away)
	r.until("the outage to be told, though nothing came", func() bool { return r.up() == 0 })
	r.setAway(nil)
	r.until("the warehouse to be up again", func() bool { return r.up() == 1 && r.Ready() == nil })
	r.setAway(away)
	r.publish(2)
	r.until("the waiting transaction to be told", func() bool { return r.up() == 0 && r.Ready() != nil })
	r.setAway(nil)
	r.until("all to be loaded", func() bool { return r.count() == 2 })
	r.until("the warehouse to be up in the end", func() bool { return r.up() == 1 && r.Ready() == nil })
}

// TestEndsInTime tells a loader to end while the answer to a COMMIT, which
// nothing may cancel, does not come.
func TestEndsInTime(t *testing.T) {
	t.Parallel()
	frozen := make(chan struct{})
	r := newRig(t, func(m *memory) { m.frozen = frozen })
	defer close(frozen)
	r.publish(1)
	select {
	case <-r.hanging:
	case <-time.After(patience):
		t.Fatal("nothing was committed")
	}
	began := time.Now()
	if err := r.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the end took %v", took)
	}
}
