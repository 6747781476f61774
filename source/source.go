// Package source is how a program puts rows into Tallyman.
//
// A [Source] takes rows of one dataset, cuts them into batches, keeps each batch
// on disk, and publishes it to Kafka for as long as that takes:
//
//	rows ─ encode ─ batch (id, sequence, digest) ─ journal (fsync) ─ answer
//	                                                  └ publish ─► Kafka
//
// # Promises
//
// When Append or AppendBatch returns nil, the rows are on disk, in a batch whose
// id and content never change, and will be published: by this process, or by
// the next one that opens the same directory. Loaders refuse a batch that comes
// twice, so publishing again is always safe.
//
// An Append whose answer was lost and that is repeated is a new batch; who must
// be able to repeat gives the batch an id of its own, with AppendBatch.
//
// # Failure
//
// A row that does not fit the manifest refuses the call that brought it, and no
// other. A full disk refuses new rows and loses none. A failed fsync stops the
// process, because nobody knows then what is on the disk. Kafka may be away, at
// the start too: rows are taken as long as there is disk.
package source

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"tallyman/internal/kafkaconn"
	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/schema/rows"
	"tallyman/source/journal"
	"tallyman/source/publish"
)

// Errors of Append and AppendBatch that a caller can act on; they come wrapped.
var (
	// ErrIDConflict: the id was already used in this journal for other rows.
	ErrIDConflict = journal.ErrIDConflict
	// ErrDiskFull: the journal's disk has no room; nothing was taken.
	ErrDiskFull = journal.ErrDiskFull
	// ErrTooLarge: the batch exceeds the topic's message limit.
	ErrTooLarge = journal.ErrTooLarge
	// ErrClosed: the source was closed.
	ErrClosed = journal.ErrClosed
)

// Config describes a source.
type Config struct {
	// Dir holds the journal: a directory that this source has for itself. Required.
	Dir string
	// Name is the producer's name in every batch; a journal keeps the one it
	// was made with. Required.
	Name string
	// Manifest describes the dataset. Required.
	Manifest schema.Manifest
	// Brokers are the addresses of the Kafka cluster, host:port. Required,
	// unless Conn is given.
	Brokers []string
	// Conn is the way to the cluster where the program has one already, with
	// settings of its own. Defaults to a plain one to Brokers.
	Conn *kafkaconn.Conn
	// Linger is how long a batch waits for more rows. Defaults to 100 ms.
	Linger time.Duration
	// MaxRows is at how many rows a batch is cut. Defaults to 10,000.
	MaxRows int
	// MaxBytes is at how many bytes of rows a batch is cut. Defaults to 768 KiB.
	MaxBytes int
	// CloseTimeout is how long Close waits for Kafka. Defaults to 5 s.
	CloseTimeout time.Duration
	// Logger gets alarms. Defaults to slog.Default().
	Logger *slog.Logger
	// Registerer takes the metrics. Defaults to none.
	Registerer prometheus.Registerer
}

