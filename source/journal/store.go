package journal

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable/block"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	memTableSize  = 16 << 20
	memTables     = 3 // full ones that may wait to be written, before appends wait
	cacheSize     = 4 << 20
	separateAbove = 4 << 10
)

// options tunes the store for a few thousand large values a minute, each
// written once, read about once, never changed and deleted by the run. Rows are written twice, to
// the log and to a file of values; compactions then move only keys and
// references. Kafka compresses what goes out, so the store does not.
func options(fs vfs.FS, lock *pebble.Lock, logger pebble.Logger) *pebble.Options {
	o := &pebble.Options{
		FS:                          fs,
		Lock:                        lock,
		Logger:                      logger,
		FormatMajorVersion:          pebble.FormatValueSeparation,
		MemTableSize:                memTableSize,
		MemTableStopWritesThreshold: memTables,
		CacheSize:                   cacheSize,
		BytesPerSync:                1 << 20,
		WALBytesPerSync:             0,
		MaxOpenFiles:                256,
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) { logger.Errorf("background work: %v", err) },
			DiskSlow:        func(i pebble.DiskSlowInfo) { logger.Errorf("%s", i) },
			DataCorruption:  func(i pebble.DataCorruptionInfo) { logger.Errorf("%s", i) },
		},
	}
	o.ApplyCompressionSettings(func() pebble.DBCompressionSettings {
		return pebble.UniformDBCompressionSettings(block.NoCompression)
	})
	o.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
		return pebble.ValueSeparationPolicy{
			Enabled:               true,
			MinimumSize:           separateAbove,
			MaxBlobReferenceDepth: 1000,
			RewriteMinimumAge:     time.Hour,
			TargetGarbageRatio:    1, // what is trimmed leaves whole files, which are deleted
		}
	}
	return o
}

// storeLogger hands the store's messages on, without its chatter.
type storeLogger struct {
	log  *slog.Logger
	exit func(int)
}

// Infof drops routine messages.
func (storeLogger) Infof(string, ...any) {}

// Errorf warns about what the store survives.
func (l storeLogger) Errorf(format string, args ...any) {
	l.log.Warn("journal store: " + fmt.Sprintf(format, args...))
}

// Fatalf says why nothing can be promised any more, and stops the process.
func (l storeLogger) Fatalf(format string, args ...any) {
	l.log.Error("journal can't be written; stopping, so that nothing is promised that may not be on disk",
		"error", fmt.Sprintf(format, args...))
	l.exit(1)
}
