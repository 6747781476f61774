package journal

import (
	"bytes"
	"errors"
	"fmt"
	"iter"

	"github.com/cockroachdb/pebble/v2"
)

// Unpublished returns the unpublished batches, stream by stream in the order
// of sequences. An error ends it.
func (j *Journal) Unpublished() iter.Seq2[Key, error] {
	return func(yield func(Key, error) bool) {
		if err := j.enter(); err != nil {
			yield(Key{}, err)
			return
		}
		defer j.using.Done()
		err := j.scan(kindUnpublished, func(key, _ []byte) error {
			k, err := parseKey(key)
			if err == nil && !yield(k, nil) {
				return errStop
			}
			return err
		})
		if err != nil && !errors.Is(err, errStop) {
			yield(Key{}, fmt.Errorf("list unpublished batches: %w", err))
		}
	}
}

// errStop ends a scan early.
var errStop = errors.New("stop")

// Held returns the numbers from first to last of which the journal holds
// batches, in order, at most limit of them.
func (j *Journal) Held(s Stream, first, last uint64, limit int) ([]uint64, error) {
	if err := j.enter(); err != nil {
		return nil, err
	}
	defer j.using.Done()
	return j.held(s, first, last, limit)
}

func (j *Journal) held(s Stream, first, last uint64, limit int) ([]uint64, error) {
	o := bounds(appendStream(nil, kindBatch, s))
	o.LowerBound = storeKey(kindBatch, Key{Stream: s, Sequence: first})
	it, err := j.db.NewIter(o)
	if err != nil {
		return nil, fmt.Errorf("list batches: %w", err)
	}
	var found []uint64
	for ok := it.First(); ok && len(found) < limit; ok = it.Next() {
		var k Key
		if k, err = parseKey(it.Key()[1:]); err != nil || k.Sequence > last {
			break
		}
		found = append(found, k.Sequence)
	}
	if err = errors.Join(err, it.Close()); err != nil {
		return nil, fmt.Errorf("list batches: %w", err)
	}
	return found, nil
}

// Get reads one batch and checks its checksum. The error for one that is not
// there wraps [ErrNoBatch]. [Journal.Release] takes its memory back.
func (j *Journal) Get(k Key) (*Record, error) {
	if err := j.enter(); err != nil {
		return nil, err
	}
	defer j.using.Done()
	return j.get(k)
}

func (j *Journal) get(k Key) (*Record, error) {
	value, closer, err := j.db.Get(storeKey(kindBatch, k))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, fmt.Errorf("batch %s: %w", k, ErrNoBatch)
	}
	if err != nil {
		return nil, damage(k, err)
	}
	memory, _ := j.spare.Get().(*[]byte)
	if memory == nil {
		memory = new([]byte)
	}
	*memory = append((*memory)[:0], value...)
	if err := closer.Close(); err != nil {
		return nil, damage(k, err)
	}
	r, err := parseRecord(k, *memory)
	if err != nil {
		return nil, err
	}
	r.memory = memory
	return r, nil
}

// Release takes back the memory of a record that Get returned, for the next one.
// Nobody looks at its batch's value any more.
func (j *Journal) Release(r *Record) {
	if r.memory != nil {
		j.spare.Put(r.memory)
		r.memory, r.Batch.Value = nil, nil
	}
}

// Keep says that somebody may yet look at the batch's value: its memory is then not
// taken back.
func (r *Record) Keep() { r.memory = nil }

// damage names the batch that an error of the store is about.
func damage(k Key, err error) error {
	if pebble.IsCorruptionError(err) {
		return fmt.Errorf("batch %s: %w: %w", k, ErrCorrupt, err)
	}
	return fmt.Errorf("read batch %s: %w", k, err)
}

// MarkPublished notes that Kafka has acknowledged a batch. The note is not
// fsynced: after a crash the batch may count as unpublished again.
func (j *Journal) MarkPublished(k Key) error {
	return j.note(k, func(b *pebble.Batch) error {
		return errors.Join(
			b.Delete(storeKey(kindUnpublished, k), nil),
			b.Delete(storeKey(kindAside, k), nil),
		)
	})
}

// SetAside notes that the broker refuses a batch for good, and why.
func (j *Journal) SetAside(k Key, reason string) error {
	return j.note(k, func(b *pebble.Batch) error {
		return b.Set(storeKey(kindAside, k), []byte(reason), nil)
	})
}

func (j *Journal) note(k Key, change func(*pebble.Batch) error) error {
	if err := j.enter(); err != nil {
		return err
	}
	defer j.using.Done()
	b := j.db.NewBatch()
	defer func() { _ = b.Close() }()
	if err := errors.Join(change(b), b.Commit(pebble.NoSync)); err != nil {
		return fmt.Errorf("mark batch %s: %w", k, err)
	}
	return nil
}

// All returns every batch, stream by stream in the order of sequences. A
// damaged batch comes as an error that names it, and the next one follows.
func (j *Journal) All() iter.Seq2[*Record, error] {
	return func(yield func(*Record, error) bool) {
		if err := j.enter(); err != nil {
			yield(nil, err)
			return
		}
		defer j.using.Done()
		it, err := j.db.NewIter(bounds([]byte{kindBatch}))
		if err != nil {
			yield(nil, fmt.Errorf("list batches: %w", err))
			return
		}
		for ok := it.First(); ok; ok = it.Next() {
			if !yield(current(it)) {
				break
			}
		}
		if err := it.Close(); err != nil {
			yield(nil, fmt.Errorf("list batches: %w", err))
		}
	}
}

// current reads the record under the iterator.
func current(it *pebble.Iterator) (*Record, error) {
	k, err := parseKey(it.Key()[1:])
	if err != nil {
		return nil, err
	}
	value, err := it.ValueAndErr()
	if err != nil {
		return nil, damage(k, err)
	}
	return parseRecord(k, bytes.Clone(value))
}

func bounds(prefix []byte) *pebble.IterOptions {
	return &pebble.IterOptions{LowerBound: prefix, UpperBound: upper(prefix)}
}
