package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// blocked remembers who a committer waits for. A process of ours that is frozen
// in the middle of a COPY (SIGSTOP, a paused virtual machine) holds its locks
// beyond every time-out that the server has, because the server is waiting for
// data. Whoever waits for its locks looks at it twice, a lock time-out apart at
// least, and ends its session if it has taken in nothing in between.
type blocked struct {
	seen map[blocker]time.Time // when each was first seen in this state
}

// blocker is a session of ours that holds a lock and waits for its client.
type blocker struct {
	pid   int32
	since time.Time // when its transaction began
	bytes int64     // what its COPY has taken in
}

const selectBlockers = `
SELECT a.pid, a.xact_start, coalesce(c.bytes_processed, -1)
FROM unnest(pg_blocking_pids($1)) AS b (pid)
JOIN pg_catalog.pg_stat_activity a USING (pid)
LEFT JOIN pg_catalog.pg_stat_progress_copy c USING (pid)
WHERE a.application_name LIKE 'tallyman/%' AND pg_has_role(a.usesysid, 'USAGE') AND a.datname = current_database()
  AND a.state = 'active' AND a.wait_event_type = 'Client' AND a.wait_event = 'ClientRead'
  AND a.xact_start IS NOT NULL`

const terminateBlocker = `
SELECT pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE pid = $1 AND xact_start = $2`

// watch looks, once the session with a pid has waited for half a lock time-out,
// for whom it waits. The function that it returns ends that.
func (b *blocked) watch(ctx context.Context, w *Warehouse, pid uint32) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	timer := time.AfterFunc(w.cfg.LockTimeout/2, func() {
		defer close(done)
		if err := b.look(ctx, w, int32(pid)); err != nil && ctx.Err() == nil {
			w.cfg.Logger.Debug("can't look for whom a session waits", "cause", err)
		}
	})
	return func() {
		cancel()
		if !timer.Stop() {
			<-done
		}
	}
}

func (b *blocked) look(ctx context.Context, w *Warehouse, pid int32) error {
	rows, err := w.pool.Query(ctx, selectBlockers, pid)
	if err != nil {
		return err
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (x blocker, err error) {
		err = row.Scan(&x.pid, &x.since, &x.bytes)
		return x, err
	})
	if err != nil {
		return err
	}
	now := time.Now()
	seen := make(map[blocker]time.Time, len(found))
	for _, x := range found {
		first, again := b.seen[x]
		if !again {
			seen[x] = now
			continue
		}
		if seen[x] = first; now.Sub(first) < w.cfg.LockTimeout {
			continue
		}
		w.cfg.Logger.Warn("ending a session that holds locks and whose client is frozen",
			"pid", x.pid, "transaction_since", x.since, "copied_bytes", x.bytes)
		if _, err := w.pool.Exec(ctx, terminateBlocker, x.pid, x.since); err != nil {
			return err
		}
	}
	b.seen = seen
	return nil
}
