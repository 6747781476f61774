package journal

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/uuid"
)

// appendForEver appends from several goroutines and says on out what is
// acknowledged, and, before it marks a batch as published, that it will.
func appendForEver(j *Journal, out io.Writer) {
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = fmt.Fprintf(out, format, args...)
	}
	say("incarnation %s\n", j.Incarnation())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				b := newBatch(clicks(), strings.Repeat("0123456789", 1+rand.IntN(3000)))
				a, err := j.Append("topic", b)
				if err != nil {
					panic(err)
				}
				say("appended %d %s\n", a.Key.Sequence, b.Digest)
				if rand.IntN(3) == 0 {
					say("marks %d\n", a.Key.Sequence)
					if err := j.MarkPublished(a.Key); err != nil {
						panic(err)
					}
				}
			}
		})
	}
	wg.Wait()
}

// promised is what a journal has acknowledged.
type promised struct {
	digests map[Key]string
	marked  map[Key]bool // perhaps marked as published
}

func newPromised() *promised { return &promised{digests: map[Key]string{}, marked: map[Key]bool{}} }

// read takes lines of a child until it has n, and then to the end when stop
// has ended it. A last line that is cut off was not said.
func (p *promised) read(t *testing.T, out io.Reader, n int, stop func()) {
	t.Helper()
	var incarnation uuid.UUID
	lines := bufio.NewReader(out)
	for i := 0; ; i++ {
		if i == n {
			stop()
		}
		line, err := lines.ReadString('\n')
		if err != nil {
			if i < n {
				t.Fatalf("the child ended after %d lines: %v", i, err)
			}
			return
		}
		k := Key{Stream: Stream{Incarnation: incarnation, Dataset: clicks()}}
		var digest, text string
		switch {
		case scan(line, "appended %d %s\n", &k.Sequence, &digest):
			p.digests[k] = digest
		case scan(line, "marks %d\n", &k.Sequence):
			p.marked[k] = true
		case scan(line, "incarnation %s\n", &text):
			incarnation = uuid.MustParse(text)
		default:
			t.Fatalf("the child said %q", line)
		}
	}
}

func scan(line, format string, into ...any) bool {
	n, err := fmt.Sscanf(line, format, into...)
	return n == len(into) && err == nil
}

// check compares the promises with what a journal holds after a crash.
func (p *promised) check(t *testing.T, j *Journal) {
	t.Helper()
	all := held(t, j)
	checkSequences(t, all)
	for k, digest := range p.digests {
		if r := all[k]; r == nil {
			t.Errorf("batch %s was acknowledged and is gone", k)
		} else if got := r.Batch.Digest.String(); got != digest {
			t.Errorf("batch %s came back with the digest %s, not %s", k, got, digest)
		}
	}
	waiting := map[Key]bool{}
	for _, k := range unpublished(t, j) {
		waiting[k] = true
	}
	for k := range all {
		if !waiting[k] && !p.marked[k] {
			t.Errorf("batch %s counts as published, and nobody said so", k)
		}
	}
}

func TestKilledProcessLosesNothingAcknowledged(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	p := newPromised()
	const kills = 12
	for range kills {
		cmd, _, out := startChild(t, dir, "append")
		p.read(t, out, 1+random.IntN(400), func() {
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
		})
		if err := cmd.Wait(); cmd.ProcessState.Success() {
			t.Fatalf("the child ended by itself: %v", err)
		}
		j, err := Open(config(dir))
		if err != nil {
			t.Fatal(err)
		}
		p.check(t, j)
		closeJournal(t, j)
	}
	t.Logf("%d batches were acknowledged over %d kills", len(p.digests), kills)
	if len(p.digests) == 0 {
		t.Error("nothing was ever appended")
	}
}

// roomy is a disk in memory that can lose power, with as much room as is said.
func roomy(fs *vfs.MemFS) *vfs.MemFS {
	fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 40, TotalBytes: 1 << 40})
	return fs
}

func TestPowerLossLosesNothingAcknowledged(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	disk := roomy(vfs.NewCrashableMem())
	p := newPromised()
	for range 15 {
		j, err := open(config("j"), disk, os.Exit)
		if err != nil {
			t.Fatal(err)
		}
		p.check(t, j)
		disk = crash(t, j, disk, p, random)
	}
	if len(p.digests) == 0 {
		t.Error("nothing was ever appended")
	}
}

// crash appends from several goroutines, notes what is acknowledged, and at a
// random moment returns the disk as a loss of power leaves it.
func crash(t *testing.T, j *Journal, disk *vfs.MemFS, p *promised, random *rand.Rand) *vfs.MemFS {
	t.Helper()
	var mu sync.Mutex
	after := 1 + random.IntN(300)
	due, stop := make(chan struct{}), make(chan struct{})
	acknowledged := 0
	var wg sync.WaitGroup
	for caller := range 4 {
		sizes := rand.New(rand.NewPCG(random.Uint64(), uint64(caller)))
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				b := newBatch(clicks(), strings.Repeat("0123456789", 1+sizes.IntN(3000)))
				a, err := j.Append("topic", b)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				p.digests[a.Key] = b.Digest.String()
				if acknowledged++; acknowledged == after {
					close(due)
				}
				mu.Unlock()
			}
		})
	}
	<-due
	mu.Lock() // what is acknowledged from here on was not promised before the crash
	before := make(map[Key]string, len(p.digests))
	for k, digest := range p.digests {
		before[k] = digest
	}
	left := roomy(disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: random.IntN(101), RNG: random}))
	mu.Unlock()
	close(stop)
	wg.Wait()
	closeJournal(t, j)
	p.digests = before
	return left
}

// A journal that is filled in bulk owes nothing before it is closed, and everything then.
func TestPowerLossAfterBulk(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	disk := roomy(vfs.NewCrashableMem())
	cfg := config("j")
	cfg.Bulk = true
	j, err := open(cfg, disk, os.Exit)
	if err != nil {
		t.Fatal(err)
	}
	p := newPromised()
	for range 200 { // more than the store keeps in memory
		b := newBatch(clicks(), strings.Repeat("0123456789", 1+random.IntN(30_000)))
		key := mustAppend(t, j, b)
		p.digests[key] = b.Digest.String()
		if a, err := j.Append("topic", b); err != nil || !a.Duplicate || a.Key != key {
			t.Fatalf("the same batch again: %+v, %v", a, err)
		}
	}
	closeJournal(t, j)
	left := roomy(disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0, RNG: random}))
	if j, err = open(config("j"), left, os.Exit); err != nil {
		t.Fatal(err)
	}
	p.check(t, j)
	if n := len(unpublished(t, j)); n != len(p.digests) {
		t.Errorf("%d batches are unpublished, want %d", n, len(p.digests))
	}
	closeJournal(t, j)
}
