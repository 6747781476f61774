package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"tallyman/schema/batch"
	"tallyman/sink"
)

// keys are the columns of several partitions, as arrays for unnest.
type keys struct {
	clusters, topics []string
	numbers          []int32
}

func (k *keys) add(p sink.Partition) {
	k.clusters = append(k.clusters, p.Cluster)
	k.topics = append(k.topics, p.Topic)
	k.numbers = append(k.numbers, p.Number)
}

func keysOf(ps []sink.Partition) keys {
	var k keys
	for _, p := range ps {
		k.add(p)
	}
	return k
}

const insertPositions = `
INSERT INTO tallyman.positions (revision_id, cluster, topic, partition, next_offset, era, log_start)
SELECT $1, cluster, topic, partition, 0, 1, -1
FROM unnest($2::text[], $3::text[], $4::integer[]) AS k (cluster, topic, partition)
WHERE NOT EXISTS (SELECT FROM tallyman.revisions r WHERE r.revision_id = $1 AND r.state = 'retired')
ORDER BY cluster COLLATE "C", topic COLLATE "C", partition
ON CONFLICT DO NOTHING`

const selectPositions = `
SELECT p.cluster, p.topic, p.partition, p.next_offset, p.era, p.log_start,
       p.anchor_offset, p.anchor_timestamp, p.anchor_sha256
FROM unnest($2::text[], $3::text[], $4::integer[]) WITH ORDINALITY AS k (cluster, topic, partition, asked)
JOIN tallyman.positions p
  ON (p.revision_id, p.cluster, p.topic, p.partition) = ($1, k.cluster, k.topic, k.partition)
ORDER BY k.asked`

// Assign returns the positions of the partitions, in the order asked. A
// partition that was never read gets a row at offset 0, era 1.
func (w *Warehouse) Assign(ctx context.Context, r sink.Revision, ps []sink.Partition) ([]sink.Position, error) {
	if len(ps) == 0 {
		return nil, nil
	}
	k := keysOf(ps)
	var positions []sink.Position
	b := &pgx.Batch{}
	b.Queue(insertPositions, r.ID, k.clusters, k.topics, k.numbers)
	b.Queue(selectPositions, r.ID, k.clusters, k.topics, k.numbers).Query(func(rows pgx.Rows) (err error) {
		positions, err = pgx.CollectRows(rows, scanPosition)
		return err
	})
	if err := w.pool.SendBatch(ctx, b).Close(); err != nil {
		return nil, w.class("assign positions", err)
	}
	if len(positions) != len(ps) {
		return nil, &sink.Error{Class: sink.Misconfigured, Reason: reasonUnexpected,
			Err: fmt.Errorf("assign positions: asked for %d, got %d", len(ps), len(positions))}
	}
	return positions, nil
}

func scanPosition(row pgx.CollectableRow) (sink.Position, error) {
	var (
		p      sink.Position
		offset *int64
		at     *time.Time
		sum    []byte
	)
	err := row.Scan(&p.Partition.Cluster, &p.Partition.Topic, &p.Partition.Number,
		&p.Next, &p.Era, &p.LogStart, &offset, &at, &sum)
	if err != nil || offset == nil || at == nil {
		return p, err
	}
	p.Anchor = &sink.Anchor{Offset: *offset, Timestamp: at.UTC(), SHA256: batch.Digest(sum)}
	return p, nil
}

const movePosition = `
UPDATE tallyman.positions
SET next_offset = $7, era = era + CASE WHEN $9 THEN 1 ELSE 0 END,
    log_start = CASE WHEN $8 < 0 THEN log_start ELSE $8 END,
    anchor_offset = NULL, anchor_timestamp = NULL, anchor_sha256 = NULL, updated_at = now()
WHERE (revision_id, cluster, topic, partition) = ($1, $2, $3, $4) AND era = $5 AND next_offset = $6
RETURNING cluster, topic, partition, next_offset, era, log_start, anchor_offset, anchor_timestamp, anchor_sha256`

