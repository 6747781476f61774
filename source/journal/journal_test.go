package journal

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"
	"go.uber.org/goleak"

	"tallyman/schema"
	"tallyman/schema/batch"
)

// childDir is set in the environment of a test binary that is to be a process
// of its own at work on the journal in that directory; childTask says what it does.
const (
	childDir  = "TALLYMAN_JOURNAL_CHILD"
	childTask = "TALLYMAN_JOURNAL_TASK"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		os.Exit(child(dir, os.Getenv(childTask)))
	}
	goleak.VerifyTestMain(m)
}

// child is what a process of its own does: append until it is killed, hold the
// journal until its input ends, or read all the journals in the directory.
func child(dir, task string) int {
	if task == "look" {
		return lookAll(dir)
	}
	j, err := Open(Config{Dir: dir, Source: "test", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if task == "append" {
		appendForEver(j, os.Stdout)
	}
	fmt.Println("open")
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := j.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// startChild starts this test binary as a process of its own.
func startChild(t *testing.T, dir, task string) (cmd *exec.Cmd, in io.WriteCloser, out io.Reader) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(self)
	cmd.Env = append(os.Environ(), childDir+"="+dir, childTask+"="+task)
	cmd.Stderr = os.Stderr
	if in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if out, err = cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, in, out
}

func clicks() schema.Dataset { return schema.Dataset{Namespace: "ads", Name: "clicks"} }
func orders() schema.Dataset { return schema.Dataset{Namespace: "shop", Name: "orders"} }

func newBatch(d schema.Dataset, value string) *batch.Batch {
	id := batch.NewID()
	at, _ := batch.TimeOf(id)
	return &batch.Batch{ID: id, Time: at, Dataset: d, ContentType: batch.NDJSON, Rows: 1, Value: []byte(value)}
}

func config(dir string) Config {
	return Config{Dir: dir, Source: "test", Logger: slog.New(slog.DiscardHandler)}
}

func openAt(t testing.TB, dir string) *Journal {
	t.Helper()
	j, err := Open(config(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeJournal(t, j) })
	return j
}

func closeJournal(t testing.TB, j *Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}

func mustAppend(t testing.TB, j *Journal, b *batch.Batch) Key {
	t.Helper()
	a, err := j.Append("topic", b)
	if err != nil {
		t.Fatal(err)
	}
	if a.Duplicate {
		t.Fatalf("%s is a duplicate", b.ID)
	}
	return a.Key
}

// held returns everything in the journal, by key; a damaged batch is fatal.
func held(t testing.TB, j *Journal) map[Key]*Record {
	t.Helper()
	all := map[Key]*Record{}
	for r, err := range j.All() {
		if err != nil {
			t.Fatal(err)
		}
		all[r.Key] = r
	}
	return all
}

func unpublished(t testing.TB, j *Journal) []Key {
	t.Helper()
	var keys []Key
	for k, err := range j.Unpublished() {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	return keys
}

// checkSequences checks that every stream is numbered 1, 2, 3, … without holes.
func checkSequences(t testing.TB, all map[Key]*Record) {
	t.Helper()
	counts, last := map[Stream]uint64{}, map[Stream]uint64{}
	for k := range all {
		counts[k.Stream]++
		last[k.Stream] = max(last[k.Stream], k.Sequence)
	}
	for s, n := range counts {
		if n != last[s] {
			t.Errorf("stream %s %s has %d batches, the last is number %d", s.Dataset, s.Incarnation, n, last[s])
		}
	}
}

func TestReopenedJournalHoldsEverythingUnderANewIncarnation(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	want := map[Key]string{}
	incarnations := map[uuid.UUID]bool{}
	for opening := range 3 {
		j, err := Open(config(dir))
		if err != nil {
			t.Fatal(err)
		}
		incarnations[j.Incarnation()] = true
		for n := range 4 {
			for _, d := range []schema.Dataset{clicks(), orders()} {
				b := newBatch(d, fmt.Sprintf("opening %d, batch %d of %s", opening, n, d))
				k := mustAppend(t, j, b)
				if wantKey := (Key{Stream: Stream{Incarnation: j.Incarnation(), Dataset: d}, Sequence: uint64(n + 1)}); k != wantKey {
					t.Errorf("batch has the key %s, want %s", k, wantKey)
				}
				want[k] = string(b.Value)
			}
		}
		closeJournal(t, j)
	}
	j := openAt(t, dir)
	got := map[Key]string{}
	for k, r := range held(t, j) {
		got[k] = string(r.Batch.Value)
		if r.Topic != "topic" || r.Batch.Source != "test" || r.Batch.Sequence != k.Sequence || r.Batch.Incarnation != k.Incarnation {
			t.Errorf("record %s came back as %+v for topic %s", k, r.Batch, r.Topic)
		}
		if one, err := j.Get(k); err != nil || !cmp.Equal(one, r, cmpopts.IgnoreUnexported(Record{})) {
			t.Errorf("Get(%s) and All differ (%v): %s", k, err, cmp.Diff(r, one, cmpopts.IgnoreUnexported(Record{})))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("after reopening (-appended +held):\n%s", diff)
	}
	if len(incarnations) != 3 || incarnations[j.Incarnation()] {
		t.Errorf("4 openings had the incarnations %v and %s", incarnations, j.Incarnation())
	}
	stats, err := j.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if stats.Incarnations != 4 || stats.Batches != 24 || stats.Unpublished != 24 || stats.DiskBytes == 0 {
		t.Errorf("stats are %+v", stats)
	}
}

func TestConcurrentAppendsLeaveNoHoles(t *testing.T) {
	t.Parallel()
	j := openAt(t, t.TempDir())
	const callers, each = 8, 40
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			for n := range each {
				d := clicks()
				if n%2 == 1 {
					d = orders()
				}
				if _, err := j.Append("topic", newBatch(d, fmt.Sprintf("%d/%d", caller, n))); err != nil {
					t.Error(err)
				}
				// A refused append takes no number.
				if _, err := j.Append("topic", newBatch(d, strings.Repeat("x", 2<<20))); !errors.Is(err, ErrTooLarge) {
					t.Errorf("2 MiB gave %v, want ErrTooLarge", err)
				}
			}
		})
	}
	wg.Wait()
	all := held(t, j)
	if len(all) != callers*each {
		t.Errorf("the journal holds %d batches, want %d", len(all), callers*each)
	}
	checkSequences(t, all)
	values := map[string]bool{}
	for _, r := range all {
		values[string(r.Batch.Value)] = true
	}
	if len(values) != callers*each {
		t.Errorf("the journal holds %d different batches, want %d", len(values), callers*each)
	}
}

func TestSameIDIsADuplicateOrAConflict(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := Open(config(dir))
	if err != nil {
		t.Fatal(err)
	}
	b := newBatch(clicks(), "rows")
	key := mustAppend(t, first, b)
	check := func(j *Journal) {
		t.Helper()
		again := *b
		again.Incarnation, again.Sequence, again.Digest = uuid.Nil, 0, batch.Digest{}
		if a, err := j.Append("topic", &again); err != nil || !a.Duplicate || a.Key != key {
			t.Errorf("the same batch again gave %+v, %v, want a duplicate of %s", a, err, key)
		}
		changes := map[string]func(*batch.Batch){
			"value":        func(b *batch.Batch) { b.Value = []byte("other rows") },
			"rows":         func(b *batch.Batch) { b.Rows++ },
			"schema":       func(b *batch.Batch) { b.Schema = strings.Repeat("ab", 32) },
			"content type": func(b *batch.Batch) { b.ContentType = batch.Native },
		}
		for what, change := range changes {
			other := *b
			change(&other)
			if _, err := j.Append("topic", &other); !errors.Is(err, ErrIDConflict) {
				t.Errorf("the same id with another %s gave %v, want ErrIDConflict", what, err)
			}
		}
	}
	check(first)
	closeJournal(t, first)
	second := openAt(t, dir)
	check(second)
	if all := held(t, second); len(all) != 1 {
		t.Errorf("the journal holds %d batches, want 1", len(all))
	}
	// An id belongs to a dataset; neither a duplicate nor a conflict took a number.
	other := newBatch(orders(), "rows")
	other.ID, other.Time = b.ID, b.Time
	if k := mustAppend(t, second, other); k.Sequence != 1 {
		t.Errorf("the id in another dataset has the key %s", k)
	}
	if k := mustAppend(t, second, newBatch(clicks(), "next")); k.Sequence != 1 {
		t.Errorf("the first new batch of the dataset has the key %s", k)
	}
}

func TestConcurrentAppendsOfOneIDAreOneBatch(t *testing.T) {
	t.Parallel()
	j := openAt(t, t.TempDir())
	b := newBatch(clicks(), "rows")
	const callers = 16
	answers := make(chan Appended, callers)
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			mine := *b
			a, err := j.Append("topic", &mine)
			if err != nil {
				t.Error(err)
			}
			answers <- a
		})
	}
	wg.Wait()
	close(answers)
	first := 0
	for a := range answers {
		if a.Key.Sequence != 1 {
			t.Errorf("an answer is %+v", a)
		}
		if !a.Duplicate {
			first++
		}
	}
	if all := held(t, j); first != 1 || len(all) != 1 {
		t.Errorf("%d appends were first and %d batches are held, want 1 and 1", first, len(all))
	}
}

