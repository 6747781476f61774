package replay

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"tallyman/schema/batch"
	"tallyman/source/journal"
)

// Only what every expected target has confirmed is trimmed, by receipts that were
// read, and only when it is old by every clock.
func TestTrimsWhatEveryTargetConfirmed(t *testing.T) {
	t.Parallel()
	now := time.Now()
	hour := func(n int) time.Time { return now.Add(time.Duration(n) * time.Hour) }
	for name, c := range map[string]struct {
		targets []string
		said    []receipt
		missing bool // of the topic the end was not read
		at      time.Time
		want    []journal.Range
	}{
		"confirmed and old":     {[]string{"a"}, []receipt{{target: "a", through: 5, announced: 5, at: hour(2)}}, false, hour(2), []journal.Range{span(1, 5)}},
		"no target is expected": {nil, []receipt{{target: "a", through: 5, announced: 5, at: hour(2)}}, false, hour(2), nil},
		"another target":        {[]string{"b"}, []receipt{{target: "a", through: 5, announced: 5, at: hour(2)}}, false, hour(2), nil},
		"one of two":            {[]string{"a", "b"}, []receipt{{target: "a", through: 5, announced: 5, at: hour(2)}}, false, hour(2), nil},
		"two of two": {[]string{"a", "b"}, []receipt{
			{target: "a", through: 4, announced: 5, at: hour(2)}, {target: "b", through: 3, announced: 5, at: hour(2), missing: []journal.Range{span(5, 5)}},
		}, false, hour(2), []journal.Range{span(1, 4)}},
		"holes of both": {[]string{"a", "b"}, []receipt{
			{target: "a", through: 1, announced: 5, at: hour(2), missing: []journal.Range{span(2, 2)}},
			{target: "b", through: 3, announced: 5, at: hour(2), missing: []journal.Range{span(4, 4)}},
		}, false, hour(2), []journal.Range{span(1, 1), span(3, 3), span(5, 5)}},
		"too young":              {[]string{"a"}, []receipt{{target: "a", through: 5, announced: 5, at: now}}, false, now, nil},
		"young by the target":    {[]string{"a"}, []receipt{{target: "a", through: 5, announced: 5, at: now}}, false, hour(99), nil},
		"young by the machine":   {[]string{"a"}, []receipt{{target: "a", through: 5, announced: 5, at: hour(99)}}, false, now, nil},
		"the topic was not read": {[]string{"a"}, []receipt{{target: "a", through: 5, announced: 5, at: hour(2)}}, true, hour(2), nil},
		"it was taken back": {[]string{"a"}, []receipt{
			{target: "a", through: 5, announced: 5, at: hour(2)}, {target: "a", through: 2, announced: 5, at: hour(3), missing: []journal.Range{span(3, 5)}},
		}, false, hour(3), []journal.Range{span(1, 2)}},
		"an older one comes later": {[]string{"a"}, []receipt{{target: "a", through: 2, announced: 2, at: hour(3)}, {target: "a", through: 5, announced: 5, at: hour(2)}}, false, hour(3), []journal.Range{span(1, 2)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			all := r.add(6) // the last is of no known age when it is looked
			_, err := r.journal.Announce(topic, orders(), false)
			noError(t, err)
			r.prepare(func(c2 *Config) { c2.Targets, c2.Retention = c.targets, time.Hour })
			for _, s := range c.said {
				r.replayer.book.take(r.receipt(s), now)
			}
			r.replayer.complete = !c.missing
			for _, one := range r.replayer.trimmable(c.at) {
				_, err := r.journal.Trim(one.stream, one.confirmed, one.before)
				noError(t, err)
			}
			gone, err := r.journal.Trimmed(r.stream())
			if diff := cmp.Diff(c.want, gone.Ranges); err != nil || diff != "" {
				t.Errorf("trimmed of %d (-want +got): %v\n%s", len(all), err, diff)
			}
		})
	}
}

// A note of an earlier process confirms nothing: its target may have gone back.
func TestNotesConfirmNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.add(1)
	_, err := r.journal.Announce(topic, orders(), true)
	noError(t, err)
	old := r.stream()
	value, err := r.receipt(receipt{target: "a", through: 1, announced: 1}).Value()
	noError(t, err)
	noError(t, r.journal.SetNote(NotePrefix+"x", string(value)))
	noError(t, r.journal.Close())
	r.open()
	r.prepare(func(c *Config) { c.Targets, c.Retention = []string{"a"}, time.Nanosecond })
	r.replayer.complete = true
	r.replayer.book.take(r.receipt(receipt{target: "a", announced: 0, at: time.Now().Add(time.Minute)}), time.Now())
	if r.replayer.book.streams[old].said["a"] == nil {
		t.Fatal("the note is not read")
	}
	if all := r.replayer.trimmable(time.Now().Add(time.Hour)); len(all) > 0 {
		t.Errorf("to be trimmed: %+v", all)
	}
}

