package consume

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/segmentio/kafka-go"

	"tallyman/internal/kafkaconn"
	"tallyman/sink"
)

// Scanner reads stretches of a topic's logs once, outside of any group. It is
// for who can tell by a digest of its own whether a message is the right one: it
// does not ask whether a transaction was committed, nor whether the log is the
// one of before, and it leaves out what can't be read.
type Scanner struct {
	// Conn is the way to the cluster. Required.
	Conn *kafkaconn.Conn
	// Topic is what is read. Required.
	Topic string
	// MaxBatchBytes bounds a record batch, compressed and decompressed; larger
	// ones are left out. Defaults to 32 MiB.
	MaxBatchBytes int64
	// FetchBytes is how much a broker is asked for at a time, compressed. Defaults to 2 MiB.
	FetchBytes int32
	// RequestTimeout bounds one request, the broker's own wait not counted. Defaults to 10 s.
	RequestTimeout time.Duration
	// Patience is how long a broker that does not answer is asked again. Defaults to 30 s.
	Patience time.Duration
}

// Span is a stretch of a partition's log: the offsets from From to before To.
type Span struct {
	Partition int32
	From, To  int64
}

// Scan hands over the messages of some spans, one span after another. What take
// is handed stays valid as long as it is referred to. next is the offset that
// follows on the message. Offsets below the log's start are passed over.
func (s *Scanner) Scan(ctx context.Context, spans []Span, take func(m sink.Message, next int64) error) error {
	c := *s
	def(&c.MaxBatchBytes, 32<<20)
	def(&c.FetchBytes, 2<<20)
	def(&c.RequestTimeout, 10*time.Second)
	def(&c.Patience, 30*time.Second)
	r := scan{Scanner: &c, take: take, budget: newBudget(c.MaxBatchBytes), cluster: &cluster{
		transport: c.Conn.Transport(), addr: c.Conn.Addr(), clientID: c.Conn.Dialer().ClientID,
		topic: c.Topic, timeout: c.RequestTimeout, maxBatch: c.MaxBatchBytes,
	}}
	var err error
	if r.inflaters, err = newInflaters(1, c.MaxBatchBytes, r.budget); err != nil {
		return err
	}
	for _, span := range spans {
		if err := r.span(ctx, span); err != nil {
			return fmt.Errorf("read partition %d of %s: %w", span.Partition, c.Topic, err)
		}
	}
	return nil
}

// scan is a Scanner at work.
type scan struct {
	*Scanner
	cluster   *cluster
	budget    *budget
	inflaters *inflaters
	reader    reader
	broker    int32 // that leads the partition; -1: to be asked for
	start     int64 // of its log
	take      func(m sink.Message, next int64) error
}

// span reads one span. A fetch that fails or brings nothing is repeated.
func (s *scan) span(ctx context.Context, span Span) error {
	s.reader.partition = sink.Partition{Cluster: s.Conn.Cluster(), Topic: s.Topic, Number: span.Partition}
	s.broker = -1
	for next := span.From; next < span.To; {
		after, err := backoff.Retry(ctx, func() (int64, error) {
			p, err := s.fetch(ctx, span.Partition, next)
			switch {
			case ctx.Err() != nil:
				return next, backoff.Permanent(context.Cause(ctx))
			case err != nil:
				s.broker = -1
				return next, err
			}
			after, err := s.pass(ctx, p, next, span.To)
			var taken *errTaken
			if errors.As(err, &taken) {
				return after, backoff.Permanent(taken.err)
			}
			if err == nil && after == next {
				err = fmt.Errorf("its leader has offset %d and does not send it", next)
			}
			if after > next {
				err = nil // what is hurt is asked for again
			}
			return after, err
		}, backoff.WithMaxElapsedTime(s.Patience))
		if err != nil {
			return err
		}
		next = after
	}
	return nil
}

// errTaken is an error of who takes the messages.
type errTaken struct{ err error }

func (e *errTaken) Error() string { return e.err.Error() }

// fetch asks the partition's leader for what stands at an offset; if the log
// begins after it, at its start.
func (s *scan) fetch(ctx context.Context, partition int32, offset int64) (*fetched, error) {
	if s.broker < 0 {
		if err := s.locate(ctx, partition); err != nil {
			return nil, err
		}
	}
	a, err := s.cluster.fetch(ctx, query{
		broker: s.broker, isolation: readUncommitted, wait: longWait, maxBytes: s.FetchBytes,
		wants: []want{{partition: partition, offset: max(offset, s.start), maxBytes: s.FetchBytes}},
	})
	switch {
	case err != nil:
		return nil, err
	case len(a.partitions) != 1:
		return nil, &errFrame{detail: "an answer without the partition"}
	case a.partitions[0].code != 0:
		return nil, fmt.Errorf("fetch at offset %d: %w", offset, kafka.Error(a.partitions[0].code))
	}
	return &a.partitions[0], nil
}

// locate finds the partition's leader and where its log begins.
func (s *scan) locate(ctx context.Context, partition int32) error {
	leaders, err := s.cluster.layout(ctx)
	if err != nil {
		return err
	}
	lead, ok := leaders[partition]
	if !ok || lead.broker < 0 {
		return errors.New("it has no leader")
	}
	if s.start, err = s.cluster.logStart(ctx, lead.broker, partition); err == nil {
		s.broker = lead.broker
	}
	return err
}

// pass hands over what an answer has from next to before end, and returns where
// to go on.
func (s *scan) pass(ctx context.Context, p *fetched, next, end int64) (int64, error) {
	for i := range p.batches {
		b := &p.batches[i]
		switch {
		case b.fault == cutShort:
			return next, nil // how a full answer ends
		case b.fault == badCRC || b.fault == badMagic:
			return next, fmt.Errorf("the record batch at offset %d came damaged", next)
		case b.last < next:
			continue // a broker sends whole batches
		case b.base >= end:
			return end, nil
		case b.fault == sound && !b.control() && b.count > 0:
			if err := s.hand(ctx, b, next, end); err != nil {
				return next, err
			}
		}
		next = b.last + 1
	}
	return next, nil
}

// hand hands over a record batch. One that can't be read is left out.
func (s *scan) hand(ctx context.Context, b *rawBatch, from, end int64) error {
	var failed error
	_ = s.inflaters.inflate(ctx, b, func(i inflated) error {
		defer s.budget.giveBack(i.taken)
		if err := b.check(i.data); err != nil {
			return err
		}
		data := i.data
		if b.compression() != 0 && i.taken == 0 {
			data = append(make([]byte, 0, len(data)), data...) // it is valid during the call only
		}
		for s.reader.read(b, data); s.reader.left > 0; {
			m := s.reader.take()
			if m.Offset < max(from, s.start) || m.Offset >= end {
				continue
			}
			if err := s.take(m, m.Offset+1); err != nil {
				failed = &errTaken{err}
				return failed
			}
		}
		return nil
	})
	if failed != nil {
		return failed
	}
	return ctx.Err()
}
