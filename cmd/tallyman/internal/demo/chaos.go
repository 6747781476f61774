package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/segmentio/kafka-go"

	"tallyman/internal/kafkaconn"
)

// killsAt are the shares of all rows at whose loading a loader is killed; the
// last kills come while everything is read and published a second time.
var killsAt = [...]float64{0.1, 0.3, 0.5, 0.7}

// killsAgain is how many loaders are killed during the second pass.
const killsAgain = 2

// topicLostAt is the kill after which the topic is deleted.
const topicLostAt = 2

// chaos kills loaders while they load, deletes the topic half way, has everything
// read again from the log's start, has it published a second time, and kills again
// meanwhile. It returns when everything that was published twice has been read.
func (d *Demo) chaos(ctx context.Context) ([]Kill, error) {
	var kills []Kill
	pass := 1
	over := d.loadedIn
	if !d.heals() { // what was deleted is never loaded
		over = readIn
	}
	for i, share := range killsAt {
		rows := int64(share * float64(d.config.Rows))
		what := fmt.Sprintf("%d rows to be loaded", rows)
		if err := d.await(ctx, what, func(v view) bool { return v.rows >= rows }); err != nil {
			return kills, err
		}
		if err := d.killUntil(ctx, over(pass), i, &kills); err != nil {
			return kills, err
		}
		if i == topicLostAt && d.heals() {
			more, err := d.loseTopic(ctx)
			if pass += more; err != nil {
				return kills, err
			}
		}
	}
	if err := d.await(ctx, "everything to be loaded", over(pass)); err != nil {
		return kills, err
	}
	d.config.Progress.Note("everything is loaded; now everything is read again from the log's start, and published a second time")
	if err := d.command(ctx, "rewind", "rewind", d.manifest.Dataset.String()); err != nil {
		return kills, err
	}
	if err := d.cargo.sendAgain(d); err != nil {
		return kills, err
	}
	pass++
	for i := range killsAgain {
		if err := d.killUntil(ctx, readIn(pass), i, &kills); err != nil {
			return kills, err
		}
	}
	return kills, d.await(ctx, "everything to be read again", readIn(pass))
}

// loseTopic deletes the topic once everything is published, with what is not
// loaded by then, and makes it again, empty. Until then the loaders are frozen, so
// that there is something to lose. It returns in how many passes more everything
// is published.
func (d *Demo) loseTopic(ctx context.Context) (passes int, err error) {
	d.mu.Lock()
	loaders := slices.Clone(d.loaders)
	d.mu.Unlock()
	for _, l := range loaders {
		if err := l.freeze(); err != nil {
			return 0, fmt.Errorf("freeze %s: %w", l.member, err)
		}
		defer func() { err = errors.Join(err, l.thaw()) }()
	}
	if err := d.await(ctx, "everything to be published", func(v view) bool { return v.passes >= 1 }); err != nil {
		return 0, err
	}
	answer, err := d.kafka.Client().DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{d.manifest.Topic}})
	if err == nil {
		err = answer.Errors[d.manifest.Topic]
	}
	if err != nil {
		return 0, fmt.Errorf("delete topic %s: %w", d.manifest.Topic, err)
	}
	for deadline := time.Now().Add(topicPatience); ; time.Sleep(lookEvery) { // brokers delete it when they have time
		err := d.makeTopic(ctx)
		if err == nil {
			break
		}
		if !errors.Is(err, kafkaconn.ErrTopicExists) || time.Now().After(deadline) {
			return 0, err
		}
	}
	v, err := d.current()
	if err != nil {
		return 0, err
	}
	passes, how, err := d.cargo.heal(d)
	d.config.Progress.Note(fmt.Sprintf("deleted the topic, with %d rows that were not loaded, and made it again; %s", d.config.Rows-v.rows, how))
	return passes, err
}

// loadedIn says that everything was published so many times, and is loaded.
func (d *Demo) loadedIn(pass int) func(view) bool {
	return func(v view) bool { return v.passes >= pass && v.rows >= d.config.Rows }
}

// readIn says that everything was published so many times, and read.
func readIn(pass int) func(view) bool {
	return func(v view) bool { return v.passes >= pass && v.behind == 0 }
}

// killUntil kills a loader and adds that to kills, unless it is over before a
// loader was seen in a transaction.
func (d *Demo) killUntil(ctx context.Context, over func(view) bool, i int, kills *[]Kill) error {
	k, err := d.kill(ctx, i%d.config.Loaders, over)
	if err != nil || k == nil {
		return err
	}
	*kills = append(*kills, *k)
	d.config.Progress.Note(fmt.Sprintf("killed %s (process %d) %s; transaction %s was rolled back", k.Loader, k.PID, k.Doing, k.XID))
	return nil
}

// killLimit is how long loaders are watched for an open transaction.
const killLimit = 20 * time.Second

