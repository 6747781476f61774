package sinktest

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"tallyman/schema/batch"
	"tallyman/sink"
)

// newV1 returns a new v1 id, and the v6 id with the same bits in another order.
func newV1() (v1, v6 uuid.UUID) {
	v1 = uuid.Must(uuid.NewUUID())
	v6 = v1
	v6[0], v6[1] = v1[6]<<4|v1[7]>>4, v1[7]<<4|v1[4]>>4
	v6[2], v6[3] = v1[4]<<4|v1[5]>>4, v1[5]<<4|v1[0]>>4
	v6[4], v6[5] = v1[0]<<4|v1[1]>>4, v1[1]<<4|v1[2]>>4
	v6[6], v6[7] = 6<<4|v1[2]&0x0f, v1[3]
	return v1, v6
}

// v1AndV6 loads ids of the older time-ordered versions once, two of the same
// microsecond too.
func v1AndV6(f *fixture) {
	first, second := newV1()
	third := first
	third[3] ^= 1 // 100 ns away, most often in the same microsecond
	c := f.committer()
	a, b, d := f.element(first, 0, 0, 1, 2), f.element(second, 0, 1, 3), f.element(third, 0, 2, 4)
	if !a.Batch.Time.Equal(b.Batch.Time) {
		f.Fatalf("the time of %s is %s, of %s %s", first, a.Batch.Time, second, b.Batch.Time)
	}
	f.commit(c, f.group(3, a, b, d), sink.Loaded, sink.Loaded, sink.Loaded)
	a.Offset, b.Offset = 3, 4
	other := f.element(second, 0, 5, 5)
	f.commit(c, f.group(6, b, a, other), sink.Duplicate, sink.Duplicate, sink.Conflict)
	f.rows(first, 2)
	f.rows(second, 1)
	f.rows(third, 1)
}

// twoTimes returns times that lie in different months.
func twoTimes() (now, earlier time.Time) {
	now = time.Now().Truncate(time.Microsecond)
	return now, now.AddDate(0, 0, -40)
}

// conflicts checks that quarantine holds messages at these offsets, each
// because its id is taken.
func (f *fixture) conflicts(offsets ...int64) {
	f.Helper()
	var got []int64
	for _, q := range f.quarantine() {
		got = append(got, q.Offset)
		if q.Reason != batch.IDConflict || !q.Open || q.Detail == "" {
			f.Errorf("in quarantine: %+v, want a conflict", q)
		}
	}
	if !slices.Equal(got, offsets) {
		f.Errorf("offsets in quarantine are %v, want %v", got, offsets)
	}
}

// v4 loads an id that comes with its time once, and refuses it with any other
// time, in the same group and later, whether the rows are the same or not.
func v4(f *fixture) {
	now, earlier := twoTimes()
	id := uuid.New()
	c := f.committer()
	a := f.elementAt(now, id, 0, 0, 1, 2)
	again := f.elementAt(now, id, 0, 1, 1, 2)
	moved := f.elementAt(earlier, id, 0, 2, 1, 2)
	near := f.elementAt(now.Add(-time.Microsecond), id, 0, 3, 1, 2)
	f.commit(c, f.group(4, a, again, moved, near), sink.Loaded, sink.Duplicate, sink.Conflict, sink.Conflict)

	moved.Offset, again.Offset = 4, 5
	other := f.elementAt(now, id, 0, 6, 3)
	timed := f.element(batch.NewID(), 0, 7, 4)
	f.commit(c, f.group(8, moved, again, other, timed), sink.Conflict, sink.Duplicate, sink.Conflict, sink.Loaded)
	f.rows(id, 2)
	f.rows(timed.Batch.ID, 1)
	f.next(0, 8)
	f.conflicts(2, 3, 6) // the message at 4 is the one at 2
}

// v4Crossing gives the same v4 id with two times to two committers. The ledger
// has room for both, but whoever comes second has to wait, and to find out.
func v4Crossing(f *fixture) {
	now, earlier := twoTimes()
	committers := []sink.Committer{f.committer(), f.committer()}
	const rounds = 20
	for round := range int64(rounds) {
		id := uuid.New()
		first, second := f.elementAt(now, id, 0, round, 1, 2), f.elementAt(earlier, id, 1, round, 1, 2)
		groups := []*sink.Group{f.groupAt(f.position(0), round+1, first), f.groupAt(f.position(1), round+1, second)}
		var (
			loads    atomic.Int32
			started  = make(chan struct{})
			outcomes [2]sink.Outcome
			running  errgroup.Group
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
				if err == nil {
					outcomes[i] = res.Outcomes[0]
				}
				return err
			})
		}
		close(started)
		if err := running.Wait(); err != nil {
			f.Fatal(err)
		}
		slices.Sort(outcomes[:])
		if outcomes != [2]sink.Outcome{sink.Loaded, sink.Conflict} || loads.Load() != 1 {
			f.Errorf("outcomes %v, %d told that they load it", outcomes, loads.Load())
		}
		f.rows(id, 2)
	}
	if q := f.quarantine(); len(q) != rounds {
		f.Errorf("%d messages in quarantine, want %d", len(q), rounds)
	}
	f.next(0, rounds)
	f.next(1, rounds)
}

