package sinktest

import (
	"sync"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"tallyman/schema/batch"
	"tallyman/sink"
)

// due takes receipts as a member does that never waits.
func (f *fixture) due() sink.Due {
	return sink.Due{Revision: f.revision, Cluster: "default", Again: time.Hour, Lease: time.Hour, Limit: 100}
}

// told checks which receipts are due, and notes them as sent.
func (f *fixture) told(d sink.Due, want ...batch.Receipt) {
	f.Helper()
	got, _, err := f.w.TakeReceipts(f.Context(), d)
	if err != nil {
		f.Fatal(err)
	}
	for i := range want {
		want[i].Dataset, want[i].Source = f.revision.Manifest.Dataset, "suite"
	}
	if diff := gocmp.Diff(want, got, cmpopts.IgnoreFields(batch.Receipt{}, "At", "Target"), cmpopts.EquateEmpty(),
		cmpopts.SortSlices(func(a, b batch.Receipt) bool { return a.Incarnation.String() < b.Incarnation.String() })); diff != "" {
		f.Errorf("receipts (-want +got):\n%s", diff)
	}
	for i := range got {
		if _, err := got[i].Value(); err != nil || got[i].Target == "" {
			f.Errorf("a receipt that can't be sent: %+v, %v", got[i], err)
		}
	}
	if err := f.w.ReceiptsSent(f.Context(), d, got); err != nil {
		f.Fatal(err)
	}
}

// receipts tells what changed, and once more what was announced once more.
func receipts(f *fixture) {
	s, d := f.stream(), f.due()
	f.told(d)
	s.announce(nil, s.says(0, 0, false))
	f.told(d, batch.Receipt{Incarnation: s.incarnation})
	f.told(d)
	one, two := s.element(1), s.element(2)
	s.load(one, s.element(3))
	s.announce(nil, s.says(4, 1, false))
	f.told(d, batch.Receipt{Incarnation: s.incarnation, Through: 1, Considered: 4, Announced: 4,
		Missing: []batch.Range{{First: 2, Last: 2}, {First: 4, Last: 4}}})
	f.floors()
	f.told(d)
	two.Offset, s.next = s.next, s.next+1
	s.load(two)
	f.told(d, batch.Receipt{Incarnation: s.incarnation, Through: 3, Considered: 4, Announced: 4, Missing: []batch.Range{{First: 4, Last: 4}}})
	s.load(s.element(4))
	s.announce(nil, s.says(4, 2, true))
	over := batch.Receipt{Incarnation: s.incarnation, Through: 4, Considered: 4, Announced: 4, Closed: true}
	f.told(d, over)
	f.floors()
	f.told(d)
	// Its source did not hear of it, and says the same again, or what it says now.
	for _, second := range []int{2, 2, 3} {
		s.announce(nil, s.says(4, second, true))
		f.told(d, over)
		f.told(d)
	}
	s.announce(nil, s.says(4, 1, false)) // from before
	f.told(d)
	// A journal that was restored from an older copy waits for a receipt as well.
	s.announce([]sink.RefusedAnnouncement{{Index: 0, Why: sink.WentBack}}, s.says(3, 4, true))
	f.told(d, over)
	f.told(d)
}

// receiptsOfClosed repeats what is missing of a closed stream, until nothing is.
// How long the source waits for news ends with that.
func receiptsOfClosed(f *fixture) {
	s, d := f.stream(), f.due()
	waits := func() time.Duration {
		age, err := f.w.ReceiptsAge(f.Context(), d)
		if err != nil {
			f.Fatal(err)
		}
		return age
	}
	if age := waits(); age != 0 {
		f.Errorf("nobody waits, and that for %v", age)
	}
	s.load(s.element(1))
	s.announce(nil, s.says(2, 1, true))
	want := batch.Receipt{Incarnation: s.incarnation, Through: 1, Considered: 2, Announced: 2, Closed: true, Missing: []batch.Range{{First: 2, Last: 2}}}
	f.told(d, want)
	f.told(d)
	first := waits()
	if second := waits(); first <= 0 || second <= first {
		f.Errorf("the source waits for %v, then for %v", first, second)
	}
	s.announce(nil, s.says(2, 1, true)) // as after the warehouse was restored, which was told less by then
	f.told(d, want)
	f.told(d)
	d.Again = 0
	f.told(d, want)
	f.told(d, want)
	s.load(s.element(2))
	f.told(d, batch.Receipt{Incarnation: s.incarnation, Through: 2, Considered: 2, Announced: 2, Closed: true})
	f.told(d)
	if age := waits(); age != 0 {
		f.Errorf("all was told, and somebody waits for %v", age)
	}
}

// receiptsInGrace says nothing of what may still come, and repeats what it said
// of a stream that may still change.
func receiptsInGrace(f *fixture) {
	s, d := f.stream(), f.due()
	d.Grace = time.Hour
	s.load(s.element(1))
	s.announce(nil, s.says(3, 1, false))
	want := batch.Receipt{Incarnation: s.incarnation, Through: 1, Considered: 1, Announced: 3}
	f.told(d, want)
	f.told(d)
	d.Again = 0
	f.told(d, want)
	d.Again, d.Every = time.Hour, time.Hour
	s.load(s.element(2))
	f.told(d, batch.Receipt{Incarnation: s.incarnation, Through: 2, Considered: 2, Announced: 3})
	s.load(s.element(3))
	f.told(d) // it is left alone for a while
}

// receiptsOfManyHoles are bounded, and say how far they go.
func receiptsOfManyHoles(f *fixture) {
	s, d := f.stream(), f.due()
	const holes = batch.MaxReceiptRanges + 5
	want := batch.Receipt{Incarnation: s.incarnation, Through: 1, Announced: 2 * holes, Closed: true, Considered: 2*batch.MaxReceiptRanges + 1}
	var loaded []sink.Element
	for n := uint64(1); n < 2*holes; n += 2 {
		loaded = append(loaded, s.element(n))
		if len(want.Missing) < batch.MaxReceiptRanges {
			want.Missing = append(want.Missing, batch.Range{First: n + 1, Last: n + 1})
		}
	}
	s.load(loaded...)
	s.announce(nil, s.says(2*holes, 1, true))
	f.told(d, want)
}

// receiptsAtOnce gives each receipt to one member, to another when the first
// did not send it, and to each cluster.
func receiptsAtOnce(f *fixture) {
	const streams, members = 20, 4
	s, d := f.stream(), f.due()
	for range streams {
		s.announce(nil, f.stream().says(0, 0, false))
	}
	d.Limit = 3
	var mu sync.Mutex
	var group sync.WaitGroup
	times := map[string]int{}
	for range members {
		group.Go(func() {
			for {
				got, looked, err := f.w.TakeReceipts(f.Context(), d)
				if err != nil {
					f.Error(err)
				}
				if err != nil || looked == 0 {
					return
				}
				mu.Lock()
				for i := range got {
					times[string(got[i].Key())]++
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	for key, n := range times {
		if n != 1 {
			f.Errorf("receipt %s was given out %d times", key, n)
		}
	}
	if len(times) != streams {
		f.Errorf("%d receipts, want %d", len(times), streams)
	}
	d.Limit, d.Lease = 100, 0
	d.Cluster = "other"
	for range 2 { // no lease, nothing sent: due again at once
		got, _, err := f.w.TakeReceipts(f.Context(), d)
		if err != nil || len(got) != streams {
			f.Errorf("%d receipts for the other cluster, %v", len(got), err)
		}
	}
}
