package postgres_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/schema/rows"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

const events = `
dataset: test/events
columns:
  - {name: n, type: int64}
  - {name: note, type: text, nullable: true}
`

// warehouse is a warehouse in a database of its own, with a dataset.
type warehouse struct {
	*postgres.Warehouse
	t        testing.TB
	dsn      string
	conn     *pgx.Conn
	revision sink.Revision
	codec    *rows.Codec
}

// open opens the database at dsn, prepares it and applies the manifest.
func open(t testing.TB, dsn, manifest string, c postgres.Config) *warehouse {
	t.Helper()
	c.URL = dsn
	w := &warehouse{t: t, dsn: dsn}
	var err error
	if w.Warehouse, err = postgres.Open(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	if _, err := w.Init(t.Context(), postgres.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	m, err := schema.ParseManifest([]byte(manifest))
	if err != nil {
		t.Fatal(err)
	}
	applied, err := w.Apply(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	w.revision = applied.Revision
	if w.codec, err = rows.NewCodec(m); err != nil {
		t.Fatal(err)
	}
	if w.conn, err = pgx.Connect(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.conn.Close(context.Background()) })
	return w
}

// committer returns a committer that is closed with the test.
func (w *warehouse) committer() sink.Committer {
	c := w.NewCommitter()
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

// partition returns partition n of the dataset's topic, with a position.
func (w *warehouse) partition(n int32) sink.Position {
	w.t.Helper()
	ps, err := w.Assign(w.t.Context(), w.revision, []sink.Partition{{Cluster: "default", Topic: w.revision.Manifest.Topic, Number: n}})
	if err != nil {
		w.t.Fatal(err)
	}
	return ps[0]
}

// element returns a batch of rows at an offset.
func (w *warehouse) element(id uuid.UUID, at sink.Position, offset int64, values ...[]any) sink.Element {
	w.t.Helper()
	b := &batch.Batch{ID: id, Source: "test", Dataset: w.revision.Manifest.Dataset, ContentType: batch.Native, Rows: len(values)}
	var err error
	if id.Version() == 4 {
		b.Time = time.Now().UTC().Truncate(time.Microsecond)
	} else if b.Time, err = batch.TimeOf(id); err != nil {
		w.t.Fatal(err)
	}
	for _, v := range values {
		if b.Value, err = w.codec.Append(b.Value, id, v); err != nil {
			w.t.Fatal(err)
		}
	}
	b.Seal()
	m := sink.Message{Partition: at.Partition, Offset: offset, Timestamp: time.Now().UTC().Truncate(time.Millisecond), Key: b.Key(), Value: b.Value, Headers: b.Headers()}
	return sink.Element{Message: m, Batch: b, Content: b.Content(), Tuples: b.Value}
}

// group returns a group of elements that moves one position past them.
func (w *warehouse) group(at sink.Position, to int64, elements ...sink.Element) *sink.Group {
	return &sink.Group{
		Revision: w.revision, Elements: elements,
		Advances: []sink.Advance{{Partition: at.Partition, Era: at.Era, From: at.Next, To: to, LogStart: -1}},
	}
}

func (w *warehouse) count(sql string, args ...any) (n int64) {
	w.t.Helper()
	if err := w.conn.QueryRow(w.t.Context(), sql, args...).Scan(&n); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	return n
}