// v4CrossingFailure lets the second committer load an id with its own time that
// the first has claimed with another one and given up.
func v4CrossingFailure(f *fixture) {
	now, earlier := twoTimes()
	id := uuid.New()
	a := f.groupAt(f.position(0), 1, f.elementAt(now, id, 0, 0, 1))
	b := f.groupAt(f.position(1), 1, f.elementAt(earlier, id, 1, 0, 1, 2))
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
	f.rows(id, 2)
	f.next(0, 0)
	f.next(1, 1)
}

// v4OppositeOrders gives groups of the same ids to two committers in opposite
// orders, of v4 ids with another time each, at the same moment. None may wait
// for each other in a circle; each id loads once, and its other time is a conflict.
func v4OppositeOrders(f *fixture) {
	const rounds, size = 15, 60
	committers := []sink.Committer{f.committer(), f.committer()}
	at := []sink.Position{f.position(0), f.position(1)}
	for range rounds {
		pair := [2]*sink.Group{f.groupAt(at[0], at[0].Next+size), f.groupAt(at[1], at[1].Next+size)}
		all := f.inOppositeOrders(pair, size)
		var running errgroup.Group
		for i, c := range committers {
			at[i].Next += size
			running.Go(func() error {
				_, err := c.Commit(f.Context(), pair[i])
				return err
			})
		}
		if err := running.Wait(); err != nil {
			f.Fatal(err)
		}
		for _, id := range all {
			f.rows(id, 1)
		}
	}
	if q := f.quarantine(); len(q) != rounds*size*2/3 {
		f.Errorf("%d messages in quarantine, want %d", len(q), rounds*size*2/3)
	}
}

// inOppositeOrders fills a pair of groups with the same ids, a third of them
// v7, the others v4 with another time in each: rising in one group and falling
// in the other, since the ledger's key goes by them.
func (f *fixture) inOppositeOrders(pair [2]*sink.Group, size int64) []uuid.UUID {
	now, earlier := twoTimes()
	var all []uuid.UUID
	for n := range size {
		id, offset := uuid.New(), pair[0].Advances[0].From+n
		first, second := now.Add(time.Duration(n)*time.Second), earlier.Add(-time.Duration(n)*time.Second)
		if n%3 == 0 {
			id = batch.NewID()
			first, _ = batch.TimeOf(id)
			second = first
		}
		all = append(all, id)
		pair[0].Elements = append(pair[0].Elements, f.elementAt(first, id, 0, offset, n))
		pair[1].Elements = append(pair[1].Elements, f.elementAt(second, id, 1, offset, n))
	}
	slices.Reverse(pair[1].Elements)
	return all
}

// v4Dead lets a good copy load at whatever time it comes with, after a dead one
// that came with another; once it has loaded, a dead one changes nothing.
func v4Dead(f *fixture) {
	now, earlier := twoTimes()
	id := uuid.New()
	c := f.committer()
	dead := bury(f.elementAt(earlier, id, 0, 0, 1), batch.Constraint)
	f.commit(c, f.deadGroup(1, dead))
	f.rows(id, 0)
	good := f.elementAt(now, id, 0, 1, 1)
	f.commit(c, f.group(2, good), sink.Loaded)
	dead = bury(f.elementAt(earlier, id, 0, 2, 2), batch.Constraint)
	f.commit(c, f.deadGroup(3, dead))
	f.commit(c, f.group(4, f.elementAt(earlier, id, 0, 3, 1)), sink.Conflict)
	good.Offset = 4
	f.commit(c, f.group(5, good), sink.Duplicate)
	f.rows(id, 1)
	f.next(0, 5)
}

// v4Kept redrives and discards ids that come with their time: what was given up
// does not load with another time either, nor do other rows with another time of
// an id that is loaded.
func v4Kept(f *fixture) {
	now, earlier := twoTimes()
	c := f.committer()
	given, loaded := uuid.New(), uuid.New()
	f.commit(c, f.deadGroup(3, bury(f.elementAt(now, given, 0, 0, 1), batch.NoManifest),
		bury(f.elementAt(now, loaded, 0, 1, 2), batch.NoManifest), bury(f.elementAt(earlier, loaded, 0, 2, 3), batch.NoManifest)))
	lies := f.byOffset()
	if res, err := f.w.NewQuarantine().Discard(f.Context(), lies[0].Key, sink.Discard{Why: "no use"}); err != nil || !res.Refused {
		f.Errorf("discard: %+v, %v", res, err)
	}
	f.redrive(lies[1], sink.Loaded, "")
	f.redrive(lies[2], 0, batch.IDConflict)
	f.commit(c, f.group(5, f.elementAt(now, given, 0, 3, 1), f.elementAt(earlier, given, 0, 4, 1)), sink.Duplicate, sink.Conflict)
	f.rows(given, 0)
	f.rows(loaded, 1)
}
