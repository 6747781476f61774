package journal

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Trimmed is what a journal has let go of a stream.
type Trimmed struct {
	// Ranges are the numbers that are gone, in order; no two of them touch.
	Ranges []Range `json:"ranges"`
	// At is when some were trimmed last.
	At time.Time `json:"at"`
}

// Last returns the highest number that is gone; 0: none is.
func (t Trimmed) Last() uint64 {
	if len(t.Ranges) == 0 {
		return 0
	}
	return t.Ranges[len(t.Ranges)-1].Last
}

// Batches returns how many numbers are gone.
func (t Trimmed) Batches() (n uint64) {
	for _, r := range t.Ranges {
		n += r.Last - r.First + 1
	}
	return n
}

// Holds says whether all of a range is gone.
func (t Trimmed) Holds(r Range) bool {
	return slices.ContainsFunc(t.Ranges, func(has Range) bool { return has.First <= r.First && r.Last <= has.Last })
}

// add joins more ranges to those that are gone.
func (t *Trimmed) add(more []Range) {
	all := slices.Concat(t.Ranges, more)
	slices.SortFunc(all, func(a, b Range) int { return cmp.Compare(a.First, b.First) })
	t.Ranges = nil
	for _, r := range all {
		if last := len(t.Ranges) - 1; last >= 0 && t.Ranges[last].Last+1 >= r.First {
			t.Ranges[last].Last = max(t.Ranges[last].Last, r.Last)
		} else {
			t.Ranges = append(t.Ranges, r)
		}
	}
}

const (
	// markEvery is how often is kept by when which batches were there.
	markEvery = 10 * time.Second
	// trimAtOnce bounds the batches that are deleted in one step.
	trimAtOnce = 50_000
)

// mark keeps that a batch and all before it were there at a time, for who asks
// how old they are. Callers hold j.speaking.
func (j *Journal) mark(b *pebble.Batch, k Key, at time.Time, always bool) error {
	if k.Sequence == 0 || !always && at.Sub(j.marked[k.Stream]) < markEvery {
		return nil
	}
	name := storeKey(kindMark, k)
	_, closer, err := j.db.Get(name)
	if err == nil {
		return closer.Close() // an earlier time says more
	}
	if !errors.Is(err, pebble.ErrNotFound) {
		return err
	}
	j.marked[k.Stream] = at
	value, err := at.MarshalBinary()
	if err != nil {
		return err
	}
	return b.Set(name, value, nil)
}

// ThereBy returns a time by which a batch was in the journal; zero: none is known
// yet. It is the journal's own clock, as in announcements.
func (j *Journal) ThereBy(k Key) (time.Time, error) {
	if err := j.enter(); err != nil {
		return time.Time{}, err
	}
	defer j.using.Done()
	o := bounds(appendStream(nil, kindMark, k.Stream))
	o.LowerBound = storeKey(kindMark, k)
	it, err := j.db.NewIter(o)
	if err != nil {
		return time.Time{}, fmt.Errorf("age of batch %s: %w", k, err)
	}
	var at time.Time
	if it.First() {
		at, err = timeAt(it)
	}
	if err = errors.Join(err, it.Close()); err != nil {
		return time.Time{}, fmt.Errorf("age of batch %s: %w", k, err)
	}
	return at, nil
}

func timeAt(it *pebble.Iterator) (at time.Time, err error) {
	value, err := it.ValueAndErr()
	if err == nil {
		err = at.UnmarshalBinary(value)
	}
	return at, err
}

// thereBefore returns the highest number that, with all before it, was in the
// journal before a time.
func (j *Journal) thereBefore(s Stream, t time.Time) (uint64, error) {
	value, closer, err := j.db.Get(appendStream(nil, kindAnnounced, s))
	if err == nil { // a stream that ended has no number that came after its end
		var said spoken
		if err := errors.Join(json.Unmarshal(value, &said), closer.Close()); err != nil {
			return 0, err
		}
		if said.Over && said.At.Before(t) {
			return math.MaxUint64, nil
		}
	} else if !errors.Is(err, pebble.ErrNotFound) {
		return 0, err
	}
	it, err := j.db.NewIter(bounds(appendStream(nil, kindMark, s)))
	if err != nil {
		return 0, err
	}
	var last uint64
	for ok := it.Last(); ok && err == nil; ok = it.Prev() {
		var at time.Time
		if at, err = timeAt(it); err == nil && at.Before(t) {
			var k Key
			k, err = parseKey(it.Key()[1:])
			last = k.Sequence
			break
		}
	}
	return last, errors.Join(err, it.Close())
}

