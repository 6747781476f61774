package publish_test

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

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

// rig is a journal, a broker with a topic of one partition, and what a
// publisher between them says.
type rig struct {
	t       *testing.T
	broker  *sandbox.Broker
	wire    *wire
	dir     string
	journal *journal.Journal
	log     *lines
	metrics *prometheus.Registry
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, wire: &wire{}, dir: t.TempDir(), log: &lines{}, metrics: prometheus.NewRegistry()}
	r.broker = sandboxtest.Broker(t, sandbox.BrokerConfig{
		DataDir: t.TempDir(),
		Listen: func(network, address string) (net.Listener, error) {
			l, err := net.Listen(network, address)
			return wiredListener{l, r.wire}, err
		},
	})
	if err := r.broker.CreateTopic(topic, 1, nil); err != nil {
		t.Fatal(err)
	}
	r.open()
	return r
}

// open opens the journal: a new incarnation.
func (r *rig) open() {
	r.t.Helper()
	j, err := journal.Open(journal.Config{Dir: r.dir, Source: "test", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { noError(r.t, j.Close()) })
	r.journal = j
}

// reopen ends the journal's incarnation and begins the next.
func (r *rig) reopen() {
	r.t.Helper()
	noError(r.t, r.journal.Close())
	r.open()
}

// publisher returns a publisher that is not started.
func (r *rig) publisher() *publish.Publisher {
	r.t.Helper()
	// A short life of metadata, so that a test need not wait until what
	// happened to the broker is seen.
	transport := &kafka.Transport{MetadataTTL: 50 * time.Millisecond}
	p, err := publish.New(publish.Config{
		Journal: r.journal, Brokers: r.broker.Addrs(), Transport: transport, Compression: kafka.Zstd,
		Logger: slog.New(r.log), Registerer: r.metrics,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		noError(r.t, p.Close())
		transport.CloseIdleConnections()
	})
	return p
}

// start returns a publisher at work.
func (r *rig) start() *publish.Publisher {
	r.t.Helper()
	p := r.publisher()
	noError(r.t, p.Start())
	return p
}

// add puts a batch of one value into the journal.
func (r *rig) add(value string) *journal.Record {
	r.t.Helper()
	id := batch.NewID()
	at, err := batch.TimeOf(id)
	if err != nil {
		r.t.Fatal(err)
	}
	b := &batch.Batch{
		ID: id, Time: at, Dataset: schema.Dataset{Namespace: "shop", Name: "orders"},
		ContentType: batch.NDJSON, Rows: 1, Value: []byte(value),
	}
	answer, err := r.journal.Append(topic, b)
	if err != nil {
		r.t.Fatal(err)
	}
	return &journal.Record{Key: answer.Key, Topic: topic, Batch: b}
}

// wait waits until everything is published.
func (r *rig) wait(p *publish.Publisher) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), limit)
	defer cancel()
	noError(r.t, p.Wait(ctx))
}

// wantTopic checks that the topic holds exactly these batches: identity,
// headers and bytes, as often as they are named, in any order.
func (r *rig) wantTopic(want ...*journal.Record) {
	r.t.Helper()
	wanted, got := map[string][]*batch.Batch{}, map[string][]*batch.Batch{}
	for _, w := range want {
		wanted[w.Batch.ID.String()] = append(wanted[w.Batch.ID.String()], w.Batch)
	}
	for _, b := range r.read() {
		got[b.ID.String()] = append(got[b.ID.String()], b)
	}
	if diff := cmp.Diff(wanted, got); diff != "" {
		r.t.Errorf("the topic does not hold what was appended (-want +got):\n%s", diff)
	}
}

// wantInTopic checks that the topic holds each of these batches, once or
// oftener, and nothing else: after an end without an answer nobody knows more.
func (r *rig) wantInTopic(want ...*journal.Record) {
	r.t.Helper()
	wanted, got := map[string]*batch.Batch{}, map[string]*batch.Batch{}
	for _, w := range want {
		wanted[w.Batch.ID.String()] = w.Batch
	}
	for _, b := range r.read() {
		got[b.ID.String()] = b
	}
	if diff := cmp.Diff(wanted, got); diff != "" {
		r.t.Errorf("the topic does not hold what was appended (-want +got):\n%s", diff)
	}
}

