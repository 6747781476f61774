package replay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tallyman/internal/kafkaconn"
	"tallyman/schema/batch"
	"tallyman/source/journal"
	"tallyman/source/publish"
)

// Config describes a replayer.
type Config struct {
	// Journal is what is sent from, and trimmed. Required.
	Journal *journal.Journal
	// Publisher publishes the journal. Required.
	Publisher *publish.Publisher
	// Conn is the way to the cluster. Required.
	Conn *kafkaconn.Conn
	// Source is the producer's name, as in receipts. Required.
	Source string
	// Own is the stream of this opening. Required.
	Own journal.Stream
	// Ended are the streams of earlier openings. Defaults to none.
	Ended []journal.Announced
	// Targets are the names of all warehouses that receive the dataset: what each
	// has confirmed is trimmed. Defaults to none: nothing is trimmed.
	Targets []string
	// Retention is how long batches are kept at least. Defaults to 72 h.
	Retention time.Duration
	// Limits bound how fast batches are sent again.
	Limits Limits
	// Grace is how long after its publishing a batch is not sent again, and the
	// first pause between tries, and between announcements of how a stream ended;
	// at most ten minutes. Defaults to 30 s.
	Grace time.Duration
	// Tries is how often a batch is sent again before there is an alarm, with pauses
	// that double up to ten minutes. After that it is sent only as often as the
	// target goes on to say that it misses it. A hole that changes begins anew.
	// Defaults to 5.
	Tries int
	// PollEvery is how often receipts are looked for. Defaults to 2 s.
	PollEvery time.Duration
	// TrimEvery is how often is looked for what can be trimmed. Defaults to 10 min, or
	// Retention if that is less.
	TrimEvery time.Duration
	// Logger gets alarms. Defaults to slog.Default().
	Logger *slog.Logger
	// Registerer takes the metrics. Defaults to none.
	Registerer prometheus.Registerer
}

const (
	maxGrace = 10 * time.Minute
	maxAhead = time.Hour // of a receipt's time before this machine's
	reminder = time.Minute
	keepTime = 10 * time.Second // between two times that receipts are kept in the journal
	idle     = 500 * time.Millisecond
)

