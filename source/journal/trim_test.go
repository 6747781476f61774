package journal

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"
)

// ever is a time after everything that a test does.
func ever() time.Time { return time.Now().Add(1000 * time.Hour) }

// A batch goes only if it is confirmed, published and old enough, each for
// itself; what is around it stays.
func TestTrims(t *testing.T) {
	t.Parallel()
	all := []Range{{First: 1, Last: math.MaxUint64}}
	for name, c := range map[string]struct {
		published []uint64
		aside     []uint64
		announced uint64 // when how many were there; those after it are of no known age
		confirmed []Range
		before    time.Duration // of the announcement
		want      []Range       // what is gone
	}{
		"everything":             {[]uint64{1, 2, 3, 4, 5}, nil, 5, all, 1, []Range{{First: 1, Last: 5}}},
		"confirmed by nobody":    {[]uint64{1, 2, 3, 4, 5}, nil, 5, nil, 1, nil},
		"too young":              {[]uint64{1, 2, 3, 4, 5}, nil, 5, all, 0, nil},
		"age not known":          {[]uint64{1, 2, 3, 4, 5}, nil, 0, all, 1, nil},
		"the old ones":           {[]uint64{1, 2, 3, 4, 5}, nil, 3, all, 1, []Range{{First: 1, Last: 3}}},
		"not published":          {nil, nil, 5, all, 1, nil},
		"one not published":      {[]uint64{1, 2, 4, 5}, nil, 5, all, 1, []Range{{First: 1, Last: 2}, {First: 4, Last: 5}}},
		"one set aside":          {[]uint64{1, 2, 4, 5}, []uint64{3}, 5, all, 1, []Range{{First: 1, Last: 2}, {First: 4, Last: 5}}},
		"first not published":    {[]uint64{2, 3, 4, 5}, nil, 5, all, 1, []Range{{First: 2, Last: 5}}},
		"a hole":                 {[]uint64{1, 2, 3, 4, 5}, nil, 5, []Range{{First: 1, Last: 1}, {First: 3, Last: 4}}, 1, []Range{{First: 1, Last: 1}, {First: 3, Last: 4}}},
		"from zero":              {[]uint64{1, 2, 3, 4, 5}, nil, 5, []Range{{First: 0, Last: 2}}, 1, []Range{{First: 1, Last: 2}}},
		"beyond what there is":   {[]uint64{1, 2, 3, 4, 5}, nil, 5, []Range{{First: 4, Last: 99}}, 1, []Range{{First: 4, Last: 5}}},
		"ranges that touch":      {[]uint64{1, 2, 3, 4, 5}, nil, 5, []Range{{First: 1, Last: 2}, {First: 3, Last: 3}}, 1, []Range{{First: 1, Last: 3}}},
		"an upside down range":   {[]uint64{1, 2, 3, 4, 5}, nil, 5, []Range{{First: 4, Last: 2}}, 1, nil},
		"nothing of all at once": {nil, nil, 0, nil, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			j := openAt(t, dir)
			var before time.Time
			var keys []Key
			for n := range uint64(5) {
				keys = append(keys, mustAppend(t, j, newBatch(clicks(), fmt.Sprint(n))))
				if n+1 == c.announced {
					before = announce(t, j, false).At.Add(c.before)
				}
			}
			mustAppend(t, j, newBatch(orders(), "another stream's"))
			for _, n := range c.published {
				noFault(t, j.MarkPublished(keys[n-1]))
			}
			for _, n := range c.aside {
				noFault(t, j.SetAside(keys[n-1], "too large"))
			}
			if c.announced == 0 {
				before = ever()
			}
			n, err := j.Trim(keys[0].Stream, c.confirmed, before)
			noFault(t, err)
			gone, err := j.Trimmed(keys[0].Stream)
			noFault(t, err)
			if diff := cmp.Diff(c.want, gone.Ranges); diff != "" || uint64(n) != gone.Batches() {
				t.Errorf("%d are gone (-want +got):\n%s", n, diff)
			}
			wantHeld(t, j, keys, c.want)
			closeJournal(t, j)
			r := readerAt(t, dir)
			contents := r.Contents()
			v, err := r.Verify(t.Context(), contents)
			noFault(t, err)
			if len(v.Faults) > 0 || v.Batches != int64(6-n) {
				t.Errorf("%d batches are sound, faults: %+v", v.Batches, v.Faults)
			}
		})
	}
}

