package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

func readerAt(t testing.TB, dir string) *Reader {
	t.Helper()
	r, err := OpenReader(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// files returns the names and the content of everything in a directory.
func files(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(text)
	}
	return all
}

func copyOf(t testing.TB, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// sample is a closed journal of two openings: batches of 8 kB, which the store
// keeps in files of values, and small ones; some are published, one is set aside.
func sample(t testing.TB) (dir string, keys []Key) {
	t.Helper()
	dir = t.TempDir()
	for opening := range 2 {
		j, err := Open(config(dir))
		if err != nil {
			t.Fatal(err)
		}
		for n := range 6 {
			keys = append(keys,
				mustAppend(t, j, newBatch(clicks(), strings.Repeat(fmt.Sprintf("%d.%d,", opening, n), 2000))),
				mustAppend(t, j, newBatch(orders(), fmt.Sprint(n))))
		}
		first := keys[12*opening]
		if err := errors.Join(j.MarkPublished(first), j.SetAside(keys[12*opening+2], "too large")); err != nil {
			t.Fatal(err)
		}
		closeJournal(t, j)
	}
	return dir, keys
}

func TestReaderShowsWhatIsThereAndChangesNothing(t *testing.T) {
	t.Parallel()
	dir, keys := sample(t)
	before := files(t, dir)
	r := readerAt(t, dir)
	c := r.Contents()
	if r.Source() != "test" || len(c.Streams) != 4 || len(c.Faults) != 0 {
		t.Fatalf("source %s, contents %+v", r.Source(), c)
	}
	seen := map[Key]bool{}
	for i, s := range c.Streams {
		if s.Opened.IsZero() || i > 0 && s.Opened.Before(c.Streams[i-1].Opened) {
			t.Errorf("stream %d began at %s", i, s.Opened)
		}
		for _, h := range s.Batches {
			k := Key{Stream: s.Stream, Sequence: h.Sequence}
			seen[k] = true
			record, err := r.Get(k)
			if err != nil || record.Batch.ID != h.ID {
				t.Errorf("batch %s: %+v, %v, want the id %s", k, record, err, h.ID)
			}
			published := k == keys[0] || k == keys[12]
			aside := k == keys[2] || k == keys[14]
			if h.Unpublished == published || (h.Aside != nil) != aside || aside && *h.Aside != "too large" {
				t.Errorf("batch %s: %+v", k, h)
			}
		}
	}
	if len(seen) != len(keys) {
		t.Errorf("%d batches are listed, want %d", len(seen), len(keys))
	}
	v, err := r.Verify(t.Context(), c)
	if err != nil || v.Batches != 24 || v.Rows != 24 || v.Bytes < 12*8000 || len(v.Faults) != 0 {
		t.Errorf("verified %+v, %v", v, err)
	}
	if diff := cmp.Diff(before, files(t, dir)); diff != "" {
		t.Error("reading changed the directory:\n", diff)
	}
}

// A process that was killed leaves a log with batches; reading leaves it there.
func TestReaderReadsTheLogOfAKilledProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd, _, out := startChild(t, dir, "append")
	p := newPromised()
	p.read(t, out, 200, func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
	})
	if err := cmd.Wait(); cmd.ProcessState.Success() {
		t.Fatal(err)
	}
	before := files(t, dir)
	r := readerAt(t, dir)
	c := r.Contents()
	if v, err := r.Verify(t.Context(), c); err != nil || len(v.Faults) != 0 || int(v.Batches) < len(p.digests) || len(c.Streams) != 1 {
		t.Errorf("%d streams, verified %+v, %v, want at least %d batches", len(c.Streams), v, err, len(p.digests))
	}
	if diff := cmp.Diff(before, files(t, dir)); diff != "" {
		t.Error("reading changed the directory")
	}
}

func TestReaderRefusesAJournalInUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd, in, out := startChild(t, dir, "hold")
	if _, err := io.ReadFull(out, make([]byte, len("open\n"))); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenReader(dir, slog.Default()); !errors.Is(err, ErrInUse) {
		t.Errorf("a journal that a process holds gave %v, want ErrInUse", err)
	}
	readerAt(t, copyOf(t, dir)).Contents() // of a copy nobody can say whether it is whole
	if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
		t.Fatal(err)
	}
	r := readerAt(t, dir)
	if _, err := Open(config(dir)); !errors.Is(err, ErrInUse) {
		t.Errorf("a journal that is being read gave %v, want ErrInUse", err)
	}
	r.Contents()
}

func TestReaderMakesNoLockFile(t *testing.T) {
	t.Parallel()
	dir, _ := sample(t)
	to := copyOf(t, dir)
	if err := os.Remove(filepath.Join(to, "LOCK")); err != nil {
		t.Fatal(err)
	}
	r := readerAt(t, to)
	if v, err := r.Verify(t.Context(), r.Contents()); err != nil || v.Batches != 24 {
		t.Errorf("verified %+v, %v", v, err)
	}
	if _, err := os.Stat(filepath.Join(to, "LOCK")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the lock file is there: %v", err)
	}
}

func TestReaderRefusesWhatIsNoJournal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{dir, filepath.Join(dir, "absent")} {
		if _, err := OpenReader(name, slog.Default()); !errors.Is(err, ErrNoJournal) {
			t.Errorf("%s gave %v, want ErrNoJournal", name, err)
		}
	}
	if len(files(t, dir)) != 0 {
		t.Error("reading made files")
	}
}

// plant writes entries into a closed journal's store.
func plant(t testing.TB, dir string, entries func(*pebble.DB) error) {
	t.Helper()
	j := openAt(t, dir)
	if err := entries(j.db); err != nil {
		t.Fatal(err)
	}
	closeJournal(t, j)
}

func TestReaderRefusesANewerFormatByName(t *testing.T) {
	t.Parallel()
	dir, keys := sample(t)
	record := copyOf(t, dir)
	plant(t, dir, func(db *pebble.DB) error { return db.Set(metaKey(metaFormat), []byte("3"), pebble.Sync) })
	if _, err := OpenReader(dir, slog.Default()); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), `format "3"`) || !strings.Contains(err.Error(), dir) {
		t.Errorf("a newer format gave %v", err)
	}
	plant(t, record, func(db *pebble.DB) error {
		r, closer, err := db.Get(storeKey(kindBatch, keys[1]))
		if err != nil {
			return err
		}
		text := bytes.Clone(r)
		text[0] = recordVersion + 1
		text = sum(text[:len(text)-4])
		return errors.Join(closer.Close(), db.Set(storeKey(kindBatch, keys[1]), text, pebble.Sync))
	})
	if _, err := readerAt(t, record).Get(keys[1]); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("a newer record gave %v", err)
	}
}

