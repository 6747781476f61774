package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Reader reads a journal and changes nothing in it: no incarnation begins, no
// log is moved to its place, no file is written, made or removed. It is not
// safe for concurrent use.
//
// A journal that a process holds can't be read: what is in it changes. A copy
// of one can, even one that was made while the process wrote, as far as it goes.
type Reader struct {
	journal *Journal // without an incarnation
	source  string
}

// OpenReader opens the journal in a directory to read it. The errors that a
// caller can act on are [ErrInUse], [ErrNoJournal], [ErrFormat] and [ErrCorrupt].
func OpenReader(dir string, logger *slog.Logger) (*Reader, error) {
	return openReader(dir, vfs.Default, logger)
}

func openReader(dir string, files vfs.FS, logger *slog.Logger) (*Reader, error) {
	files = lookingFS{files}
	if ok, err := exists(dir, files); err != nil {
		return nil, fmt.Errorf("open journal %s: %w", dir, err)
	} else if !ok {
		return nil, fmt.Errorf("open journal %s: %w", dir, ErrNoJournal)
	}
	lock, err := acquire(dir, files)
	if err != nil {
		return nil, err
	}
	o := options(files, lock, lookingLogger{logger.With("journal", dir)})
	o.ReadOnly, o.DisableTableStats = true, true
	r := &Reader{journal: &Journal{cfg: Config{Dir: dir, Logger: logger}, fs: files, lock: lock}}
	err = guarded(func() (err error) {
		r.journal.db, err = pebble.Open(dir, o)
		return err
	})
	if err != nil {
		if !errors.Is(err, ErrCorrupt) && !errors.Is(err, fs.ErrPermission) { // such as a file that is gone
			err = fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		return nil, fmt.Errorf("open journal %s: %w", dir, errors.Join(err, lock.Close()))
	}
	if err := guarded(r.begin); err != nil {
		return nil, fmt.Errorf("open journal %s: %w", dir, errors.Join(err, r.Close()))
	}
	return r, nil
}

// begin reads whose journal it is, of which format.
func (r *Reader) begin() error {
	have, ok, err := r.journal.meta(metaFormat)
	switch {
	case err != nil:
		return err
	case !ok:
		return fmt.Errorf("%w: a source that was opening it did not get as far", ErrNoJournal)
	case have != format && have != formatTrimmed:
		return fmt.Errorf("%w: it has format %q, and this release knows %q; use the release that wrote it", ErrFormat, have, format)
	}
	r.source, _, err = r.journal.meta(metaSource)
	return err
}

// Source returns the name of the producer whose journal it is.
func (r *Reader) Source() string { return r.source }

// Get reads one batch and checks its checksum and digest. The error for one
// whose bytes changed on the disk wraps [ErrCorrupt], that for one that is not
// there [ErrNoBatch].
func (r *Reader) Get(k Key) (record *Record, err error) {
	err = guarded(func() (err error) {
		record, err = r.journal.get(k)
		return err
	})
	if err == nil && !record.Batch.Intact() {
		return nil, fmt.Errorf("batch %s: %w: its digest does not match", k, ErrCorrupt)
	}
	return record, err
}

// Held returns the numbers from first to last of which the journal holds
// batches, in order, at most limit of them.
func (r *Reader) Held(s Stream, first, last uint64, limit int) (found []uint64, err error) {
	err = guarded(func() (err error) {
		found, err = r.journal.held(s, first, last, limit)
		return err
	})
	return found, err
}

// Notes returns the values whose names begin with a prefix, by their names.
func (r *Reader) Notes(prefix string) (found map[string]string, err error) {
	err = guarded(func() (err error) {
		found, err = r.journal.notes(prefix)
		return err
	})
	return found, err
}

// Close gives up the directory.
func (r *Reader) Close() error {
	err := guarded(r.journal.db.Close)
	if err = errors.Join(err, r.journal.lock.Close()); err != nil {
		return fmt.Errorf("close journal %s: %w", r.journal.cfg.Dir, err)
	}
	return nil
}

// Find returns the directories of the journals at or below root, in the order
// of their names.
func Find(root string) ([]string, error) {
	var found []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if ok, err := exists(path, vfs.Default); err != nil || !ok {
			return err
		}
		found = append(found, path)
		return fs.SkipDir
	})
	if err != nil {
		return nil, fmt.Errorf("look for journals: %w", err)
	}
	return found, nil
}

// exists says whether a directory holds a store.
func exists(dir string, files vfs.FS) (bool, error) {
	d, err := pebble.Peek(dir, files)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && d.Exists, err
}

// guarded calls f. The store trusts much of what passes its checksums and is
// not made for disks from which files are missing: where it panics or wants the
// process to end, the journal is damaged.
func guarded(f func() error) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("%w: %v", ErrCorrupt, cause)
		}
	}()
	if err = f(); err != nil && pebble.IsCorruptionError(err) && !errors.Is(err, ErrCorrupt) {
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}

// lookingFS locks a directory only where a process could hold it: not if it
// has no lock file, as in a copy, and not on a disk that nobody can write to.
type lookingFS struct{ vfs.FS }

// Lock makes no file.
func (f lookingFS) Lock(name string) (io.Closer, error) {
	if _, err := f.Stat(name); errors.Is(err, fs.ErrNotExist) {
		return io.NopCloser(nil), nil
	}
	lock, err := f.FS.Lock(name)
	if errors.Is(err, syscall.EROFS) {
		return io.NopCloser(nil), nil
	}
	return lock, err
}

// lookingLogger keeps the store's messages for those who ask for them: what
// they are about comes as an error too.
type lookingLogger struct{ log *slog.Logger }

// Infof drops routine messages.
func (lookingLogger) Infof(string, ...any) {}

// Errorf notes what the store survives.
func (l lookingLogger) Errorf(format string, args ...any) {
	l.log.Debug("journal store: " + fmt.Sprintf(format, args...))
}

// Fatalf must not return: guarded has the call end with an error.
func (lookingLogger) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
