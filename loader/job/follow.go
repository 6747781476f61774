package job

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// settle is how long Follow waits for more notifications before it looks: a
// thousand changes at once are one look.
const settle = 20 * time.Millisecond

// Follow calls look at once, soon after any job has changed, and at least every so
// often, since a notification may be lost, until ctx ends. It holds a connection.
func (l *Ledger) Follow(ctx context.Context, every time.Duration, look func(context.Context)) {
	var conn *pgx.Conn
	defer func() {
		if conn != nil {
			_ = conn.Close(context.WithoutCancel(ctx))
		}
	}()
	for ctx.Err() == nil {
		if conn == nil {
			conn = l.listen(ctx)
		}
		look(ctx)
		if conn == nil {
			wait(ctx, every)
			continue
		}
		heard := false
		for limit := every; ; limit = settle {
			if _, err := await(ctx, conn, limit); err != nil {
				break
			}
			heard = true
		}
		if conn.IsClosed() {
			conn = nil
			if !heard {
				wait(ctx, settle)
			}
		}
	}
}

// listen returns a connection that notifications come to; nil: not now.
func (l *Ledger) listen(ctx context.Context) *pgx.Conn {
	pooled, err := l.pool.Acquire(ctx)
	if err != nil {
		return nil
	}
	conn := pooled.Hijack()
	if _, err := conn.Exec(ctx, "LISTEN "+Channel); err != nil {
		_ = conn.Close(context.WithoutCancel(ctx))
		return nil
	}
	return conn
}

func await(ctx context.Context, conn *pgx.Conn, limit time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	n, err := conn.WaitForNotification(ctx)
	if err != nil {
		return "", err
	}
	return n.Payload, nil
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
