package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tallyman/sink"
)

// committer commits groups on a connection of its own.
type committer struct {
	w       *Warehouse
	conn    *pgx.Conn // nil: to be opened
	blocked blocked
}

// NewCommitter returns a committer. It connects when it is first used, and
// again after a failure that leaves the connection in doubt.
func (w *Warehouse) NewCommitter() sink.Committer { return &committer{w: w} }

// Commit implements sink.Committer.
func (c *committer) Commit(ctx context.Context, g *sink.Group) (sink.Result, error) {
	t := &transaction{w: c.w, group: g, target: targetOf(g.Revision.Physical, manifests(g)...), plan: newPlan(g)}
	if c.conn == nil {
		conn, err := pgx.ConnectConfig(ctx, c.w.conn)
		if err != nil {
			return sink.Result{}, classify("connect", inClaim, t.target, err)
		}
		c.conn = conn
	}
	t.conn = c.conn
	res, err := t.run(ctx, &c.blocked)
	if err != nil {
		c.abandon(ctx)
		return sink.Result{}, err
	}
	return res, nil
}

// abandonLimit bounds the rollback of a failed transaction; a connection that
// does not answer by then is closed, and the server rolls back by itself.
const abandonLimit = 2 * time.Second

// abandon makes sure that nothing of the failed transaction is left open.
func (c *committer) abandon(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonLimit)
	defer cancel()
	if !c.conn.IsClosed() {
		_, err := c.conn.Exec(ctx, "ROLLBACK")
		if err == nil && c.conn.PgConn().TxStatus() == 'I' {
			return
		}
	}
	_ = c.close(ctx)
}

func (c *committer) close(ctx context.Context) error {
	conn := c.conn
	c.conn = nil
	return conn.Close(ctx)
}

// Close implements sink.Committer.
func (c *committer) Close() error {
	if c.conn == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), abandonLimit)
	defer cancel()
	return c.close(ctx)
}

// transaction is one try to commit a group.
type transaction struct {
	w      *Warehouse
	conn   *pgx.Conn
	group  *sink.Group
	target target
	plan   *plan
	shape  *shape // of the table, once it is locked
	// settle, unless nil, is the last that the transaction does before it
	// commits: it closes the message in quarantine that it is about.
	settle  func(context.Context) error
	refused []sink.RefusedAnnouncement
}

// run is the whole transaction, COMMIT included. Its lock order is that of the
// package's documentation.
func (t *transaction) run(ctx context.Context, b *blocked) (sink.Result, error) {
	stop := b.watch(ctx, t.w, t.conn.PgConn().PID())
	err := t.open(ctx)
	stop()
	if err != nil {
		return sink.Result{}, err
	}
	res, err := t.resolve(ctx)
	if err != nil {
		return sink.Result{}, err
	}
	if admit := t.group.Admit; admit != nil {
		if err := admit(res); err != nil {
			return sink.Result{}, err
		}
	}
	if err := t.copyRows(ctx); err != nil {
		return sink.Result{}, err
	}
	if err := t.checkQuarantine(ctx); err != nil {
		return sink.Result{}, err
	}
	if t.settle != nil {
		if err := t.settle(ctx); err != nil {
			return sink.Result{}, err
		}
	}
	err = t.finish(ctx)
	res.Refused = t.refused
	return res, err
}

const (
	beginTransaction = `BEGIN ISOLATION LEVEL READ COMMITTED`

	// The settings end with the transaction, so a pooler may come in between.
	setLimits = `
SELECT set_config('lock_timeout', $1, true), set_config('statement_timeout', $2, true),
       set_config('idle_in_transaction_session_timeout', $3, true)`

	setCopyLimit = `SELECT set_config('statement_timeout', $1, true)`

	advancePositions = `
UPDATE tallyman.positions p
SET next_offset = k.next, updated_at = now(),
    log_start = CASE WHEN k.log_start < 0 THEN p.log_start ELSE k.log_start END,
    anchor_offset = coalesce(k.anchor_offset, p.anchor_offset),
    anchor_timestamp = coalesce(k.anchor_timestamp, p.anchor_timestamp),
    anchor_sha256 = coalesce(k.anchor_sha256, p.anchor_sha256)
FROM unnest($2::text[], $3::text[], $4::integer[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[],
            $9::bigint[], $10::timestamptz[], $11::bytea[])
  AS k (cluster, topic, partition, era, was, next, log_start, anchor_offset, anchor_timestamp, anchor_sha256)
WHERE (p.revision_id, p.cluster, p.topic, p.partition) = ($1, k.cluster, k.topic, k.partition)
  AND p.era = k.era AND p.next_offset = k.was`
)

