package consume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"tallyman/schema/batch"
	"tallyman/sink"
)

// flow is one partition during a session. Its goroutine lives one life after
// another: each begins with reading the position and ends with a doubt.
type flow struct {
	session   *session
	consumer  *Consumer
	partition sink.Partition
	share     *share
	reader    reader       // whose names outlive a life
	high      atomic.Int64 // the high watermark; -1: not known yet

	mu   sync.Mutex
	end  context.CancelCauseFunc // of the present life; nil between two
	life uint64                  // counts them
	flowing
}

// flowing is the state of a life that has begun, between its goroutine and the
// fetcher. It is guarded by the flow's mu.
type flowing struct {
	open   bool
	lead   leader
	next   int64 // the offset to fetch
	era    int64 // of the position that the life began with
	done   int64 // up to where the warehouse has committed since
	full   bool  // something was fetched that the goroutine has not taken
	whole  bool  // next is where a record batch ends
	ready  chan *catch
	told   hearsay
	starts [2]int64                    // the log's start as the last answer told it, and as two in a row did
	stable int64                       // up to where there is something to read
	behind int                         // answers in a row whose log ends before next
	moved  time.Time                   // when anything was last read
	damage *backoff.ExponentialBackOff // nil: none since
	not    time.Time                   // before then nothing is fetched
	unwell bool                        // the trouble of this partition was noted
}

// catch is what one answer brought for one partition.
type catch struct {
	steps    []step
	logStart int64
	high     int64
}

// doubt ends a life for an ordinary reason.
type doubt struct{ why string }

// Error implements error.
func (d *doubt) Error() string { return d.why }

// errMisled is the error of a life that waiting can't help.
type errMisled struct{ err error }

func (e *errMisled) Error() string { return e.err.Error() }
func (e *errMisled) Unwrap() error { return e.err }

// run lives until ctx ends. The error is one that waiting can't help.
func (f *flow) run(ctx context.Context) error {
	pause := newBackOff()
	for {
		progress, err := f.live(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the end is no error
		}
		var fatal *errMisled
		if errors.As(err, &fatal) {
			return fatal.err
		}
		f.tell(err)
		if progress {
			pause.Reset()
			continue
		}
		if !sleep(ctx, pause.NextBackOff()) {
			return nil
		}
	}
}

// tell notes and logs why a life ended.
func (f *flow) tell(err error) {
	log := f.consumer.config.Logger.With("topic", f.partition.Topic, "partition", f.partition.Number)
	var d *doubt
	if errors.As(err, &d) {
		log.Info("reading a position again", "why", d.why)
		return
	}
	f.mu.Lock()
	first := !f.unwell
	f.unwell = true
	f.mu.Unlock()
	f.consumer.note(f.trouble(), fmt.Errorf("partition %d of %s: %w", f.partition.Number, f.partition.Topic, err))
	if first {
		log.Warn("partition can't be read; trying again", "cause", err)
	} else {
		log.Debug("partition can't be read; trying again", "cause", err)
	}
}

// trouble is what this partition's trouble is noted under.
func (f *flow) trouble() trouble { return trouble{aPartition, f.partition.Number} }

// live is one life. It returns whether it read anything, and why it ended.
func (f *flow) live(parent context.Context) (progress bool, err error) {
	ctx, end := context.WithCancelCause(parent)
	defer end(nil)
	f.mu.Lock()
	f.end, f.life = end, f.life+1
	f.mu.Unlock()
	defer f.shut()
	lead := f.session.leaderOf(f.partition.Number)
	if lead.broker < 0 {
		f.session.lookAround()
		return false, errors.New("it has no leader")
	}
	position, start, err := f.locate(ctx, lead)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return false, err
	}
	f.consumer.config.Handler.Begin(position)
	ready := f.begin(lead, position, start)
	for {
		select {
		case <-ctx.Done():
			return progress, context.Cause(ctx)
		case c := <-ready:
			f.taken()
			for i := range c.steps {
				if err := f.pass(ctx, c, &c.steps[i]); err != nil {
					if ctx.Err() != nil {
						err = context.Cause(ctx)
					}
					return progress, err
				}
				c.steps[i] = step{} // frees what was compressed
				progress = true
			}
		}
	}
}

// restart ends the present life, if any: the position is read again.
func (f *flow) restart(why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.end != nil {
		f.end(why)
	}
}

// begin lets the fetcher fetch from a position on.
func (f *flow) begin(lead leader, p sink.Position, start int64) <-chan *catch {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.flowing = flowing{
		open: true, lead: lead, next: p.Next, era: p.Era, done: p.Next, starts: [2]int64{start, start}, moved: time.Now(),
		ready: make(chan *catch, 1), unwell: f.unwell,
	}
	defer f.session.wake()
	return f.ready
}

// taken says that the fetcher may bring more.
func (f *flow) taken() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.full, f.moved = false, time.Now()
	f.session.wake()
}

// committed notes up to where the warehouse has said that it committed.
func (f *flow) committed(next int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done = max(f.done, next)
}

// durable returns up to where the warehouse has said that it committed.
func (f *flow) durable() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.done
}

