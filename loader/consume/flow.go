package consume

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"

	"tallyman/sink"
)

// flow is one partition from one reading of its position to the next.
type flow struct {
	session   *session
	partition sink.Partition
	high      atomic.Int64 // the high watermark; -1: not known yet
	held      atomic.Int64 // bytes that the handler has not released

	mu     sync.Mutex // held while records are handed over: nothing comes after close
	opened bool       // begun, and not closed
	closed bool
	next   int64 // the offset to fetch
	told   hearsay
	faults int // fetches in a row that brought nothing sound
}

// hearsay is what a fetch said that no checksum covers: it has to be said twice.
type hearsay struct{ next, base, last int64 }

func (f *flow) isOpen() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.opened && !f.closed
}

// close ends the flow. Once it returns, nothing more is handed over.
func (f *flow) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}

// verdict is what an examination of a log found.
type verdict struct {
	act   act
	start int64 // the log's start now
}

type act uint8

const (
	goOn    act = iota // the position belongs to this log
	toStart            // the log begins after the position, or at it
	rewind             // another log under the same name
	unclear            // ask again
)

// pauseBetween two examinations whose verdict moves a position.
const pauseBetween = 200 * time.Millisecond

// open reads the position, checks that the log is its log, and begins. It
// returns when records may come, or when ctx ends or the flow is closed. The
// error is one that waiting can't help.
func (f *flow) open(ctx context.Context) error {
	c := f.session.consumer
	wait := newBackOff()
	what := fmt.Sprintf("partition %d", f.partition.Number)
	for {
		done, err := f.tryOpen(ctx)
		if done || ctx.Err() != nil {
			c.note(what, nil)
			return nil
		}
		if err != nil {
			var classed *sink.Error
			if errors.As(err, &classed) && classed.Class != sink.Retryable && classed.Class != sink.Fenced && classed.Class != sink.TooSlow {
				return err
			}
			c.note(what, err)
		}
		if !sleep(ctx, wait.NextBackOff()) {
			return nil
		}
	}
}

// tryOpen is one attempt; done is false with or without an error to try again.
func (f *flow) tryOpen(ctx context.Context) (done bool, err error) {
	c := f.session.consumer
	lead := f.session.leaderOf(f.partition.Number)
	if lead.broker < 0 {
		return false, fmt.Errorf("partition %d of %s has no leader", f.partition.Number, f.partition.Topic)
	}
	positions, err := c.config.Positions.Assign(ctx, c.config.Revision, []sink.Partition{f.partition})
	if err != nil {
		return false, err
	}
	position := positions[0]
	v, err := f.examineTwice(ctx, lead.broker, position)
	if err != nil || v.act == unclear {
		return false, err
	}
	if v.act != goOn {
		if position, err = f.move(ctx, position, v); err != nil {
			return false, err
		}
	}
	f.begin(position)
	f.session.released()
	return true, nil
}

// begin tells the handler where records start, unless the flow was closed.
func (f *flow) begin(p sink.Position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	f.session.consumer.config.Handler.Begin(p)
	f.next, f.opened = p.Next, true
}

// examineTwice examines the log, and again if that would move the position.
func (f *flow) examineTwice(ctx context.Context, broker int32, p sink.Position) (verdict, error) {
	first, err := f.examine(ctx, broker, p)
	if err != nil || first.act == goOn || first.act == unclear {
		return first, err
	}
	if !sleep(ctx, pauseBetween) {
		return verdict{act: unclear}, ctx.Err()
	}
	second, err := f.examine(ctx, broker, p)
	if err != nil {
		return second, err
	}
	if first != second {
		return verdict{act: unclear}, nil
	}
	return second, nil
}

// examine finds out whether the log is the one that the position belongs to.
// Neither offsets nor leader epochs tell: a topic that was made again has both.
func (f *flow) examine(ctx context.Context, broker int32, p sink.Position) (verdict, error) {
	cluster := f.session.consumer.cluster
	start, err := cluster.logStart(ctx, broker, p.Partition.Number)
	if err != nil {
		return verdict{}, err
	}
	switch {
	case start > p.Next, start == p.Next && p.Anchor != nil:
		return verdict{toStart, start}, nil
	case start == p.Next, p.Anchor != nil && start > p.Anchor.Offset:
		return verdict{goOn, start}, nil // nothing is left to compare with
	case p.Anchor == nil && p.LogStart >= 0 && start < p.LogStart:
		return verdict{rewind, start}, nil
	case p.Anchor == nil:
		return f.reach(ctx, broker, p, start)
	}
	return f.compare(ctx, broker, p, start)
}