// Trim deletes for good, of the batches of a stream that every target has
// confirmed, those that are published and were in the journal before a time,
// and returns how many. It leaves alone what Kafka has not acknowledged,
// whatever the caller says, and what it can't tell the age of. Their ids are
// forgotten with them, their numbers are not.
func (j *Journal) Trim(s Stream, confirmed []Range, before time.Time) (int, error) {
	if err := j.enter(); err != nil {
		return 0, err
	}
	defer j.using.Done()
	n, err := j.trim(s, confirmed, before)
	if err != nil {
		return n, fmt.Errorf("trim %s %s: %w", s.Dataset, s.Incarnation, err)
	}
	return n, nil
}

func (j *Journal) trim(s Stream, confirmed []Range, before time.Time) (total int, err error) {
	last, err := j.thereBefore(s, before)
	if err != nil || last == 0 {
		return 0, err
	}
	var end uint64
	for {
		runs, n, err := j.trimmable(s, confirmed, last)
		if err != nil || n == 0 {
			return total, errors.Join(err, j.free(s, end))
		}
		if err := j.delete(s, runs); err != nil {
			return total, err
		}
		total, end = total+n, max(end, runs[len(runs)-1].Last)
	}
}

// trimmable returns the runs of numbers up to last that are confirmed, held and
// published, trimAtOnce of them at most.
func (j *Journal) trimmable(s Stream, confirmed []Range, last uint64) (runs []Range, n int, err error) {
	for _, c := range confirmed {
		for next, end := max(c.First, 1), min(c.Last, last); next <= end && n < trimAtOnce; {
			found, err := j.held(s, next, end, trimAtOnce-n)
			if err != nil {
				return nil, 0, err
			}
			if len(found) == 0 {
				break
			}
			unpublished, err := j.unpublished(s, found[0], found[len(found)-1])
			if err != nil {
				return nil, 0, err
			}
			for _, number := range found {
				if unpublished[number] {
					continue
				}
				n++
				if l := len(runs) - 1; l >= 0 && runs[l].Last+1 == number {
					runs[l].Last = number
				} else {
					runs = append(runs, Range{First: number, Last: number})
				}
			}
			next = found[len(found)-1] + 1
		}
	}
	return runs, n, nil
}

// Waiting returns the numbers from first to last that Kafka has not
// acknowledged, those set aside included.
func (j *Journal) Waiting(s Stream, first, last uint64) (map[uint64]bool, error) {
	if err := j.enter(); err != nil {
		return nil, err
	}
	defer j.using.Done()
	found, err := j.unpublished(s, first, last)
	if err != nil {
		return nil, fmt.Errorf("list unpublished batches: %w", err)
	}
	return found, nil
}

// unpublished returns the numbers from first to last that Kafka has not acknowledged.
func (j *Journal) unpublished(s Stream, first, last uint64) (map[uint64]bool, error) {
	o := bounds(appendStream(nil, kindUnpublished, s))
	o.LowerBound = storeKey(kindUnpublished, Key{Stream: s, Sequence: first})
	it, err := j.db.NewIter(o)
	if err != nil {
		return nil, err
	}
	found := map[uint64]bool{}
	for ok := it.First(); ok; ok = it.Next() {
		var k Key
		if k, err = parseKey(it.Key()[1:]); err != nil || k.Sequence > last {
			break
		}
		found[k.Sequence] = true
	}
	return found, errors.Join(err, it.Close())
}

