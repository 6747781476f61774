package consume

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// budget bounds bytes that are held at once. A single request for more than
// the whole budget waits until it is alone, and is then granted.
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

// slab is the memory that the records of one record batch share. Its bytes go
// back to the budget with the last of them, because until then none is freed.
type slab struct {
	budget   *budget
	bytes    int64
	left     atomic.Int64
	released []atomic.Bool
	freed    func() // hears of the end; nil: nobody does
}

func newSlab(b *budget, taken int64, records int) *slab {
	s := &slab{budget: b, bytes: taken, released: make([]atomic.Bool, records)}
	s.left.Store(int64(records))
	return s
}

func (s *slab) release(index int) {
	if s.released[index].Swap(true) {
		return
	}
	if s.left.Add(-1) == 0 {
		s.budget.giveBack(s.bytes)
		if s.freed != nil {
			s.freed()
		}
	}
}
