package source

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tallyman/internal/kafkaconn"
	"tallyman/schema/rows"
	"tallyman/source/journal"
	"tallyman/source/publish"
	"tallyman/source/replay"
)

const (
	askTimeout          = 5 * time.Second
	defaultMessageLimit = 1 << 20 // Kafka's own, but for a few bytes
	// envelopeBytes is more than key, headers and framing of a message take.
	envelopeBytes = 2 << 10
)

// Source takes the rows of one dataset. It is safe for concurrent use.
type Source struct {
	cfg       Config
	codec     *rows.Codec
	hash      string // the manifest's
	conn      *kafkaconn.Conn
	limit     int // bytes of rows that a message holds
	journal   *journal.Journal
	publisher *publish.Publisher
	announcer *announcer
	replayer  *replay.Replayer
	tasks     sync.WaitGroup // batches on their way to the disk
	width     atomic.Int64   // bytes to set aside for a row, by the last call
	spare     sync.Pool      // of *encoded, for Append

	mu      sync.Mutex
	closed  bool
	open    *openBatch // what Append adds to; nil: nothing yet
	writing int        // batches cut from Append and not yet on disk
	company int        // calls that shared the batch that was cut last
	usual   int        // bytes to set aside for a batch, by that one
}

// Open opens or makes the journal in cfg.Dir and begins to publish what it
// still holds. Kafka may be away; then the topic's message limit, which is
// asked for here, is taken to be 1 MiB.
//
// The error is [ErrInUse] if somebody else holds the directory. A topic that
// is compacted is refused: it would lose batches.
func Open(ctx context.Context, cfg Config) (*Source, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open source: %w", err)
	}
	s := &Source{cfg: cfg, hash: cfg.Manifest.Hash()}
	s.spare.New = func() any { return &encoded{} }
	if s.codec, err = rows.NewCodec(cfg.Manifest); err != nil {
		return nil, fmt.Errorf("open source %s: %w", cfg.Name, err)
	}
	if s.conn, err = kafkaconn.New(cfg.Kafka); err != nil {
		return nil, fmt.Errorf("open source %s: %w", cfg.Name, err)
	}
	if err := s.start(ctx); err != nil {
		s.conn.Close()
		return nil, fmt.Errorf("open source %s: %w", cfg.Name, err)
	}
	return s, nil
}

// start opens the journal and begins to publish.
func (s *Source) start(ctx context.Context) error {
	limit, err := s.messageLimit(ctx)
	if err != nil {
		return err
	}
	s.limit = max(limit-envelopeBytes, 1)
	s.journal, err = journal.Open(journal.Config{
		Dir: s.cfg.Dir, Source: s.cfg.Name, MaxMessageBytes: limit, ReserveBytes: s.cfg.ReserveBytes, Logger: s.cfg.Logger,
	})
	if err != nil {
		return err
	}
	if err := s.publish(limit); err != nil {
		return errors.Join(err, s.journal.Close())
	}
	if err := s.startAnnouncing(); err != nil {
		return errors.Join(err, s.publisher.Close(), s.journal.Close())
	}
	return nil
}

// messageLimit asks Kafka how large a message may be.
func (s *Source) messageLimit(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	topic := s.cfg.Manifest.Topic
	config, err := s.conn.TopicConfig(ctx, topic)
	switch {
	case errors.Is(err, kafkaconn.ErrNoTopic):
		s.cfg.Logger.Warn("topic does not exist yet; batches wait in the journal until it does", "topic", topic)
	case err != nil:
		s.cfg.Logger.Warn("Kafka does not answer; batches wait in the journal until it does", "topic", topic, "error", err)
	case strings.Contains(config.CleanupPolicy, "compact"):
		return 0, fmt.Errorf("topic %s has cleanup.policy=%s, which would lose batches: set it to delete", topic, config.CleanupPolicy)
	}
	if config.MaxMessageBytes == 0 {
		return defaultMessageLimit, nil
	}
	return config.MaxMessageBytes, nil
}

func (s *Source) publish(limit int) error {
	publisher, err := publish.New(publish.Config{
		Journal: s.journal, Brokers: s.conn.Brokers(), Transport: s.conn.Transport(),
		MaxMessageBytes: limit, Compression: s.conn.Compression(), Logger: s.cfg.Logger, Registerer: s.cfg.Registerer,
	})
	if err != nil {
		return err
	}
	if err := publisher.Start(); err != nil {
		return errors.Join(err, publisher.Close())
	}
	s.publisher = publisher
	return nil
}

// Flush returns when everything that was appended before, by this opening or
// an earlier one, is published: acknowledged by all in-sync replicas. The error
// is ctx's, or [publish.ErrSetAside] if the broker refuses some batches for good.
func (s *Source) Flush(ctx context.Context) error {
	s.mu.Lock()
	last := s.open
	if last != nil {
		s.cut()
	}
	s.mu.Unlock()
	if last != nil {
		if err := last.wait(ctx); err != nil {
			return fmt.Errorf("flush source %s: %w", s.cfg.Name, err)
		}
	}
	if err := s.publisher.Wait(ctx); err != nil {
		return fmt.Errorf("flush source %s: %w", s.cfg.Name, err)
	}
	return nil
}

// Republish publishes every batch that the journal holds once more, under the
// same ids, and the ends of the streams that they are of; it returns how many. The loader refuses by their ids what it has.
func (s *Source) Republish(ctx context.Context) (int, error) {
	n, err := s.publisher.Republish(ctx)
	if err == nil {
		var finals []journal.Announced
		if finals, err = s.finals(true); err == nil {
			err = s.publisher.Announce(ctx, finals...)
		}
	}
	if err != nil {
		return n, fmt.Errorf("source %s: %w", s.cfg.Name, err)
	}
	return n, nil
}

// Close refuses further rows, makes those durable that were appended, and goes
// on publishing for Config.CloseTimeout at most. What is unpublished then stays
// in the journal for the next Open and is no error: Flush tells whether all is
// published. Close is safe to call more than once.
func (s *Source) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	if s.open != nil {
		s.cut()
	}
	s.mu.Unlock()
	s.tasks.Wait()
	s.announcer.close()
	kept := s.replayer.Close()

	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.CloseTimeout)
	defer cancel()
	if err := s.publisher.Wait(ctx); err != nil {
		s.cfg.Logger.Warn("source is closed before all is published; the rest is published after the next opening",
			"source", s.cfg.Name, "reason", err)
	}
	if err := s.announce(ctx, true); err != nil {
		s.cfg.Logger.Info("that the source is closed is announced after the next opening", "source", s.cfg.Name, "reason", err)
	}
	err := errors.Join(kept, s.publisher.Close(), s.journal.Close())
	s.conn.Close()
	if err != nil {
		return fmt.Errorf("close source %s: %w", s.cfg.Name, err)
	}
	return nil
}
