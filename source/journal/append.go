package journal

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"tallyman/schema"
	"tallyman/schema/batch"
)

// stream hands out the numbers of one dataset in this incarnation.
type stream struct {
	mu   sync.Mutex
	last uint64
}

// Appended is the answer to an append.
type Appended struct {
	Key Key
	// Duplicate says that the id was there already, with the same content:
	// Key names the batch that it came with, perhaps in an older incarnation.
	Duplicate bool
}

// Append gives b its source, incarnation, sequence and digest, writes it and
// returns once it is on disk; with [Config].Bulk it does not wait for that. b
// must not change afterwards.
//
// The errors are [ErrTooLarge], [ErrDiskFull], [ErrIDConflict], [ErrClosed] or
// one of the store; after any of them the batch is not in the journal and its
// number is free. A write that fails stops the process instead.
func (j *Journal) Append(topic string, b *batch.Batch) (Appended, error) {
	if err := j.enter(); err != nil {
		return Appended{}, err
	}
	defer j.using.Done()
	s := j.stream(b.Dataset)
	b.Source, b.Incarnation = j.cfg.Source, j.incarnation

	write, answer, err := j.write(s, topic, b)
	if err != nil {
		return Appended{}, fmt.Errorf("append batch %s to the journal: %w", b.ID, err)
	}
	if answer.Duplicate {
		// The first append may still wait for its fsync, and this answer
		// promises as much as that one.
		if err := j.db.LogData(nil, j.durably()); err != nil {
			return Appended{}, fmt.Errorf("append batch %s to the journal: %w", b.ID, err)
		}
		return answer, nil
	}
	if !j.cfg.Bulk {
		if err := write.SyncWait(); err != nil {
			j.fatal("fsync: %v", err)
			return Appended{}, fmt.Errorf("append batch %s to the journal: %w", b.ID, err)
		}
	}
	_ = write.Close() // returns its memory; there is nothing in it to fail
	return answer, nil
}

// write puts the batch into the log, under the stream's lock, without waiting
// for the disk.
func (j *Journal) write(s *stream, topic string, b *batch.Batch) (*pebble.Batch, Appended, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if first, ok, err := j.find(b); err != nil || ok {
		return nil, Appended{Key: first, Duplicate: ok}, err
	}
	b.Sequence = s.last + 1
	b.Seal()
	headers := b.Headers()
	if size := messageSize(b, headers); size > j.cfg.MaxMessageBytes {
		return nil, Appended{}, fmt.Errorf("%w: %d bytes as a message, the topic takes %d", ErrTooLarge, size, j.cfg.MaxMessageBytes)
	}
	size := recordSize(topic, b.Key(), b.Value, headers)
	if err := j.room(size); err != nil {
		return nil, Appended{}, err
	}
	key := Key{Stream: Stream{Incarnation: j.incarnation, Dataset: b.Dataset}, Sequence: b.Sequence}
	write, err := j.encode(key, topic, b, headers)
	if err != nil {
		return nil, Appended{}, err
	}
	apply := j.db.ApplyNoSyncWait
	if j.cfg.Bulk {
		apply = j.db.Apply
	}
	if err := apply(write, j.durably()); err != nil {
		return nil, Appended{}, err
	}
	s.last = b.Sequence
	return write, Appended{Key: key}, nil
}

// encode makes the store's batch: the record and what points at it.
func (j *Journal) encode(key Key, topic string, b *batch.Batch, headers []batch.Header) (*pebble.Batch, error) {
	size := recordSize(topic, b.Key(), b.Value, headers)
	write := j.db.NewBatchWithSize(size + 512)
	name := storeKey(kindBatch, key)
	op := write.SetDeferred(len(name), size)
	copy(op.Key, name)
	if encoded := appendRecord(op.Value[:0], topic, b, headers); len(encoded) != size {
		return nil, fmt.Errorf("record has %d bytes, not %d", len(encoded), size)
	}
	err := errors.Join(
		op.Finish(),
		write.Set(storeKey(kindUnpublished, key), nil, nil),
		write.Set(idKey(b.Dataset, b.ID), name[1:], nil),
	)
	return write, err
}

// find looks b's id up. The same content is a duplicate, other content an
// error, and so is another time, which only a v4 id can come with.
func (j *Journal) find(b *batch.Batch) (Key, bool, error) {
	value, closer, err := j.db.Get(idKey(b.Dataset, b.ID))
	if errors.Is(err, pebble.ErrNotFound) {
		return Key{}, false, nil
	}
	if err != nil {
		return Key{}, false, err
	}
	key, err := parseKey(value)
	if err = errors.Join(err, closer.Close()); err != nil {
		return Key{}, false, err
	}
	first, err := j.get(key)
	if err != nil {
		return Key{}, false, err
	}
	if first.Batch.Content() != b.Content() {
		return Key{}, false, fmt.Errorf("%w, in batch %s", ErrIDConflict, key)
	}
	if at := first.Batch.Time; !at.Equal(b.Time) {
		return Key{}, false, fmt.Errorf("%w: batch %s has it with the time %s", ErrIDConflict, key, at.Format(time.RFC3339Nano))
	}
	return key, true, nil
}

// room checks that n more bytes leave the reserve untouched.
func (j *Journal) room(n int) error {
	usage, err := j.fs.GetDiskUsage(j.cfg.Dir)
	if err != nil {
		return fmt.Errorf("ask for free disk space: %w", err)
	}
	if need := uint64(j.cfg.ReserveBytes) + uint64(n); usage.AvailBytes < need {
		return fmt.Errorf("%w: %d bytes are free, %d are needed with the reserve", ErrDiskFull, usage.AvailBytes, need)
	}
	return nil
}

// messageSize is an upper bound of the batch's size as a Kafka message
// before compression: parts, their lengths, and the frame around one record.
func messageSize(b *batch.Batch, headers []batch.Header) int {
	const frame, perHeader = 128, 10
	n := frame + len(b.Key()) + len(b.Value)
	for _, h := range headers {
		n += perHeader + len(h.Key) + len(h.Value)
	}
	return n
}

func (j *Journal) stream(d schema.Dataset) *stream {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.streams[d]
	if s == nil {
		s = &stream{}
		j.streams[d] = s
	}
	return s
}
