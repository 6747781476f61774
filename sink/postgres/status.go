package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"tallyman/sink"
)

// DatasetStatus is how a dataset's active revision stands, all of one moment.
type DatasetStatus struct {
	Revision sink.Revision
	Rows     int64     // loaded
	Batches  int64     // loaded
	Bytes    int64     // of the batches' values, before Kafka's compression
	LastLoad time.Time // when a batch was last loaded; zero: never
	// Positions are ordered by cluster, topic and partition.
	Positions []sink.Position
	// Quarantine is what is open there, the most frequent reason first.
	Quarantine []Quarantined
	// Unread is how many offsets are recorded as never read.
	Unread int64
}

// Quarantined is how much of a dataset is in open quarantine for one reason.
type Quarantined struct {
	Reason   string
	Messages int64
	Bytes    int64 // of their values, as they came
	Oldest   time.Time
}

const (
	sumLedger = `
SELECT coalesce(sum(row_count), 0)::bigint, count(*), coalesce(sum(byte_count), 0)::bigint, coalesce(max(loaded_at), 'epoch')
FROM tallyman.loaded_elements
WHERE revision_id = $1 AND outcome = 'loaded'`

	listPositions = `
SELECT cluster, topic, partition, next_offset, era, log_start, anchor_offset, anchor_timestamp, anchor_sha256
FROM tallyman.positions
WHERE revision_id = $1
ORDER BY cluster, topic, partition`

	sumReasons = `
SELECT reason, count(*), coalesce(sum(payload_size), 0)::bigint, min(seen_at)
FROM tallyman.quarantine
WHERE revision_id = $1 AND state = 'open'
GROUP BY reason
ORDER BY count(*) DESC, reason`

	sumGaps = `
SELECT coalesce(sum(last_offset - first_offset + 1), 0)::bigint
FROM tallyman.gaps
WHERE revision_id = $1`
)

// Status returns how every dataset stands, by name. It counts the ledger, so
// it takes longer the more batches there are.
func (w *Warehouse) Status(ctx context.Context) ([]DatasetStatus, error) {
	conn, err := pgx.ConnectConfig(ctx, w.patient())
	if err != nil {
		return nil, w.class("connect", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var all []DatasetStatus
	moment := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err = pgx.BeginTxFunc(ctx, conn, moment, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, selectDatasets)
		if err != nil {
			return err
		}
		infos, err := pgx.CollectRows(rows, scanDataset)
		if err != nil {
			return err
		}
		for _, i := range infos {
			if i.Revision.State != sink.Active {
				continue
			}
			s, err := status(ctx, tx, i.Revision)
			if err != nil {
				return err
			}
			all = append(all, s)
		}
		return nil
	})
	return all, w.class("read status", err)
}

func status(ctx context.Context, tx pgx.Tx, r sink.Revision) (DatasetStatus, error) {
	s := DatasetStatus{Revision: r}
	b := &pgx.Batch{}
	b.Queue(sumLedger, r.ID).QueryRow(func(row pgx.Row) error {
		return row.Scan(&s.Rows, &s.Batches, &s.Bytes, &s.LastLoad)
	})
	b.Queue(listPositions, r.ID).Query(func(rows pgx.Rows) (err error) {
		s.Positions, err = pgx.CollectRows(rows, scanPosition)
		return err
	})
	b.Queue(sumReasons, r.ID).Query(func(rows pgx.Rows) (err error) {
		s.Quarantine, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Quarantined])
		return err
	})
	b.Queue(sumGaps, r.ID).QueryRow(func(row pgx.Row) error { return row.Scan(&s.Unread) })
	err := tx.SendBatch(ctx, b).Close()
	if s.Batches == 0 {
		s.LastLoad = time.Time{}
	}
	return s, err
}