func (c Config) withDefaults() (Config, error) {
	if c.Journal == nil || c.Publisher == nil || c.Conn == nil || c.Source == "" {
		return c, errors.New("replayer: Journal, Publisher, Conn and Source are required")
	}
	if c.Retention < 0 || c.Grace < 0 || c.Grace > maxGrace || c.Tries < 0 {
		return c, fmt.Errorf("replayer: Retention and Tries can't be negative, and Grace must be between 0 and %v", maxGrace)
	}
	setDefault(&c.Retention, 72*time.Hour)
	setDefault(&c.Grace, 30*time.Second)
	setDefault(&c.Tries, 5)
	setDefault(&c.PollEvery, 2*time.Second)
	setDefault(&c.TrimEvery, min(10*time.Minute, c.Retention))
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

// Replayer follows the receipts of a journal's streams. It is safe for
// concurrent use.
type Replayer struct {
	cfg      Config
	sender   *Sender
	topic    *topicReader
	metrics  *metrics
	began    time.Time
	kept     time.Time // when receipts were kept in the journal last
	told     map[string]time.Time
	requests requests
	stop     context.CancelFunc
	running  sync.WaitGroup

	mu       sync.Mutex
	book     *book
	complete bool // the topic was read to its end, and the last look at it did not fail
}

// Start begins to follow the receipts.
func Start(cfg Config) (*Replayer, error) {
	r, err := prepare(cfg)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	r.running.Go(func() { every(ctx, r.cfg.PollEvery, r.follow) })
	r.running.Go(func() { r.serve(ctx) })
	r.running.Go(func() {
		for ctx.Err() == nil {
			for r.resend(ctx) {
				continue
			}
			pause(ctx, min(idle, r.cfg.PollEvery))
		}
	})
	r.running.Go(func() { every(ctx, idle, r.announce) })
	r.running.Go(func() { every(ctx, r.cfg.TrimEvery, r.trim) })
	return r, nil
}

// prepare makes a replayer that does nothing by itself.
func prepare(cfg Config) (*Replayer, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	b, err := newBook(cfg.Journal, cfg.Own, cfg.Ended, cfg.Targets)
	if err != nil {
		return nil, fmt.Errorf("replayer: %w", err)
	}
	r := &Replayer{
		cfg: cfg, book: b, began: time.Now(), told: map[string]time.Time{}, requests: newRequests(),
		sender: NewSender(cfg.Journal, cfg.Publisher.Sender(), cfg.Limits),
		topic:  &topicReader{conn: cfg.Conn, topic: batch.ReceiptsTopic, next: map[int32]int64{}, empty: map[int32]int{}},
	}
	if r.metrics, err = newMetrics(cfg.Registerer, cfg.Journal); err != nil {
		return nil, fmt.Errorf("replayer: %w", err)
	}
	for _, e := range b.streams {
		e.again = r.began.Add(r.cfg.Grace) // the first time is not this package's
	}
	return r, nil
}

// every calls f until ctx ends.
func every(ctx context.Context, d time.Duration, f func(context.Context)) {
	for ctx.Err() == nil {
		f(ctx)
		pause(ctx, d)
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// Close ends the following. It is to be called before the publisher and the
// journal are closed.
func (r *Replayer) Close() error {
	r.stop()
	r.running.Wait()
	r.metrics.unregister()
	if err := r.keep(); err != nil {
		return fmt.Errorf("close replayer: %w", err)
	}
	return nil
}

// Send is Sender.Send with the journal's own limits of speed, for what a person
// asked for: what was tried before does not matter, and counts anew.
func (r *Replayer) Send(ctx context.Context, stream journal.Stream, ranges []journal.Range, note func(Outcome)) error {
	return r.sender.Send(ctx, stream, ranges, func(o Outcome) {
		r.metrics.count(o)
		if o.State == Sent {
			r.account(stream, o.Range, func(p *piece) {
				p.tries, p.alarmed, p.sent = 0, false, time.Now()
				p.next = p.sent.Add(r.cfg.Grace)
			})
		}
		note(o)
	})
}

// account changes what is known of a range that any target misses.
func (r *Replayer) account(stream journal.Stream, of journal.Range, change func(*piece)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.book.streams[stream]; e != nil {
		for _, s := range e.said {
			s.holes.change(of, change)
		}
	}
}

// follow reads what receipts came, and keeps them in the journal now and then.
func (r *Replayer) follow(ctx context.Context) {
	complete, err := r.topic.poll(ctx, r.take)
	if err != nil && ctx.Err() == nil {
		r.complain("receipts can't be read, trying again; publishing goes on", "cause", err)
	}
	r.mu.Lock()
	r.complete = complete
	r.mu.Unlock()
	if time.Since(r.kept) > keepTime {
		r.kept = time.Now()
		if err := r.keep(); err != nil {
			r.complain("receipts can't be kept in the journal", "cause", err)
		}
		r.measure()
	}
}

// complain warns, of one thing at most once a minute. Only follow's goroutine
// calls it.
func (r *Replayer) complain(what string, args ...any) {
	if time.Since(r.told[what]) > reminder {
		r.told[what] = time.Now()
		r.cfg.Logger.Warn(what, args...)
	}
}

// take takes a message of the receipts' topic.
func (r *Replayer) take(m message) {
	switch batch.KindOf(m.headers) {
	case batch.IsReceipt:
		r.takeReceipt(m)
	case batch.IsReplay:
		r.takeRequest(m)
	}
}

// takeReceipt takes what a target says.
func (r *Replayer) takeReceipt(m message) {
	receipt, err := batch.ParseReceipt(m.value)
	now := time.Now()
	if err == nil && receipt.At.After(now.Add(maxAhead)) {
		err = fmt.Errorf("receipt %s: its time %s is ahead of this machine's clock", receipt.Key(), receipt.At.Format(time.RFC3339))
	}
	if err != nil {
		r.metrics.refused.Inc()
		r.complain("receipt is ignored: it can't be read", "partition", m.partition, "cause", err)
		return
	}
	said := unknown
	if receipt.Source == r.cfg.Source {
		r.mu.Lock()
		said = r.book.take(receipt, now)
		r.mu.Unlock()
	}
	switch said {
	case unknown:
		r.cfg.Logger.Debug("receipt is ignored: this journal does not have the stream", "receipt", string(receipt.Key()))
	case crowd:
		r.complain("receipt is ignored: too many targets send them", "target", receipt.Target)
	case wentBack:
		r.complain("target says less than before, as after it was restored from a backup: what it misses is sent, and it is told of all streams again",
			"target", receipt.Target, "stream", receipt.Incarnation, "through", receipt.Through, "announced", receipt.Announced)
	case taken, older:
	}
}

// keep writes into the journal what it does not have.
func (r *Replayer) keep() error {
	r.mu.Lock()
	notes, err := r.book.notes()
	r.mu.Unlock()
	for name, value := range notes {
		err = errors.Join(err, r.cfg.Journal.SetNote(name, value))
	}
	return err
}