func (c Config) withDefaults() (Config, error) {
	if c.Dir == "" || c.Name == "" {
		return c, errors.New("Dir and Name are required")
	}
	if err := c.Manifest.Validate(); err != nil {
		return c, fmt.Errorf("manifest: %w", err)
	}
	if c.Conn == nil {
		conn, err := kafkaconn.New(kafkaconn.Config{Brokers: c.Brokers, ClientID: "tallyman-source"})
		if err != nil {
			return c, err
		}
		c.Conn = conn
	}
	if c.Linger == 0 {
		c.Linger = 100 * time.Millisecond
	}
	if c.MaxRows == 0 {
		c.MaxRows = 10_000
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 768 << 10
	}
	if c.CloseTimeout == 0 {
		c.CloseTimeout = 5 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}

// Source takes rows of one dataset. It is safe for concurrent use.
type Source struct {
	config    Config
	hash      string // of the manifest
	codec     *rows.Codec
	journal   *journal.Journal
	publisher *publish.Publisher

	mu     sync.Mutex
	open   *pending // the batch that rows join; nil: none
	closed bool
	cuts   sync.WaitGroup // batches on their way into the journal
}

// pending is a batch that is not in the journal yet.
type pending struct {
	id    uuid.UUID
	value []byte
	rows  int
	timer *time.Timer
	done  chan struct{} // closed when the journal has answered
	err   error         // its answer
}

// topicLimit is how long Open waits for Kafka to say what its topic takes.
const topicLimit = 3 * time.Second

// Open opens or makes the journal in c.Dir and begins to publish what earlier
// openings left in it. It does not need Kafka to be there.
func Open(ctx context.Context, c Config) (*Source, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open source: %w", err)
	}
	s := &Source{config: c, hash: c.Manifest.Hash()}
	if s.codec, err = rows.NewCodec(c.Manifest); err != nil {
		return nil, fmt.Errorf("open source: %w", err)
	}
	limit := s.messageLimit(ctx)
	s.journal, err = journal.Open(journal.Config{Dir: c.Dir, Source: c.Name, MaxMessageBytes: limit, Logger: c.Logger})
	if err != nil {
		return nil, fmt.Errorf("open source: %w", err)
	}
	s.publisher, err = publish.New(publish.Config{
		Journal: s.journal, Brokers: c.Conn.Brokers(), Transport: c.Conn.Transport(),
		MaxMessageBytes: limit, Logger: c.Logger, Registerer: c.Registerer,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open source: %w", err), s.journal.Close())
	}
	if err := s.publisher.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("open source: %w", err), s.publisher.Close(), s.journal.Close())
	}
	return s, nil
}

// messageLimit asks what the topic takes; 0 if Kafka does not say, which stands
// for its default.
func (s *Source) messageLimit(ctx context.Context) int {
	ctx, cancel := context.WithTimeout(ctx, topicLimit)
	defer cancel()
	topic, err := s.config.Conn.TopicConfig(ctx, s.config.Manifest.Topic)
	if err != nil {
		s.config.Logger.Warn("the topic's message limit is not known; taking Kafka's default of 1 MiB",
			"topic", s.config.Manifest.Topic, "cause", err)
	}
	return topic.MaxMessageBytes
}

// Append adds rows to the dataset and returns once they are on disk; calls at
// the same time share a batch and an fsync. A row has a value for each of the
// manifest's columns, in order: see [rows.Codec.Append] for their types. If one
// does not fit, none of the call's rows are taken and the error, a *[rows.Error],
// names it. Rows beyond a batch's limits go into further batches, each of which
// is taken or not.
//
// When ctx ends first, the rows may or may not have been taken.
func (s *Source) Append(ctx context.Context, values [][]any) error {
	waits, err := s.join(values)
	for _, p := range waits {
		select {
		case <-p.done:
			err = errors.Join(err, p.err)
		case <-ctx.Done():
			return fmt.Errorf("append: %w", ctx.Err())
		}
	}
	if err != nil {
		return fmt.Errorf("append: %w", err)
	}
	return nil
}

// join encodes rows into the open batch, and cuts it where it is full. It
// returns the batches that the rows are in.
func (s *Source) join(values [][]any) ([]*pending, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	// Every row is looked at before one is taken: a call's rows stand together.
	var scratch []byte
	for i, row := range values {
		var err error
		if scratch, err = s.codec.Append(scratch[:0], uuid.Nil, row); err != nil {
			return nil, inRow(i, err)
		}
	}
	var waits []*pending
	for i, row := range values {
		if s.open == nil {
			s.open = s.begin()
		}
		p := s.open
		value, err := s.codec.Append(p.value, p.id, row)
		if err != nil {
			return waits, inRow(i, err)
		}
		p.value = value
		p.rows++
		if len(waits) == 0 || waits[len(waits)-1] != p {
			waits = append(waits, p)
		}
		if p.rows >= s.config.MaxRows || len(p.value) >= s.config.MaxBytes {
			s.cut(p)
		}
	}
	return waits, nil
}

