package replay

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"tallyman/schema/batch"
	"tallyman/source/journal"
)

// NotePrefix begins the names of the notes in which a journal keeps receipts, for
// [Receipts].
const NotePrefix = "receipt/"

const (
	// restoredPrefix begins the names of those that say when a target went back.
	restoredPrefix = "restored/"
	// maxTargets bounds the targets that are remembered, besides those expected.
	maxTargets = 16
)

// said is the newest that a target said of a stream.
type said struct {
	receipt *batch.Receipt
	live    bool      // it was read from the topic by this process
	heard   time.Time // when it came, by this machine's clock
	dirty   bool      // the journal does not have it
	holes   holes
}

// entry is a stream of the journal.
type entry struct {
	stream journal.Stream
	end    *journal.Announced // how it ended; nil: it goes on
	said   map[string]*said   // by target
	again  time.Time          // when its end is announced again
	pause  time.Duration      // before the last time
	shown  bool               // every target showed that it knows the end, when that was looked at last
}

// target is a warehouse that receipts come from.
type target struct {
	newest   time.Time // of its receipts, by its clock
	restored time.Time // what it said before then may not hold any more, by its clock
	dirty    bool      // the journal does not have that
}

// book is what is known of a journal's streams, and of who receives them. Its
// users hold the replayer's lock.
type book struct {
	streams map[journal.Stream]*entry
	targets map[string]*target
	expects []string // targets that must confirm; none: those that were heard of
}

// Receipts reads the receipts that a journal has kept, the newest of each target
// and stream. A note that can't be read is passed over.
func Receipts(notes map[string]string) (all []*batch.Receipt) {
	for _, name := range slices.Sorted(maps.Keys(notes)) {
		if !strings.HasPrefix(name, NotePrefix) {
			continue
		}
		if r, err := batch.ParseReceipt([]byte(notes[name])); err == nil {
			all = append(all, r)
		}
	}
	return all
}

// newBook reads what the journal remembers.
func newBook(j *journal.Journal, own journal.Stream, ended []journal.Announced, expects []string) (*book, error) {
	b := &book{streams: map[journal.Stream]*entry{}, targets: map[string]*target{}, expects: expects}
	b.streams[own] = &entry{stream: own, said: map[string]*said{}}
	for i := range ended {
		s := streamOf(&ended[i].Announcement)
		b.streams[s] = &entry{stream: s, end: &ended[i], said: map[string]*said{}}
	}
	notes, err := j.Notes(NotePrefix)
	if err != nil {
		return nil, err
	}
	for _, r := range Receipts(notes) {
		if e := b.streams[streamOfReceipt(r)]; e != nil && b.target(r.Target) != nil {
			e.said[r.Target] = &said{receipt: r}
		}
	}
	if notes, err = j.Notes(restoredPrefix); err != nil {
		return nil, err
	}
	for name, text := range notes {
		if t := b.target(strings.TrimPrefix(name, restoredPrefix)); t != nil {
			if t.restored, err = time.Parse(time.RFC3339Nano, text); err != nil {
				return nil, fmt.Errorf("note %q: %w", name, err)
			}
		}
	}
	return b, nil
}

func streamOf(a *batch.Announcement) journal.Stream {
	return journal.Stream{Incarnation: a.Incarnation, Dataset: a.Dataset}
}

func streamOfReceipt(r *batch.Receipt) journal.Stream {
	return journal.Stream{Incarnation: r.Incarnation, Dataset: r.Dataset}
}

// target returns what is known of a target; nil: there are too many.
func (b *book) target(name string) *target {
	t := b.targets[name]
	if t == nil && (len(b.targets) < maxTargets+len(b.expects) || slices.Contains(b.expects, name)) {
		t = &target{}
		b.targets[name] = t
	}
	return t
}

// verdict is what became of a receipt.
type verdict uint8

const (
	taken    verdict = iota
	unknown          // it is of a stream of somebody else
	older            // it is not the newest
	crowd            // it is of one target too many
	wentBack         // it was taken, and says less than the one before
)

