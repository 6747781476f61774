package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// killsAt are the shares of all rows at whose loading a loader is killed; the
// last kills come while everything is read and published a second time.
var killsAt = [...]float64{0.1, 0.3, 0.5, 0.7}

// killsAgain is how many loaders are killed during the second pass.
const killsAgain = 2

// chaos kills loaders while they load, has everything read again from the log's
// start, has it published a second time, and kills again meanwhile. It returns
// when everything that was published twice has been read.
func (d *Demo) chaos(ctx context.Context) ([]Kill, error) {
	var kills []Kill
	for i, share := range killsAt {
		rows := int64(share * float64(d.config.Rows))
		what := fmt.Sprintf("%d rows to be loaded", rows)
		if err := d.await(ctx, what, func(v view) bool { return v.rows >= rows }); err != nil {
			return kills, err
		}
		if err := d.killInPass(ctx, 1, i, &kills); err != nil {
			return kills, err
		}
	}
	if err := d.await(ctx, "everything to be loaded", readIn(1)); err != nil {
		return kills, err
	}
	d.config.Progress.Note("everything is loaded; now everything is read again from the log's start, and published a second time")
	if err := d.command(ctx, "rewind", "rewind", Dataset); err != nil {
		return kills, err
	}
	if _, err := fmt.Fprintln(d.source.stdin, "republish"); err != nil {
		return kills, fmt.Errorf("tell the source to publish again: %w", err)
	}
	for i := range killsAgain {
		if err := d.killInPass(ctx, 2, i, &kills); err != nil {
			return kills, err
		}
	}
	return kills, d.await(ctx, "everything to be read again", readIn(2))
}

// readIn says that everything was published so many times, and read.
func readIn(pass int) func(view) bool {
	return func(v view) bool { return v.passes >= pass && v.behind <= 0 }
}

// killInPass kills a loader and adds that to kills, unless everything of the
// pass has been read before a loader was seen in a transaction.
func (d *Demo) killInPass(ctx context.Context, pass, i int, kills *[]Kill) error {
	k, err := d.kill(ctx, i%d.config.Loaders, readIn(pass))
	switch {
	case errors.Is(err, errNoTransaction):
		return nil
	case err != nil:
		return err
	}
	*kills = append(*kills, k)
	d.config.Progress.Note(fmt.Sprintf("killed %s (process %d) %s; transaction %s was rolled back", k.Loader, k.PID, k.Doing, k.XID))
	return nil
}

// errNoTransaction says that there was nothing left to open a transaction for.
var errNoTransaction = errors.New("nothing is left to load")

// killLimit is how long a loader is watched for an open transaction.
const killLimit = 20 * time.Second

// kill kills a loader that has a transaction open, and starts another in its
// place. It freezes the loader, looks for a session of it that holds a
// transaction id and waits for its client, and kills only then; it counts only
// if the server says afterwards that the transaction was aborted. Once over says
// that there is nothing left to do, the error is errNoTransaction.
func (d *Demo) kill(ctx context.Context, index int, over func(view) bool) (Kill, error) {
	conn, err := pgx.Connect(ctx, d.DSN())
	if err != nil {
		return Kill{}, fmt.Errorf("connect to kill a loader: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for deadline := time.Now().Add(killLimit); time.Now().Before(deadline); {
		if v, err := d.current(); err != nil {
			return Kill{}, err
		} else if over(v) {
			return Kill{}, errNoTransaction
		}
		l := d.loaderAt(index)
		if n, err := l.duplicates(ctx); err == nil {
			l.refused = n
		}
		k, err := l.freezeIn(ctx, conn)
		if err != nil {
			return Kill{}, err
		}
		if k == nil {
			if err := l.thaw(); err != nil {
				return Kill{}, fmt.Errorf("let %s go on: %w", l.member, err)
			}
			time.Sleep(5 * time.Millisecond) // let it run into another moment
			continue
		}
		if err := d.replace(index, l); err != nil {
			return Kill{}, err
		}
		aborted, err := aborted(ctx, conn, k.XID)
		if err != nil {
			return Kill{}, err
		}
		if aborted {
			return *k, nil
		}
	}
	return Kill{}, fmt.Errorf("loader %d was never seen in an open transaction in %v", index+1, killLimit)
}

// loaderAt returns the loader in a place.
func (d *Demo) loaderAt(index int) *loader {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.loaders[index]
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
SELECT backend_xid::text, state, query
FROM pg_stat_activity
WHERE application_name = $1 AND backend_xid IS NOT NULL AND wait_event = 'ClientRead'
LIMIT 1`

// How often and for how long a frozen loader's sessions are looked at: the
// server needs a moment to work off what it was sent.
const (
	looks     = 5
	lookPause = 2 * time.Millisecond
)

// freezeIn freezes the loader and returns the open transaction that it was in;
// nil: it was in none.
func (l *loader) freezeIn(ctx context.Context, conn *pgx.Conn) (*Kill, error) {
	if err := l.freeze(); err != nil {
		return nil, fmt.Errorf("freeze %s: %w", l.member, err)
	}
	for range looks {
		k := Kill{Loader: l.member, PID: l.pid()}
		var state, query string
		err := conn.QueryRow(ctx, openTransactionSQL, "tallyman/"+l.member).Scan(&k.XID, &state, &query)
		if err == nil {
			k.Doing = doing(state, query)
			return &k, nil
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return nil, fmt.Errorf("look for an open transaction: %w", err)
		}
		time.Sleep(lookPause)
	}
	return nil, nil
}

// doing says what a session was in the middle of.
func doing(state, query string) string {
	copying := strings.HasPrefix(query, "COPY")
	switch {
	case copying && state == "active":
		return "in the middle of its COPY"
	case copying:
		return "between its COPY and its COMMIT"
	default:
		return "between its claim of the ids and its COPY"
	}
}

const transactionStatusSQL = `SELECT coalesce(pg_xact_status($1::text::xid8), 'aborted')`

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
