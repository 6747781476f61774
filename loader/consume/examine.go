package consume

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"

	"tallyman/sink"
)

// verdict is what an examination of a log found.
type verdict struct {
	act     act
	start   int64 // the log's start now
	expired bool  // the anchor's record is gone in the ordinary way
}

type act uint8

const (
	goOn    act = iota // the position belongs to this log
	toStart            // the log begins at the position or after it
	rewind             // another log under the same name
	unclear            // ask again
)

const (
	pauseBetween = 200 * time.Millisecond // two examinations whose verdict moves a position
	probeBytes   = 64 << 10               // of a look at one offset; a broker sends one batch whole in any case
)

// errUnclear is the error of an examination that has to be made again.
var errUnclear = errors.New("it can't be told yet whether the log is still the same")

// locate reads the position and places it where the log has it. It also
// returns the log's start. The error is one to try again after, or an
// *errMisled.
func (f *flow) locate(ctx context.Context, lead leader) (p sink.Position, start int64, err error) {
	select { // bounds the memory of answers when many partitions begin at once
	case f.consumer.examining <- struct{}{}:
		defer func() { <-f.consumer.examining }()
	case <-ctx.Done():
		return p, 0, ctx.Err()
	}
	config := &f.consumer.config
	ps, err := config.Positions.Assign(ctx, config.Revision, []sink.Partition{f.partition})
	if err != nil {
		return p, 0, fmt.Errorf("read the position: %w", f.judge(ctx, err))
	}
	p = ps[0]
	v, err := f.examineTwice(ctx, lead.broker, p)
	if err != nil {
		f.session.lookAround()
		return p, 0, fmt.Errorf("examine the log: %w", err)
	}
	switch {
	case v.act == unclear:
		return p, 0, errUnclear
	case v.act != goOn:
		if p, err = f.move(ctx, p, v); err != nil {
			return p, 0, fmt.Errorf("move the position: %w", f.judge(ctx, err))
		}
	case v.expired:
		p.Anchor = nil
	}
	return p, v.start, nil
}

// judge marks an error of the warehouse that waiting can't help.
func (f *flow) judge(ctx context.Context, err error) error {
	switch class := sink.ClassOf(err); {
	case ctx.Err() != nil, class == sink.Retryable, class == sink.TooSlow, class == sink.Fenced:
		return err
	}
	return &errMisled{fmt.Errorf("position of partition %d of %s: %w", f.partition.Number, f.partition.Topic, err)}
}

// examineTwice examines the log, and again if that would move the position.
func (f *flow) examineTwice(ctx context.Context, broker int32, p sink.Position) (verdict, error) {
	first, err := f.examine(ctx, broker, p)
	if err != nil || first.act == goOn || first.act == unclear {
		return first, err
	}
	if !sleep(ctx, pauseBetween) {
		return first, ctx.Err()
	}
	second, err := f.examine(ctx, broker, p)
	if err == nil && first != second {
		second.act = unclear
	}
	return second, err
}

// examine finds out whether the log is the one that the position belongs to.
// Neither offsets nor leader epochs tell: a topic that was made again has both.
func (f *flow) examine(ctx context.Context, broker int32, p sink.Position) (verdict, error) {
	start, err := f.consumer.cluster.logStart(ctx, broker, p.Partition.Number)
	if err != nil {
		return verdict{}, err
	}
	v := verdict{start: start}
	switch {
	case start > p.Next, start == p.Next && p.Anchor != nil:
		v.act = toStart
		return v, nil
	case start == p.Next:
		return v, nil
	case p.Anchor == nil && start < p.LogStart:
		v.act = rewind
		return v, nil
	case p.Anchor != nil && start > p.Anchor.Offset:
		v.expired = true
	case p.Anchor != nil:
		if v.act, err = f.compare(ctx, broker, p.Anchor); err != nil || v.act == rewind {
			return v, err
		}
	}
	// The log may have the anchor's record and yet end before the position.
	found, err := f.look(ctx, broker, p.Next)
	if err == nil && found == nil {
		v.act = rewind
	}
	return v, err
}

