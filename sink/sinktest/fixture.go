package sinktest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/schema/rows"
	"tallyman/sink"
)

// fixture is what a case works with: a dataset of its own in the warehouse.
type fixture struct {
	*testing.T
	w        Warehouse
	revision sink.Revision
	codec    *rows.Codec
	known    []uuid.UUID // batches that the case has made, for snapshots
	ctx      context.Context
}

// caseLimit bounds every commit that a case waits for: many times what the
// slowest takes, and far less than the patience of go test.
const caseLimit = 90 * time.Second

func newFixture(t *testing.T, w Warehouse, name string) *fixture {
	t.Helper()
	m, err := schema.ParseManifest(fmt.Appendf(nil, `
dataset: suite/%s
table: {schema: public, name: suite_%s}
columns:
  - {name: n, type: int64}
  - {name: note, type: text, nullable: true}
`, name, bytes.ReplaceAll([]byte(name), []byte("-"), []byte("_"))))
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{T: t, w: w}
	var cancel context.CancelFunc
	f.ctx, cancel = context.WithTimeoutCause(t.Context(), caseLimit, fmt.Errorf("the case took longer than %v", caseLimit))
	t.Cleanup(cancel)
	if f.revision, err = w.Apply(m); err != nil {
		t.Fatal(err)
	}
	if f.codec, err = rows.NewCodec(m); err != nil {
		t.Fatal(err)
	}
	return f
}

// Context returns the test's context with the case's limit.
func (f *fixture) Context() context.Context { return f.ctx }

// committer returns a committer that is closed with the test.
func (f *fixture) committer() sink.Committer {
	c := f.w.NewCommitter()
	f.Cleanup(func() {
		if err := c.Close(); err != nil {
			f.Errorf("close committer: %v", err)
		}
	})
	return c
}

// partition names a partition of the dataset's topic.
func (f *fixture) partition(n int32) sink.Partition {
	return sink.Partition{Cluster: "default", Topic: f.revision.Manifest.Topic, Number: n}
}

// position returns where partition n stands.
func (f *fixture) position(n int32) sink.Position {
	f.Helper()
	ps, err := f.w.Assign(f.Context(), f.revision, []sink.Partition{f.partition(n)})
	if err != nil || len(ps) != 1 {
		f.Fatalf("assign: %d positions, %v", len(ps), err)
	}
	return ps[0]
}

// moment is the Kafka time of every message: to the millisecond.
func moment() time.Time { return time.Date(2026, time.March, 4, 5, 6, 7, 8e6, time.UTC) }

// message returns the message that carries a batch.
func (f *fixture) message(b *batch.Batch, partition int32, offset int64) sink.Message {
	return sink.Message{Partition: f.partition(partition), Offset: offset, Timestamp: moment(),
		Key: b.Key(), Value: b.Value, Headers: b.Headers()}
}

// element returns a batch of one row for each number, at an offset.
func (f *fixture) element(id uuid.UUID, partition int32, offset int64, numbers ...int64) sink.Element {
	f.Helper()
	at, err := batch.TimeOf(id)
	if err != nil {
		f.Fatal(err)
	}
	return f.elementAt(at, id, partition, offset, numbers...)
}

// elementAt is element with the time that comes with the id, which v4 needs.
func (f *fixture) elementAt(at time.Time, id uuid.UUID, partition int32, offset int64, numbers ...int64) sink.Element {
	f.Helper()
	b := &batch.Batch{ID: id, Source: "suite", Dataset: f.revision.Manifest.Dataset, ContentType: batch.Native, Rows: len(numbers)}
	var err error
	if b.Time, err = batch.TimeWith(id, at); err != nil {
		f.Fatal(err)
	}
	for _, n := range numbers {
		if b.Value, err = f.codec.Append(b.Value, id, []any{n, "note"}); err != nil {
			f.Fatal(err)
		}
	}
	b.Seal()
	f.known = append(f.known, id)
	return sink.Element{Message: f.message(b, partition, offset), Batch: b, Content: b.Content(), Tuples: b.Value}
}

