package loader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tallyman/internal/kafkaconn"
	"tallyman/loader/commit"
	"tallyman/loader/consume"
	"tallyman/loader/receipt"
	"tallyman/sink"
)

// Warehouse is what a loader needs of one.
type Warehouse interface {
	sink.Positions
	sink.Manifests
	// Window returns the range of batch times that the ledger takes.
	Window(ctx context.Context) (sink.Window, error)
	// NewCommitter returns a committer with a connection of its own.
	NewCommitter() sink.Committer
}

// Config is what a Loader works with.
type Config struct {
	// Revision is what is loaded. Required.
	Revision sink.Revision
	// Conn is the way to the cluster. Required.
	Conn *kafkaconn.Conn
	// Warehouse is where rows go. Required.
	Warehouse Warehouse
	// Ledger is asked for what is loaded while a topic is read again, which is
	// faster. Defaults to none: transactions refuse what is loaded all the same.
	Ledger sink.Ledger
	// Redriver tries batches again that wait in quarantine for a manifest. It
	// belongs to this loader alone. Defaults to leaving them there.
	Redriver sink.Redriver
	// Books are what the warehouse knows of streams: the loader keeps them in order
	// and tells how complete the dataset is. Defaults to neither.
	Books sink.Books
	// Receipts are what the warehouse owes to sources: the loader tells them what is
	// loaded and what is missing. Defaults to telling them nothing.
	Receipts sink.Receipts
	// ReceiptInterval is how often they are told what has changed. Defaults to 5 s.
	ReceiptInterval time.Duration
	// Extender makes the ledger's partitions ahead and tells how far those of the
	// dataset's table reach. Defaults to neither.
	Extender sink.Extender
	// MissingGrace is how long after its announcement a batch counts as missing. Defaults to 1 min.
	MissingGrace time.Duration
	// Committers is the number of connections that commit at the same time. Defaults to 2.
	Committers int
	// ReadAhead bounds bytes that are read and not yet committed. Defaults to 32 MiB.
	ReadAhead int64
	// GroupBytes bounds the rows of one transaction, in bytes. Defaults to 4 MiB.
	GroupBytes int64
	// SessionTimeout is how long the brokers wait for a silent member. Defaults to 6 s.
	SessionTimeout time.Duration
	// ClockSkew is how far ahead of this clock a batch time may be. Defaults to 1 h.
	ClockSkew time.Duration
	// BreakerWindow is the number of newest batches whose refused share opens the breaker. Defaults to 100.
	BreakerWindow int
	// Grace is how long a missing foreign key is waited for. Defaults to 30 s.
	Grace time.Duration
	// Probe is how often a stopped load tries again. Defaults to 1 min.
	Probe time.Duration
	// Logger takes what a person should know. Defaults to none.
	Logger *slog.Logger
	// Registerer takes the metrics; several loaders of one process each give
	// it a label of their own. Defaults to one that nobody reads.
	Registerer prometheus.Registerer
}

// Loader is one member that keeps one revision loaded.
type Loader struct {
	config   Config
	handler  *commit.Handler
	consumer *consume.Consumer
	upkeep   *upkeep
	books    *books
	receipts *receipt.Writer // nil: none are written
	room     *room
	answers  atomic.Bool // the warehouse, when it was last asked
}