func readerGet(dir string, k Key) (*Record, error) {
	r, err := OpenReader(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	record, err := r.Get(k)
	return record, errors.Join(err, r.Close())
}

// Verify computes the digest itself: a right checksum is not enough.
func TestVerifyChecksTheDigest(t *testing.T) {
	t.Parallel()
	dir, keys := sample(t)
	plant(t, dir, func(db *pebble.DB) error {
		r, closer, err := db.Get(storeKey(kindBatch, keys[1]))
		if err != nil {
			return err
		}
		text := bytes.Clone(r)
		text[len(text)-5] ^= 1 // of the rows
		return errors.Join(closer.Close(), db.Set(storeKey(kindBatch, keys[1]), sum(text[:len(text)-4]), pebble.Sync))
	})
	r := readerAt(t, dir)
	v, err := r.Verify(t.Context(), r.Contents())
	if err != nil || len(v.Faults) != 1 || v.Faults[0].Key != keys[1] || !strings.Contains(v.Faults[0].Detail, "its digest does not match") {
		t.Errorf("%+v, %v", v.Faults, err)
	}
}

func TestVerifyNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	dir, keys := sample(t)
	stranger := Key{Stream: Stream{Incarnation: uuid.New(), Dataset: clicks()}, Sequence: 1}
	first, err := readerGet(dir, keys[1])
	if err != nil {
		t.Fatal(err)
	}
	other := uuid.New()
	plant(t, dir, func(db *pebble.DB) error {
		value, closer, err := db.Get(storeKey(kindBatch, keys[5]))
		if err != nil {
			return err
		}
		damaged := bytes.Clone(value)
		damaged[len(damaged)/2] ^= 1
		return errors.Join(
			db.Delete(storeKey(kindBatch, keys[3]), pebble.Sync),                     // orders 2: an id and a mark point to it
			db.Set(storeKey(kindBatch, keys[5]), damaged, pebble.Sync),               // orders 3
			db.Set(storeKey(kindBatch, keys[7]), value, pebble.Sync),                 // orders 4: holds another batch
			db.Set(storeKey(kindUnpublished, stranger), nil, pebble.Sync),            // of no stream
			db.Set(idKey(clicks(), uuid.Max), storeKey(0, keys[0])[1:], pebble.Sync), // clicks 1 has two ids
			db.Delete(idKey(orders(), first.Batch.ID), pebble.Sync),                  // orders 1 has the id of another
			db.Set(idKey(orders(), other), storeKey(0, keys[1])[1:], pebble.Sync),
			db.Set(storeKey(kindUnpublished, Key{Stream: keys[0].Stream, Sequence: 9}), nil, pebble.Sync),
			db.Set([]byte{kindAside, 1}, nil, pebble.Sync),
			closer.Close(),
		)
	})
	r := readerAt(t, dir)
	v, err := r.Verify(t.Context(), r.Contents())
	if err != nil || v.Batches != 24-4 {
		t.Errorf("%d batches are sound, %v", v.Batches, err)
	}
	var got []string
	for _, f := range v.Faults {
		text := fmt.Sprintf("%s %d: %s", f.Key.Dataset, f.Key.Sequence, f.Detail)
		got = append(got, text)
	}
	all := strings.Join(got, "\n")
	for _, want := range []string{
		"shop/orders 2: an id points to it, and it is not there",
		"shop/orders 3: damaged on disk: its checksum does not match",
		"shop/orders 4: damaged on disk: it holds shop/orders",
		"ads/clicks 1: a mark points to it, and it is not there",
		"ads/clicks 0: nothing says when its incarnation began",
		"both point to it",
		"shop/orders 1: the id " + other.String() + " points to it, and it has another",
		"ads/clicks 0: sequences 7 to 8 are missing",
		"ads/clicks 9: a mark points to it, and it is not there",
		"/ 0: one of the marks of batches set aside: journal key of 1 bytes",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("nothing says %q:\n%s", want, all)
		}
	}
}

// lookAll is a process of its own that reads every journal in a directory: an
// opening that fails leaves goroutines of the store behind.
func lookAll(root string) int {
	entries, err := os.ReadDir(root)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for _, e := range entries {
		r, err := OpenReader(filepath.Join(root, e.Name()), slog.New(slog.DiscardHandler))
		if err != nil {
			fmt.Printf("%s: found: %q\n", e.Name(), err)
			continue
		}
		v, err := r.Verify(context.Background(), r.Contents())
		switch {
		case err != nil:
			fmt.Printf("%s: failed: %v\n", e.Name(), err)
		case len(v.Faults) > 0:
			fmt.Printf("%s: found: %d batches, %v\n", e.Name(), v.Batches, v.Faults[0].Detail)
		case v.Batches != 24 && !strings.HasPrefix(e.Name(), unclosed) && !strings.Contains(e.Name(), "MANIFEST"):
			fmt.Printf("%s: failed: no fault is told, and %d batches are sound, want 24\n", e.Name(), v.Batches)
		default:
			fmt.Printf("%s: harmless\n", e.Name())
		}
		_ = r.Close() // after a panic of the store it may complain
	}
	return 0
}

