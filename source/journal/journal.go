package journal

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/uuid"

	"tallyman/schema"
)

// Errors that a caller can act on; they come wrapped.
var (
	// ErrInUse: another process, or another journal of this one, holds the directory.
	ErrInUse = errors.New("in use by another process")
	// ErrIDConflict: the id was already used in this dataset for other content.
	ErrIDConflict = errors.New("id was already used for other content")
	// ErrDiskFull: the append would leave less free space than the reserve.
	ErrDiskFull = errors.New("disk is full")
	// ErrTooLarge: the batch exceeds the topic's message limit.
	ErrTooLarge = errors.New("batch is too large")
	// ErrNoJournal: the directory holds no journal.
	ErrNoJournal = errors.New("there is no journal")
	// ErrNoBatch: the journal does not hold the batch.
	ErrNoBatch = errors.New("not in the journal")
	// ErrClosed: the journal was closed.
	ErrClosed = errors.New("journal is closed")
)

// Config describes a journal.
type Config struct {
	// Dir is the directory; it is made if it does not exist. Required.
	Dir string
	// Source is the producer's name, written into every batch: 1 to 255 bytes
	// of UTF-8 without control characters. A journal belongs to the source that
	// made it. Required.
	Source string
	// MaxMessageBytes is the topic's message limit: what exceeds it,
	// uncompressed, is refused. Defaults to 1 MiB.
	MaxMessageBytes int
	// ReserveBytes is the free disk space that appends leave alone. Defaults to 64 MiB.
	ReserveBytes int64
	// Bulk says that nothing has to be durable before Close has returned nil:
	// appends don't wait for the disk, and batches are written to it once, not
	// twice. For a journal that is thrown away if filling it is interrupted.
	// Defaults to false.
	Bulk bool
	// Logger gets warnings and the reason for a stop. Defaults to slog.Default().
	Logger *slog.Logger
}

const (
	defaultMaxMessageBytes = 1 << 20
	defaultReserveBytes    = 64 << 20
)

// Journal is an open journal. It is safe for concurrent use.
type Journal struct {
	cfg         Config
	fs          vfs.FS
	db          *pebble.DB
	lock        *pebble.Lock
	incarnation uuid.UUID
	opened      time.Time
	fatal       func(format string, args ...any)
	spare       sync.Pool // of *[]byte, for records

	mu      sync.Mutex // guards closed and streams; held for no longer than a look-up
	closed  bool
	streams map[schema.Dataset]*stream
	using   sync.WaitGroup // operations under way

	speaking sync.Mutex // guards clock and marked; held while an announcement is made
	clock    time.Time  // of the last announcement, by this opening or an earlier one
	marked   map[Stream]time.Time
}

// Open opens or makes the journal in cfg.Dir and starts a new incarnation.
func Open(cfg Config) (*Journal, error) { return open(cfg, vfs.Default, os.Exit) }

func open(cfg Config, fs vfs.FS, exit func(int)) (*Journal, error) {
	if cfg.Dir == "" {
		return nil, errors.New("open journal: Dir is required")
	}
	if err := checkSource(cfg.Source); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	if cfg.MaxMessageBytes == 0 {
		cfg.MaxMessageBytes = defaultMaxMessageBytes
	}
	if cfg.ReserveBytes == 0 {
		cfg.ReserveBytes = defaultReserveBytes
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if err := fs.MkdirAll(cfg.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	lock, err := acquire(cfg.Dir, fs)
	if err != nil {
		return nil, err
	}
	logger := storeLogger{log: cfg.Logger.With("journal", cfg.Dir), exit: exit}
	o := options(fs, lock, logger)
	if o.DisableWAL = cfg.Bulk; cfg.Bulk {
		o.MemTableSize, o.MemTableStopWritesThreshold = memTableSize/2, 2*memTables
	}
	db, err := pebble.Open(cfg.Dir, o)
	if err != nil {
		return nil, fmt.Errorf("open journal %s: %w", cfg.Dir, errors.Join(err, lock.Close()))
	}
	j := &Journal{
		cfg: cfg, fs: fs, db: db, lock: lock, fatal: logger.Fatalf,
		incarnation: uuid.New(), opened: time.Now().UTC(),
		streams: map[schema.Dataset]*stream{}, marked: map[Stream]time.Time{},
	}
	if err := j.begin(); err != nil {
		return nil, fmt.Errorf("open journal %s: %w", cfg.Dir, errors.Join(err, j.Close()))
	}
	return j, nil
}

// checkSource refuses a name that the envelope can't carry.
func checkSource(name string) error {
	const limit = 255
	if name == "" || len(name) > limit || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return fmt.Errorf("source name %q must be 1 to %d bytes of UTF-8 without control characters", name, limit)
	}
	return nil
}

// acquire takes the directory's lock.
func acquire(dir string, fs vfs.FS) (*pebble.Lock, error) {
	lock, err := pebble.LockDirectory(dir, fs)
	switch {
	case err == nil:
		return lock, nil
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EACCES), err.Error() == heldHere:
		return nil, fmt.Errorf("journal %s is %w", dir, ErrInUse)
	default:
		return nil, fmt.Errorf("lock journal %s: %w", dir, err)
	}
}

// heldHere is what the store says, without a type, when this process holds the lock.
const heldHere = "lock held by current process"

// begin checks whose journal this is and records the new incarnation.
func (j *Journal) begin() error {
	if err := j.readClock(); err != nil {
		return err
	}
	b := j.db.NewBatch()
	defer func() { _ = b.Close() }()
	for name, want := range map[string]string{metaFormat: format, metaSource: j.cfg.Source} {
		have, ok, err := j.meta(name)
		if err != nil {
			return err
		}
		if ok && have != want && (name != metaFormat || have != formatTrimmed) {
			return fmt.Errorf("its %s is %q, not %q", name, have, want)
		}
		if ok {
			continue
		}
		if err := b.Set(metaKey(name), []byte(want), nil); err != nil {
			return err
		}
	}
	at, err := j.opened.MarshalBinary()
	if err != nil {
		return err
	}
	if err := b.Set(append([]byte{kindIncarnation}, j.incarnation[:]...), at, nil); err != nil {
		return err
	}
	return b.Commit(j.durably())
}

// durably is how to write what must be durable.
func (j *Journal) durably() *pebble.WriteOptions {
	if j.cfg.Bulk {
		return pebble.NoSync // Close sees to it
	}
	return pebble.Sync
}

// Incarnation returns the UUID that this opening was given.
func (j *Journal) Incarnation() uuid.UUID { return j.incarnation }

// enter notes that an operation is under way; the caller calls j.using.Done after it.
func (j *Journal) enter() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return ErrClosed
	}
	j.using.Add(1)
	return nil
}

// Close waits for the operations under way, moves everything out of the log
// and gives up the directory. It is safe to call more than once.
func (j *Journal) Close() error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	j.closed = true
	j.mu.Unlock()
	j.using.Wait()
	// An empty log has no tail that could be torn: every byte has a checksum
	// that is looked at. It may fail on a full disk; then the log stays.
	flushed := j.db.Flush()
	if flushed != nil && !j.cfg.Bulk {
		j.cfg.Logger.Warn("journal log is kept", "journal", j.cfg.Dir, "error", flushed)
		flushed = nil
	}
	err := errors.Join(flushed, j.db.Close(), j.lock.Close())
	if err != nil {
		return fmt.Errorf("close journal %s: %w", j.cfg.Dir, err)
	}
	return nil
}
