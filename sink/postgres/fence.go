package postgres

import (
	"context"
	"sync"

	"github.com/jackc/pgx/v5"
)

const raiseEras = `
WITH held AS (
    SELECT cluster, topic, partition FROM tallyman.positions
    WHERE revision_id = $1
    ORDER BY cluster, topic, partition
    FOR NO KEY UPDATE
)
UPDATE tallyman.positions p SET era = p.era + 1, updated_at = now()
FROM held
WHERE p.revision_id = $1 AND (p.cluster, p.topic, p.partition) = (held.cluster, held.topic, held.partition)`

// NewFence returns what raises the eras of a revision's positions, in somebody
// else's transaction: from its commit on, what members have in flight that read the
// positions before comes to nothing. It waits for commits in flight, each lock for
// no longer than a commit would; then the error is PostgreSQL's 55P03, and the
// transaction has to begin again. A session that holds the lock and whose client is
// frozen is ended by a later try. It is safe for concurrent use.
func (w *Warehouse) NewFence() func(ctx context.Context, tx pgx.Tx, revision int64) error {
	var (
		mu      sync.Mutex
		blocked blocked
	)
	return func(ctx context.Context, tx pgx.Tx, revision int64) error {
		mu.Lock()
		defer mu.Unlock()
		if _, err := tx.Exec(ctx, "SELECT set_config('lock_timeout', $1, true)", milliseconds(w.cfg.LockTimeout)); err != nil {
			return err
		}
		stop := blocked.watch(ctx, w, tx.Conn().PgConn().PID())
		defer stop()
		_, err := tx.Exec(ctx, raiseEras, revision)
		return err
	}
}