func TestMarksSurviveReopening(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, err := Open(config(dir))
	if err != nil {
		t.Fatal(err)
	}
	var keys []Key
	for n := range 5 {
		keys = append(keys, mustAppend(t, j, newBatch(clicks(), fmt.Sprint(n))))
	}
	err = errors.Join(j.MarkPublished(keys[0]), j.MarkPublished(keys[3]), j.SetAside(keys[1], "too large"), j.SetAside(keys[2], "odd"), j.MarkPublished(keys[2]))
	if err != nil {
		t.Fatal(err)
	}
	closeJournal(t, j)
	j = openAt(t, dir)
	keys = append(keys, mustAppend(t, j, newBatch(orders(), "of another stream")))
	if diff := cmp.Diff([]Key{keys[1], keys[4], keys[5]}, unpublished(t, j), cmp.Transformer("text", Key.String)); diff != "" && len(unpublished(t, j)) != 3 {
		t.Errorf("unpublished (-want +got):\n%s", diff)
	}
	got := map[Key]bool{}
	for _, k := range unpublished(t, j) {
		got[k] = true
	}
	if diff := cmp.Diff(map[Key]bool{keys[1]: true, keys[4]: true, keys[5]: true}, got); diff != "" {
		t.Errorf("unpublished (-want +got):\n%s", diff)
	}
	stats, err := j.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if want := []Aside{{Key: keys[1], Reason: "too large"}}; !cmp.Equal(stats.Aside, want) {
		t.Errorf("set aside are %v, want %v", stats.Aside, want)
	}
	if stats.Batches != 6 {
		t.Errorf("the journal holds %d batches, want 6: nothing is dropped", stats.Batches)
	}
}

func TestNotesAreKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, err := Open(config(dir))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(j.SetNote("file", "first"), j.SetNote("file", "second")); err != nil {
		t.Fatal(err)
	}
	closeJournal(t, j)
	j = openAt(t, dir)
	if v, ok, err := j.Note("file"); v != "second" || !ok || err != nil {
		t.Errorf("the note is %q, %v, %v", v, ok, err)
	}
	if _, ok, err := j.Note("source"); ok || err != nil {
		t.Errorf("a note that nobody made gave %v, %v", ok, err)
	}
}

func TestOneHolderAtATime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, err := Open(config(dir))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(config(dir)); !errors.Is(err, ErrInUse) {
		t.Errorf("a second opening in this process gave %v, want ErrInUse", err)
	}
	closeJournal(t, j)

	cmd, in, out := startChild(t, dir, "hold")
	if _, err := io.ReadFull(out, make([]byte, len("open\n"))); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(config(dir)); !errors.Is(err, ErrInUse) {
		t.Errorf("opening a journal that another process holds gave %v, want ErrInUse", err)
	}
	if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
		t.Fatal(err)
	}
	openAt(t, dir)
}

func TestJournalBelongsToItsSource(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	closeJournal(t, openAt(t, dir))
	c := config(dir)
	c.Source = "somebody"
	if _, err := Open(c); err == nil || !strings.Contains(err.Error(), `"test"`) || !strings.Contains(err.Error(), `"somebody"`) {
		t.Errorf("another source's journal gave %v, want an error that names both", err)
	}
	openAt(t, dir) // the refused opening gave up the lock
}

func TestSourceNamesThatTheEnvelopeCantCarry(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "a\nb", "\xff", strings.Repeat("x", 256), "nul\x00"} {
		c := config(t.TempDir())
		c.Source = name
		if j, err := Open(c); err == nil {
			t.Errorf("source %q was accepted", name)
			closeJournal(t, j)
		}
	}
}

func TestClosedJournal(t *testing.T) {
	t.Parallel()
	j, err := Open(config(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	k := mustAppend(t, j, newBatch(clicks(), "rows"))
	closeJournal(t, j)
	closeJournal(t, j) // a second time
	_, appended := j.Append("topic", newBatch(clicks(), "more"))
	_, got := j.Get(k)
	_, stats := j.Stats()
	for what, err := range map[string]error{"Append": appended, "Get": got, "Stats": stats, "MarkPublished": j.MarkPublished(k), "SetNote": j.SetNote("a", "b")} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close gave %v, want ErrClosed", what, err)
		}
	}
	for _, err := range j.All() {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("All after Close gave %v, want ErrClosed", err)
		}
	}
	for _, err := range j.Unpublished() {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("Unpublished after Close gave %v, want ErrClosed", err)
		}
	}
}

// The memory of a record that was released is of no other that is still in use.
func TestReleasedRecords(t *testing.T) {
	t.Parallel()
	j := openAt(t, t.TempDir())
	var all []*Record
	read := func(k Key) *Record {
		r, err := j.Get(k)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for i := range 3 {
		all = append(all, read(mustAppend(t, j, newBatch(clicks(), strings.Repeat(fmt.Sprint(i), 300)))))
	}
	want := []string{string(all[0].Batch.Value), string(all[1].Batch.Value), string(all[2].Batch.Value)}
	key := all[0].Key
	j.Release(all[0])
	j.Release(all[0]) // once more changes nothing
	if all[0].Batch.Value != nil {
		t.Error("a released value can be read")
	}
	all[1].Keep()
	j.Release(all[1])
	for range 3 {
		one, other := read(key), read(all[2].Key)
		if string(one.Batch.Value) != want[0] || string(other.Batch.Value) != want[2] || string(all[1].Batch.Value) != want[1] {
			t.Fatal("values share their memory")
		}
		j.Release(one)
		j.Release(other)
	}
}
