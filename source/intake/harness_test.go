package intake

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"tallyman/internal/kafkaconn"
	"tallyman/internal/sandbox"
	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/schema/rows"
	"tallyman/source/journal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newEncoding returns an encoding into a journal of the test's own.
func newEncoding(t testing.TB, m schema.Manifest, format Format, content batch.Digest) *encoding {
	t.Helper()
	codec, err := rows.NewCodec(m)
	if err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(journal.Config{Dir: t.TempDir(), Source: "test", MaxMessageBytes: 1 << 30, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	e := &encoding{manifest: m, hash: m.Hash(), codec: codec, format: format, known: make(chan struct{})}
	e.know(content, j)
	return e
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// rig is a broker with a topic, and an intake.
type rig struct {
	t      testing.TB
	broker *sandbox.Broker
	cfg    Config
	free   atomic.Bool           // see holdAfter
	told   []*batch.Announcement // what published found beside batches

	mu     sync.Mutex
	stages []Stage // that were told of, each once
}

const pairs = `
dataset: ads/pairs
topic: pairs
columns:
  - {name: n, type: int64}
  - {name: t, type: text, nullable: true}
`

func newRig(t testing.TB, c sandbox.BrokerConfig) *rig {
	t.Helper()
	r := &rig{t: t, broker: sandboxtest.Broker(t, c)}
	r.create(nil)
	conn, err := kafkaconn.New(kafkaconn.Config{Brokers: r.broker.Addrs()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	r.cfg = Config{Manifest: manifest(t, pairs), Conn: conn, Dir: t.TempDir(), Source: "here", Logger: quiet(), Progress: r.progress}
	return r
}

func (r *rig) create(configs map[string]string) {
	r.t.Helper()
	if err := r.broker.CreateTopic("pairs", 2, configs); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) progress(p Progress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.stages, p.Stage) {
		r.stages = append(r.stages, p.Stage)
	}
}

// push pushes with the rig's configuration as it is now.
func (r *rig) push(ctx context.Context, f File) (Report, error) {
	r.t.Helper()
	in, err := New(r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	return in.Push(ctx, f)
}

func (r *rig) mustPush(f File) Report {
	r.t.Helper()
	report, err := r.push(r.t.Context(), f)
	if err != nil {
		r.t.Fatal(err)
	}
	return report
}

// file writes a file and returns it.
func (r *rig) file(name, text string) File {
	r.t.Helper()
	path := filepath.Join(r.t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	format, err := FormatOf(name)
	if err != nil {
		r.t.Fatal(err)
	}
	return File{Name: path, Format: format}
}

// published returns how often the topic holds each id, and the rows by id. All
// that is there must be whole and by the one manifest.
func (r *rig) published() (times map[string]int, count int64) {
	r.t.Helper()
	times, r.told = map[string]int{}, nil
	for _, m := range sandboxtest.Records(r.t, r.broker, "pairs") {
		var headers []batch.Header
		for _, h := range m.Headers {
			headers = append(headers, batch.Header{Key: h.Key, Value: h.Value})
		}
		if batch.KindOf(headers) == batch.IsAnnouncement {
			a, err := batch.ParseAnnouncement(m.Value, headers)
			if err != nil {
				r.t.Fatal(err)
			}
			r.told = append(r.told, a)
			continue
		}
		b, err := batch.Parse(m.Key, m.Value, headers)
		if err != nil {
			r.t.Fatal(err)
		}
		codec, err := rows.NewCodec(r.cfg.Manifest)
		if err != nil {
			r.t.Fatal(err)
		}
		if err := codec.Walk(b.Value, b.Rows, b.ID); err != nil || b.ContentType != batch.Native || b.Source != "here" {
			r.t.Errorf("batch %s of %s: %v", b.ID, b.Source, err)
		}
		if times[b.ID.String()]++; times[b.ID.String()] == 1 {
			count += int64(b.Rows)
		}
	}
	return times, count
}

// ids returns the ids of the first n chunks of a content.
func (r *rig) ids(format Format, content batch.Digest, n int) []string {
	var all []string
	for chunk := range uint64(n) {
		all = append(all, batch.FileID(r.cfg.Manifest.Dataset, string(format), content, chunk, r.cfg.Again).String())
	}
	return all
}