// bury returns an element as a message that can't be loaded.
func bury(e sink.Element, reason batch.Reason) sink.Dead {
	return sink.Dead{Message: e.Message, Batch: e.Batch, Reason: reason, Detail: "because of " + string(reason)}
}

// advance moves a position to an offset.
func advance(p sink.Position, to int64) sink.Advance {
	return sink.Advance{Partition: p.Partition, Era: p.Era, From: p.Next, To: to, LogStart: -1}
}

// group returns a group that moves partition 0 to an offset.
func (f *fixture) group(to int64, elements ...sink.Element) *sink.Group {
	f.Helper()
	return f.groupAt(f.position(0), to, elements...)
}

func (f *fixture) groupAt(p sink.Position, to int64, elements ...sink.Element) *sink.Group {
	return &sink.Group{Revision: f.revision, Elements: elements, Advances: []sink.Advance{advance(p, to)}}
}

// deadGroup returns a group of dead messages that moves partition 0 to an offset.
func (f *fixture) deadGroup(to int64, dead ...sink.Dead) *sink.Group {
	f.Helper()
	g := f.group(to)
	g.Dead = dead
	return g
}

// commit commits a group and checks what became of its elements.
func (f *fixture) commit(c sink.Committer, g *sink.Group, want ...sink.Outcome) {
	f.Helper()
	res, err := c.Commit(f.Context(), g)
	if err != nil {
		f.Fatalf("commit: %v", err)
	}
	if !slices.Equal(res.Outcomes, want) {
		f.Errorf("outcomes %v, want %v", res.Outcomes, want)
	}
}

// refused commits a group that must be refused with a class and leave nothing.
func (f *fixture) refused(c sink.Committer, g *sink.Group, class sink.Class) *sink.Error {
	f.Helper()
	before := f.snapshot()
	_, err := c.Commit(f.Context(), g)
	var e *sink.Error
	if !errors.As(err, &e) || e.Class != class {
		f.Fatalf("commit: %v (%v), want an error of class %v", err, sink.ClassOf(err), class)
	}
	f.unchanged(before)
	return e
}

// rows checks how many rows came with a batch.
func (f *fixture) rows(id uuid.UUID, want int64) {
	f.Helper()
	if n, err := f.w.Rows(f.revision, id); err != nil || n != want {
		f.Errorf("%d rows of batch %s, %v, want %d", n, id, err, want)
	}
}

// next checks the offset that a partition reads next.
func (f *fixture) next(partition int32, want int64) {
	f.Helper()
	if p := f.position(partition); p.Next != want {
		f.Errorf("partition %d is at %d, want %d", partition, p.Next, want)
	}
}

// quarantine returns what quarantine holds.
func (f *fixture) quarantine() []Quarantined {
	f.Helper()
	q, err := f.w.Quarantine(f.revision)
	if err != nil {
		f.Fatal(err)
	}
	slices.SortStableFunc(q, func(a, b Quarantined) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	return q
}

// snapshot is everything that a group can change.
type snapshot struct {
	Rows       map[uuid.UUID]int64
	Positions  []sink.Position
	Quarantine []Quarantined
}

// snapshotPartitions is how many partitions a snapshot covers.
const snapshotPartitions = 3

func (f *fixture) snapshot() snapshot {
	f.Helper()
	s := snapshot{Rows: map[uuid.UUID]int64{}, Quarantine: f.quarantine()}
	for n := range int32(snapshotPartitions) {
		s.Positions = append(s.Positions, f.position(n))
	}
	for _, id := range f.known {
		n, err := f.w.Rows(f.revision, id)
		if err != nil {
			f.Fatal(err)
		}
		s.Rows[id] = n
	}
	return s
}

// unchanged checks that nothing became durable since the snapshot.
func (f *fixture) unchanged(before snapshot) {
	f.Helper()
	if diff := gocmp.Diff(before, f.snapshot()); diff != "" {
		f.Errorf("a refused group left something (-before +after):\n%s", diff)
	}
}
