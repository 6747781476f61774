package receipt

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"tallyman/internal/kafkaconn"
	"tallyman/internal/sandbox"
	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/sink"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

// debts is a warehouse reduced to what it owes: it gives out all of it until
// that is noted as sent.
type debts struct {
	mu     sync.Mutex
	owed   []batch.Receipt
	asked  []sink.Due
	refuse error
	given  func()        // called when something was given out
	paid   chan struct{} // closed when nothing is owed
}

// TakeReceipts implements sink.Receipts.
func (d *debts) TakeReceipts(_ context.Context, due sink.Due) ([]batch.Receipt, int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, due)
	n := min(len(d.owed), due.Limit)
	if n > 0 && d.given != nil {
		d.given()
	}
	return d.owed[:n], n, d.refuse
}

// ReceiptsAge implements sink.Receipts.
func (d *debts) ReceiptsAge(context.Context, sink.Due) (time.Duration, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.owed) == 0 {
		return 0, d.refuse
	}
	return time.Hour, d.refuse
}

// ReceiptsSent implements sink.Receipts.
func (d *debts) ReceiptsSent(_ context.Context, _ sink.Due, sent []batch.Receipt) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.owed = d.owed[len(sent):]
	if len(d.owed) == 0 && len(sent) > 0 {
		close(d.paid)
	}
	return nil
}

func newWriter(t *testing.T, broker *sandbox.Broker, d *debts) (*Writer, func()) {
	t.Helper()
	conn, err := kafkaconn.New(kafkaconn.Config{Brokers: broker.Addrs(), MetadataTTL: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	w, err := New(Config{
		Receipts: d, Conn: conn, Grace: time.Minute, Every: 20 * time.Millisecond,
		Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { w.Run(ctx) })
	return w, func() {
		cancel()
		running.Wait()
		conn.Close()
	}
}

func receipts(n int) (all []batch.Receipt) {
	for range n {
		all = append(all, batch.Receipt{
			Target: "default", Dataset: schema.Dataset{Namespace: "ads", Name: "clicks"}, Source: "s", Incarnation: uuid.New(),
			Through: 2, Considered: 4, Announced: 5, Missing: []batch.Range{{First: 3, Last: 3}}, At: time.UnixMicro(1e15).UTC(),
		})
	}
	return all
}

// A member that is told to end while it holds receipts sends them: nobody else
// would, until the lease ends.
func TestEndsWithWhatItTook(t *testing.T) {
	broker := sandboxtest.Broker(t, sandbox.BrokerConfig{})
	if err := broker.CreateTopic(batch.ReceiptsTopic, 1, nil); err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	d := &debts{owed: receipts(2 * atOnce), given: end, paid: make(chan struct{})}
	conn, err := kafkaconn.New(kafkaconn.Config{Brokers: broker.Addrs()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	w, err := New(Config{Receipts: d, Conn: conn, Grace: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	w.Run(ctx)
	if sent := len(sandboxtest.Records(t, broker, batch.ReceiptsTopic)); sent != atOnce || len(d.owed) != atOnce {
		t.Errorf("%d receipts are sent, %d still owed, want %d each: what it took, and no more", sent, len(d.owed), atOnce)
	}
}

// Without the topic it goes on trying; once that is there, everything owed is told.
func TestTopicComesLater(t *testing.T) {
	broker := sandboxtest.Broker(t, sandbox.BrokerConfig{})
	owed := receipts(2*atOnce + 1)
	d := &debts{owed: owed, paid: make(chan struct{})}
	w, stop := newWriter(t, broker, d)
	defer stop()
	for deadline := time.Now().Add(patience); testutil.ToFloat64(w.failures) < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no failure is counted")
		}
	}
	if age := testutil.ToFloat64(w.age()); age < time.Hour.Seconds() || age > 2*time.Hour.Seconds() {
		t.Errorf("a source waits for %v s, want an hour", age)
	}
	if err := broker.CreateTopic(batch.ReceiptsTopic, 2, map[string]string{"cleanup.policy": "compact"}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-d.paid:
	case <-time.After(patience):
		t.Fatal("receipts are not sent")
	}
	got := map[string]*batch.Receipt{}
	for _, record := range sandboxtest.Records(t, broker, batch.ReceiptsTopic) {
		var headers []batch.Header
		for _, h := range record.Headers {
			headers = append(headers, batch.Header{Key: h.Key, Value: h.Value})
		}
		r, err := batch.ParseReceipt(record.Value)
		if err != nil || batch.KindOf(headers) != batch.IsReceipt {
			t.Fatalf("%v of kind %d: %v", headers, batch.KindOf(headers), err)
		}
		got[string(record.Key)] = r
	}
	want := map[string]*batch.Receipt{}
	for i := range owed {
		want[string(owed[i].Key())] = &owed[i]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("receipts on the topic (-want +got):\n%s", diff)
	}
	if sent := testutil.ToFloat64(w.sent); sent < float64(len(owed)) {
		t.Errorf("%v sent", sent)
	}
	for deadline := time.Now().Add(patience); testutil.ToFloat64(w.age()) != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a source waits, though all was told")
		}
	}
}

// A warehouse that does not answer is asked again; streams of long ago are
// asked for until it has answered once.
func TestWarehouseAway(t *testing.T) {
	broker := sandboxtest.Broker(t, sandbox.BrokerConfig{})
	d := &debts{refuse: errors.New("planted"), paid: make(chan struct{})}
	w, stop := newWriter(t, broker, d)
	defer stop()
	until := func(what string, met func() bool) {
		t.Helper()
		for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			d.mu.Lock()
			ok := met()
			d.mu.Unlock()
			if ok {
				return
			}
			if time.Now().After(deadline) {
				t.Fatal("waited in vain for " + what)
			}
		}
	}
	until("failures", func() bool { return testutil.ToFloat64(w.failures) >= 2 })
	d.mu.Lock()
	for _, due := range d.asked {
		if !due.All {
			t.Error("streams of long ago are not asked for")
		}
	}
	d.refuse, d.asked = nil, nil
	d.mu.Unlock()
	until("answers", func() bool { return len(d.asked) >= 3 })
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, due := range d.asked {
		if due.All != (i == 0) {
			t.Errorf("question %d: all %v", i, due.All)
		}
	}
}
