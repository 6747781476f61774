package serve

import (
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"
)

// fresh is what some files say, read again when one of them changed.
type fresh[T any] struct {
	names []string
	read  func() (T, error)
	log   *slog.Logger

	mu     sync.Mutex
	looked time.Time // at the files
	seen   []version // of the files, when they were read
	value  T
}

// version tells one content of a file from another, as far as the file system does.
type version struct {
	changed time.Time
	size    int64
}

// lookEvery is how often the files are looked at, at most.
const lookEvery = time.Second

// newFresh reads the files for the first time.
func newFresh[T any](log *slog.Logger, read func() (T, error), names ...string) (*fresh[T], error) {
	f := &fresh[T]{names: names, read: read, log: log, looked: time.Now()}
	f.seen = f.versions()
	var err error
	f.value, err = read()
	return f, err
}

// get returns what the files say. A content that can't be read is told once,
// and the one before stays in force.
func (f *fresh[T]) get() T {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.looked) < lookEvery {
		return f.value
	}
	f.looked = time.Now()
	now := f.versions()
	if slices.Equal(now, f.seen) {
		return f.value
	}
	f.seen = now // before reading: what changes meanwhile is another version
	value, err := f.read()
	if err != nil {
		f.log.Error("a file was changed and can't be read; what it said before stays in force", "files", f.names, "cause", err)
		return f.value
	}
	f.log.Info("a file was changed and read again", "files", f.names)
	f.value = value
	return f.value
}

func (f *fresh[T]) versions() []version {
	all := make([]version, len(f.names))
	for i, name := range f.names {
		if info, err := os.Stat(name); err == nil {
			all[i] = version{info.ModTime(), info.Size()}
		}
	}
	return all
}