const insertGap = `
INSERT INTO tallyman.gaps (revision_id, cluster, topic, partition, first_offset, last_offset, reason)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT DO NOTHING`

// Move applies m, clears the anchor and returns the new position; Fenced if
// the position is no longer at (m.Era, m.From).
func (w *Warehouse) Move(ctx context.Context, r sink.Revision, m sink.Move) (sink.Position, error) {
	if m.Gap != "" && m.To <= m.From {
		return sink.Position{}, &sink.Error{Class: sink.Misconfigured, Reason: reasonProgramming,
			Err: fmt.Errorf("move position: a gap from %d to %d is empty", m.From, m.To)}
	}
	var moved sink.Position
	p := m.Partition
	err := pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, movePosition,
			r.ID, p.Cluster, p.Topic, p.Number, m.Era, m.From, m.To, m.LogStart, m.Rewind)
		if err != nil {
			return err
		}
		if moved, err = pgx.CollectExactlyOneRow(rows, scanPosition); err != nil {
			return err
		}
		if m.Gap == "" {
			return nil
		}
		_, err = tx.Exec(ctx, insertGap, r.ID, p.Cluster, p.Topic, p.Number, m.From, m.To-1, m.Gap)
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return sink.Position{}, fenced("%s/%d is not at offset %d of era %d", p.Topic, p.Number, m.From, m.Era)
	}
	return moved, w.class("move position", err)
}

func fenced(format string, args ...any) error {
	return &sink.Error{Class: sink.Fenced, Err: fmt.Errorf(format, args...)}
}

// Start is where a partition's log starts now.
type Start struct {
	Partition sink.Partition
	Offset    int64
}

const lockPositions = `
SELECT p.cluster, p.topic, p.partition
FROM tallyman.positions p
JOIN unnest($2::text[], $3::text[], $4::integer[]) AS k (cluster, topic, partition)
  ON (p.cluster, p.topic, p.partition) = (k.cluster, k.topic, k.partition)
WHERE p.revision_id = $1
ORDER BY p.cluster, p.topic, p.partition
FOR NO KEY UPDATE OF p`

const rewindPositions = `
UPDATE tallyman.positions p
SET next_offset = least(p.next_offset, k.start), log_start = k.start, era = p.era + 1,
    anchor_offset = NULL, anchor_timestamp = NULL, anchor_sha256 = NULL, updated_at = now()
FROM unnest($2::text[], $3::text[], $4::integer[], $5::bigint[]) AS k (cluster, topic, partition, start)
WHERE (p.revision_id, p.cluster, p.topic, p.partition) = ($1, k.cluster, k.topic, k.partition)
RETURNING p.cluster, p.topic, p.partition, p.next_offset, p.era, p.log_start,
          p.anchor_offset, p.anchor_timestamp, p.anchor_sha256`

// Rewind puts positions back to the start of their logs, in one transaction,
// and raises their eras: it waits for commits in flight and fences every
// member that still reads. What was loaded already is found by the ledger and
// loads no second time. A position below the log's start stays: its reader
// records what it can't read any more. Rewind returns the positions as they are
// now; a partition that was never read has none and needs none.
func (w *Warehouse) Rewind(ctx context.Context, revision int64, starts []Start) ([]sink.Position, error) {
	var (
		k       keys
		offsets []int64
		moved   []sink.Position
	)
	for _, s := range starts {
		k.add(s.Partition)
		offsets = append(offsets, s.Offset)
	}
	err := pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, lockPositions, revision, k.clusters, k.topics, k.numbers); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, rewindPositions, revision, k.clusters, k.topics, k.numbers, offsets)
		if err != nil {
			return err
		}
		moved, err = pgx.CollectRows(rows, scanPosition)
		return err
	})
	return moved, w.class("rewind positions", err)
}
