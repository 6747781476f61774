package commit

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/sink"
)

// shelf is where manifests are applied; away is what it answers during an outage.
type shelf struct {
	mu    sync.Mutex
	has   map[string]*schema.Manifest
	asked int
	away  error
}

// Manifest implements sink.Manifests.
func (s *shelf) Manifest(_ context.Context, _ sink.Revision, hash string) (*schema.Manifest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	return s.has[hash], s.away
}

// set changes the shelf and returns how often it was asked.
func (s *shelf) set(m *schema.Manifest, away error) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m != nil {
		s.has[m.Hash()] = m
	}
	s.away = away
	return s.asked
}

// widerBatch is a batch of one row by a manifest with a column more.
func widerBatch(t testing.TB, r *rig, n int) (*schema.Manifest, *batch.Batch) {
	t.Helper()
	m := r.manifest
	m.Columns = append(m.Columns[:1:1], schema.Column{Name: "note", Type: schema.Text, Nullable: true})
	b := r.batch(n)
	b.Schema, b.Value = m.Hash(), fmt.Appendf(nil, `{"n":%d,"note":"x"}`+"\n", n)
	b.Seal()
	return &m, b
}

// TestFurtherManifest: a batch by a manifest that was applied while the loader
// ran loads by it, beside batches by the old one; the warehouse is asked once.
// Before that it is quarantined, and a batch after it is asked for again.
func TestFurtherManifest(t *testing.T) {
	s := &shelf{has: map[string]*schema.Manifest{}}
	withRig(t, func(c *Config) { c.Manifests = s }, func(t *testing.T, r *rig) {
		by := map[string]int{} // elements by the hash of their manifest
		r.book.after = func(g *sink.Group) error {
			for i := range g.Elements {
				by[g.ManifestOf(i).Hash()]++
				if n, want := len(g.ManifestOf(i).Columns), int(g.Elements[i].Tuples[1])-1; n != want { // and _batch_id
					t.Errorf("%d columns, and tuples of %d", n, want)
				}
			}
			return nil
		}
		m, early := widerBatch(t, r, 0)
		r.publish(0, early)
		r.publish(0, r.batch(1))
		r.restart([]int32{0})
		r.eventually("the early one is considered", at(0, 2))
		if len(r.book.dead) != 1 || r.book.dead[0].Reason != batch.NoManifest {
			t.Fatalf("%+v", r.book.dead)
		}
		if asked := s.set(m, nil); asked != 1 {
			t.Errorf("asked %d times", asked)
		}
		for n := range 3 {
			_, b := widerBatch(t, r, n)
			r.publish(0, b)
			r.publish(0, r.batch(n))
		}
		r.restart([]int32{0})
		r.eventually("all are loaded", at(0, 8))
		if len(r.book.dead) != 1 || by[m.Hash()] != 3 || by[r.manifest.Hash()] != 4 {
			t.Errorf("dead %d, loaded %v", len(r.book.dead), by)
		}
		if asked := s.set(nil, nil); asked != 2 {
			t.Errorf("asked %d times, want once for the early batch and once for the others", asked)
		}
	})
}

// TestManifestDuringAnOutage: a warehouse that can't be asked is waited for; it
// makes no batch one without a manifest, and probes hear of it.
func TestManifestDuringAnOutage(t *testing.T) {
	s := &shelf{has: map[string]*schema.Manifest{}, away: &sink.Error{Class: sink.Retryable, Err: errPlanted}}
	withRig(t, func(c *Config) { c.Manifests = s }, func(t *testing.T, r *rig) {
		m, b := widerBatch(t, r, 0)
		r.publish(0, b)
		r.restart([]int32{0})
		time.Sleep(time.Hour)
		if err := r.handler.Healthy(); err == nil || !r.handler.Outage() {
			t.Errorf("healthy during an outage: %v", err)
		}
		s.set(m, nil)
		r.eventually("it is loaded", at(0, 1))
		if len(r.book.order) != 1 || len(r.book.dead) != 0 {
			t.Errorf("loaded %d, dead %d", len(r.book.order), len(r.book.dead))
		}
		if err := r.handler.Healthy(); err != nil {
			t.Error(err)
		}
	})
}

// TestStoppedForWantOfAManifest: when most batches lack it the load stops, and it
// goes on by itself, with all of them, once the manifest is applied.
func TestStoppedForWantOfAManifest(t *testing.T) {
	s := &shelf{has: map[string]*schema.Manifest{}}
	withRig(t, func(c *Config) { c.Manifests, c.BreakerWindow = s, 10 }, func(t *testing.T, r *rig) {
		var m *schema.Manifest
		for n := range 20 {
			var b *batch.Batch
			m, b = widerBatch(t, r, n)
			r.publish(0, b)
		}
		r.together([]int32{0})
		time.Sleep(time.Hour + time.Second) // not at the moment of a probe
		if len(r.book.dead) != 0 || len(r.book.order) != 0 {
			t.Fatalf("dead %d, loaded %d in spite of the breaker", len(r.book.dead), len(r.book.order))
		}
		s.set(m, nil)
		r.eventually("all are loaded", at(0, 20))
		if len(r.book.order) != 20 || len(r.book.dead) != 0 {
			t.Errorf("loaded %d, dead %d", len(r.book.order), len(r.book.dead))
		}
	})
}