// take takes a receipt. Which is the newest is for the target's clock to say: a
// topic is read again from its start now and then, and has older ones too.
func (b *book) take(r *batch.Receipt, now time.Time) verdict {
	e := b.streams[streamOfReceipt(r)]
	if e == nil {
		return unknown
	}
	t := b.target(r.Target)
	if t == nil {
		return crowd
	}
	old := e.said[r.Target]
	if old == nil {
		old = &said{}
		e.said[r.Target] = old
	}
	before := old.receipt
	if before != nil && r.At.Before(before.At) {
		return older
	}
	if before == nil || r.At.After(before.At) { // else it is the same, read once more
		old.heard = now
	}
	old.dirty = old.dirty || before == nil || !same(before, r)
	old.receipt, old.live = r, true
	old.holes.update(r.Missing, now)
	if r.At.After(t.newest) {
		t.newest = r.At
	}
	if before == nil || !less(r, before) {
		return taken
	}
	if r.At.After(t.restored) {
		t.restored, t.dirty = r.At, true
	}
	for _, e := range b.streams { // it may have forgotten others as a whole
		e.again, e.pause = time.Time{}, 0
	}
	return wentBack
}

// same says whether two receipts differ in nothing but their time.
func same(a, b *batch.Receipt) bool {
	return a.Through == b.Through && a.Considered == b.Considered && a.Announced == b.Announced && a.Closed == b.Closed && slices.Equal(a.Missing, b.Missing)
}

// less says whether a receipt takes something back.
func less(r, before *batch.Receipt) bool {
	return r.Through < before.Through || r.Announced < before.Announced || before.Closed && !r.Closed
}

// expected returns the targets that must confirm.
func (b *book) expected() []string {
	if len(b.expects) > 0 {
		return b.expects
	}
	return slices.Sorted(maps.Keys(b.targets))
}

// doubted says whether a receipt is from before its target went back. That is
// held against it for some time, in which a target that has forgotten the stream
// is told of it again and again, and would say so.
func (b *book) doubted(r *batch.Receipt, patience time.Duration) bool {
	t := b.targets[r.Target]
	return r.At.Before(t.restored) && t.newest.Before(t.restored.Add(patience))
}

// shown says whether every target that must know how a stream ended does.
func (b *book) shown(e *entry, patience time.Duration) bool {
	targets := b.expected()
	for _, name := range targets {
		s := e.said[name]
		if s == nil || !s.receipt.Closed || s.receipt.Announced < e.end.Announcement.Sequence || b.doubted(s.receipt, patience) {
			return false
		}
	}
	return len(targets) > 0
}

// confirmed returns the numbers of a stream that every expected target has
// confirmed, as they said in the life of this process. Without expected targets
// nobody can confirm anything.
func (b *book) confirmed(e *entry, patience time.Duration) []journal.Range {
	var common []journal.Range
	for i, name := range b.expects {
		s := e.said[name]
		if s == nil || !s.live || b.doubted(s.receipt, patience) {
			return nil
		}
		if has := covered(s.receipt); i == 0 {
			common = has
		} else {
			common = both(common, has)
		}
	}
	return common
}

// clock returns a time that is not later than this machine's, nor than that of
// the newest receipt of any expected target: where one clock jumps ahead, or a
// target is silent, nothing becomes old. False: a target was not heard of yet.
func (b *book) clock(now time.Time) (time.Time, bool) {
	for _, name := range b.expects {
		t := b.targets[name]
		if t == nil || t.newest.IsZero() {
			return time.Time{}, false
		}
		if t.newest.Before(now) {
			now = t.newest
		}
	}
	return now, true
}

// notes returns what the journal does not have yet, by the names of notes.
func (b *book) notes() (map[string]string, error) {
	notes := map[string]string{}
	for _, e := range b.streams {
		for _, s := range e.said {
			if !s.dirty {
				continue
			}
			value, err := s.receipt.Value()
			if err != nil {
				return nil, err
			}
			notes[NotePrefix+string(s.receipt.Key())] = string(value)
			s.dirty = false
		}
	}
	for name, t := range b.targets {
		if t.dirty {
			notes[restoredPrefix+name] = t.restored.Format(time.RFC3339Nano)
			t.dirty = false
		}
	}
	return notes, nil
}
