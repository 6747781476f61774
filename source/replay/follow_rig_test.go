package replay

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"tallyman/schema/batch"
	"tallyman/source/journal"
	"tallyman/source/publish"
)

// receipts makes their topic.
func (r *rig) receipts() *rig {
	r.t.Helper()
	if err := r.broker.CreateTopic(batch.ReceiptsTopic, 2, map[string]string{"cleanup.policy": "compact"}); err != nil {
		r.t.Fatal(err)
	}
	return r
}

// config is a replayer's that is quick; change may be nil.
func (r *rig) config(change func(*Config)) Config {
	r.t.Helper()
	p, err := publish.New(publish.Config{Journal: r.journal, Brokers: r.conn.Brokers(), Transport: r.conn.Transport(), Logger: quiet()})
	if err != nil {
		r.t.Fatal(err)
	}
	noError(r.t, p.Start())
	r.t.Cleanup(func() { noError(r.t, p.Close()) })
	r.publisher, r.log, r.metrics = p, &lines{}, prometheus.NewRegistry()
	ended, err := r.journal.Finals(true)
	noError(r.t, err)
	for i := range ended {
		ended[i].Topic = topic
	}
	c := Config{
		Journal: r.journal, Publisher: p, Conn: r.conn, Source: "shop-1", Own: r.stream(), Ended: ended,
		Grace: 100 * time.Millisecond, PollEvery: 20 * time.Millisecond, TrimEvery: 20 * time.Millisecond,
		Logger: slog.New(r.log), Registerer: r.metrics,
	}
	if change != nil {
		change(&c)
	}
	return c
}

// prepare makes a replayer that does nothing by itself.
func (r *rig) prepare(change func(*Config)) {
	r.t.Helper()
	var err error
	if r.replayer, err = prepare(r.config(change)); err != nil {
		r.t.Fatal(err)
	}
}

// start starts a replayer of the open journal.
func (r *rig) start(change func(*Config)) {
	r.t.Helper()
	var err error
	if r.replayer, err = Start(r.config(change)); err != nil {
		r.t.Fatal(err)
	}
	r.running = true
	r.t.Cleanup(r.stop)
}

// stop ends the replayer; what it did last is in the journal then.
func (r *rig) stop() {
	if r.running {
		r.running = false
		noError(r.t, r.replayer.Close())
	}
}

// receipt is what a test has a target say: of the open journal's stream, by the
// source, now, with everything considered, unless it says otherwise.
type receipt struct {
	target    string
	stream    journal.Stream
	source    string
	at        time.Time
	through   uint64
	announced uint64
	missing   []journal.Range
	closed    bool
}

func (r *rig) receipt(s receipt) *batch.Receipt {
	if s.stream == (journal.Stream{}) {
		s.stream = r.stream()
	}
	if s.source == "" {
		s.source = "shop-1"
	}
	if s.at.IsZero() {
		s.at = time.Now()
	}
	return &batch.Receipt{
		Target: s.target, Dataset: s.stream.Dataset, Source: s.source, Incarnation: s.stream.Incarnation,
		Through: s.through, Considered: s.announced, Announced: s.announced, Missing: s.missing, Closed: s.closed, At: s.at,
	}
}

// tell has a target write a receipt.
func (r *rig) tell(s receipt) {
	r.t.Helper()
	m := r.receipt(s)
	value, err := m.Value()
	if err != nil {
		r.t.Fatal(err)
	}
	record := &kgo.Record{Topic: batch.ReceiptsTopic, Key: m.Key(), Value: value}
	for _, h := range m.Headers() {
		record.Headers = append(record.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
	}
	r.produce(record)
}

func (r *rig) produce(record *kgo.Record) {
	r.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(r.broker.Addrs()...))
	if err != nil {
		r.t.Fatal(err)
	}
	defer client.Close()
	if err := client.ProduceSync(r.context(), record).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) deleteTopic(name string) {
	r.t.Helper()
	answer, err := r.conn.Client().DeleteTopics(r.context(), &kafka.DeleteTopicsRequest{Topics: []string{name}})
	if err != nil || answer.Errors[name] != nil {
		r.t.Fatal(err, answer)
	}
}

// ends returns the high watermarks of a topic.
func (r *rig) ends(name string) map[int32]int64 {
	ends, err := r.conn.HighWaters(r.context(), name)
	noError(r.t, err)
	return ends
}

// sent returns how many batches are in the topic.
func (r *rig) sent() (n int) {
	r.t.Helper()
	_, times := r.batches()
	for _, k := range times {
		n += k
	}
	return n
}

// said returns what a target said last of the open journal's stream.
func (r *rig) said(target string) *batch.Receipt {
	r.replayer.mu.Lock()
	defer r.replayer.mu.Unlock()
	if s := r.replayer.book.streams[r.stream()].said[target]; s != nil {
		return s.receipt
	}
	return nil
}

// metric returns a metric, summed over its labels. The gauges are brought up to date.
func (r *rig) metric(name string) (sum float64) {
	r.t.Helper()
	r.replayer.measure()
	families, err := r.metrics.Gather()
	noError(r.t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// eventually waits until ok.
func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), limit)
	defer cancel()
	for !ok() {
		if ctx.Err() != nil {
			_, times := r.batches()
			r.t.Fatalf("never: %s; the topic has %v\n%s", what, times, strings.Join(r.log.all(), "\n"))
		}
		pause(ctx, 10*time.Millisecond)
	}
}

// lines is a log that tests look into.
type lines struct {
	mu   sync.Mutex
	said []string
}

func (l *lines) Enabled(context.Context, slog.Level) bool { return true }
func (l *lines) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *lines) WithGroup(string) slog.Handler            { return l }

// Handle keeps the line.
func (l *lines) Handle(_ context.Context, record slog.Record) error {
	line := record.Level.String() + " " + record.Message
	record.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = append(l.said, line)
	return nil
}

func (l *lines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.said...)
}

func (l *lines) has(part string) bool { return strings.Contains(strings.Join(l.all(), "\n"), part) }
