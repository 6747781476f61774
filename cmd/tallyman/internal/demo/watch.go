package demo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/segmentio/kafka-go"

	"tallyman/internal/kafkaconn"
)

// view is how far everything was at one moment.
type view struct {
	passes int   // how often the source has published everything
	rows   int64 // in the ledger
	behind int64 // messages that the topic had when the last pass was over (until the first one is: has) and the positions haven't passed
}

// The watcher's statements. They are for showing progress and for knowing when
// to compare; what the comparison says doesn't rest on them.
const (
	ledgerRowsSQL = `
SELECT coalesce(sum(row_count), 0)::bigint
FROM tallyman.loaded_elements JOIN tallyman.revisions USING (revision_id)
WHERE dataset = $1`

	positionsSQL = `
SELECT partition, next_offset
FROM tallyman.positions JOIN tallyman.revisions USING (revision_id)
WHERE dataset = $1`
)

// watcher looks at everything several times a second.
type watcher struct {
	conn   *pgx.Conn
	cancel context.CancelFunc
	done   chan struct{}
	passes int             // that ends are of
	ends   map[int32]int64 // of the topic's partitions; a source that is done goes on announcing how far it is

	mu   sync.Mutex
	view view
	err  error
}

const lookEvery = 100 * time.Millisecond

func (d *Demo) startWatcher(ctx context.Context) (*watcher, error) {
	conn, err := pgx.Connect(ctx, d.DSN())
	if err != nil {
		return nil, fmt.Errorf("connect to watch: %w", err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w := &watcher{conn: conn, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for tick := time.NewTicker(lookEvery); ; {
			v, err := w.look(ctx, d)
			w.mu.Lock()
			w.view, w.err = v, err
			w.mu.Unlock()
			if err != nil {
				return
			}
			d.config.Progress.Loaded(v.rows)
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
			}
		}
	}()
	return w, nil
}

func (w *watcher) stop() {
	w.cancel()
	<-w.done
	_ = w.conn.Close(context.Background())
}

// look takes a view. The source's report is read first and the positions last,
// so that "published" and "nothing behind" together mean everything.
func (w *watcher) look(ctx context.Context, d *Demo) (v view, err error) {
	d.mu.Lock()
	v.passes = d.said.Passes
	d.mu.Unlock()
	ends, err := d.kafka.HighWaters(ctx, d.manifest.Topic)
	if errors.Is(err, kafkaconn.ErrNoTopic) || errors.Is(err, kafka.UnknownTopicOrPartition) ||
		errors.Is(err, kafka.LeaderNotAvailable) || errors.Is(err, kafka.NotLeaderForPartition) { // deleted, and not yet made again
		ends, err = nil, nil
	}
	if err != nil {
		return v, fmt.Errorf("watch the topic: %w", err)
	}
	if ends != nil && (w.passes == 0 || w.passes != v.passes) {
		w.passes, w.ends = v.passes, ends
	}
	v.passes = w.passes // a pass counts once it is known where it ends
	for _, end := range w.ends {
		v.behind += end
	}
	dataset := d.manifest.Dataset.String()
	if err := w.conn.QueryRow(ctx, ledgerRowsSQL, dataset).Scan(&v.rows); err != nil {
		return v, fmt.Errorf("watch the ledger: %w", err)
	}
	rows, err := w.conn.Query(ctx, positionsSQL, dataset)
	if err != nil {
		return v, fmt.Errorf("watch the positions: %w", err)
	}
	var partition int32
	var next int64
	_, err = pgx.ForEachRow(rows, []any{&partition, &next}, func() error {
		v.behind -= min(next, w.ends[partition])
		return nil
	})
	if err != nil {
		return v, fmt.Errorf("watch the positions: %w", err)
	}
	return v, nil
}

// current returns the newest view.
func (d *Demo) current() (view, error) {
	d.watch.mu.Lock()
	defer d.watch.mu.Unlock()
	return d.watch.view, d.watch.err
}

// stallLimit is how long nothing may move before the demo compares what is there.
const stallLimit = 40 * time.Second

// errStalled says that nothing moves any more.
var errStalled = errors.New("nothing moves any more")

// await waits until a view satisfies done. It ends early if a process has died
// that nobody killed, or if nothing moved for too long.
func (d *Demo) await(ctx context.Context, what string, done func(view) bool) error {
	tick := time.NewTicker(lookEvery / 2)
	defer tick.Stop()
	last, moved := view{}, time.Now()
	for {
		v, err := d.current()
		if err == nil {
			err = d.dead()
		}
		if err != nil {
			return err
		}
		if done(v) {
			return nil
		}
		if v != last {
			last, moved = v, time.Now()
		}
		if time.Since(moved) > stallLimit {
			return fmt.Errorf("wait for %s: %w (%d messages behind, for %v)", what, errStalled, v.behind, stallLimit)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// dead returns an error if a process has ended that should be running.
func (d *Demo) dead() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.source; s != nil && !s.running() && (s.err != nil || !s.finite) {
		return fmt.Errorf("the source has ended by itself: %w", s.ended())
	}
	for _, l := range d.loaders {
		if l != nil && !l.running() {
			return fmt.Errorf("a loader has ended by itself: %w", l.ended())
		}
	}
	return nil
}
