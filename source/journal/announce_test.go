package journal

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tallyman/schema"
	"tallyman/schema/batch"
)

// announce makes an announcement of the clicks.
func announce(t *testing.T, j *Journal, final bool) batch.Announcement {
	t.Helper()
	a, err := j.Announce("clicks", clicks(), final)
	if err != nil {
		t.Fatal(err)
	}
	if sealed := a.Announcement; a.Topic != "clicks" || sealed.Source != "test" || sealed.Incarnation != j.Incarnation() || sealed.Dataset != clicks() || sealed.Final != final {
		t.Errorf("announced %+v", a)
	}
	if _, err := batch.ParseAnnouncement(nil, a.Announcement.Headers()); err != nil {
		t.Error(err)
	}
	return a.Announcement
}

func add(t *testing.T, j *Journal, d schema.Dataset) {
	t.Helper()
	if _, err := j.Append(d.Name, newBatch(d, "{}\n")); err != nil {
		t.Fatal(err)
	}
}

// The time of announcements goes up, over openings and whatever the clock does.
func TestAnnouncedTimeNeverGoesBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := openAt(t, dir)
	first := announce(t, j, false)
	j.clock = j.clock.Add(time.Hour) // as of a clock that was an hour ahead, and was put right
	add(t, j, clicks())
	second := announce(t, j, false)
	if first.Sequence != 0 || second.Sequence != 1 || second.At.Sub(first.At) < time.Hour {
		t.Errorf("%d at %v, then %d at %v", first.Sequence, first.At, second.Sequence, second.At)
	}
	closeJournal(t, j)
	j = openAt(t, dir)
	if third := announce(t, j, false); !third.At.After(second.At) || third.Sequence != 0 {
		t.Errorf("%v after %v", third.At, second.At)
	}
}

// The streams of earlier openings end with the highest number that is on disk,
// until Kafka has that; also those that nothing was announced of, and those
// without batches.
func TestFinals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	type end struct {
		Topic    string
		Stream   Stream
		Sequence uint64
	}
	var want []end
	open := func(topics ...schema.Dataset) *Journal {
		j := openAt(t, dir)
		for i, d := range topics {
			add(t, j, d)
			add(t, j, d)
			want = append(want, end{d.Name, Stream{j.Incarnation(), d}, 2})
			if i == 0 {
				announce(t, j, false)
			}
		}
		return j
	}
	check := func(j *Journal, all bool) []Announced {
		t.Helper()
		finals, err := j.Finals(all)
		if err != nil {
			t.Fatal(err)
		}
		got := []end{}
		for _, a := range finals {
			if !a.Announcement.Final {
				t.Error("not final")
			}
			got = append(got, end{a.Topic, Stream{a.Announcement.Incarnation, a.Announcement.Dataset}, a.Announcement.Sequence})
		}
		order := func(a, b end) int {
			return slices.Compare(append(a.Stream.Incarnation[:], a.Topic...), append(b.Stream.Incarnation[:], b.Topic...))
		}
		slices.SortFunc(got, order)
		wanted := slices.Clone(want)
		slices.SortFunc(wanted, order)
		if diff := cmp.Diff(wanted, got); diff != "" {
			t.Errorf("finals (-want +got):\n%s", diff)
		}
		return finals
	}
	closeJournal(t, open(clicks(), orders()))
	j := openAt(t, dir)
	announce(t, j, false)
	want = append(want, end{"clicks", Stream{j.Incarnation(), clicks()}, 0})
	closeJournal(t, j)
	closeJournal(t, open()) // nothing was said of it: there is nothing to end
	j = openAt(t, dir)
	add(t, j, clicks())                       // its own stream goes on
	for _, all := range []bool{false, true} { // what is said again is to be heard again
		for _, a := range check(j, all) {
			if err := j.Finished(a); err != nil {
				t.Fatal(err)
			}
		}
	}
	own := Stream{j.Incarnation(), clicks()}
	ended := want
	want = []end{}
	check(j, false)
	closeJournal(t, j)
	want = []end{{"clicks", own, 1}}
	j = openAt(t, dir)
	check(j, false)
	want = append(want, ended...)
	check(j, true)
}