// inRow adds the number of the row within the call.
func inRow(index int, err error) error {
	var e *rows.Error
	if errors.As(err, &e) {
		return &rows.Error{Row: index + 1, Column: e.Column, Detail: e.Detail}
	}
	return err
}

// begin starts a batch. The caller holds mu.
func (s *Source) begin() *pending {
	p := &pending{id: batch.NewID(), done: make(chan struct{})}
	p.timer = time.AfterFunc(s.config.Linger, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.open == p {
			s.cut(p)
		}
	})
	return p
}

// cut closes the open batch for further rows and sends it to the journal. The
// caller holds mu.
func (s *Source) cut(p *pending) {
	s.open = nil
	p.timer.Stop()
	s.cuts.Go(func() {
		defer close(p.done)
		p.err = s.keep(p.id, p.value, p.rows)
	})
}

// keep journals a batch and hands it to the publisher.
func (s *Source) keep(id uuid.UUID, value []byte, n int) error {
	at, err := batch.TimeOf(id)
	if err != nil {
		return err
	}
	m := s.config.Manifest
	b := &batch.Batch{
		ID: id, Time: at, Dataset: m.Dataset, Schema: s.hash, ContentType: batch.Native, Rows: n, Value: value,
	}
	appended, err := s.journal.Append(m.Topic, b)
	if err != nil {
		return err
	}
	if !appended.Duplicate {
		s.publisher.Appended(&journal.Record{Key: appended.Key, Topic: m.Topic, Batch: b})
	}
	return nil
}

// AppendBatch adds one batch under an id that the caller chose, of version 7 or
// 8, and returns once it is on disk. The same id with the same rows is answered
// as the first time; with others the error is [ErrIDConflict]. So a call whose
// answer was lost can be repeated.
func (s *Source) AppendBatch(_ context.Context, id uuid.UUID, values [][]any) error {
	if len(values) == 0 {
		return errors.New("append batch: a batch needs at least one row")
	}
	var value []byte
	for i, row := range values {
		var err error
		if value, err = s.codec.Append(value, id, row); err != nil {
			return fmt.Errorf("append batch %s: %w", id, inRow(i, err))
		}
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return fmt.Errorf("append batch %s: %w", id, ErrClosed)
	}
	s.cuts.Add(1)
	s.mu.Unlock()
	defer s.cuts.Done()
	if err := s.keep(id, value, len(values)); err != nil {
		return fmt.Errorf("append batch %s: %w", id, err)
	}
	return nil
}

// flushOpen cuts the open batch and waits until everything that was cut is in
// the journal.
func (s *Source) flushOpen() {
	s.mu.Lock()
	if s.open != nil {
		s.cut(s.open)
	}
	s.mu.Unlock()
	s.cuts.Wait()
}

// Flush returns once everything that was appended is published. The error is
// ctx's, or [publish.ErrSetAside] if the broker refuses some batches for good.
func (s *Source) Flush(ctx context.Context) error {
	s.flushOpen()
	return s.publisher.Wait(ctx)
}

// Republish publishes everything in the journal once more, under the same ids,
// and returns how many batches that was. Loaders refuse what they have.
func (s *Source) Republish(ctx context.Context) (int, error) { return s.publisher.Republish(ctx) }

// Close takes no more rows, brings the open batch to disk, waits a while for
// Kafka to take what is left, and gives up the journal. What Kafka did not take
// is published by whoever opens the journal next.
func (s *Source) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.flushOpen()
	ctx, cancel := context.WithTimeout(context.Background(), s.config.CloseTimeout)
	defer cancel()
	if err := s.publisher.Wait(ctx); err != nil {
		s.config.Logger.Warn("batches stay in the journal until it is opened again", "dir", s.config.Dir, "cause", err)
	}
	if err := errors.Join(s.publisher.Close(), s.journal.Close()); err != nil {
		return fmt.Errorf("close source: %w", err)
	}
	return nil
}