// damages are ways to damage a file.
func damages(random *rand.Rand) map[string]func(text []byte) []byte {
	all := map[string]func([]byte) []byte{"empty": func([]byte) []byte { return nil }}
	for n := range 8 {
		all[fmt.Sprintf("cut-%d", n)] = func(text []byte) []byte { return text[:random.IntN(len(text))] }
		all[fmt.Sprintf("flipped-%d", n)] = func(text []byte) []byte {
			text[random.IntN(len(text))] ^= 1 << random.IntN(8)
			return text
		}
	}
	return all
}

// unclosed begins the names of journals that were copied while they were open.
const unclosed = "unclosed-"

// One flipped byte anywhere is found or harms nothing, and never ends the
// process; nor does a file that is cut or gone. In a journal that was not
// closed, batches at the end of the log may be dropped for it, and a MANIFEST
// that is cut may be one of an earlier moment.
func TestReaderSurvivesDamage(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	root := t.TempDir()
	dir, _ := sample(t)
	n := damageAll(t, dir, filepath.Join(root, "closed-"), random)
	j := openAt(t, dir)
	for range 20 {
		mustAppend(t, j, newBatch(clicks(), strings.Repeat("x", random.IntN(5000))))
	}
	n += damageAll(t, copyOf(t, dir), filepath.Join(root, unclosed), random)
	cmd, _, out := startChild(t, root, "look")
	text, err := io.ReadAll(out)
	if err = errors.Join(err, cmd.Wait()); err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	if lines := strings.Count(string(text), "\n"); lines != n || strings.Contains(string(text), ": failed: ") {
		t.Errorf("%d journals were damaged, and of %d is told:\n%s", n, lines, text)
	}
	if harmless := strings.Count(string(text), ": harmless\n"); harmless == n {
		t.Error("no damage was found")
	}
}

// damageAll makes copies of a journal, each with one file damaged in one way,
// under names with a prefix, and returns how many.
func damageAll(t *testing.T, dir, prefix string, random *rand.Rand) (n int) {
	t.Helper()
	for name, text := range files(t, dir) {
		ways := damages(random)
		ways["gone"] = nil
		for what, change := range ways {
			if text == "" && what != "gone" {
				continue
			}
			to := prefix + name + "-" + what
			path := filepath.Join(to, name)
			err := errors.Join(os.CopyFS(to, os.DirFS(dir)), os.Remove(path))
			if change != nil {
				err = errors.Join(err, os.WriteFile(path, change([]byte(text)), 0o600))
			}
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
	}
	return n
}

// A flipped byte in a file of values is told by the name of its batch.
func TestVerifyNamesTheBatchOfAFlippedByte(t *testing.T) {
	t.Parallel()
	dir, keys := sample(t)
	names, err := filepath.Glob(filepath.Join(dir, "*.blob"))
	if err != nil || len(names) == 0 {
		t.Fatalf("the sample has no file of values: %v", err)
	}
	text, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(text, []byte("0.3,0.3,0.3,"))
	if at < 0 {
		t.Fatal("the value is not there")
	}
	text[at+5000] ^= 1
	if err := os.WriteFile(names[0], text, 0o600); err != nil {
		t.Fatal(err)
	}
	r := readerAt(t, dir)
	v, err := r.Verify(t.Context(), r.Contents())
	named := false
	for _, f := range v.Faults {
		named = named || f.Key == keys[6] && strings.Contains(f.Detail, ErrCorrupt.Error())
	}
	if err != nil || !named || v.Batches == 0 {
		t.Errorf("verified %+v, %v, want a fault of %s", v, err, keys[6])
	}
}

func TestFindNamesTheJournalsBelow(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	var want []string
	for _, name := range []string{"push/1/journal", "serve/ads/clicks"} {
		dir := filepath.Join(root, name)
		want = append(want, dir)
		closeJournal(t, openAt(t, dir))
	}
	if got, err := Find(root); err != nil || !cmp.Equal(got, want) {
		t.Errorf("found %v, %v, want %v", got, err, want)
	}
	if got, err := Find(want[1]); err != nil || !cmp.Equal(got, want[1:]) {
		t.Errorf("found %v, %v, want %v", got, err, want[1:])
	}
}