// delete takes runs of numbers out of the journal: batches, ids and what says how
// old they were, in one step with the note that they are gone.
func (j *Journal) delete(s Stream, runs []Range) error {
	gone, err := j.trimmed(s)
	if err != nil {
		return err
	}
	gone.add(runs)
	gone.At = time.Now().UTC()
	value, err := json.Marshal(gone)
	if err != nil {
		return err
	}
	b := j.db.NewBatch()
	defer func() { _ = b.Close() }()
	err = errors.Join(
		b.Set(appendStream(nil, kindTrimmed, s), value, nil),
		b.Set(metaKey(metaFormat), []byte(formatTrimmed), nil),
		j.deleteIDs(b, s, runs),
	)
	for _, r := range runs {
		err = errors.Join(err, b.DeleteRange(storeKey(kindBatch, Key{s, r.First}), storeKey(kindBatch, Key{s, r.Last + 1}), nil))
	}
	if head := gone.Ranges[0]; head.First == 1 {
		err = errors.Join(err, b.DeleteRange(storeKey(kindMark, Key{s, 0}), storeKey(kindMark, Key{s, head.Last + 1}), nil))
	}
	if err != nil {
		return err
	}
	// An append looks an id up and then the batch: both are there, or neither.
	lock := j.stream(s.Dataset)
	lock.mu.Lock()
	defer lock.mu.Unlock()
	return b.Commit(pebble.Sync)
}

// deleteIDs deletes the ids that point into runs.
func (j *Journal) deleteIDs(b *pebble.Batch, s Stream, runs []Range) error {
	prefix := append(append([]byte{kindID}, s.Dataset.String()...), 0)
	it, err := j.db.NewIter(bounds(prefix))
	if err != nil {
		return err
	}
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		var value []byte
		var k Key
		if value, err = it.ValueAndErr(); err == nil {
			k, err = parseKey(value)
		}
		if err != nil || k.Stream != s {
			continue
		}
		i, _ := slices.BinarySearchFunc(runs, k.Sequence, func(r Range, n uint64) int { return cmp.Compare(r.Last, n) })
		if i < len(runs) && runs[i].First <= k.Sequence {
			err = b.Delete(it.Key(), nil)
		}
	}
	return errors.Join(err, it.Close())
}

// free has the store give back the disk space of what was deleted, up to a
// number; 0: nothing was.
func (j *Journal) free(s Stream, end uint64) error {
	if end == 0 {
		return nil
	}
	from, to := appendStream(nil, kindBatch, s), storeKey(kindBatch, Key{s, end + 1})
	return j.db.Compact(context.Background(), from, to, false)
}

// trimmed returns what is gone of a stream.
func (j *Journal) trimmed(s Stream) (t Trimmed, err error) {
	value, closer, err := j.db.Get(appendStream(nil, kindTrimmed, s))
	if errors.Is(err, pebble.ErrNotFound) {
		return t, nil
	}
	if err != nil {
		return t, err
	}
	return t, errors.Join(json.Unmarshal(value, &t), closer.Close())
}

// Trimmed returns what is gone of a stream.
func (j *Journal) Trimmed(s Stream) (Trimmed, error) {
	if err := j.enter(); err != nil {
		return Trimmed{}, err
	}
	defer j.using.Done()
	t, err := j.trimmed(s)
	if err != nil {
		return t, fmt.Errorf("what is trimmed of %s %s: %w", s.Dataset, s.Incarnation, err)
	}
	return t, nil
}

// trimmedStreams finds the streams of which batches are gone, and their last
// numbers: those that are there may be lower.
func (j *Journal) trimmedStreams(streams map[Stream]*unfinished) error {
	return j.scan(kindTrimmed, func(key, value []byte) error {
		s, err := parseStream(key)
		if err != nil {
			return err
		}
		var t Trimmed
		if err := json.Unmarshal(value, &t); err != nil {
			return fmt.Errorf("what is trimmed of %s %s: %w", s.Dataset, s.Incarnation, err)
		}
		u := streams[s]
		if u == nil {
			u = &unfinished{}
			streams[s] = u
		}
		u.last = max(u.last, t.Last())
		return nil
	})
}
