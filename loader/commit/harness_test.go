package commit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

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
// decision of this package can be provoked; package loader repeats the
// important ones on a real database.
type book struct {
	mu        sync.Mutex
	positions map[int32]sink.Position
	ledger    map[uuid.UUID]batch.Digest
	order     []uuid.UUID
	dead      []sink.Dead
	groups    []int
	// before is asked before anything is done; an error of it is the outcome.
	before func(g *sink.Group) error
	// after is asked when the group is durable; an error of it is an answer lost.
	after func(g *sink.Group) error
}

func (b *book) Close() error { return nil }

// Commit implements sink.Committer.
func (b *book) Commit(_ context.Context, g *sink.Group) (sink.Result, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range g.Advances {
		p := b.positions[a.Partition.Number]
		if p.Era != a.Era || p.Next != a.From {
			return sink.Result{}, &sink.Error{Class: sink.Fenced, Err: fmt.Errorf("position at %d, not %d", p.Next, a.From)}
		}
	}
	if b.before != nil {
		if err := b.before(g); err != nil {
			return sink.Result{}, err
		}
	}
	var res sink.Result
	for _, e := range g.Elements {
		known, ok := b.ledger[e.Batch.ID]
		switch {
		case !ok:
			b.ledger[e.Batch.ID] = e.Content
			b.order = append(b.order, e.Batch.ID)
			res.Outcomes = append(res.Outcomes, sink.Loaded)
		case known == e.Content:
			res.Outcomes = append(res.Outcomes, sink.Duplicate)
		default:
			res.Outcomes = append(res.Outcomes, sink.Conflict)
		}
	}
	b.dead = append(b.dead, g.Dead...)
	b.groups = append(b.groups, len(g.Elements)+len(g.Dead))
	for _, a := range g.Advances {
		p := b.positions[a.Partition.Number]
		p.Next = a.To
		if a.Anchor != nil {
			p.Anchor = a.Anchor
		}
		b.positions[a.Partition.Number] = p
	}
	if b.after != nil {
		return res, b.after(g)
	}
	return res, nil
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

// newRig starts a handler of one lane; tune changes its configuration first.
func newRig(t *testing.T, tune func(*Config)) *rig {
	t.Helper()
	t.Cleanup(func() { goleak.VerifyNone(t) })
	r := &rig{
		t: t, manifest: manifest(t), log: map[int32][]consume.Record{},
		book:     &book{positions: map[int32]sink.Position{}, ledger: map[uuid.UUID]batch.Digest{}},
		registry: prometheus.NewRegistry(), resets: make(chan []int32, 100), done: make(chan error, 1),
	}
	config := Config{
		Revision:   sink.Revision{ID: 1, Manifest: r.manifest, State: sink.Active},
		Committers: []sink.Committer{r.book},
		Reset: func(numbers []int32) {
			r.resets <- numbers
			go r.restart(numbers)
		},
		PassEvery: 20 * time.Millisecond, Probe: 20 * time.Millisecond, Grace: 50 * time.Millisecond,
		Registerer: r.registry,
	}
	if tune != nil {
		tune(&config)
	}
	var err error
	if r.handler, err = New(config); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() { r.done <- r.handler.Run(ctx) }()
	t.Cleanup(func() { r.stop() })
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

// eventually waits until the book satisfies a condition.
func (r *rig) eventually(what string, ok func(b *book) bool) {
	r.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		r.book.mu.Lock()
		yes := ok(r.book)
		r.book.mu.Unlock()
		if yes {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	r.book.mu.Lock()
	defer r.book.mu.Unlock()
	r.t.Fatalf("never: %s; loaded %d, dead %d, positions %v", what, len(r.book.order), len(r.book.dead), r.book.positions)
}

// at says that a partition's position is next.
func at(number int32, next int64) func(b *book) bool {
	return func(b *book) bool { return b.positions[number].Next == next }
}

var errPlanted = errors.New("planted")
