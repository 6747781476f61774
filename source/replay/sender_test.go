package replay

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"tallyman/source/journal"
)

// outcomes collects what Send tells: states by the first number, and the ends
// of what is absent.
type outcomes struct {
	states map[uint64]State
	ends   map[uint64]uint64
	all    []Outcome
}

func (o *outcomes) note(one Outcome) {
	if o.states == nil {
		o.states, o.ends = map[uint64]State{}, map[uint64]uint64{}
	}
	o.states[one.Range.First] = one.State
	if one.State == Absent {
		o.ends[one.Range.First] = one.Range.Last
	}
	o.all = append(o.all, one)
}

// Ranges are sent from a journal that is open and from one that is only read,
// with the bytes and the headers of the first time; what is not there is told
// as runs, however long they are.
func TestSendsRanges(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	want := r.add(8)
	stream := r.stream()
	ranges := []journal.Range{{First: 0, Last: 2}, {First: 5, Last: 5}, {First: 7, Last: math.MaxUint64}}
	check := func(store Store) {
		t.Helper()
		var o outcomes
		noError(t, r.sender(store, Limits{}).Send(r.context(), stream, ranges, o.note))
		if diff := cmp.Diff(map[uint64]State{1: Sent, 2: Sent, 5: Sent, 7: Sent, 8: Sent, 9: Absent}, o.states); diff != "" {
			t.Errorf("outcomes (-want +got):\n%s", diff)
		}
		if o.ends[9] != math.MaxUint64 {
			t.Errorf("absent up to %d", o.ends[9])
		}
		for _, one := range o.all {
			if n := one.Range.First; one.State == Sent && (one.ID != want[n-1].ID || one.Rows != 1 || one.Bytes != int64(len(want[n-1].Value)) || one.Stream != stream) {
				t.Errorf("told of %d: %+v", n, one)
			}
		}
	}
	check(r.journal)
	found, _ := r.batches()
	for n, b := range found {
		if diff := cmp.Diff(want[n-1], b); diff != "" {
			t.Errorf("batch %d was sent as another (-want +got):\n%s", n, diff)
		}
	}
	noError(t, r.journal.Close())
	reader, err := journal.OpenReader(r.dir, quiet())
	if err != nil {
		t.Fatal(err)
	}
	check(reader)
	noError(t, reader.Close())
	r.wantTimes(map[uint64]int{1: 2, 2: 2, 5: 2, 7: 2, 8: 2})
}

// A batch that changed on the disk is told of and not sent, whether its checksum
// shows it or only its digest; those around it go on.
func TestSendsNothingDamaged(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.add(5)
	stream := r.stream()
	noError(t, r.journal.Close())
	r.damage(journal.Key{Stream: stream, Sequence: 2}, false)
	r.damage(journal.Key{Stream: stream, Sequence: 4}, true)
	r.open()
	var o outcomes
	noError(t, r.sender(r.journal, Limits{}).Send(r.context(), stream, []journal.Range{{First: 1, Last: 5}}, o.note))
	if diff := cmp.Diff(map[uint64]State{1: Sent, 2: Damaged, 3: Sent, 4: Damaged, 5: Sent}, o.states); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
	for _, one := range o.all {
		if one.State == Damaged && !errors.Is(one.Err, journal.ErrCorrupt) {
			t.Errorf("batch %d is told as %v", one.Range.First, one.Err)
		}
	}
	r.wantTimes(map[uint64]int{1: 1, 3: 1, 5: 1})
}

// A stream of somebody else's is absent as a whole.
func TestSendsNothingOfOthers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.add(1)
	var o outcomes
	other := journal.Stream{Incarnation: uuid.New(), Dataset: orders()}
	noError(t, r.sender(r.journal, Limits{}).Send(r.context(), other, []journal.Range{{First: 1, Last: 10}}, o.note))
	if diff := cmp.Diff(map[uint64]uint64{1: 10}, o.ends); diff != "" || len(o.all) != 1 {
		t.Errorf("outcomes %+v\n%s", o.all, diff)
	}
}

// The limits hold, and an end of ctx ends the sending with an error.
func TestSendIsLimited(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.add(30)
	ranges := []journal.Range{{First: 1, Last: 30}}
	for name, l := range map[string]Limits{
		"batches": {Batches: 40}, // 4 at once, then 26 take 0.65 s
		"bytes":   {Bytes: 180},  // 270 bytes in all
	} {
		began := time.Now()
		noError(t, r.sender(r.journal, l).Send(r.context(), r.stream(), ranges, func(Outcome) {}))
		if took := time.Since(began); took < 400*time.Millisecond {
			t.Errorf("limited in %s, 30 batches took %v", name, took)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var o outcomes
	err := r.sender(r.journal, Limits{Batches: 1}).Send(ctx, r.stream(), ranges, func(one Outcome) { o.note(one); cancel() })
	if !errors.Is(err, context.Canceled) || len(o.all) == 30 {
		t.Errorf("stopped after %d batches with %v", len(o.all), err)
	}
}
