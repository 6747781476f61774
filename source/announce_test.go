package source

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyman/schema/batch"
)

// until reads the topic until its announcements satisfy a condition.
func (r *rig) until(what string, ok func(all []*batch.Announcement) bool) {
	r.t.Helper()
	r.again = true // what is being published may be there in part
	ctx := r.context()
	for ctx.Err() == nil {
		if r.read(); ok(r.told) {
			return
		}
	}
	for _, a := range r.told {
		r.t.Logf("%+v", a)
	}
	r.t.Fatalf("never announced: %s", what)
}

// has says that a stream was announced up to a number.
func has(incarnation uuid.UUID, sequence uint64, final bool) func(all []*batch.Announcement) bool {
	return func(all []*batch.Announcement) bool {
		for _, a := range all {
			if a.Incarnation == incarnation && a.Sequence == sequence && a.Final == final && a.Source == "shop-1" {
				return true
			}
		}
		return false
	}
}

// A source announces that it is there, soon after appends how far they went,
// while nothing happens that nothing did, and at its end that it was the end.
func TestAnnounces(t *testing.T) {
	t.Parallel()
	r := newRig(t).topic(nil)
	s := r.open(func(c *Config) { c.AnnounceEvery, c.CloseTimeout = time.Hour, limit })
	me := s.journal.Incarnation()
	r.until("nothing numbered yet", has(me, 0, false))
	for range 3 {
		noError(t, s.Append(t.Context(), orders(1, "")))
	}
	r.until("three batches, though the next announcement is due in an hour", has(me, 3, false))
	noError(t, s.Close())
	r.until("the end", has(me, 3, true))

	s = r.open(func(c *Config) { c.AnnounceEvery = 10 * time.Millisecond })
	me = s.journal.Incarnation()
	r.until("the same several times", func(all []*batch.Announcement) bool {
		n := 0
		for _, a := range all {
			if a.Incarnation == me && a.Sequence == 0 {
				n++
			}
		}
		return n > 3
	})
}

// A source that could not say how it ended says so at its next opening, with
// everything that is in its journal.
func TestAnnouncesHowItEndedLater(t *testing.T) {
	t.Parallel()
	r := newRig(t) // without a topic: nothing can be published
	began := time.Now()
	s := r.open(func(c *Config) { c.CloseTimeout = 100 * time.Millisecond })
	first := s.journal.Incarnation()
	noError(t, s.Append(t.Context(), orders(1, "")))
	noError(t, s.Append(t.Context(), orders(1, "")))
	closing := time.Now()
	noError(t, s.Close())
	if took := time.Since(closing); took > 5*time.Second {
		t.Errorf("closing took %v (all: %v)", took, time.Since(began))
	}
	r.topic(nil)
	s = r.open(func(c *Config) { c.AnnounceEvery = 10 * time.Millisecond })
	r.until("the end of the first opening", has(first, 2, true))
	r.flush(s)
	r.until("the second opening", has(s.journal.Incarnation(), 0, false))
	second := s.journal.Incarnation()
	noError(t, s.Close())

	// What Kafka has is not said again, unless everything is.
	s = r.open(func(c *Config) { c.AnnounceEvery = 10 * time.Millisecond })
	r.until("the third opening", has(s.journal.Incarnation(), 0, false))
	ends := func() (n int) {
		for _, a := range r.told {
			if a.Incarnation == first && a.Final {
				n++
			}
		}
		return n
	}
	if n := ends(); n != 1 {
		t.Errorf("the end of the first opening is announced %d times", n)
	}
	if _, err := s.Republish(r.context()); err != nil {
		t.Fatal(err)
	}
	r.read()
	if n := ends(); n != 2 || !has(second, 0, true)(r.told) {
		t.Errorf("published again, the end of the first opening is announced %d times", n)
	}
}
