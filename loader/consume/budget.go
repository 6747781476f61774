package consume

import (
	"context"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// budget bounds bytes that are held at once, by all partitions together. A
// single request for more than the whole budget waits until it is alone, and
// is then granted. Who asked first is served first, so a large request is not
// starved by small ones.
type budget struct {
	size int64
	sem  *semaphore.Weighted
	held atomic.Int64
}

func newBudget(size int64) *budget {
	return &budget{size: size, sem: semaphore.NewWeighted(size)}
}

// acquire waits for n bytes and returns how many were taken: n, or the whole
// budget if n is more. The same number is given back.
func (b *budget) acquire(ctx context.Context, n int64) (int64, error) {
	n = min(n, b.size)
	if err := b.sem.Acquire(ctx, n); err != nil {
		return 0, err
	}
	b.held.Add(n)
	return n, nil
}

func (b *budget) giveBack(n int64) {
	if n > 0 {
		b.held.Add(-n)
		b.sem.Release(n)
	}
}

// share is one partition's part of the budget. A partition that is not
// committed fills its share and leaves the others theirs.
type share struct {
	budget *budget
	limit  int64

	mu    sync.Mutex
	held  int64
	freed chan struct{} // closed and replaced when there is room again
}

func newShare(b *budget, limit int64) *share {
	return &share{budget: b, limit: limit, freed: make(chan struct{})}
}

// room waits until less than the limit is held: one more batch may come.
func (s *share) room(ctx context.Context) error {
	for {
		s.mu.Lock()
		ok, freed := s.held < s.limit, s.freed
		s.mu.Unlock()
		if ok {
			return ctx.Err()
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// slab charges what was taken of the budget to the share, until that many
// records are released.
func (s *share) slab(taken int64, records int) *slab {
	s.mu.Lock()
	s.held += taken
	s.mu.Unlock()
	b := &slab{share: s, bytes: taken, released: make([]atomic.Bool, records)}
	b.left.Store(int64(records))
	return b
}

func (s *share) giveBack(n int64) {
	s.budget.giveBack(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	full := s.held >= s.limit
	s.held -= n
	if full && s.held < s.limit {
		close(s.freed)
		s.freed = make(chan struct{})
	}
}

// slab is the memory that the records of one call of Handle share. Its bytes
// go back to the budget with the last of them, because until then none is freed.
type slab struct {
	share    *share
	bytes    int64
	left     atomic.Int64
	released []atomic.Bool
}

func (s *slab) release(index int) {
	if s.released[index].Swap(true) {
		return
	}
	if s.left.Add(-1) == 0 {
		s.share.giveBack(s.bytes)
	}
}
