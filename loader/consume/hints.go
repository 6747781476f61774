package consume

import (
	"context"
	"time"
)

// Hints are positions that the group's coordinator is told of, for lag tools.
// Nothing here reads them.

const (
	hintEvery = time.Second // how often the group is told of positions
	lastWait  = time.Second // for the answer to the last hint
)

// Committed tells the group, a little later, that a position moved: a hint for
// lag tools, which nothing here reads. It also remembers it, to notice a
// warehouse that goes back. It does not block.
func (c *Consumer) Committed(partition int32, next int64) {
	c.mu.Lock()
	c.hints[int(partition)] = next
	s := c.session
	c.mu.Unlock()
	if s == nil {
		return
	}
	if f := s.flows[partition]; f != nil {
		f.committed(next)
	}
}

// keepHints tells the group how far this member has committed.
func (s *session) keepHints() {
	tick := time.NewTicker(hintEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
			s.hint(s.ctx)
		}
	}
}

// hint tells the group what it has not been told yet. The library's request
// can't be cancelled, and nobody waits for it once ctx has ended.
func (s *session) hint(ctx context.Context) {
	hints := s.consumer.takeHints()
	if len(hints) == 0 {
		return
	}
	told := make(chan error, 1)
	go func() { told <- s.gen.CommitOffsets(map[string]map[int]int64{s.consumer.config.Topic: hints}) }()
	var err error
	select {
	case err = <-told:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		s.consumer.returnHints(hints)
		s.consumer.config.Logger.Debug("the group was not told of positions", "cause", err)
	}
}

// lastHint tells the group of the positions at the end, if it listens.
func (s *session) lastHint() {
	ctx, cancel := context.WithTimeout(context.Background(), lastWait)
	defer cancel()
	s.hint(ctx)
	s.consumer.takeHints() // what is left belongs to a generation that is over
}

// takeHints returns what the group has not been told yet.
func (c *Consumer) takeHints() map[int]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	hints := c.hints
	c.hints = map[int]int64{}
	return hints
}

// returnHints takes back what the group could not be told.
func (c *Consumer) returnHints(hints map[int]int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for number, next := range hints {
		if _, ok := c.hints[number]; !ok {
			c.hints[number] = next
		}
	}
}
