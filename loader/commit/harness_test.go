package commit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tallyman/loader/consume"
	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/sink"
)

// manifest is the dataset of these tests.
func manifest(t testing.TB) schema.Manifest {
	t.Helper()
	m, err := schema.ParseManifest([]byte("dataset: ads/clicks\ncolumns:\n- {name: n, type: int64}\n"))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// book is a warehouse reduced to its contract: a ledger, positions moved by
// compare-and-set, a quarantine. Faults are planted by hooks, so that every
// decision of this package can be provoked; internal/torture repeats the
// important ones on a real database.
type book struct {
	mu        sync.Mutex
	positions map[int32]sink.Position
	ledger    map[uuid.UUID]batch.Digest
	seals     map[batch.Digest]bool // of the messages that loaded
	order     []uuid.UUID
	dead      []sink.Dead
	groups    []int
	told      []batch.Announcement
	// before is asked before anything is done; an error of it is the outcome.
	before func(g *sink.Group) error
	// after is asked when the group is durable; an error of it is an answer lost.
	after func(g *sink.Group) error
	// gate holds the next transaction up until it is closed; hooks are not asked then.
	gate chan struct{}
	late error // the outcome of the transaction behind the gate, which commits
	// looks counts how often the ledger was asked for what is loaded; blind is the answer's error.
	looks  int
	blind  error
	silent bool // there is no answer at all
}

func (b *book) Close() error { return nil }

// Commit implements sink.Committer.
func (b *book) Commit(_ context.Context, g *sink.Group) (sink.Result, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	gated := b.gate != nil
	if gate := b.gate; gated {
		b.gate = nil
		b.mu.Unlock()
		<-gate
		b.mu.Lock()
	}
	if err := lies(g); err != nil {
		return sink.Result{}, err
	}
	for _, a := range g.Advances {
		p := b.positions[a.Partition.Number]
		if p.Era != a.Era || p.Next != a.From {
			return sink.Result{}, &sink.Error{Class: sink.Fenced, Err: fmt.Errorf("position at %d, not %d", p.Next, a.From)}
		}
	}
	if b.before != nil && !gated {
		if err := b.before(g); err != nil {
			return sink.Result{}, err
		}
	}
	ledger := maps.Clone(b.ledger)
	var res sink.Result
	for _, e := range g.Elements {
		known, ok := ledger[e.Batch.ID]
		switch {
		case !ok:
			ledger[e.Batch.ID] = e.Content
			res.Outcomes = append(res.Outcomes, sink.Loaded)
		case known == e.Content:
			res.Outcomes = append(res.Outcomes, sink.Duplicate)
		default:
			res.Outcomes = append(res.Outcomes, sink.Conflict)
		}
	}
	if g.Admit != nil {
		if err := g.Admit(res); err != nil {
			return sink.Result{}, err
		}
	}
	for i, outcome := range res.Outcomes {
		if outcome == sink.Loaded {
			b.order = append(b.order, g.Elements[i].Batch.ID)
			b.seals[g.Elements[i].Batch.Digest] = true
		}
	}
	b.ledger = ledger
	b.dead = append(b.dead, g.Dead...)
	b.told = append(b.told, g.Announcements...)
	if n := len(g.Elements) + len(g.Dead); n > 0 {
		b.groups = append(b.groups, n)
	}
	for _, a := range g.Advances {
		p := b.positions[a.Partition.Number]
		p.Next = a.To
		if a.Anchor != nil {
			p.Anchor = a.Anchor
		}
		b.positions[a.Partition.Number] = p
	}
	switch {
	case gated:
		return res, b.late
	case b.after != nil:
		return res, b.after(g)
	}
	return res, nil
}

// Loaded implements sink.Ledger.
func (b *book) Loaded(ctx context.Context, _ sink.Revision, batches []*batch.Batch) ([]bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.silent {
		b.looks++
		b.mu.Unlock()
		<-ctx.Done()
		b.mu.Lock()
		return nil, ctx.Err()
	}
	loaded := make([]bool, len(batches))
	for i := range batches {
		loaded[i] = b.seals[batches[i].Digest]
	}
	b.looks++
	return loaded, b.blind
}

// lies returns an error unless every message of g lies within its advances, of
// which each partition has one.
func lies(g *sink.Group) error {
	by := map[int32]sink.Advance{}
	for _, a := range g.Advances {
		if _, again := by[a.Partition.Number]; again || a.To <= a.From {
			return fmt.Errorf("advance %+v is empty or not the only one", a)
		}
		by[a.Partition.Number] = a
	}
	within := func(m *sink.Message) bool {
		a, ok := by[m.Partition.Number]
		return ok && m.Offset >= a.From && m.Offset < a.To
	}
	for i := range g.Elements {
		if !within(&g.Elements[i].Message) {
			return fmt.Errorf("offset %d is outside of the group", g.Elements[i].Offset)
		}
	}
	for i := range g.Dead {
		if !within(&g.Dead[i].Message) {
			return fmt.Errorf("offset %d is outside of the group", g.Dead[i].Offset)
		}
	}
	return nil
}

// rig is a Handler at work on a book, and the log that feeds it.
type rig struct {
	t        testing.TB
	book     *book
	handler  *Handler
	manifest schema.Manifest
	log      map[int32][]consume.Record
	registry *prometheus.Registry
	resets   chan []int32
	cancel   context.CancelFunc
	done     chan error
}

// withRig runs f beside a handler of one lane, in a bubble whose clock moves
// when everybody waits; tune changes the configuration first. The bubble ends
// only if every goroutine has.
func withRig(t *testing.T, tune func(*Config), f func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newRig(t, tune)) })
}