// open sends everything up to the COPY in one round trip: positions, claims,
// the table's lock and its columns. Where ids of dead messages are claimed, one
// more comes before it.
func (t *transaction) open(ctx context.Context) error {
	if err := t.placeDead(ctx); err != nil {
		return err
	}
	b := &pgx.Batch{}
	b.Queue(beginTransaction)
	c := t.w.cfg
	b.Queue(setLimits, milliseconds(c.LockTimeout), milliseconds(c.ClaimTimeout), milliseconds(c.IdleTimeout))
	t.queueAdvances(b)
	if len(t.plan.claims) > 0 {
		t.plan.queueClaims(b, t.group.Revision.ID)
	}
	if len(t.group.Elements) > 0 {
		t.queueColumns(b)
		b.Queue(setCopyLimit, milliseconds(c.CopyTimeout+time.Duration(t.plan.bytes>>20)*time.Second))
	}
	if err := t.conn.SendBatch(ctx, b).Close(); err != nil {
		return classify("claim", inClaim, t.target, err)
	}
	if t.shape == nil {
		return nil
	}
	return t.shape.check(t.group.Revision.Physical, manifests(t.group))
}

// milliseconds writes a duration as PostgreSQL reads one.
func milliseconds(d time.Duration) string { return fmt.Sprint(d.Milliseconds(), "ms") }

// queueAdvances locks the positions in key order and moves them by
// compare-and-set. A bare UPDATE of several rows locks in no order, and two of
// them would wait for each other.
func (t *transaction) queueAdvances(b *pgx.Batch) {
	var (
		k                        keys
		eras, was, nexts, starts []int64
		anchors                  []*int64
		anchorTimes              []*time.Time
		anchorSums               [][]byte
		n                        = int64(len(t.group.Advances))
	)
	for i := range t.group.Advances {
		a := &t.group.Advances[i]
		k.add(a.Partition)
		eras, was, nexts, starts = append(eras, a.Era), append(was, a.From), append(nexts, a.To), append(starts, a.LogStart)
		if a.Anchor == nil {
			anchors, anchorTimes, anchorSums = append(anchors, nil), append(anchorTimes, nil), append(anchorSums, nil)
			continue
		}
		anchors, anchorTimes, anchorSums = append(anchors, &a.Anchor.Offset), append(anchorTimes, &a.Anchor.Timestamp), append(anchorSums, a.Anchor.SHA256[:])
	}
	id := t.group.Revision.ID
	b.Queue(lockPositions, id, k.clusters, k.topics, k.numbers)
	b.Queue(advancePositions, id, k.clusters, k.topics, k.numbers, eras, was, nexts, starts, anchors, anchorTimes, anchorSums).
		Exec(func(tag pgconn.CommandTag) error {
			if tag.RowsAffected() != n {
				return fenced("%d of %d positions are where the group expected them", tag.RowsAffected(), n)
			}
			return nil
		})
}

// commitLimit bounds the wait for the answer to COMMIT, which nothing cancels.
const commitLimit = time.Minute

// finish writes what is known of streams, what quarantine has to know, and commits, in one round trip, on
// a context that ends with nothing but its own limit: a COMMIT that is given up
// may have committed, and under synchronous replication a cancelled one is
// missing on the standby.
func (t *transaction) finish(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return classify("commit", inFinish, t.target, err)
	}
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), commitLimit,
		fmt.Errorf("no answer to COMMIT in %v", commitLimit))
	defer cancel()
	b := &pgx.Batch{}
	t.queueSatisfied(b)
	t.queueAnnouncements(b)
	t.queueQuarantine(b)
	committed := false
	b.Queue("COMMIT").Exec(func(tag pgconn.CommandTag) error {
		// A failed transaction answers COMMIT with ROLLBACK and no error.
		if committed = tag.String() == "COMMIT"; !committed {
			return fmt.Errorf("COMMIT was answered with %s", tag)
		}
		return nil
	})
	err := t.conn.SendBatch(ctx, b).Close()
	switch pg := (*pgconn.PgError)(nil); {
	case err == nil && committed:
		return nil
	case errors.As(err, &pg):
		return t.rowFault(ctx, "commit", inFinish, err)
	default:
		// Whether it committed is not known. The same group again finds out.
		_ = t.conn.Close(ctx)
		return &sink.Error{Class: sink.Retryable, Reason: reasonInDoubt, Err: fmt.Errorf("commit: outcome unknown: %w", err)}
	}
}
