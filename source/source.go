package source

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"tallyman/schema/rows"
	"tallyman/source/journal"
	"tallyman/source/publish"
)

// Source carries the rows of one dataset. It is safe for concurrent use.
type Source struct {
	cfg       Config
	hash      string // of the manifest
	limit     int    // bytes of rows that a message of the topic holds
	codec     *rows.Codec
	journal   *journal.Journal
	publisher *publish.Publisher

	mu      sync.Mutex
	closed  bool
	open    *openBatch // that calls join; nil: none
	writing int        // batches on their way to the disk
	company int        // calls that waited for the batch before
	tasks   sync.WaitGroup
}

const (
	// askLimit is how long Open waits for Kafka to say what the topic takes.
	askLimit = 3 * time.Second
	// defaultMessageBytes is Kafka's own limit, for a topic that can't be asked.
	defaultMessageBytes = 1 << 20
	// envelopeBytes is room for a message's key and headers.
	envelopeBytes = 4 << 10
)

// Open opens or makes the journal in c.Dir, and begins to publish what earlier
// openings left there. Kafka may be away: then the topic's message limit is
// taken to be Kafka's default.
func Open(ctx context.Context, c Config) (*Source, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Source{cfg: c, hash: c.Manifest.Hash()}
	if s.codec, err = rows.NewCodec(c.Manifest); err != nil {
		return nil, fmt.Errorf("open source %s: %w", c.Name, err)
	}
	message := s.messageBytes(ctx)
	s.limit = max(message-envelopeBytes, 1)
	s.journal, err = journal.Open(journal.Config{Dir: c.Dir, Source: c.Name, MaxMessageBytes: message, Logger: c.Logger})
	if err != nil {
		return nil, fmt.Errorf("open source %s: %w", c.Name, err)
	}
	s.publisher, err = publish.New(publish.Config{
		Journal: s.journal, Brokers: c.Conn.Brokers(), Transport: c.Conn.Transport(),
		MaxMessageBytes: message, Logger: c.Logger, Registerer: c.Registerer,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open source %s: %w", c.Name, err), s.journal.Close())
	}
	if err := s.publisher.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("open source %s: %w", c.Name, err), s.publisher.Close(), s.journal.Close())
	}
	return s, nil
}

// messageBytes asks what the topic takes.
func (s *Source) messageBytes(ctx context.Context) int {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	topic, err := s.cfg.Conn.TopicConfig(ctx, s.cfg.Manifest.Topic)
	if err != nil || topic.MaxMessageBytes <= 0 {
		s.cfg.Logger.Warn("the topic's message limit is not known; taking Kafka's default",
			"topic", s.cfg.Manifest.Topic, "bytes", defaultMessageBytes, "error", err)
		return defaultMessageBytes
	}
	return topic.MaxMessageBytes
}

// Flush sends the open batch to the journal and returns once everything that
// was appended is published: with ctx's error before that, or with
// [publish.ErrSetAside] if the broker refuses some batches for good.
func (s *Source) Flush(ctx context.Context) error {
	s.settle()
	if err := s.publisher.Wait(ctx); err != nil {
		return fmt.Errorf("flush %s: %w", s.cfg.Manifest.Dataset, err)
	}
	return nil
}

// settle cuts the open batch and waits until nothing is on its way to the disk.
func (s *Source) settle() {
	s.mu.Lock()
	if s.open != nil {
		s.cut()
	}
	s.mu.Unlock()
	s.tasks.Wait()
}

// Republish publishes everything that the journal holds once more, under the
// same ids, and returns how many batches that was. Loaders refuse what they
// have loaded.
func (s *Source) Republish(ctx context.Context) (int, error) { return s.publisher.Republish(ctx) }

// Close takes no more rows, makes the open batch durable, goes on publishing
// for CloseTimeout at most, and gives up the journal. What is not published
// then is published after the next Open.
func (s *Source) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.settle()
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.CloseTimeout)
	defer cancel()
	if err := s.publisher.Wait(ctx); err != nil {
		s.cfg.Logger.Warn("batches are left for the next opening of the journal", "dir", s.cfg.Dir, "error", err)
	}
	if err := errors.Join(s.publisher.Close(), s.journal.Close()); err != nil {
		return fmt.Errorf("close source %s: %w", s.cfg.Name, err)
	}
	return nil
}
