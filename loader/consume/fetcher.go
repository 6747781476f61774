package consume

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"tallyman/schema/batch"
	"tallyman/sink"
)

// How long a broker may wait for something to arrive; shorter while a partition
// of it has no room, so that it is asked for soon after it has.
const (
	longWait  = 500 * time.Millisecond
	shortWait = 20 * time.Millisecond
)

// fetcher reads from one broker.
type fetcher struct {
	session  *session
	broker   int32
	inflater *inflater
	decoder  decoder
	turn     int // which partition is asked for first, in turn
}

// fetchFrom is a fetcher's life.
func (s *session) fetchFrom(broker int32) {
	inflater, err := newInflater(s.consumer.config.MaxBatchBytes, s.consumer.large)
	if err != nil {
		s.end(err)
		return
	}
	defer inflater.close()
	f := &fetcher{session: s, broker: broker, inflater: inflater}
	wait := newBackOff()
	answered := time.Now()
	what := fmt.Sprintf("broker %d", broker)
	for s.ctx.Err() == nil {
		q, flows := f.query()
		if len(flows) == 0 {
			f.idle()
			answered = time.Now() // nothing was asked, so nobody is silent
			continue
		}
		a, err := s.consumer.cluster.fetch(s.ctx, q)
		if s.ctx.Err() != nil {
			return
		}
		if err != nil {
			s.consumer.metrics.failures.WithLabelValues("request").Inc()
			pause := wait.NextBackOff()
			s.consumer.note(what, fmt.Errorf("broker %d: %w", broker, err))
			s.consumer.config.Logger.Warn("fetch failed; trying again", "broker", broker, "cause", err, "pause", pause)
			if time.Since(answered) > s.consumer.config.StallAfter {
				s.consumer.config.Logger.Warn("the broker answers nothing; starting anew on fresh connections", "broker", broker)
				s.consumer.config.Conn.Close()
				s.end(errSessionOver)
			}
			sleep(s.ctx, pause)
			continue
		}
		wait.Reset()
		s.consumer.note(what, nil)
		sound := true
		for i := range a.partitions {
			p := &a.partitions[i]
			if fl := flows[p.partition]; fl != nil {
				sound = f.take(fl, p) && sound
			}
		}
		if !sound {
			sleep(s.ctx, shortWait)
		}
		answered = time.Now()
	}
}

// query asks for every partition that this broker leads and that has room.
func (f *fetcher) query() (query, map[int32]*flow) {
	s := f.session
	q := query{broker: f.broker, isolation: readCommitted, wait: longWait, maxBytes: int32(s.consumer.config.FetchBytes)}
	flows := map[int32]*flow{}
	f.turn++
	for i := range s.numbers {
		number := s.numbers[(i+f.turn)%len(s.numbers)]
		fl := s.flow(number)
		if fl == nil || s.leaderOf(number).broker != f.broker {
			continue
		}
		next, ok := fl.position()
		if !ok {
			continue
		}
		if fl.held.Load() >= s.quota {
			q.wait = shortWait
			continue
		}
		flows[number] = fl
		q.wants = append(q.wants, want{partition: number, offset: next, maxBytes: q.maxBytes})
	}
	return q, flows
}

// position returns the offset to fetch; false: not now.
func (f *flow) position() (int64, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.next, f.opened && !f.closed
}

// idle waits until something changes.
func (f *fetcher) idle() {
	s := f.session
	s.mu.Lock()
	changed := s.changed
	s.mu.Unlock()
	timer := time.NewTimer(longWait)
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-s.ctx.Done():
	}
}

// take deals with what an answer says of one partition. It returns false if
// that is not worth asking again at once.
func (f *fetcher) take(fl *flow, p *fetched) bool {
	s := f.session
	switch code := kafka.Error(p.code); code {
	case 0:
	case kafka.OffsetOutOfRange, kafka.UnknownTopicOrPartition:
		s.reopen(p.partition, code.Title())
		return false
	default: // mostly a leader that moved: the next look at the layout finds it
		s.consumer.metrics.failures.WithLabelValues(strings.ToLower(strings.ReplaceAll(code.Title(), " ", "_"))).Inc()
		s.consumer.config.Logger.Info("partition can't be read now", "partition", p.partition, "cause", code)
		return false
	}
	if p.highWater >= 0 {
		fl.high.Store(p.highWater)
	}
	aborts := newAborts(p.transactions)
	for i := range p.batches {
		b := &p.batches[i]
		ok, err := f.batch(fl, p, b, aborts)
		if err != nil || !ok {
			return false
		}
	}
	return true
}

// batch hands over one batch. ok is false if what follows it must not be
// believed; the error is that of a session that ends.
func (f *fetcher) batch(fl *flow, p *fetched, b *rawBatch, aborts *aborts) (ok bool, err error) {
	next, open := fl.position()
	switch {
	case !open:
		return false, nil
	case b.fault == badCRC || b.fault == badMagic || b.fault == cutShort:
		f.damaged(fl, b, next)
		return false, nil
	case b.last < next:
		return true, nil // before the position: a broker may send whole batches
	case !fl.believes(hearsay{next, b.base, b.last}):
		return false, nil
	}
	records, taken, err := f.records(fl, b, aborts)
	if err != nil {
		return false, err
	}
	records = slices.DeleteFunc(records, func(r Record) bool { return r.Next <= next })
	if len(records) == 0 {
		records = []Record{{Message: sink.Message{Partition: fl.partition}, Skip: true, Next: b.last + 1}}
	}
	var slab *slab
	if taken > 0 {
		slab = fl.slab(f.session.consumer.budget, taken, len(records))
	}
	for i := range records {
		r := &records[i]
		r.LogStart, r.HighWater = p.logStart, p.highWater
		r.slab, r.index = slab, i
	}
	return true, fl.handOver(f.session, records, b.last+1)
}

