package sinktest

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"tallyman/schema/batch"
	"tallyman/sink"
)

// crossing gives the same batch to two committers on two partitions at the
// same time. Whoever claims it first holds it until the other has been started,
// and the other must not know the outcome before the first has committed.
func crossing(f *fixture) {
	committers := []sink.Committer{f.committer(), f.committer()}
	const rounds = 20
	for round := range int64(rounds) {
		first := f.element(batch.NewID(), 0, round, 1, 2)
		second := first
		second.Partition = f.partition(1)
		groups := []*sink.Group{f.groupAt(f.position(0), round+1, first), f.groupAt(f.position(1), round+1, second)}
		var (
			loads, done atomic.Int32
			started     = make(chan struct{})
			outcomes    [2]sink.Outcome
			running     errgroup.Group
		)
		for i, g := range groups {
			g.Admit = func(res sink.Result) error {
				if res.Outcomes[0] == sink.Loaded && loads.Add(1) == 1 {
					<-started
				}
				return nil
			}
			running.Go(func() error {
				res, err := committers[i].Commit(f.Context(), g)
				if err != nil {
					return err
				}
				outcomes[i] = res.Outcomes[0]
				done.Add(1)
				return nil
			})
		}
		close(started)
		if err := running.Wait(); err != nil {
			f.Fatal(err)
		}
		slices.Sort(outcomes[:])
		if outcomes != [2]sink.Outcome{sink.Loaded, sink.Duplicate} || loads.Load() != 1 {
			f.Errorf("outcomes %v, %d told that they load it", outcomes, loads.Load())
		}
		f.rows(first.Batch.ID, 2)
	}
	f.next(0, rounds)
	f.next(1, rounds)
}

// crossingFailure lets the second committer load what the first has claimed and
// given up.
func crossingFailure(f *fixture) {
	first := f.element(batch.NewID(), 0, 0, 1, 2)
	second := first
	second.Partition = f.partition(1)
	a, b := f.groupAt(f.position(0), 1, first), f.groupAt(f.position(1), 1, second)
	claimed, started := make(chan struct{}), make(chan struct{})
	goOn := sync.OnceFunc(func() { close(claimed) })
	no := errors.New("given up")
	a.Admit = func(sink.Result) error {
		goOn()
		<-started
		return no
	}
	var running errgroup.Group
	running.Go(func() error {
		defer goOn() // also where Admit is not asked
		if _, err := f.committer().Commit(f.Context(), a); !errors.Is(err, no) {
			f.Errorf("the first: %v", err)
		}
		return nil
	})
	<-claimed
	running.Go(func() error {
		close(started)
		res, err := f.committer().Commit(f.Context(), b)
		if err != nil || res.Outcomes[0] != sink.Loaded {
			f.Errorf("the second: %v, %v", res.Outcomes, err)
		}
		return nil
	})
	_ = running.Wait()
	f.rows(first.Batch.ID, 2)
	f.next(0, 0)
	f.next(1, 1)
}

// oppositeOrders gives many groups of the same ids to two committers, in
// opposite orders, with dead messages among them. None of them may wait for
// each other in a circle, and every id loads once.
func oppositeOrders(f *fixture) {
	const (
		rounds = 25
		ids    = 12
		seed   = 20
	)
	random := rand.New(rand.NewPCG(seed, seed))
	f.Logf("seed %d", seed)
	var (
		all    []uuid.UUID
		groups [2][]*sink.Group
		at     = []sink.Position{f.position(0), f.position(1)}
		buried = map[uuid.UUID]bool{}
	)
	for round := range int64(rounds) {
		var pair [2]sink.Group
		for n := range ids {
			e := f.element(batch.NewID(), 0, round*ids+int64(n), int64(n))
			all = append(all, e.Batch.ID)
			for i := range pair {
				e.Partition = f.partition(int32(i))
				if i == 1 && random.IntN(6) == 0 {
					buried[e.Batch.ID] = true
					pair[i].Dead = append(pair[i].Dead, bury(e, batch.Constraint))
					continue
				}
				pair[i].Elements = append(pair[i].Elements, e)
			}
		}
		slices.Reverse(pair[1].Elements)
		for i := range pair {
			pair[i].Revision = f.revision
			pair[i].Advances = []sink.Advance{advance(at[i], (round+1)*ids)}
			at[i].Next = (round + 1) * ids
			groups[i] = append(groups[i], &pair[i])
		}
	}
	var running errgroup.Group
	for i := range groups {
		running.Go(func() error {
			c := f.committer()
			for _, g := range groups[i] {
				if _, err := c.Commit(f.Context(), g); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := running.Wait(); err != nil {
		f.Fatal(err)
	}
	for _, id := range all {
		f.rows(id, 1)
	}
	for _, q := range f.quarantine() {
		if !buried[q.ID] || q.Open {
			f.Errorf("in quarantine: %+v, whose content has loaded", q)
		}
	}
}

// onePosition lets several committers at the same position: one gets there, the
// others are fenced.
func onePosition(f *fixture) {
	const committers = 4
	from := f.position(0)
	var (
		running errgroup.Group
		won     atomic.Int32
	)
	var ids []uuid.UUID
	for i := range int64(committers) {
		e := f.element(batch.NewID(), 0, 0, i)
		ids = append(ids, e.Batch.ID)
		g := f.groupAt(from, 1+i, e)
		c := f.committer()
		running.Go(func() error {
			_, err := c.Commit(f.Context(), g)
			switch {
			case err == nil:
				won.Add(1)
			case sink.ClassOf(err) != sink.Fenced:
				return err
			}
			return nil
		})
	}
	if err := running.Wait(); err != nil || won.Load() != 1 {
		f.Fatalf("%v; %d committers moved the position", err, won.Load())
	}
	next := f.position(0).Next
	for i, id := range ids {
		want := int64(0)
		if next == int64(i)+1 {
			want = 1
		}
		f.rows(id, want)
	}
}