// newRig starts a handler of one lane.
func newRig(t *testing.T, tune func(*Config)) *rig {
	r := &rig{
		t: t, manifest: manifest(t), log: map[int32][]consume.Record{},
		book:     &book{positions: map[int32]sink.Position{}, ledger: map[uuid.UUID]batch.Digest{}, seals: map[batch.Digest]bool{}},
		registry: prometheus.NewRegistry(), resets: make(chan []int32, 1000), done: make(chan error, 1),
	}
	config := Config{
		Revision:   sink.Revision{ID: 1, Manifest: r.manifest, State: sink.Active},
		Committers: []sink.Committer{r.book},
		Reset: func(numbers []int32) {
			r.resets <- numbers
			go r.restart(numbers)
		},
		Registerer: r.registry,
	}
	if tune != nil {
		tune(&config)
	}
	var err error
	if r.handler, err = New(config); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r.cancel = cancel
	go func() { r.done <- r.handler.Run(ctx) }()
	t.Cleanup(r.stop)
	return r
}

// stop ends the handler and waits for it.
func (r *rig) stop() {
	r.cancel()
	if err, ok := <-r.done; ok {
		close(r.done)
		if err != nil {
			r.t.Error(err)
		}
	}
}

// restart begins the partitions at their stored positions and hands over the
// log from there, as consume does after an assignment or a reset.
func (r *rig) restart(numbers []int32) {
	for _, n := range numbers {
		r.book.mu.Lock()
		p, ok := r.book.positions[n]
		if !ok {
			p = sink.Position{Partition: sink.Partition{Cluster: "c", Topic: "t", Number: n}, Era: 1, LogStart: -1}
			r.book.positions[n] = p
		}
		r.book.mu.Unlock()
		r.handler.Begin(p)
		var rest []consume.Record
		for _, rec := range r.log[n] {
			if rec.Next > p.Next {
				rest = append(rest, rec)
			}
		}
		_ = r.handler.Handle(context.Background(), n, rest)
	}
}

// busy is the partition that together keeps the lane busy with.
const busy int32 = 1000

// together is restart, but nothing of the partitions is submitted before all of
// it is queued, so that it is known what groups come of it.
func (r *rig) together(numbers []int32) {
	gate := make(chan struct{})
	r.book.mu.Lock()
	r.book.gate = gate
	r.book.mu.Unlock()
	r.append(busy, consume.Record{Skip: true})
	r.restart([]int32{busy})
	time.Sleep(r.handler.config.PassEvery)
	synctest.Wait() // the lane wakes at this very moment too, and must not find more than that
	r.restart(numbers)
	synctest.Wait()
	close(gate)
}

// batch seals a batch of one row in NDJSON.
func (r *rig) batch(n int) *batch.Batch {
	b := &batch.Batch{
		ID: batch.NewID(), Source: "test", Dataset: r.manifest.Dataset, ContentType: batch.NDJSON, Rows: 1,
		Value: fmt.Appendf(nil, `{"n":%d}`+"\n", n),
	}
	b.Time, _ = batch.TimeOf(b.ID)
	b.Seal()
	return b
}

// publish appends a batch to the log of a partition.
func (r *rig) publish(number int32, b *batch.Batch) {
	r.append(number, consume.Record{Message: sink.Message{
		Key: b.Key(), Value: b.Value, Headers: b.Headers(), Timestamp: time.Now(),
	}})
}

// append adds a record to the log of a partition at its end.
func (r *rig) append(number int32, rec consume.Record) {
	rec.Partition = sink.Partition{Cluster: "c", Topic: "t", Number: number}
	rec.Offset = int64(len(r.log[number]))
	rec.Next = rec.Offset + 1
	r.log[number] = append(r.log[number], rec)
}

// eventually lets the bubble's time pass until the book satisfies a condition.
func (r *rig) eventually(what string, ok func(b *book) bool) {
	r.t.Helper()
	for began := time.Now(); time.Since(began) < time.Hour; time.Sleep(10 * time.Millisecond) {
		synctest.Wait()
		r.book.mu.Lock()
		yes := ok(r.book)
		r.book.mu.Unlock()
		if yes {
			return
		}
	}
	r.book.mu.Lock()
	defer r.book.mu.Unlock()
	r.t.Fatalf("never: %s; loaded %d, dead %d, positions %v", what, len(r.book.order), len(r.book.dead), r.book.positions)
}

// stopped says that the metric names a reason for which nothing moves.
func (r *rig) stopped(reason string) bool {
	return testutil.ToFloat64(r.handler.metrics.stopped.WithLabelValues(reason)) > 0
}

// at says that a partition's position is next.
func at(number int32, next int64) func(b *book) bool {
	return func(b *book) bool { return b.positions[number].Next == next }
}

var errPlanted = errors.New("planted")
