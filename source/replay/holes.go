package replay

import (
	"slices"
	"time"

	"tallyman/schema/batch"
	"tallyman/source/journal"
)

// piece is a run of numbers that a target misses, and what was done about it.
type piece struct {
	journal.Range
	tries   int       // how often it was sent
	sent    time.Time // when it was sent last
	next    time.Time // when something is to be done again
	alarmed bool      // a person was told that it does not close
	lost    bool      // the journal can't send it: it is gone, or damaged
}

// holes are the pieces of a stream that one target misses, in order and apart.
type holes struct{ pieces []piece }

// manyPieces is how many pieces are told apart.
const manyPieces = 4 * batch.MaxReceiptRanges

// update takes what a new receipt says. A piece that is as it was keeps its
// account; one that became smaller, and what is new, begins anew.
func (h *holes) update(missing []journal.Range, now time.Time) {
	var all []piece
	i := 0
	for _, m := range missing {
		next := m.First
		for ; i < len(h.pieces) && h.pieces[i].First <= m.Last; i++ {
			old := h.pieces[i]
			part := journal.Range{First: max(old.First, next), Last: min(old.Last, m.Last)}
			if part.First <= part.Last {
				if part.First > next {
					all = append(all, piece{Range: journal.Range{First: next, Last: part.First - 1}, next: now})
				}
				if part != old.Range && !old.lost { // what is gone stays gone
					old.tries, old.alarmed = 0, false
				}
				old.Range = part
				all = append(all, old)
				next = part.Last + 1
			}
			if h.pieces[i].Last > m.Last {
				break // the rest of it may be in the next range
			}
		}
		if next <= m.Last && next != 0 {
			all = append(all, piece{Range: journal.Range{First: next, Last: m.Last}, next: now})
		}
	}
	if h.pieces = merged(all); len(h.pieces) > manyPieces {
		h.pieces = nil
		for _, m := range missing {
			h.pieces = append(h.pieces, piece{Range: m, next: now})
		}
	}
}

// merged joins neighbours that are in the same state.
func merged(all []piece) []piece {
	var joined []piece
	for _, p := range all {
		if l := len(joined) - 1; l >= 0 {
			last := &joined[l]
			if last.Last+1 == p.First && last.tries == p.tries && last.alarmed == p.alarmed && last.lost == p.lost {
				last.Last = p.Last
				if p.next.After(last.next) {
					last.next = p.next
				}
				if p.sent.After(last.sent) {
					last.sent = p.sent
				}
				continue
			}
		}
		joined = append(joined, p)
	}
	return joined
}

// change applies a change to what the pieces have in common with a range.
func (h *holes) change(r journal.Range, change func(*piece)) {
	var all []piece
	for _, p := range h.pieces {
		first, last := max(p.First, r.First), min(p.Last, r.Last)
		if first > last {
			all = append(all, p)
			continue
		}
		if p.First < first {
			before := p
			before.Last = first - 1
			all = append(all, before)
		}
		middle := p
		middle.First, middle.Last = first, last
		change(&middle)
		all = append(all, middle)
		if p.Last > last {
			after := p
			after.First = last + 1
			all = append(all, after)
		}
	}
	h.pieces = merged(all)
}

// due returns the first piece that is to be sent now. What was sent so many times
// is sent once more only if the target was heard to miss it since: a target that
// has gone is not served for ever, one that was away is.
func (h *holes) due(now time.Time, tries int, heard time.Time) (piece, bool) {
	i := slices.IndexFunc(h.pieces, func(p piece) bool {
		return !p.lost && !p.next.After(now) && (p.tries < tries || heard.After(p.sent))
	})
	if i < 0 {
		return piece{}, false
	}
	return h.pieces[i], true
}

// stuck marks the pieces that were sent so many times and are still missed after
// the last pause, and returns those that are new.
func (h *holes) stuck(now time.Time, tries int) (found []journal.Range) {
	for i := range h.pieces {
		p := &h.pieces[i]
		if !p.lost && !p.alarmed && p.tries >= tries && !p.next.After(now) {
			p.alarmed = true
			found = append(found, p.Range)
		}
	}
	return found
}

// sums returns how many numbers do not close, and how many can't be sent.
func (h *holes) sums() (stuck, lost uint64) {
	for _, p := range h.pieces {
		n := p.Last - p.First + 1
		switch {
		case p.lost:
			lost += n
		case p.alarmed:
			stuck += n
		}
	}
	return stuck, lost
}