func noFault(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// wantHeld checks that of some keys exactly those in gone are not there.
func wantHeld(t testing.TB, j *Journal, keys []Key, gone []Range) {
	t.Helper()
	trimmed := Trimmed{Ranges: gone}
	for _, k := range keys {
		_, err := j.Get(k)
		if is := trimmed.Holds(Range{First: k.Sequence, Last: k.Sequence}); is != errors.Is(err, ErrNoBatch) || !is && err != nil {
			t.Errorf("batch %d: %v; gone are %v", k.Sequence, err, gone)
		}
	}
}

// The last number of a stream is known when its batches are gone, and so is the
// end of it; a release that does not know of trimming does not open the journal.
func TestTrimmedNumbersStayKnown(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := openAt(t, dir)
	var keys []Key
	for range 3 {
		keys = append(keys, mustAppend(t, j, newBatch(clicks(), "x")))
		noFault(t, j.MarkPublished(keys[len(keys)-1]))
	}
	announce(t, j, false)
	if n, err := j.Trim(keys[0].Stream, []Range{{First: 1, Last: 3}}, ever()); n != 3 || err != nil {
		t.Fatalf("trimmed %d, %v", n, err)
	}
	if k := mustAppend(t, j, newBatch(clicks(), "y")); k.Sequence != 4 {
		t.Errorf("the next batch has number %d", k.Sequence)
	}
	noFault(t, j.MarkPublished(Key{keys[0].Stream, 4}))
	clear(j.marked) // as if some time had passed
	announce(t, j, false)
	if n, err := j.Trim(keys[0].Stream, []Range{{First: 1, Last: 4}}, ever()); n != 1 || err != nil {
		t.Fatalf("trimmed %d, %v", n, err)
	}
	for range 2 { // said, and said again
		closeJournal(t, j)
		j = openAt(t, dir)
		finals, err := j.Finals(true)
		noFault(t, err)
		i := slices.IndexFunc(finals, func(a Announced) bool { return a.Announcement.Incarnation == keys[0].Incarnation })
		if i < 0 || finals[i].Announcement.Sequence != 4 || finals[i].Topic != "clicks" {
			t.Fatalf("the stream ends as %+v", finals)
		}
		noFault(t, j.Finished(finals[i]))
	}
	have, _, err := j.meta(metaFormat)
	if noFault(t, err); have != formatTrimmed {
		t.Errorf("the journal has format %q", have)
	}
}

// What Kafka has heard of a stream's end is said again as it was.
func TestFinalsAreSaidAgainAsTheyWere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := openAt(t, dir)
	add(t, j, clicks())
	closeJournal(t, j)
	j = openAt(t, dir)
	first, err := j.Finals(false)
	noFault(t, err)
	noFault(t, j.Finished(first[0]))
	again, err := j.Finals(true)
	noFault(t, err)
	first[0].Heard = true
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("said again as another (-first +again):\n%s", diff)
	}
}

// The id of a batch that is gone is free, in the same stream too.
func TestTrimmedIDsAreForgotten(t *testing.T) {
	t.Parallel()
	j := openAt(t, t.TempDir())
	b := newBatch(clicks(), "x")
	again := *b
	k := mustAppend(t, j, b)
	noFault(t, j.MarkPublished(k))
	announce(t, j, false)
	if n, err := j.Trim(k.Stream, []Range{{First: 1, Last: 1}}, ever()); n != 1 || err != nil {
		t.Fatalf("trimmed %d, %v", n, err)
	}
	if second := mustAppend(t, j, &again); second.Sequence != 2 {
		t.Errorf("the batch came back as number %d", second.Sequence)
	}
	st, err := j.Stats()
	if noFault(t, err); st.Batches != 1 {
		t.Errorf("the journal counts %d batches", st.Batches)
	}
}