// kill kills a loader that has a transaction open, and starts another in its
// place. It freezes the loader, looks for a session of it that holds a
// transaction id and waits for its client, and kills only then; it counts only
// if the server says afterwards that the transaction was aborted. The loader in
// the place first is preferred. Nil means that it was over before.
func (d *Demo) kill(ctx context.Context, first int, over func(view) bool) (*Kill, error) {
	conn, err := pgx.Connect(ctx, d.DSN())
	if err != nil {
		return nil, fmt.Errorf("connect to kill a loader: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for deadline := time.Now().Add(killLimit); time.Now().Before(deadline); {
		if v, err := d.current(); err != nil || over(v) {
			return nil, err
		}
		if err := d.dead(); err != nil {
			return nil, err
		}
		if k, err := d.tryKill(ctx, conn, first); err != nil || k != nil {
			return k, err
		}
		time.Sleep(lookPause) // let the loaders run into another moment
	}
	return nil, fmt.Errorf("no loader was seen in an open transaction in %v", killLimit)
}

// tryKill freezes a loader that is working, and kills and replaces it if that
// caught it in an open transaction; nil: not this time.
func (d *Demo) tryKill(ctx context.Context, conn *pgx.Conn, first int) (*Kill, error) {
	index, l, err := d.working(ctx, conn, first)
	if err != nil || l == nil {
		return nil, err
	}
	if n, err := l.duplicates(ctx); err == nil {
		l.refused = n
	}
	k, err := l.freezeIn(ctx, conn)
	if k == nil {
		if thawed := l.thaw(); err == nil && thawed != nil {
			err = fmt.Errorf("let %s go on: %w", l.member, thawed)
		}
		return nil, err
	}
	if err := d.replace(index, l); err != nil {
		return nil, err
	}
	if rolledBack, err := aborted(ctx, conn, k.XID); err != nil || !rolledBack {
		return nil, err
	}
	return k, nil
}

// Transactions that load, and no others: a loader that is killed in one by which it
// joins its job may be about to join its group, and the embedded broker keeps for
// ever a member that dies while it does.
const workingSQL = `
SELECT a.application_name
FROM pg_stat_activity a
WHERE a.backend_xid IS NOT NULL AND a.application_name LIKE 'tallyman/%' AND ` + loadsSQL

const loadsSQL = `EXISTS (
    SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.relation = 'tallyman.positions'::regclass AND l.mode = 'RowExclusiveLock')`

// working returns a loader that has a transaction open at this moment, and its
// place; nil: none has.
func (d *Demo) working(ctx context.Context, conn *pgx.Conn, first int) (int, *loader, error) {
	rows, _ := conn.Query(ctx, workingSQL) // its error comes with the rows
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return 0, nil, fmt.Errorf("look for open transactions: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.loaders {
		index := (first + i) % len(d.loaders)
		if l := d.loaders[index]; l != nil && slices.Contains(names, l.session()) {
			return index, l, nil
		}
	}
	return 0, nil, nil
}

// replace kills a frozen loader and starts another in its place.
func (d *Demo) replace(index int, l *loader) error {
	d.mu.Lock()
	d.lost += l.refused
	d.loaders[index] = nil // so that its end surprises nobody
	d.mu.Unlock()
	l.kill()
	next, err := d.startLoader(l.member)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.loaders[index] = next
	return nil
}

const openTransactionSQL = `
SELECT a.backend_xid::text, a.state, a.query, coalesce(p.tuples_processed, 0), coalesce(a.wait_event = 'ClientRead', false) AS waits
FROM pg_stat_activity a LEFT JOIN pg_stat_progress_copy p USING (pid)
WHERE a.application_name = $1 AND a.backend_xid IS NOT NULL AND ` + loadsSQL + `
ORDER BY waits DESC
LIMIT 1`

// A frozen loader's sessions are looked at again and again while they work off
// what they were sent, but not for so long that the broker would miss the loader.
const (
	frozenLimit = sessionTimeout / 2
	lookPause   = 2 * time.Millisecond
)

// freezeIn freezes the loader and returns the open transaction that it was in;
// nil: it was in none that goes on waiting for it.
func (l *loader) freezeIn(ctx context.Context, conn *pgx.Conn) (*Kill, error) {
	if err := l.freeze(); err != nil {
		return nil, fmt.Errorf("freeze %s: %w", l.member, err)
	}
	for deadline := time.Now().Add(frozenLimit); time.Now().Before(deadline); time.Sleep(lookPause) {
		k := Kill{Loader: l.member, PID: l.pid()}
		var state, query string
		var copied int64
		var waits bool
		err := conn.QueryRow(ctx, openTransactionSQL, l.session()).Scan(&k.XID, &state, &query, &copied, &waits)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return nil, nil
		case err != nil:
			return nil, fmt.Errorf("look for an open transaction: %w", err)
		case waits:
			k.Doing = doing(state, query, copied)
			return &k, nil
		}
	}
	return nil, nil
}

// doing says what a session was in the middle of.
func doing(state, query string, copied int64) string {
	copying := strings.HasPrefix(query, "COPY")
	switch {
	case copying && state == "active":
		return fmt.Sprintf("in the middle of its COPY, after %d rows", copied)
	case copying:
		return "between its COPY and its COMMIT"
	default:
		return "after its claim of the ids"
	}
}

const transactionStatusSQL = `SELECT coalesce(pg_xact_status($1::text::xid8), 'forgotten')`

// aborted waits until the server knows how a transaction ended.
func aborted(ctx context.Context, conn *pgx.Conn, xid string) (bool, error) {
	for {
		var status string
		if err := conn.QueryRow(ctx, transactionStatusSQL, xid).Scan(&status); err != nil {
			return false, fmt.Errorf("ask how transaction %s ended: %w", xid, err)
		}
		if status != "in progress" {
			return status == "aborted", nil
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(lookPause):
		}
	}
}
