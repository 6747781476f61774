package consume

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
)

// How long a broker may wait for something to arrive. While a partition can't
// take more the wait is short at first, so that it is asked for soon after.
const (
	longWait  = 500 * time.Millisecond
	shortWait = 20 * time.Millisecond
)

// leastFetch is what a broker is asked for where more does not arrive in time.
const leastFetch = 64 << 10

// fetcher reads from one broker.
type fetcher struct {
	session *session
	broker  int32
	bytes   int32         // asked for at a time
	wait    time.Duration // for something to arrive
	served  map[int32]int // when each partition last had something, in turns
	turn    int
}

// fetchFrom is a fetcher's work until the session ends.
func (s *session) fetchFrom(broker int32) {
	f := &fetcher{session: s, broker: broker, bytes: s.consumer.config.FetchBytes, wait: shortWait, served: map[int32]int{}}
	pause := newBackOff()
	what := trouble{aBroker, broker}
	for s.ctx.Err() == nil {
		q, asked := f.query()
		if len(asked) == 0 {
			f.idle()
			continue
		}
		a, err := s.consumer.cluster.fetch(s.ctx, q)
		if s.ctx.Err() != nil {
			return
		}
		if err == nil {
			pause.Reset()
			s.consumer.note(what, nil)
			f.share(a, asked)
			continue
		}
		f.failed(err, asked)
		s.consumer.note(what, fmt.Errorf("broker %d: %w", broker, err))
		sleep(s.ctx, pause.NextBackOff())
	}
}

// request is the state of a flow that a query was made from.
type request struct {
	flow *flow
	life uint64
}

// query asks for every partition that this broker leads and that can take
// more, those first that had nothing for longest: of a batch larger than what
// is asked for, a broker sends the first one only.
func (f *fetcher) query() (query, map[int32]request) {
	f.turn++
	q := query{broker: f.broker, isolation: readCommitted, wait: longWait, maxBytes: max(f.bytes, leastFetch)}
	asked := map[int32]request{}
	for number, flow := range f.session.flows {
		next, life, state := flow.wants(f.broker)
		switch state {
		case wantsMore:
			asked[number] = request{flow, life}
			q.wants = append(q.wants, want{partition: number, offset: next, maxBytes: min(f.bytes, f.session.fetchBytes)})
		case wantsLater:
			q.wait = f.wait
		}
	}
	slices.SortFunc(q.wants, func(a, b want) int {
		return cmp.Or(cmp.Compare(f.served[a.partition], f.served[b.partition]), cmp.Compare(a.partition, b.partition))
	})
	return q, asked
}

// idle waits until something changes.
func (f *fetcher) idle() {
	timer := time.NewTimer(longWait)
	defer timer.Stop()
	select {
	case <-f.session.woken(f.broker):
	case <-timer.C:
	case <-f.session.ctx.Done():
	}
}

// share gives every flow its part of an answer.
func (f *fetcher) share(a *answer, asked map[int32]request) {
	something := false
	for i := range a.partitions {
		p := &a.partitions[i]
		r := asked[p.partition]
		if len(p.batches) > 0 {
			something = true
			f.served[p.partition] = f.turn
		}
		if cause := r.flow.bring(r.life, p); cause != "" {
			f.session.consumer.metrics.failures.WithLabelValues(cause).Inc()
		}
	}
	f.wait = min(2*f.wait, longWait)
	if something {
		f.wait = shortWait
		f.bytes = min(2*f.bytes, f.session.consumer.config.FetchBytes)
	}
}

// failed deals with a fetch that was not answered. Whatever interrupts reading
// leaves room for another log under the same name, so the logs are examined.
func (f *fetcher) failed(err error, asked map[int32]request) {
	c := f.session.consumer
	c.metrics.failures.WithLabelValues("request").Inc()
	c.config.Logger.Warn("fetch failed; trying again", "broker", f.broker, "cause", err)
	if errors.Is(err, errNoAnswer) {
		f.bytes = max(f.bytes/2, leastFetch)
	}
	for _, r := range asked {
		r.flow.restart(&doubt{"the connection to its leader failed"})
	}
	f.session.lookAround()
}

// wanting is whether a flow should be fetched.
type wanting uint8

const (
	wantsNothing wanting = iota
	wantsMore
	wantsLater // it can't take more now
)

// wants returns the offset to fetch from a broker.
func (f *flow) wants(broker int32) (next int64, life uint64, w wanting) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case !f.open || f.lead.broker != broker:
		return 0, 0, wantsNothing
	case f.full || time.Now().Before(f.not):
		return 0, 0, wantsLater
	}
	return f.next, f.life, wantsMore
}

// bring takes a partition's part of an answer that was asked for in a life. It
// returns what failed, as a label; empty: nothing.
func (f *flow) bring(life uint64, p *fetched) (cause string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.open || f.life != life {
		return ""
	}
	if code := kafka.Error(p.code); code != 0 {
		f.session.lookAround()
		f.end(&doubt{fmt.Sprintf("its leader answers %v", code)})
		return strings.ToLower(strings.ReplaceAll(code.Title(), " ", "_"))
	}
	f.hear(p)
	steps, heard, err := vet(p, f.next, f.told)
	f.told = heard
	if err != nil && len(steps) == 0 {
		f.damaged(err)
		return "damaged"
	}
	if err == nil {
		f.sound()
	}
	if len(steps) > 0 && f.whole && steps[0].base < f.next {
		// In one log no batch begins within another.
		f.end(&doubt{"a record batch does not follow on the one before"})
		return "other_log"
	}
	if len(steps) > 0 {
		f.consumer.note(trouble{aStall, f.partition.Number}, nil)
		f.next = steps[len(steps)-1].last + 1
		f.full, f.whole = true, true
		f.ready <- &catch{steps: steps, logStart: f.starts[1], high: p.highWater}
	}
	if err != nil {
		return "damaged"
	}
	return ""
}

// hear takes note of what an answer says about the log. No checksum covers
// it: of what positions are told, it counts when it was said twice. The caller
// holds mu.
func (f *flow) hear(p *fetched) {
	f.high.Store(p.highWater)
	f.stable = p.lastStable
	if p.logStart == f.starts[0] {
		f.starts[1] = p.logStart
	}
	f.starts[0] = p.logStart
	if p.highWater >= f.next {
		f.behind = 0
	} else if f.behind++; f.behind > 1 {
		f.end(&doubt{"its log ends before the position"})
	}
}

// damaged counts an answer that was hurt on its way, or on the broker's disk.
// It is asked for again and never passed; after a while a person is told. The
// caller holds mu.
func (f *flow) damaged(err error) {
	if f.damage == nil {
		f.damage = newBackOff()
		f.consumer.config.Logger.Warn("damaged answer; asking again",
			"topic", f.partition.Topic, "partition", f.partition.Number, "cause", err)
	} else {
		f.unwell = true
		f.consumer.note(f.trouble(), fmt.Errorf("partition %d of %s: %w, again and again", f.partition.Number, f.partition.Topic, err))
	}
	f.not = time.Now().Add(f.damage.NextBackOff())
}

// sound notes that the partition can be read. The caller holds mu.
func (f *flow) sound() {
	f.damage = nil
	if f.unwell {
		f.unwell = false
		f.consumer.note(f.trouble(), nil)
	}
}