// look fetches at one offset, whatever is there; nil: the log's leader says
// that it has no such offset.
func (f *flow) look(ctx context.Context, broker int32, offset int64) (*fetched, error) {
	a, err := f.consumer.cluster.fetch(ctx, query{
		broker: broker, isolation: readUncommitted, maxBytes: probeBytes,
		wants: []want{{partition: f.partition.Number, offset: offset, maxBytes: probeBytes}},
	})
	if err != nil {
		return nil, err
	}
	if len(a.partitions) != 1 {
		return nil, &errFrame{detail: "an answer without the partition"}
	}
	switch code := kafka.Error(a.partitions[0].code); code {
	case 0:
		return &a.partitions[0], nil
	case kafka.OffsetOutOfRange:
		return nil, nil
	default:
		return nil, fmt.Errorf("fetch at offset %d: %w", offset, code)
	}
}

// compare reads the record at the anchor's offset and compares it. An empty
// answer never means that the record is gone.
func (f *flow) compare(ctx context.Context, broker int32, a *sink.Anchor) (act, error) {
	found, err := f.look(ctx, broker, a.Offset)
	switch {
	case err != nil:
		return unclear, err
	case found == nil:
		return rewind, nil
	}
	for i := range found.batches {
		b := &found.batches[i]
		switch {
		case b.fault == badCRC || b.fault == badMagic || b.fault == cutShort:
			return unclear, nil
		case b.last < a.Offset:
			continue
		case b.base > a.Offset:
			return rewind, nil
		}
		same, err := f.same(ctx, b, a)
		if err != nil {
			return unclear, err
		}
		if !same {
			return rewind, nil
		}
		return goOn, nil
	}
	return unclear, nil
}

// same says that a batch holds the anchor's record. What can't be read is
// another record: the anchor's could. The error is ctx's.
func (f *flow) same(ctx context.Context, b *rawBatch, a *sink.Anchor) (same bool, err error) {
	if b.fault != sound {
		return false, nil
	}
	_ = f.consumer.inflaters.inflate(ctx, b, func(i inflated) error {
		defer f.consumer.budget.giveBack(i.taken)
		if err := b.check(i.data); err != nil {
			return err
		}
		for f.reader.read(b, i.data); f.reader.left > 0; {
			if m := f.reader.take(); m.Offset == a.Offset {
				same = m.Timestamp.Equal(a.Timestamp) && m.Fingerprint() == a.SHA256
			}
		}
		return nil
	})
	return same, ctx.Err()
}

// move places the position where the verdict says, and tells a person.
func (f *flow) move(ctx context.Context, p sink.Position, v verdict) (sink.Position, error) {
	config := &f.consumer.config
	m := sink.Move{Partition: p.Partition, Era: p.Era, From: p.Next, To: v.start, LogStart: v.start, Rewind: v.act == rewind}
	if v.act == toStart && v.start > p.Next {
		m.Gap = "the log begins after the position: retention or a deletion was faster than the loader"
	}
	moved, err := config.Positions.Move(ctx, config.Revision, m)
	if err != nil {
		return p, err
	}
	switch log := config.Logger.With("topic", f.partition.Topic, "partition", f.partition.Number); {
	case m.Rewind:
		f.consumer.metrics.rewinds.Inc()
		log.Error("the topic is another one than before; reading it from its start, what is loaded already is refused by its ids",
			"was_at", p.Next, "start", v.start)
	case m.Gap != "":
		f.consumer.metrics.gaps.Add(float64(v.start - p.Next))
		log.Error("messages were gone before they were read: publish them again",
			"first", p.Next, "last", v.start-1, "cause", m.Gap)
	}
	return moved, nil
}