// reach checks, where there is no anchor, that the log has the position at all.
func (f *flow) reach(ctx context.Context, broker int32, p sink.Position, start int64) (verdict, error) {
	found, err := f.look(ctx, broker, p.Next)
	switch {
	case err != nil:
		return verdict{}, err
	case kafka.Error(found.code) == kafka.OffsetOutOfRange:
		return verdict{rewind, start}, nil
	case found.code != 0:
		return verdict{}, kafka.Error(found.code)
	}
	return verdict{goOn, start}, nil
}

// look fetches at one offset, whatever is there.
func (f *flow) look(ctx context.Context, broker int32, offset int64) (fetched, error) {
	c := f.session.consumer
	a, err := c.cluster.fetch(ctx, query{
		broker: broker, isolation: readUncommitted, wait: 100 * time.Millisecond, maxBytes: int32(c.config.FetchBytes),
		wants: []want{{partition: f.partition.Number, offset: offset, maxBytes: int32(c.config.FetchBytes)}},
	})
	if err != nil {
		return fetched{}, err
	}
	if len(a.partitions) != 1 {
		return fetched{}, &errFrame{detail: "an answer without the partition"}
	}
	return a.partitions[0], nil
}

// compare reads the record at the anchor's offset and compares it.
func (f *flow) compare(ctx context.Context, broker int32, p sink.Position, start int64) (verdict, error) {
	found, err := f.look(ctx, broker, p.Anchor.Offset)
	switch {
	case err != nil:
		return verdict{}, err
	case kafka.Error(found.code) == kafka.OffsetOutOfRange:
		return verdict{rewind, start}, nil
	case found.code != 0:
		return verdict{}, kafka.Error(found.code)
	}
	inflater, err := newInflater(f.session.consumer.config.MaxBatchBytes, f.session.consumer.large)
	if err != nil {
		return verdict{}, err
	}
	defer inflater.close()
	for i := range found.batches {
		b := &found.batches[i]
		switch {
		case b.fault == badCRC || b.fault == badMagic || b.fault == cutShort:
			return verdict{unclear, start}, nil
		case b.last < p.Anchor.Offset:
			continue
		}
		if b.base <= p.Anchor.Offset && f.same(inflater, b, p.Anchor) {
			return verdict{goOn, start}, nil
		}
		return verdict{rewind, start}, nil
	}
	return verdict{unclear, start}, nil // an empty answer never means that the record is gone
}

// same says that a batch holds the anchor's record.
func (f *flow) same(i *inflater, b *rawBatch, a *sink.Anchor) bool {
	if b.fault != sound {
		return false
	}
	data, _, err := i.inflate(b)
	if err != nil {
		return false
	}
	messages, err := (&decoder{partition: f.partition}).decode(b, data)
	if err != nil {
		return false
	}
	for j := range messages {
		m := &messages[j]
		if m.Offset == a.Offset {
			return m.Timestamp.Equal(a.Timestamp) && m.Fingerprint() == a.SHA256
		}
	}
	return false
}

// move places the position where the verdict says, and tells a person.
func (f *flow) move(ctx context.Context, p sink.Position, v verdict) (sink.Position, error) {
	c := f.session.consumer
	m := sink.Move{Partition: p.Partition, Era: p.Era, From: p.Next, To: v.start, LogStart: v.start, Rewind: v.act == rewind}
	if v.act == toStart && v.start > p.Next {
		m.Gap = "the log begins after the position: retention or a deletion was faster than the loader"
	}
	moved, err := c.config.Positions.Move(ctx, c.config.Revision, m)
	if err != nil {
		return p, err
	}
	switch {
	case m.Rewind:
		c.metrics.rewinds.Inc()
		c.config.Logger.Error("the topic is another one than before; reading it from its start, what is loaded already is refused by its ids",
			"topic", f.partition.Topic, "partition", f.partition.Number, "was_at", p.Next, "start", v.start)
	case m.Gap != "":
		c.metrics.gaps.Add(float64(v.start - p.Next))
		c.config.Logger.Error("messages were gone before they were read: publish them again",
			"topic", f.partition.Topic, "partition", f.partition.Number, "first", p.Next, "last", v.start-1, "cause", m.Gap)
	}
	return moved, nil
}