// Where a target took something back, what it said before then of other streams
// confirms nothing for the time of the retention, across restarts too.
func TestWhatWasSaidBeforeARestoreIsDoubted(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.add(1)
	other := r.stream()
	noError(t, r.journal.Close())
	r.open()
	r.add(2)
	now := time.Now()
	const retention = time.Hour
	at := func(d time.Duration) time.Time { return now.Add(d) }
	r.prepare(func(c *Config) { c.Targets, c.Retention = []string{"a"}, retention })
	take := func(s receipt) verdict { return r.replayer.book.take(r.receipt(s), now) }
	confirmed := func(s journal.Stream) int {
		return len(r.replayer.book.confirmed(r.replayer.book.streams[s], retention))
	}
	take(receipt{target: "a", stream: other, through: 1, announced: 1, closed: true, at: at(1)})
	take(receipt{target: "a", through: 2, announced: 2, at: at(2)})
	if confirmed(other) != 1 || !r.replayer.book.shown(r.replayer.book.streams[other], retention) {
		t.Error("the other stream is not confirmed")
	}
	if took := take(receipt{target: "a", through: 1, announced: 1, at: at(3)}); took != wentBack {
		t.Errorf("it went back: %v", took)
	}
	check := func(what string, want int) {
		t.Helper()
		if n := confirmed(other); n != want {
			t.Errorf("%s, %d ranges of the other stream are confirmed, want %d", what, n, want)
		}
		if is := r.replayer.book.shown(r.replayer.book.streams[other], retention); is != (want == 1) {
			t.Errorf("%s, its end is shown: %v", what, is)
		}
	}
	check("after the restore", 0)
	noError(t, r.replayer.keep())
	r.prepare(func(c *Config) { c.Targets, c.Retention = []string{"a"}, retention })
	take(receipt{target: "a", stream: other, through: 1, announced: 1, closed: true, at: at(1)})
	take(receipt{target: "a", through: 1, announced: 1, at: at(3)})
	check("after a restart", 0)
	take(receipt{target: "a", through: 2, announced: 2, at: at(retention + time.Minute)})
	check("after the retention", 1)
	take(receipt{target: "a", through: 1, announced: 2, at: at(2 * retention)})
	check("after another restore", 0)
	take(receipt{target: "a", stream: other, through: 1, announced: 1, closed: true, at: at(2*retention + 1)})
	check("once it was said again", 1)
}

// The running replayer trims, and counts.
func TestTrimsWhileItRuns(t *testing.T) {
	t.Parallel()
	r := newRig(t).receipts()
	r.add(5)
	_, err := r.journal.Announce(topic, orders(), false)
	noError(t, err)
	r.start(func(c *Config) { c.Targets, c.Retention, c.Grace = []string{"main"}, time.Nanosecond, time.Minute })
	if n := r.metric("tallyman_source_oldest_unconfirmed_seconds"); n <= 0 {
		t.Errorf("the oldest batch that is not confirmed is %v s old", n)
	}
	r.tell(receipt{target: "main", through: 3, announced: 5, missing: []journal.Range{span(4, 4)}})
	r.eventually("four are trimmed", func() bool { return r.metric("tallyman_source_trimmed_batches_total") == 4 })
	if held, err := r.journal.Held(r.stream(), 0, 99, 99); err != nil || !cmp.Equal(held, []uint64{4}) {
		t.Errorf("held are %v, %v", held, err)
	}
	r.tell(receipt{target: "main", through: 5, announced: 5})
	r.eventually("all are trimmed", func() bool { return r.metric("tallyman_source_trimmed_batches_total") == 5 })
	if n := r.metric("tallyman_source_oldest_unconfirmed_seconds"); n != 0 {
		t.Errorf("the oldest batch that is not confirmed is %v s old", n)
	}
	if n := r.metric("tallyman_source_journal_bytes"); n <= 0 {
		t.Errorf("the journal has %v bytes", n)
	}
}