// New builds a Loader; Run makes it work.
func New(c Config) (*Loader, error) {
	if c.Conn == nil || c.Warehouse == nil {
		return nil, errors.New("loader: Conn and Warehouse are required")
	}
	if c.Committers <= 0 {
		c.Committers = 2
	}
	if c.GroupBytes == 0 {
		c.GroupBytes = 4 << 20
	}
	if c.MissingGrace == 0 {
		c.MissingGrace = time.Minute
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	c.Logger = c.Logger.With("dataset", c.Revision.Manifest.Dataset.String())
	l := &Loader{config: c}
	committers := make([]sink.Committer, c.Committers)
	for i := range committers {
		committers[i] = c.Warehouse.NewCommitter()
	}
	var err error
	l.handler, err = commit.New(commit.Config{
		Revision:   c.Revision,
		Committers: committers,
		Manifests:  c.Warehouse,
		Ledger:     c.Ledger,
		// The consumer is built with the handler, and neither calls before Run.
		Reset:         func(ps []int32) { l.consumer.Reset(ps) },
		Committed:     func(p int32, next int64) { l.consumer.Committed(p, next) },
		HighWater:     func(p int32) (int64, bool) { return l.consumer.HighWater(p) },
		GroupBytes:    c.GroupBytes,
		ClockSkew:     c.ClockSkew,
		BreakerWindow: c.BreakerWindow,
		Grace:         c.Grace,
		Probe:         c.Probe,
		Logger:        c.Logger,
		Registerer:    c.Registerer,
	})
	if err != nil {
		return nil, err
	}
	if l.upkeep, err = l.newUpkeep(); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	if l.books, err = l.newBooks(); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	if err := l.newReceipts(); err != nil {
		return nil, err
	}
	if l.room, err = l.newRoom(); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	if err := c.Registerer.Register(l.up()); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	l.consumer, err = consume.New(consume.Config{
		Conn:           c.Conn,
		Topic:          c.Revision.Manifest.Topic,
		Group:          Group(c.Revision),
		Revision:       c.Revision,
		Positions:      c.Warehouse,
		Handler:        l.handler,
		SessionTimeout: c.SessionTimeout,
		ReadAhead:      c.ReadAhead,
		Logger:         c.Logger,
		Registerer:     c.Registerer,
	})
	return l, err
}

// newReceipts makes the writer of receipts.
func (l *Loader) newReceipts() (err error) {
	c := l.config
	if c.Receipts == nil {
		return nil
	}
	l.receipts, err = receipt.New(receipt.Config{
		Receipts: c.Receipts, Conn: c.Conn, Revision: c.Revision, Grace: c.MissingGrace, Every: c.ReceiptInterval,
		Logger: c.Logger, Registerer: c.Registerer,
	})
	return err
}

// Group returns the consumer group that shares the work on a revision.
func Group(r sink.Revision) string {
	return fmt.Sprintf("tallyman.%s.%s.r%d", r.Manifest.Dataset.Namespace, r.Manifest.Dataset.Name, r.ID)
}

// up makes the gauge that tells an outage of the warehouse, also where nothing
// comes that could be committed.
func (l *Loader) up() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tallyman_warehouse_up",
		Help: "1 if the warehouse answered when it was last asked and no transaction waits for it, else 0.",
	}, func() float64 {
		if l.answers.Load() && !l.handler.Outage() {
			return 1
		}
		return 0
	})
}

// stopLimit is how long the committers may take to abandon what they have in
// flight, once the consumer has given up waiting for it. It is a COMMIT that
// takes longer: nothing may cancel one.
const stopLimit = time.Second

// Run loads until ctx ends. Then it stops reading, waits for the transactions
// in flight, gives its partitions up and returns nil, in less than ten seconds.
// A transaction that takes longer is left to itself: the process should end,
// and whoever loads next finds out whether it committed.
func (l *Loader) Run(ctx context.Context) error {
	// The committers outlive the consumer: it waits for what they have in flight.
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var group sync.WaitGroup
	var failed error
	group.Go(func() { failed = l.handler.Run(working) })
	group.Go(func() { l.watch(working) })
	group.Go(func() { l.keepUp(ctx, l.upkeep) })
	group.Go(func() { l.keepBooks(ctx, l.books) })
	if l.receipts != nil {
		group.Go(func() { l.receipts.Run(ctx) })
	}
	err := l.consumer.Run(ctx)
	stop()
	ended := make(chan struct{})
	go func() {
		group.Wait()
		close(ended)
	}()
	timer := time.NewTimer(stopLimit)
	defer timer.Stop()
	select {
	case <-ended:
		return errors.Join(err, failed)
	case <-timer.C:
		l.config.Logger.Warn("left a transaction in flight; whether it committed, the next loader finds out")
		return err
	}
}

// Ready returns nil, or why nothing is being loaded: not a member yet, an outage
// of Kafka or of the warehouse, or the named cause of a stop.
func (l *Loader) Ready() error {
	if err := errors.Join(l.consumer.Healthy(), l.handler.Healthy()); err != nil {
		return fmt.Errorf("%s: %w", l.config.Revision.Manifest.Dataset, err)
	}
	return nil
}

// Lags returns the lag of every partition that this member reads.
func (l *Loader) Lags() []commit.Lag { return l.handler.Lags() }