// damaged counts a batch that was hurt on its way. It is asked for again and
// never passed; after a while a person is told.
func (f *fetcher) damaged(fl *flow, b *rawBatch, next int64) {
	c := f.session.consumer
	if b.fault == cutShort && b.base > next {
		return // how a full answer ends
	}
	fl.mu.Lock()
	fl.faults++
	faults := fl.faults
	fl.mu.Unlock()
	c.metrics.failures.WithLabelValues("damaged").Inc()
	if faults%10 == 1 {
		c.config.Logger.Warn("a record batch came damaged; asking again", "topic", fl.partition.Topic,
			"partition", fl.partition.Number, "offset", next, "times", faults)
	}
	const worrying = 10
	if faults >= worrying {
		c.note(fmt.Sprintf("partition %d", fl.partition.Number), fmt.Errorf(
			"partition %d of %s: the record batch at offset %d comes damaged every time", fl.partition.Number, fl.partition.Topic, next))
	}
}

// believes says whether a batch's offsets may move the position: they follow on
// it, or were told once before. No checksum covers them.
func (f *flow) believes(h hearsay) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if h.base == h.next || f.told == h {
		return true
	}
	f.told = h
	return false
}

// handOver gives records to the handler, unless the flow was closed.
func (f *flow) handOver(s *session, records []Record, next int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		for i := range records {
			records[i].Release()
		}
		return errFlowClosed
	}
	if f.faults > 0 {
		f.faults = 0
		s.consumer.note(fmt.Sprintf("partition %d", f.partition.Number), nil)
	}
	f.next = next
	return s.consumer.config.Handler.Handle(s.ctx, f.partition.Number, records)
}

var errFlowClosed = errors.New("the flow was closed")

// slab accounts for the memory of a batch's records, for the partition too.
func (f *flow) slab(b *budget, taken int64, records int) *slab {
	f.held.Add(taken)
	s := newSlab(b, taken, records)
	s.freed = func() {
		before := f.held.Add(-taken) + taken
		if before >= f.session.quota {
			f.session.released()
		}
	}
	return s
}

// records turns a batch into records, and returns the bytes that they took of
// the budget.
func (f *fetcher) records(fl *flow, b *rawBatch, aborts *aborts) ([]Record, int64, error) {
	whole := Record{Message: sink.Message{Partition: fl.partition, Offset: b.base, Timestamp: time.UnixMilli(b.maxTime).UTC()}, Next: b.last + 1}
	refused := func(reason batch.Reason, detail string) ([]Record, int64, error) {
		whole.Refused = &batch.Refusal{Reason: reason, Detail: detail}
		return []Record{whole}, 0, nil
	}
	switch b.fault {
	case tooLarge:
		return refused(batch.TooLarge, fmt.Sprintf("a record batch of %d bytes, the limit is %d", b.bytes, f.inflater.limit))
	case oldFormat:
		return refused(batch.Unreadable, "a message in a format from before Kafka 0.11, which has no headers")
	case malformed:
		return refused(batch.Unreadable, "the header of the record batch contradicts itself")
	}
	if b.control() {
		aborts.control(b)
		return nil, 0, nil
	}
	if b.count == 0 || aborts.drops(b) {
		return nil, 0, nil
	}
	data, own, err := f.inflater.inflate(b)
	if errors.Is(err, errTooLarge) {
		return refused(batch.TooLarge, fmt.Sprintf("a record batch that decompresses to more than %d bytes", f.inflater.limit))
	}
	if err != nil {
		return refused(batch.Unreadable, fmt.Sprintf("the record batch does not decompress: %v", err))
	}
	taken, err := f.session.consumer.budget.acquire(f.session.ctx, int64(len(data)))
	if err != nil {
		return nil, 0, err
	}
	if !own {
		data = slices.Clone(data)
	}
	f.decoder.partition = fl.partition
	messages, err := f.decoder.decode(b, data)
	if err != nil {
		f.session.consumer.budget.giveBack(taken)
		return refused(batch.Unreadable, err.Error())
	}
	records := make([]Record, len(messages))
	for i := range messages {
		records[i] = Record{Message: messages[i], Next: messages[i].Offset + 1}
	}
	if len(records) > 0 {
		records[len(records)-1].Next = b.last + 1
		return records, taken, nil
	}
	f.session.consumer.budget.giveBack(taken)
	return nil, 0, nil
}

// aborts knows, while the batches of one answer are passed in order, which
// producers are in the middle of a transaction that was aborted.
type aborts struct {
	coming []aborted // by first offset
	active map[int64]bool
}

func newAborts(transactions []aborted) *aborts {
	slices.SortFunc(transactions, func(a, b aborted) int {
		switch {
		case a.first < b.first:
			return -1
		case a.first > b.first:
			return 1
		}
		return 0
	})
	return &aborts{coming: transactions, active: map[int64]bool{}}
}

// drops says that the batch belongs to an aborted transaction.
func (a *aborts) drops(b *rawBatch) bool {
	a.reach(b)
	return b.transactional() && a.active[b.producer]
}

// control takes note of a control batch: it ends its producer's transaction.
func (a *aborts) control(b *rawBatch) {
	a.reach(b)
	if controlAbort(b.records) {
		delete(a.active, b.producer)
	}
}

func (a *aborts) reach(b *rawBatch) {
	for len(a.coming) > 0 && a.coming[0].first <= b.last {
		a.active[a.coming[0].producer] = true
		a.coming = a.coming[1:]
	}
}
