package replay

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"tallyman/source/journal"
)

func span(first, last uint64) journal.Range { return journal.Range{First: first, Last: last} }

// A hole that changes begins anew, one that does not keeps its tries, and what is
// gone stays so.
func TestHolesKeepTheirAccount(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	later := now.Add(time.Minute)
	sent := func(p *piece) { p.tries++; p.sent, p.next = now, later }
	var h holes
	h.update([]journal.Range{span(3, 10), span(20, 20)}, now)
	h.change(span(3, 10), sent)
	h.change(span(20, 30), func(p *piece) { p.lost, p.tries = true, 5 })
	type state struct {
		First, Last uint64
		Tries       int
		Lost        bool
	}
	want := func(what string, all ...state) {
		t.Helper()
		var got []state
		for _, p := range h.pieces {
			got = append(got, state{p.First, p.Last, p.tries, p.lost})
		}
		if diff := cmp.Diff(all, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	want("sent once", state{3, 10, 1, false}, state{20, 20, 5, true})
	h.update([]journal.Range{span(3, 10), span(20, 20)}, later)
	want("unchanged", state{3, 10, 1, false}, state{20, 20, 5, true})
	h.update([]journal.Range{span(3, 15), span(20, 20)}, later)
	want("grown", state{3, 10, 1, false}, state{11, 15, 0, false}, state{20, 20, 5, true})
	if p, ok := h.due(now, 5, now); ok {
		t.Errorf("%v is due at once", p)
	}
	h.update([]journal.Range{span(3, 4), span(8, 15), span(19, 21)}, later)
	want("partly closed", state{3, 4, 0, false}, state{8, 15, 0, false}, state{19, 19, 0, false}, state{20, 20, 5, true}, state{21, 21, 0, false})
	h.change(span(8, 9), func(p *piece) { p.tries, p.next = 5, now })
	if found := h.stuck(now, 5); !cmp.Equal(found, []journal.Range{span(8, 9)}) {
		t.Errorf("stuck: %v", found)
	}
	if found := h.stuck(later, 5); len(found) != 0 {
		t.Errorf("stuck again: %v", found)
	}
	h.change(span(10, 21), func(p *piece) { p.next = later.Add(time.Hour) })
	h.change(span(3, 4), func(p *piece) { p.next = later.Add(time.Hour) })
	h.change(span(8, 9), func(p *piece) { p.sent = later })
	if p, ok := h.due(later, 5, later); ok {
		t.Errorf("%v is due, though nobody was heard to miss it since", p)
	}
	if p, ok := h.due(later, 5, later.Add(time.Second)); !ok || p.Range != span(8, 9) {
		t.Errorf("%v, %v is due, want what is still missed", p, ok)
	}
	if stuck, lost := h.sums(); stuck != 2 || lost != 1 {
		t.Errorf("%d do not close, %d are lost", stuck, lost)
	}
	h.update(nil, later)
	want("closed")
}

// Whatever receipts say and is done, the pieces are exactly what is missing.
func TestHolesAreWhatIsMissing(t *testing.T) {
	t.Parallel()
	ranges := rapid.Custom(func(t *rapid.T) (all []journal.Range) {
		for next := uint64(1); len(all) < 6; {
			r := span(next+rapid.Uint64Range(0, 5).Draw(t, "apart"), 0)
			r.Last = r.First + rapid.Uint64Range(0, 9).Draw(t, "length")
			all, next = append(all, r), r.Last+2
		}
		return all[:rapid.IntRange(0, 6).Draw(t, "ranges")]
	})
	rapid.Check(t, func(t *rapid.T) {
		var h holes
		now := time.Unix(1000, 0)
		for range rapid.IntRange(1, 10).Draw(t, "steps") {
			missing := ranges.Draw(t, "missing")
			h.update(missing, now)
			for _, r := range ranges.Draw(t, "sent") {
				h.change(r, func(p *piece) { p.tries = rapid.IntRange(0, 2).Draw(t, "tries") })
			}
			var got []journal.Range
			for _, p := range h.pieces {
				if l := len(got) - 1; l >= 0 && got[l].Last+1 == p.First {
					got[l].Last = p.Last
				} else {
					got = append(got, p.Range)
				}
			}
			if !cmp.Equal(missing, got) && len(missing)+len(got) > 0 {
				t.Fatalf("missing %v, pieces %v", missing, h.pieces)
			}
		}
	})
}

// The arithmetic of ranges agrees with that of sets.
func TestRanges(t *testing.T) {
	t.Parallel()
	const end = 40
	set := func(all []journal.Range) (s [end + 1]bool) {
		for _, r := range all {
			for n := r.First; n <= r.Last; n++ {
				s[n] = true
			}
		}
		return s
	}
	draw := rapid.Custom(func(t *rapid.T) (all []journal.Range) {
		for next := uint64(1); ; {
			r := span(next+rapid.Uint64Range(0, 6).Draw(t, "apart"), 0)
			if r.Last = r.First + rapid.Uint64Range(0, 8).Draw(t, "length"); r.Last > end {
				return all
			}
			all, next = append(all, r), r.Last+1
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := draw.Draw(t, "a"), draw.Draw(t, "b")
		left, common := set(without(a, b)), set(both(a, b))
		n := uint64(0)
		for i, inA := range set(a) {
			inB := set(b)[i]
			if left[i] != (inA && !inB) || common[i] != (inA && inB) {
				t.Fatalf("%d: without %v, both %v", i, without(a, b), both(a, b))
			}
			if common[i] {
				n++
			}
		}
		if count(both(a, b)) != n {
			t.Fatalf("%v hold %d numbers, not %d", both(a, b), count(both(a, b)), n)
		}
	})
}
