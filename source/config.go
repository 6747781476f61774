package source

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tallyman/internal/kafkaconn"
	"tallyman/schema"
	"tallyman/source/journal"
)

// Kafka says which cluster to publish to, and how to connect to it: Brokers are
// required; TLS and SASL are nil for brokers that want neither.
type Kafka = kafkaconn.Config

// KafkaTLS says how connections to Kafka are encrypted, and whom to trust.
type KafkaTLS = kafkaconn.TLS

// KafkaSASL says as whom to publish. Mechanism is PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
type KafkaSASL = kafkaconn.SASL

// Config describes a source.
type Config struct {
	// Manifest is the dataset, and the topic that carries it. Required.
	Manifest schema.Manifest
	// Kafka is the cluster to publish to. Its Brokers are required.
	Kafka Kafka
	// Dir is the journal's directory; it is made if it does not exist. One
	// source at a time holds it. Required.
	Dir string
	// Name is the producer's name, written into every batch: 1 to 255 bytes of
	// UTF-8 without control characters. A journal keeps the name it was made with. Required.
	Name string
	// Linger is how long rows wait at most for others to share their batch.
	// Defaults to 100 ms.
	Linger time.Duration
	// MaxRows bounds a batch that Append cuts, in rows. Defaults to 10,000.
	MaxRows int
	// MaxBytes bounds a batch that Append cuts, in bytes of rows; a larger row
	// is a batch of its own. The topic's message limit bounds it too. Defaults to 768 KiB.
	MaxBytes int
	// ReserveBytes is the free disk space that appends leave alone: what would
	// touch it is ErrDiskFull. Defaults to 64 MiB.
	ReserveBytes int64
	// CloseTimeout is how long Close goes on publishing before it leaves the
	// rest for the next Open. Defaults to 5 s.
	CloseTimeout time.Duration
	// AnnounceEvery is how often the source tells the loaders how far its batches
	// are numbered, so that one that never comes is missed. Defaults to 5 s.
	AnnounceEvery time.Duration
	// Targets are the names of all warehouses that receive the dataset. What each
	// of them has confirmed is trimmed from the journal once it is older than
	// Retention. A name that is left out here may find that what it misses is gone.
	// Defaults to none: nothing is trimmed, and the journal grows.
	Targets []string
	// Retention is how long batches stay in the journal at least: longer than the
	// oldest backup that anybody would restore. Defaults to 72 h.
	Retention time.Duration
	// ReplayBatches and ReplayBytes bound how fast batches that a warehouse misses
	// are published again, in a second. Default to 500 and 16 MiB.
	ReplayBatches int
	ReplayBytes   int64
	// ReplayGrace is how long after its publishing a batch is not published again,
	// and the first of the growing pauses between tries; at most ten minutes.
	// Defaults to 30 s.
	ReplayGrace time.Duration
	// ReplayTries is how often a batch that stays missing is published again before
	// there is an alarm. After that it is published only as often as the warehouse
	// goes on to say that it misses it, at most every ten minutes. Defaults to 5.
	ReplayTries int
	// Logger takes what a person should know. Defaults to slog.Default().
	Logger *slog.Logger
	// Registerer takes the metrics. Defaults to none.
	Registerer prometheus.Registerer
}

// Errors that a caller can act on; they come wrapped.
var (
	// ErrInUse: another process, or another Source of this one, holds the directory.
	ErrInUse = journal.ErrInUse
	// ErrIDConflict: the id was already used in this dataset for other rows.
	ErrIDConflict = journal.ErrIDConflict
	// ErrDiskFull: the disk's reserve would be touched. Nothing is lost; make room and append again.
	ErrDiskFull = journal.ErrDiskFull
	// ErrTooLarge: a batch, or a row alone, exceeds the topic's message limit.
	ErrTooLarge = journal.ErrTooLarge
	// ErrClosed: the source was closed.
	ErrClosed = journal.ErrClosed
)

func (c Config) withDefaults() (Config, error) {
	if c.Dir == "" || c.Name == "" {
		return c, errors.New("Dir and Name are required")
	}
	if err := c.Manifest.Validate(); err != nil {
		return c, fmt.Errorf("manifest: %w", err)
	}
	if c.Linger < 0 || c.MaxRows < 0 || c.MaxBytes < 0 || c.ReserveBytes < 0 || c.CloseTimeout < 0 || c.AnnounceEvery < 0 {
		return c, errors.New("Linger, MaxRows, MaxBytes, ReserveBytes, CloseTimeout and AnnounceEvery can't be negative")
	}
	if c.Retention < 0 || c.ReplayBatches < 0 || c.ReplayBytes < 0 || c.ReplayGrace < 0 || c.ReplayTries < 0 {
		return c, errors.New("Retention, ReplayBatches, ReplayBytes, ReplayGrace and ReplayTries can't be negative")
	}
	setDefault(&c.Linger, 100*time.Millisecond)
	setDefault(&c.MaxRows, 10_000)
	setDefault(&c.MaxBytes, 768<<10)
	setDefault(&c.CloseTimeout, 5*time.Second)
	setDefault(&c.AnnounceEvery, 5*time.Second)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}

func setDefault[T int | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}
