package consume

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"tallyman/sink"
)

// session is one generation of the group: the partitions that this member owns
// until the next rebalance.
//
// Locks are taken in the order flow, session, consumer, each a leaf of the one
// before. The handler is called with none of them held.
type session struct {
	consumer   *Consumer
	gen        *kafka.Generation
	numbers    []int32         // the partitions
	flows      map[int32]*flow // never changed
	fetchBytes int32           // asked for at a time, of one partition
	look       chan struct{}   // has the layout looked at
	done       chan struct{}
	fatal      error // what ends the consumer; read after done

	ctx context.Context // ends with the session
	end context.CancelCauseFunc

	mu       sync.Mutex
	working  sync.WaitGroup
	leaders  map[int32]leader
	fetchers map[int32]chan struct{} // by broker, to wake them
}

// A partition is asked for so much at a time that what waits for decompression,
// one answer taken and one that is not, is half of what is read ahead. One request
// at a time goes to a broker: less would cost too many of them.
const (
	leastOfPartition = 128 << 10
	mostOfPartition  = 1 << 20
)

func newSession(c *Consumer, gen *kafka.Generation) *session {
	s := &session{
		consumer: c, gen: gen, flows: map[int32]*flow{}, look: make(chan struct{}, 1), done: make(chan struct{}),
		leaders: map[int32]leader{}, fetchers: map[int32]chan struct{}{},
	}
	for _, a := range gen.Assignments[c.config.Topic] {
		s.numbers = append(s.numbers, int32(a.ID))
	}
	n := int64(max(1, len(s.numbers)))
	s.fetchBytes = int32(min(max(c.config.ReadAhead/(4*n), leastOfPartition), mostOfPartition))
	for _, number := range s.numbers {
		f := &flow{session: s, consumer: c, share: newShare(c.budget, c.config.ReadAhead/n), partition: sink.Partition{
			Cluster: c.config.Conn.Cluster(), Topic: c.config.Topic, Number: number,
		}}
		f.reader.partition = f.partition
		f.high.Store(-1)
		s.flows[number] = f
	}
	return s
}

// errSessionOver is why a session ends in the ordinary way.
var errSessionOver = errors.New("the session is over")

// run is the session's life; it ends with the generation. Commits in flight
// are waited for.
func (s *session) run(generation context.Context) {
	defer close(s.done)
	c := s.consumer
	s.ctx, s.end = context.WithCancelCause(context.Background())
	defer s.end(errSessionOver)
	defer context.AfterFunc(generation, func() { s.end(errSessionOver) })()
	c.metrics.generations.Inc()
	c.config.Logger.Info("reading partitions", "topic", c.config.Topic, "partitions", s.numbers, "generation", s.gen.ID)
	c.setSession(s)
	s.layout()
	for _, f := range s.flows {
		s.working.Go(func() {
			if err := f.run(s.ctx); err != nil {
				s.end(err)
			}
		})
	}
	s.working.Go(s.keepLayout)
	s.working.Go(s.keepHints)
	s.working.Go(s.keepEras)
	s.working.Go(s.watch)
	<-s.ctx.Done()
	s.working.Wait()
	drain, cancel := context.WithTimeout(context.Background(), c.config.DrainTimeout)
	defer cancel()
	c.config.Handler.End(drain, s.numbers)
	c.setSession(nil)
	s.lastHint()
	if cause := context.Cause(s.ctx); !errors.Is(cause, errSessionOver) {
		s.fatal = cause
	}
}

// Reset of partitions that are not owned is no mistake: the group moves on
// while commits are in flight.
func (s *session) reset(numbers []int32) {
	for _, number := range numbers {
		if f := s.flows[number]; f != nil {
			f.restart(&doubt{"the position moved elsewhere"})
		}
	}
}

// again ends the session in the ordinary way: the group assigns anew.
func (s *session) again(why string, args ...any) {
	s.consumer.config.Logger.Warn(why, append(args, "topic", s.consumer.config.Topic)...)
	s.end(errSessionOver)
}

const (
	eraEvery  = 2 * time.Second        // how often the warehouse is asked for rewinds
	lookPause = 100 * time.Millisecond // least time between two looks at the layout
)