// ThereBy is never before a batch was appended.
func TestThereBy(t *testing.T) {
	t.Parallel()
	j := openAt(t, t.TempDir())
	add(t, j, clicks())
	first := announce(t, j, false).At
	add(t, j, clicks())
	announce(t, j, false) // too soon to be kept
	s := Stream{j.Incarnation(), clicks()}
	want := func(n uint64, at time.Time) {
		t.Helper()
		if got, err := j.ThereBy(Key{s, n}); err != nil || !got.Equal(at) {
			t.Errorf("batch %d was there by %v, %v, want %v", n, got, err, at)
		}
	}
	want(1, first)
	want(2, time.Time{})
	last := announce(t, j, true).At
	want(1, first)
	want(2, last)
	announce(t, j, true)
	want(2, last)
}

// What is trimmed takes no disk space, but for logs that the store uses again.
func TestTrimmingFreesTheDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := openAt(t, dir)
	var k Key
	for range 200 {
		k = mustAppend(t, j, newBatch(clicks(), strings.Repeat("0123456789abcdef", 16<<10)))
		noFault(t, j.MarkPublished(k))
	}
	announce(t, j, false)
	was := sizeOf(t, dir)
	if n, err := j.Trim(k.Stream, []Range{{First: 1, Last: 190}}, ever()); n != 190 || err != nil {
		t.Fatalf("trimmed %d, %v", n, err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for sizeOf(t, dir) > was/10 {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes were, %d are left", was, sizeOf(t, dir))
		}
		time.Sleep(20 * time.Millisecond) // the store deletes files beside
	}
	t.Logf("%d MB before, %d MB after", was>>20, sizeOf(t, dir)>>20)
}

func sizeOf(t *testing.T, dir string) (n int64) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	noFault(t, err)
	for _, e := range entries {
		if info, err := e.Info(); err == nil && filepath.Ext(e.Name()) != ".log" {
			n += info.Size()
		}
	}
	return n
}

// kept is what the model knows of a batch.
type kept struct {
	value     string
	id        uuid.UUID
	published bool
	by        time.Time // it was announced by then; zero: not yet
}

// trimModel is what has to be true of a journal, whatever is done to it.
type trimModel struct {
	fs      *vfs.MemFS
	j       *Journal
	batches map[Key]*kept
	gone    map[Key]bool
	last    map[Stream]uint64
	times   []time.Time // of announcements
}

func (m *trimModel) open(t *rapid.T) {
	var err error
	if m.j, err = open(config("journal"), roomy(m.fs), func(int) { t.Fatal("the journal stops the process") }); err != nil {
		t.Fatal(err)
	}
}

// ends checks how the streams of earlier openings are said to have ended.
func (m *trimModel) ends(t *rapid.T) {
	finals, err := m.j.Finals(true)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[Stream]bool{}
	for _, a := range finals {
		s := Stream{a.Announcement.Incarnation, a.Announcement.Dataset}
		seen[s] = true
		if a.Announcement.Sequence != m.last[s] {
			t.Fatalf("stream %s ended with %d, not %d", s.Incarnation, a.Announcement.Sequence, m.last[s])
		}
		m.announced(s, a.Announcement.At)
		if rapid.Bool().Draw(t, "finished") {
			if err := m.j.Finished(a); err != nil {
				t.Fatal(err)
			}
		}
	}
	for s := range m.last {
		if s.Incarnation != m.j.Incarnation() && !seen[s] {
			t.Fatalf("nothing ends stream %s", s.Incarnation)
		}
	}
}

func (m *trimModel) announced(s Stream, at time.Time) {
	m.times = append(m.times, at)
	for k, b := range m.batches {
		if k.Stream == s && b.by.IsZero() {
			b.by = at
		}
	}
}

// some draws ranges of a stream's numbers.
func someRanges(t *rapid.T, last uint64) (all []Range) {
	for next := uint64(1); next <= last; {
		r := Range{First: next, Last: next + rapid.Uint64Range(0, 4).Draw(t, "length")}
		if rapid.Bool().Draw(t, "confirmed") {
			all = append(all, r)
		}
		next = r.Last + 1
	}
	return all
}