// expect ends a life that began in an earlier era than the warehouse has, or of
// which the warehouse has lost what was committed before it was asked: another
// one took over, without the last transactions.
func (f *flow) expect(p sink.Position, before int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case !f.open:
	case f.era < p.Era:
		f.end(&doubt{"it was rewound"})
	case f.era == p.Era && p.Next < min(before, f.done): // f.done is less if a new life began meanwhile
		f.consumer.config.Logger.Warn("the warehouse went back; loading again what it lost",
			"topic", f.partition.Topic, "partition", f.partition.Number, "committed", before, "position", p.Next)
		f.end(&doubt{"the warehouse went back"})
	}
}

func (f *flow) shut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.end = nil
	f.flowing = flowing{unwell: f.unwell}
}

// pass hands over what a batch holds.
func (f *flow) pass(ctx context.Context, c *catch, s *step) error {
	switch {
	case s.fault == tooLarge:
		return f.refuse(ctx, c, s, batch.TooLarge, fmt.Sprintf("a record batch of %d bytes, the limit is %d",
			s.bytes, f.consumer.config.MaxBatchBytes))
	case s.fault == oldFormat:
		return f.refuse(ctx, c, s, batch.Unreadable, "a message of the format before Kafka 0.11, which has no headers")
	case s.fault != sound:
		return f.refuse(ctx, c, s, batch.Unreadable, "the header of the record batch contradicts itself")
	case s.control() || s.drop || s.count == 0:
		return f.single(ctx, c, Record{Message: sink.Message{Partition: f.partition}, Skip: true, Next: s.last + 1})
	}
	if err := f.share.room(ctx); err != nil {
		return err
	}
	var taken int64
	err := f.consumer.inflaters.inflate(ctx, &s.rawBatch, func(i inflated) (err error) {
		taken, err = f.receive(ctx, &s.rawBatch, i)
		return err
	})
	switch {
	case ctx.Err() != nil:
		f.consumer.budget.giveBack(taken)
		return ctx.Err()
	case errors.Is(err, errTooLarge):
		return f.refuse(ctx, c, s, batch.TooLarge, fmt.Sprintf("a record batch that decompresses to more than %d bytes",
			f.consumer.config.MaxBatchBytes))
	case err != nil:
		return f.refuse(ctx, c, s, batch.Unreadable, err.Error())
	}
	return f.deal(ctx, c, s, taken)
}

// receive keeps a batch's records for reading, and returns what was taken of
// the budget for them and for the first chunk.
func (f *flow) receive(ctx context.Context, b *rawBatch, i inflated) (int64, error) {
	if err := b.check(i.data); err != nil {
		f.consumer.budget.giveBack(i.taken)
		return 0, err
	}
	if i.taken > 0 {
		f.reader.read(b, i.data)
		return i.taken, nil
	}
	f.reader.read(b, i.data)
	_, more := f.reader.peek()
	taken, err := f.consumer.budget.acquire(ctx, int64(len(i.data))+more)
	if err != nil {
		return 0, err
	}
	if b.compression() != 0 {
		f.reader.read(b, bytes.Clone(i.data))
	}
	return taken, nil
}

// deal hands a batch's records over, chunk by chunk. The first carries what the
// bytes of all of them took: it waits for nobody, so neither do they.
func (f *flow) deal(ctx context.Context, c *catch, s *step, taken int64) error {
	for r := &f.reader; ; {
		n, bytes := r.peek()
		if taken == 0 {
			var err error
			if taken, err = f.consumer.budget.acquire(ctx, bytes); err != nil {
				return err
			}
		}
		records := make([]Record, 0, n)
		for range n {
			if m := r.take(); m.Offset >= s.from {
				records = append(records, Record{Message: m, Next: m.Offset + 1})
			}
		}
		last := r.left == 0
		switch {
		case last && len(records) > 0:
			records[len(records)-1].Next = s.last + 1
		case last:
			records = append(records, Record{Message: sink.Message{Partition: f.partition}, Skip: true, Next: s.last + 1})
		case len(records) == 0:
			continue
		}
		if err := f.hand(ctx, c, records, f.share.slab(taken, len(records))); err != nil || last {
			return err
		}
		taken = 0
	}
}

// refuse hands a batch over for quarantine, by its coordinates.
func (f *flow) refuse(ctx context.Context, c *catch, s *step, reason batch.Reason, detail string) error {
	at := time.Now()
	if s.maxTime > 0 {
		at = time.UnixMilli(min(s.maxTime, maxTime))
	}
	return f.single(ctx, c, Record{
		Message: sink.Message{Partition: f.partition, Offset: s.from, Timestamp: at.UTC()},
		Next:    s.last + 1,
		Refused: &batch.Refusal{Reason: reason, Detail: detail},
	})
}

// single hands over a step without content, whose memory counts all the same:
// an outage may last for any number of them.
func (f *flow) single(ctx context.Context, c *catch, r Record) error {
	if err := f.share.room(ctx); err != nil {
		return err
	}
	taken, err := f.consumer.budget.acquire(ctx, recordMemory)
	if err != nil {
		return err
	}
	return f.hand(ctx, c, []Record{r}, f.share.slab(taken, 1))
}

// hand gives records to the handler.
func (f *flow) hand(ctx context.Context, c *catch, records []Record, s *slab) error {
	for i := range records {
		r := &records[i]
		r.LogStart, r.HighWater, r.slab, r.index = c.logStart, c.high, s, i
	}
	if err := f.consumer.config.Handler.Handle(ctx, f.partition.Number, records); err != nil {
		for i := range records {
			records[i].Release()
		}
		return err
	}
	return nil
}