// read returns what the topic holds; a message whose digest or headers don't fit is fatal.
func (r *rig) read() []*batch.Batch {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), limit)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(r.broker.Addrs()...), kgo.ConsumeTopics(topic))
	if err != nil {
		r.t.Fatal(err)
	}
	defer client.Close()
	var all []*batch.Batch
	for end := r.broker.Cluster().PartitionInfo(topic, 0).HighWatermark; int64(len(all)) < end; {
		fetched := client.PollFetches(ctx)
		noError(r.t, fetched.Err())
		for _, record := range fetched.Records() {
			headers := make([]batch.Header, len(record.Headers))
			for i, h := range record.Headers {
				headers[i] = batch.Header{Key: h.Key, Value: h.Value}
			}
			b, err := batch.Parse(record.Key, record.Value, headers)
			if err != nil {
				r.t.Fatal(err)
			}
			all = append(all, b)
		}
	}
	return all
}

// wantStats checks how many batches the journal counts as unpublished and as set aside.
func (r *rig) wantStats(unpublished, aside int) journal.Stats {
	r.t.Helper()
	st, err := r.journal.Stats()
	noError(r.t, err)
	if st.Unpublished != unpublished || len(st.Aside) != aside {
		r.t.Errorf("journal counts %d unpublished and %d set aside, want %d and %d", st.Unpublished, len(st.Aside), unpublished, aside)
	}
	return st
}

// wantMetric checks a metric, summed over its labels.
func (r *rig) wantMetric(name string, want float64) {
	r.t.Helper()
	families, err := r.metrics.Gather()
	noError(r.t, err)
	got := -1.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		got = 0
		for _, m := range f.GetMetric() {
			got += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	if got != want {
		r.t.Errorf("%s is %v, want %v", name, got, want)
	}
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// lines is a log that tests wait on.
type lines struct {
	mu      sync.Mutex
	said    []string
	waiting map[string]chan struct{}
}

func (l *lines) Enabled(context.Context, slog.Level) bool { return true }
func (l *lines) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *lines) WithGroup(string) slog.Handler            { return l }

// Handle keeps the line and wakes who waits for it.
func (l *lines) Handle(_ context.Context, record slog.Record) error {
	line := record.Level.String() + " " + record.Message
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = append(l.said, line)
	for part, heard := range l.waiting {
		if strings.Contains(line, part) {
			close(heard)
			delete(l.waiting, part)
		}
	}
	return nil
}

// wait returns when a line with that part was written.
func (l *lines) wait(t *testing.T, part string) {
	t.Helper()
	l.mu.Lock()
	heard := make(chan struct{})
	if strings.Contains(strings.Join(l.said, "\n"), part) {
		close(heard)
	} else {
		l.waiting = map[string]chan struct{}{part: heard}
	}
	l.mu.Unlock()
	select {
	case <-heard:
	case <-time.After(limit):
		t.Fatalf("nobody logged %q", part)
	}
}

// wire stands between the broker and its clients. The zero value leaves
// everything alone.
type wire struct {
	mu   sync.Mutex
	cut  int           // answers to produce requests that are still to be lost with their connection
	mute chan struct{} // closed when the first answer was swallowed; nil: answers pass
}

// lose has the next n answers to produce requests lost: the broker has stored
// the messages, and the connection breaks.
func (w *wire) lose(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = n
}

// silence swallows the answers to produce requests. The channel is closed with the first.
func (w *wire) silence() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mute = make(chan struct{})
	return w.mute
}

// answer ends silence.
func (w *wire) answer() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mute = nil
}

type wiredListener struct {
	net.Listener
	wire *wire
}

func (l wiredListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return &wiredConn{Conn: c, wire: l.wire}, err
}

// wiredConn is the broker's end of a connection.
type wiredConn struct {
	net.Conn
	wire *wire

	mu    sync.Mutex
	heard []byte     // of a request that is not complete
	asked []kmsg.Key // not answered yet; brokers answer in order
}

// Read notes which request it is.
func (c *wiredConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard = append(c.heard, b[:n]...)
	for len(c.heard) >= 4 {
		end := 4 + int(binary.BigEndian.Uint32(c.heard))
		if len(c.heard) < end {
			break
		}
		c.asked = append(c.asked, kmsg.Key(binary.BigEndian.Uint16(c.heard[4:])))
		c.heard = c.heard[end:]
	}
	return n, err
}

// Write is called with one whole answer.
func (c *wiredConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	key := c.asked[0]
	c.asked = c.asked[1:]
	c.mu.Unlock()
	w := c.wire
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case key != kmsg.Produce:
	case w.cut > 0:
		w.cut--
		return 0, c.Close()
	case w.mute != nil:
		select {
		case <-w.mute:
		default:
			close(w.mute)
		}
		return len(b), nil
	}
	return c.Conn.Write(b)
}