// keepEras notices a rewind, and a warehouse that went back, also where nothing
// comes that could be committed and run into it.
func (s *session) keepEras() {
	partitions := make([]sink.Partition, 0, len(s.flows))
	for _, f := range s.flows {
		partitions = append(partitions, f.partition)
	}
	for sleep(s.ctx, eraEvery) {
		before := make(map[int32]int64, len(s.flows))
		for number, f := range s.flows {
			before[number] = f.durable()
		}
		positions, err := s.consumer.config.Positions.Assign(s.ctx, s.consumer.config.Revision, partitions)
		if err != nil {
			continue // an outage: whoever needs the warehouse tells of it
		}
		for _, p := range positions {
			s.flows[p.Partition.Number].expect(p, before[p.Partition.Number])
		}
	}
}

// keepLayout looks at the topic's leaders, every so often and when asked to.
func (s *session) keepLayout() {
	tick := time.NewTicker(s.consumer.config.MetadataEvery)
	defer tick.Stop()
	odd := 0 // looks in a row that found another number of partitions than was assigned
	for sleep(s.ctx, lookPause) {
		select {
		case <-s.ctx.Done():
			return
		case <-s.look:
		case <-tick.C:
		}
		switch found, assigned := s.layout(), s.consumer.balancer.assigned.Load(); {
		case found < 0:
		case assigned < 0 || int64(found) == assigned:
			odd = 0
		default:
			if odd++; odd > 1 {
				s.again("the number of partitions changed; assigning anew", "had", assigned, "has", found)
				return
			}
		}
	}
}

// lookAround has the layout looked at soon.
func (s *session) lookAround() {
	select {
	case s.look <- struct{}{}:
	default:
	}
}

// layout looks at the topic's leaders. It returns how many partitions there
// are; -1: not known.
func (s *session) layout() int {
	c := s.consumer
	leaders, err := c.cluster.layout(s.ctx)
	switch {
	case s.ctx.Err() != nil:
		return -1
	case errors.Is(err, errNoTopic):
		c.note(trouble{what: layout}, fmt.Errorf(
			"topic %s is gone: make it again with tallyman dataset apply; what it held has to be published again", c.config.Topic))
		for _, f := range s.flows { // a fetch may see nothing of it, before the topic is there again
			f.restart(&doubt{"the topic is gone"})
		}
		return -1
	case err != nil:
		c.note(trouble{what: layout}, err)
		return -1
	}
	c.note(trouble{what: layout}, nil)
	s.lead(leaders)
	return len(leaders)
}

// lead takes note of the leaders, starts a fetcher for each new one, and
// restarts the flows whose leader changed.
func (s *session) lead(leaders map[int32]leader) {
	s.mu.Lock()
	s.leaders = leaders
	for _, number := range s.numbers {
		l, ok := leaders[number]
		if !ok || l.broker < 0 || s.fetchers[l.broker] != nil {
			continue
		}
		s.fetchers[l.broker] = make(chan struct{}, 1)
		s.working.Go(func() { s.fetchFrom(l.broker) })
	}
	s.mu.Unlock()
	for _, number := range s.numbers {
		s.flows[number].follow(s.leaderOf(number))
	}
}

// leaderOf returns who leads a partition, as far as is known.
func (s *session) leaderOf(number int32) leader {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l, ok := s.leaders[number]; ok {
		return l
	}
	return leader{broker: -1, epoch: -1}
}

// wake has every fetcher look for what it can fetch.
func (s *session) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.fetchers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// woken returns the channel that wakes a broker's fetcher.
func (s *session) woken(broker int32) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fetchers[broker]
}

// follow ends a life whose leader is another now.
func (f *flow) follow(now leader) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open && f.lead != now {
		f.end(&doubt{"its leader changed"})
	}
}

// watch starts the session anew, on fresh connections, when a broker has
// something for a partition and does not send it.
func (s *session) watch() {
	limit := s.consumer.config.StallAfter
	tick := time.NewTicker(max(limit/10, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
		for number, f := range s.flows {
			if !f.stalled(limit) {
				continue
			}
			s.consumer.note(trouble{aStall, number}, fmt.Errorf(
				"partition %d of %s: the broker has records and sends none that can be read, for %v", number, s.consumer.config.Topic, limit))
			s.consumer.config.Conn.Close()
			s.again("no progress; starting anew on fresh connections", "partition", number, "for", limit)
			return
		}
	}
}

// stalled says that something could be read for so long and was not.
func (f *flow) stalled(limit time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.open && !f.full && f.stable > f.next && time.Since(f.moved) > limit
}