func (m *trimModel) trim(t *rapid.T) {
	streams := slices.SortedFunc(keysOf(m.last), func(a, b Stream) int { return slices.Compare(a.Incarnation[:], b.Incarnation[:]) })
	if len(streams) == 0 || len(m.times) == 0 {
		t.Skip("nothing to trim")
	}
	s := rapid.SampledFrom(streams).Draw(t, "stream")
	confirmed := someRanges(t, m.last[s])
	before := rapid.SampledFrom(m.times).Draw(t, "before").Add(time.Duration(rapid.IntRange(0, 1).Draw(t, "after")))
	n, err := m.j.Trim(s, confirmed, before)
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for k, b := range m.batches {
		sure := slices.ContainsFunc(confirmed, func(r Range) bool { return r.First <= k.Sequence && k.Sequence <= r.Last })
		if k.Stream == s && sure && b.published && !b.by.IsZero() && b.by.Before(before) {
			count++
			delete(m.batches, k)
			m.gone[k] = true
		}
	}
	if n != count {
		t.Fatalf("trimmed %d, want %d", n, count)
	}
}

func keysOf[K comparable, V any](m map[K]V) func(func(K) bool) {
	return func(yield func(K) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// check compares the journal with the model.
func (m *trimModel) check(t *rapid.T) {
	for k, b := range m.batches {
		r, err := m.j.Get(k)
		if err != nil || string(r.Batch.Value) != b.value || r.Batch.ID != b.id {
			t.Fatalf("batch %s: %v", k, err)
		}
	}
	for k := range m.gone {
		if _, err := m.j.Get(k); !errors.Is(err, ErrNoBatch) {
			t.Fatalf("batch %s is gone: %v", k, err)
		}
	}
	st, err := m.j.Stats()
	if err != nil || st.Batches != len(m.batches) {
		t.Fatalf("%d ids for %d batches, %v", st.Batches, len(m.batches), err)
	}
	for s := range m.last {
		gone, err := m.j.Trimmed(s)
		if err != nil {
			t.Fatal(err)
		}
		count := uint64(0)
		for k := range m.gone {
			if k.Stream == s {
				count++
			}
		}
		if gone.Batches() != count {
			t.Fatalf("of stream %s %v are gone, %d in all", s.Incarnation, gone.Ranges, count)
		}
	}
}

// Whatever is appended, published, announced, confirmed, trimmed, and however the
// process ends: what must stay is there, what may go goes, numbers and ends are
// right, and nothing that Kafka has not acknowledged is ever gone.
func TestTrimStateMachine(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := &trimModel{
			fs: vfs.NewCrashableMem(), batches: map[Key]*kept{}, gone: map[Key]bool{}, last: map[Stream]uint64{},
		}
		m.open(t)
		defer func() { _ = m.j.Close() }()
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				b := newBatch(clicks(), strings.Repeat("x", rapid.SampledFrom([]int{1, 10_000}).Draw(t, "size")))
				a, err := m.j.Append("clicks", b)
				if err != nil {
					t.Fatal(err)
				}
				if m.last[a.Key.Stream]++; a.Key.Sequence != m.last[a.Key.Stream] {
					t.Fatalf("batch %s where %d is next", a.Key, m.last[a.Key.Stream])
				}
				m.batches[a.Key] = &kept{value: string(b.Value), id: b.ID}
			},
			"publish": func(t *rapid.T) {
				var waiting []Key
				for k, err := range m.j.Unpublished() {
					if err != nil {
						t.Fatal(err)
					}
					waiting = append(waiting, k)
				}
				for _, k := range waiting {
					if rapid.Bool().Draw(t, "acknowledged") {
						if err := m.j.MarkPublished(k); err != nil {
							t.Fatal(err)
						}
						m.batches[k].published = true
					}
				}
			},
			"announce": func(t *rapid.T) {
				clear(m.j.marked) // as if some time had passed
				a, err := m.j.Announce("clicks", clicks(), false)
				if err != nil {
					t.Fatal(err)
				}
				m.announced(Stream{m.j.Incarnation(), clicks()}, a.Announcement.At)
			},
			"trim": m.trim,
			"reopen": func(t *rapid.T) {
				if err := m.j.Close(); err != nil {
					t.Fatal(err)
				}
				m.open(t)
				m.ends(t)
			},
			"crash": func(t *rapid.T) {
				seed := rapid.Uint64().Draw(t, "seed")
				lost := m.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(seed, 0))})
				_ = m.j.Close()
				m.fs = lost
				m.open(t)
				for k, b := range m.batches { // marks may be lost
					b.published = true
					for waiting, err := range m.j.Unpublished() {
						if err != nil {
							t.Fatal(err)
						}
						if waiting == k {
							b.published = false
						}
					}
				}
				m.ends(t)
			},
			"": m.check,
		})
	})
}
