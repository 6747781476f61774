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
type session struct {
	consumer *Consumer
	gen      *kafka.Generation
	numbers  []int32 // the partitions
	quota    int64   // bytes that one partition may have in the handler
	done     chan struct{}
	fatal    error // what ends the consumer; read after done

	ctx     context.Context // ends with the session
	end     context.CancelCauseFunc
	running sync.WaitGroup

	// mu is a leaf: nothing is called while it is held, because a handler may
	// release records, which takes it, under locks of its own.
	mu       sync.Mutex
	over     bool // nothing is started any more
	flows    map[int32]*flow
	leaders  map[int32]leader
	fetchers map[int32]bool
	changed  chan struct{} // closed and replaced when a fetcher should look again
}

func newSession(c *Consumer, gen *kafka.Generation) *session {
	s := &session{
		consumer: c, gen: gen, done: make(chan struct{}), flows: map[int32]*flow{},
		leaders: map[int32]leader{}, fetchers: map[int32]bool{}, changed: make(chan struct{}),
	}
	for _, a := range gen.Assignments[c.config.Topic] {
		s.numbers = append(s.numbers, int32(a.ID))
	}
	s.quota = c.config.ReadAhead / int64(max(1, len(s.numbers)))
	return s
}

// errSessionOver is why a session ends in the ordinary way.
var errSessionOver = errors.New("the session is over")

// run is the session's life. stop ends it with the process, ended with the
// generation; the commits in flight are waited for in both cases.
func (s *session) run(stop, ended context.Context) {
	defer close(s.done)
	c := s.consumer
	s.ctx, s.end = context.WithCancelCause(context.WithoutCancel(stop))
	defer s.end(errSessionOver)
	defer context.AfterFunc(stop, func() { s.end(errSessionOver) })()
	defer context.AfterFunc(ended, func() { s.end(errSessionOver) })()
	c.metrics.generations.Inc()
	c.config.Logger.Info("reading partitions", "topic", c.config.Topic, "partitions", s.numbers, "generation", s.gen.ID)
	c.setSession(s)
	known := s.layout(0)
	for _, number := range s.numbers {
		s.reopen(number, "")
	}
	s.attend(known)
	s.settle()
	c.setSession(nil)
	drain, cancel := context.WithTimeout(context.WithoutCancel(stop), c.config.DrainTimeout)
	defer cancel()
	c.config.Handler.End(drain, s.numbers)
	s.hint()
	if cause := context.Cause(s.ctx); !errors.Is(cause, errSessionOver) {
		s.fatal = cause
	}
}

// start runs f until the session has ended, and not after it.
func (s *session) start(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		s.running.Go(f)
	}
}

// settle waits for everything that was started.
func (s *session) settle() {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	s.running.Wait()
}

// hintEvery is how often the group is told of positions.
const hintEvery = time.Second

// attend does what comes round until the session ends. known is how many
// partitions the topic has.
func (s *session) attend(known int) {
	hint := time.NewTicker(hintEvery)
	defer hint.Stop()
	metadata := time.NewTicker(s.consumer.config.MetadataEvery)
	defer metadata.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-hint.C:
			s.hint()
		case <-metadata.C:
			known = s.layout(known)
		}
	}
}

// hint tells the group how far this member has committed.
func (s *session) hint() {
	hints := s.consumer.takeHints()
	if len(hints) == 0 {
		return
	}
	if err := s.gen.CommitOffsets(map[string]map[int]int64{s.consumer.config.Topic: hints}); err != nil {
		s.consumer.config.Logger.Debug("the group was not told of positions", "cause", err)
	}
}

// layout looks at the topic's leaders. It returns how many partitions it has,
// to notice when some are added; known is 0 at first.
func (s *session) layout(known int) int {
	c := s.consumer
	leaders, err := c.cluster.layout(s.ctx)
	switch {
	case s.ctx.Err() != nil:
		return known
	case errors.Is(err, errNoTopic):
		c.note("topic", fmt.Errorf("topic %s is gone: make it again with tallyman dataset apply; what it held has to be published again", c.config.Topic))
		for _, number := range s.numbers {
			s.doubt(number)
		}
		return known
	case err != nil:
		c.note("metadata", err)
		return known
	}
	c.note("topic", nil)
	c.note("metadata", nil)
	if known > 0 && len(leaders) > known {
		c.config.Logger.Info("partitions were added; joining again", "topic", c.config.Topic, "had", known, "has", len(leaders))
		s.end(errSessionOver)
		return len(leaders)
	}
	s.lead(leaders)
	return len(leaders)
}

// lead takes note of the leaders, starts a fetcher for each new one, and doubts
// the log of a partition that had an election.
func (s *session) lead(leaders map[int32]leader) {
	for _, number := range s.numbers {
		now, ok := leaders[number]
		if !ok {
			now = leader{broker: -1, epoch: -1}
		}
		before, seen, fresh := s.follow(number, now)
		if fresh {
			s.start(func() { s.fetchFrom(now.broker) })
		}
		if f := s.flow(number); f != nil && seen && ok && now.epoch != before.epoch && f.isOpen() {
			s.reopen(number, "its leader changed")
		}
	}
	s.released()
}

// follow stores a partition's leader. It returns the one before, if any, and
// whether the broker has no fetcher yet.
func (s *session) follow(number int32, now leader) (before leader, seen, fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, seen = s.leaders[number]
	s.leaders[number] = now
	fresh = now.broker >= 0 && !s.fetchers[now.broker]
	s.fetchers[now.broker] = true
	return before, seen, fresh
}

// released wakes fetchers: a partition may be ready, or have room again.
func (s *session) released() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *session) flow(number int32) *flow {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flows[number]
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

// reopen ends the flow of a partition and starts another from the warehouse's
// position. why is for the log; empty: the first time.
func (s *session) reopen(number int32, why string) {
	if s.ctx.Err() != nil {
		return
	}
	f := &flow{session: s, partition: sink.Partition{
		Cluster: s.consumer.config.Conn.Cluster(), Topic: s.consumer.config.Topic, Number: number,
	}}
	f.high.Store(-1)
	s.mu.Lock()
	old := s.flows[number]
	s.flows[number] = f
	s.mu.Unlock()
	if old != nil {
		old.close()
		f.high.Store(old.high.Load())
		s.consumer.config.Logger.Info("reading a position again", "topic", f.partition.Topic, "partition", number, "why", why)
	}
	s.start(func() {
		if err := f.open(s.ctx); err != nil && s.ctx.Err() == nil {
			s.end(fmt.Errorf("open partition %d of %s: %w", number, f.partition.Topic, err))
		}
	})
}

// doubt starts a flow again unless that is going on already.
func (s *session) doubt(number int32) {
	if f := s.flow(number); f != nil && f.isOpen() {
		s.reopen(number, "its log is in doubt")
	}
}