// The end of an earlier stream is announced again until every target shows it,
// with growing pauses; a stream that is trimmed but open at a target, too.
func TestAnnouncesEndsAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.add(2)
	old := r.stream()
	noError(t, r.journal.Close())
	r.open()
	r.prepare(func(c *Config) { c.Targets, c.Grace = []string{"a", "b"}, 30*time.Second })
	book, now := r.replayer.book, r.replayer.began
	took := func(s receipt) { book.take(r.receipt(s), now) }
	count := func(during time.Duration) (n int) {
		for end := now.Add(during); now.Before(end); now = now.Add(time.Second) {
			if e := r.replayer.unheard(now); e != nil {
				if n++; e.stream != old || e.end.Announcement.Sequence != 2 || !e.end.Announcement.Final {
					t.Fatalf("announced is %+v", e.end)
				}
			}
		}
		return n
	}
	want := func(what string, during time.Duration, least, most int) {
		t.Helper()
		if n := count(during); n < least || n > most {
			t.Errorf("%s, it is announced %d times in %v, want %d to %d", what, n, during, least, most)
		}
	}
	want("at first", r.replayer.cfg.Grace, 0, 0)
	want("with no receipt", 10*time.Minute, 4, 5)
	want("and later", time.Hour, 5, 7)
	took(receipt{target: "a", stream: old, through: 2, announced: 2, closed: true, at: now})
	want("shown by one of two", time.Hour, 5, 7)
	took(receipt{target: "b", stream: old, through: 1, announced: 1, at: now})
	want("half shown by the other", time.Hour, 5, 7)
	took(receipt{target: "b", stream: old, through: 2, announced: 2, at: now})
	want("still open", time.Hour, 5, 7)
	took(receipt{target: "b", stream: old, through: 2, announced: 2, closed: true, at: now})
	want("shown by both, with its batches held, first", 20*time.Minute, 4, 6)
	want("and later", 5*time.Hour, 5, 7)
	if n, err := r.journal.Trim(old, []journal.Range{span(1, 2)}, now); n != 2 || err != nil {
		t.Fatalf("trimmed %d, %v", n, err)
	}
	want("trimmed", 5*time.Hour, 0, 1)
	took(receipt{target: "b", stream: old, through: 2, announced: 2, at: now})
	want("trimmed and open again", time.Hour, 8, 11)
}

// What is announced again is the end, on the dataset's topic.
func TestAnnouncesOnTheTopic(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.add(2)
	old := r.stream()
	noError(t, r.journal.Close())
	r.open()
	r.prepare(func(c *Config) { c.Grace = time.Minute })
	r.replayer.book.streams[old].again = time.Time{}
	r.replayer.announce(t.Context())
	said := []string{}
	for _, m := range r.messages(topic) {
		a, err := batch.ParseAnnouncement(m.Value, headersOf(m))
		if err != nil {
			t.Fatal(err)
		}
		said = append(said, fmt.Sprint(a.Incarnation == old.Incarnation, a.Sequence, a.Final))
	}
	if diff := cmp.Diff([]string{"true 2 true"}, said); diff != "" {
		t.Error(diff)
	}
}

// Whatever targets say, in whichever order it is read: what is confirmed is what
// the newest receipt of every target covers.
func TestConfirmedIsWhatAllCover(t *testing.T) {
	t.Parallel()
	own := journal.Stream{Dataset: orders()}
	own.Incarnation[0] = 1
	rapid.Check(t, func(t *rapid.T) {
		targets := []string{"a", "b", "c"}[:rapid.IntRange(1, 3).Draw(t, "targets")]
		e := &entry{stream: own, said: map[string]*said{}}
		b := &book{streams: map[journal.Stream]*entry{own: e}, targets: map[string]*target{}, expects: targets}
		newest := map[string]*batch.Receipt{}
		for range rapid.IntRange(0, 8).Draw(t, "receipts") {
			through := rapid.Uint64Range(0, 9).Draw(t, "through")
			r := &batch.Receipt{
				Target: rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "target"), Dataset: own.Dataset, Incarnation: own.Incarnation,
				Source: "s", Through: through, At: time.Unix(rapid.Int64Range(1, 20).Draw(t, "at"), 0),
			}
			r.Considered = through + rapid.Uint64Range(0, 9).Draw(t, "considered")
			r.Announced = r.Considered
			for n := through + 1; n <= r.Considered; n++ {
				if rapid.Bool().Draw(t, "missing") {
					r.Missing = append(r.Missing, span(n, n))
				}
			}
			b.take(r, time.Unix(1, 0))
			if old := newest[r.Target]; old == nil || !r.At.Before(old.At) {
				newest[r.Target] = r
			}
		}
		got := map[uint64]bool{}
		for _, r := range b.confirmed(e, 0) {
			for n := r.First; n <= r.Last; n++ {
				got[n] = true
			}
		}
		for n := uint64(1); n < 25; n++ {
			want := true
			for _, name := range targets {
				want = want && newest[name] != nil && newest[name].Covers(n)
			}
			if got[n] != want {
				t.Fatalf("batch %d is confirmed: %v, want %v", n, got[n], want)
			}
		}
	})
}
