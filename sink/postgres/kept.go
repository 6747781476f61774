package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/sink"
)

// quarantine is the warehouse's quarantine, for people and for upkeep.
type quarantine struct {
	w       *Warehouse
	blocked blocked
}

// Quarantine returns the quarantine, for one user at a time.
func (w *Warehouse) Quarantine() sink.Quarantine { return &quarantine{w: w} }

// Redriver returns that part of the quarantine which a loader needs.
func (w *Warehouse) Redriver() sink.Redriver { return &quarantine{w: w} }

const (
	keptColumns = `
q.revision_id, q.sha256, r.dataset, q.cluster, q.topic, q.partition, q.kafka_offset, q.kafka_timestamp, q.reason, q.detail,
q.unique_id, q.source, q.incarnation, q.sequence, q.row_count, q.payload_size, q.payload_whole, q.state, q.seen_at,
q.closed_at, q.closed_by, q.closed_why`

	// What is not asked for is the empty string, the zero of its type or NULL.
	fromSelected = `
FROM tallyman.quarantine q
JOIN tallyman.revisions r USING (revision_id)
WHERE (cardinality($1::text[]) = 0 OR encode(q.sha256, 'hex') LIKE ANY ($1))
  AND ($2 = '' OR r.dataset = $2)
  AND ($3::uuid IS NULL OR q.unique_id = $3)
  AND ($4 = '' OR q.reason = $4)
  AND ($5 = '' OR q.state = $5)
  AND ($6::timestamptz IS NULL OR q.seen_at >= $6)
  AND ($7::timestamptz IS NULL OR q.seen_at < $7)`

	countSelected = `SELECT count(*)` + fromSelected

	listSelected = `SELECT ` + keptColumns + fromSelected + `
ORDER BY q.seen_at DESC, q.cluster, q.topic, q.partition, q.kafka_offset DESC, q.sha256
LIMIT NULLIF($8::bigint, 0)`

	selectKept = `SELECT ` + keptColumns + `, q.batch_time, q.content, q.message_key, q.headers, q.payload, r.manifest_hash
FROM tallyman.quarantine q
JOIN tallyman.revisions r USING (revision_id)
WHERE (q.revision_id, q.sha256) = ($1, $2)`

	// A header names a manifest by its dataset and hash: schema.Ref writes it so.
	selectRedrivable = `
SELECT q.sha256
FROM tallyman.quarantine q
JOIN tallyman.revisions r USING (revision_id)
WHERE q.revision_id = $1 AND q.state = 'open' AND q.reason = 'no_manifest'
  AND EXISTS (SELECT FROM tallyman.datasets d
              WHERE d.dataset = r.dataset AND convert_to(d.dataset || '@' || d.manifest_hash, 'UTF8') = ANY (q.headers))
ORDER BY q.seen_at, q.sha256
LIMIT $2`
)

// List implements sink.Quarantine.
func (q *quarantine) List(ctx context.Context, s sink.Selection, limit int) (sink.Listing, error) {
	prefixes := make([]string, 0, len(s.Prefixes))
	for _, p := range s.Prefixes {
		prefixes = append(prefixes, p+"%")
	}
	args := []any{
		prefixes, s.Dataset, pgtype.UUID{Bytes: s.ID, Valid: s.ID != uuid.Nil}, string(s.Reason), string(s.State),
		pgtype.Timestamptz{Time: s.Since, Valid: !s.Since.IsZero()}, pgtype.Timestamptz{Time: s.Until, Valid: !s.Until.IsZero()},
	}
	var listing sink.Listing
	// One moment, so that the total is of what is listed.
	moment := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err := pgx.BeginTxFunc(ctx, q.w.pool, moment, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, countSelected, args...).Scan(&listing.Total); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, listSelected, append(args, limit)...)
		if err != nil {
			return err
		}
		listing.Kept, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (sink.Kept, error) { return scanKept(row) })
		return err
	})
	return listing, q.w.class("list quarantine", err)
}

// scanKept reads keptColumns and what follows them.
func scanKept(row pgx.CollectableRow, more ...any) (k sink.Kept, err error) {
	var (
		sum                           []byte
		dataset                       string
		published, closed             *time.Time
		id, incarnation               pgtype.UUID
		source, by, why               pgtype.Text
		sequence, rows                pgtype.Int8
		cluster, topic, reason, state string
		partition                     int32
	)
	err = row.Scan(append([]any{&k.Key.Revision, &sum, &dataset, &cluster, &topic, &partition, &k.Offset, &published, &reason, &k.Detail,
		&id, &source, &incarnation, &sequence, &rows, &k.Size, &k.Whole, &state, &k.Seen, &closed, &by, &why}, more...)...)
	if err != nil {
		return k, err
	}
	k.Key.SHA256 = batch.Digest(sum)
	k.Partition = sink.Partition{Cluster: cluster, Topic: topic, Number: partition}
	k.Reason, k.State = batch.Reason(reason), sink.KeptState(state)
	k.ID, k.Incarnation = id.Bytes, incarnation.Bytes
	k.Source, k.ClosedBy, k.ClosedWhy = source.String, by.String, why.String
	k.Sequence, k.Rows = uint64(sequence.Int64), rows.Int64
	k.Seen = k.Seen.UTC()
	if published != nil {
		k.Published = published.UTC()
	}
	if closed != nil {
		k.Closed = closed.UTC()
	}
	k.Dataset, err = schema.ParseDataset(dataset)
	return k, err
}

// keptBatch is a message in quarantine with everything that is known of it.
type keptBatch struct {
	sink.KeptMessage
	time    time.Time    // of the batch
	content batch.Digest // zero: not known
	made    string       // hash of the manifest that the revision was made from
}

// read reads one message in quarantine.
func (q *quarantine) read(ctx context.Context, key sink.KeptKey) (keptBatch, error) {
	rows, err := q.w.pool.Query(ctx, selectKept, key.Revision, key.SHA256[:])
	if err != nil {
		return keptBatch{}, q.w.class("read quarantine", err)
	}
	k, err := pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (k keptBatch, err error) {
		var (
			at      *time.Time
			content []byte
			headers [][]byte
		)
		k.Kept, err = scanKept(row, &at, &content, &k.Message.Key, &headers, &k.Message.Value, &k.made)
		if err != nil {
			return k, err
		}
		if at != nil {
			k.time = at.UTC()
		}
		if content != nil {
			k.content = batch.Digest(content)
		}
		for i := 0; i+1 < len(headers); i += 2 {
			k.Message.Headers = append(k.Message.Headers, batch.Header{Key: string(headers[i]), Value: headers[i+1]})
		}
		k.Message.Partition, k.Message.Offset, k.Message.Timestamp = k.Partition, k.Offset, k.Published
		return k, nil
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return keptBatch{}, &sink.ClosedError{Key: key}
	}
	return k, q.w.class("read quarantine", err)
}

// Get implements sink.Quarantine.
func (q *quarantine) Get(ctx context.Context, key sink.KeptKey) (sink.KeptMessage, error) {
	k, err := q.read(ctx, key)
	if err != nil {
		return sink.KeptMessage{}, err
	}
	hash := k.made
	if ref, err := schema.ParseRef(k.Message.Header("ce_dataschema")); err == nil && ref.Hash != "" {
		hash = ref.Hash
	}
	var text []byte
	err = q.w.pool.QueryRow(ctx, selectManifest, k.Dataset.String(), hash).Scan(&text)
	if errors.Is(err, pgx.ErrNoRows) {
		return k.KeptMessage, nil
	}
	if err != nil {
		return sink.KeptMessage{}, q.w.class("read the manifest", err)
	}
	m, err := schema.ParseCanonical(text)
	if err != nil {
		return sink.KeptMessage{}, fmt.Errorf("manifest %s of %s: %w", hash, k.Dataset, err)
	}
	k.Manifest = &m
	return k.KeptMessage, nil
}

// Redrivable implements sink.Redriver.
func (q *quarantine) Redrivable(ctx context.Context, r sink.Revision, limit int) ([]sink.KeptKey, error) {
	rows, err := q.w.pool.Query(ctx, selectRedrivable, r.ID, limit)
	if err != nil {
		return nil, q.w.class("look for batches that wait for a manifest", err)
	}
	keys, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (sink.KeptKey, error) {
		var sum []byte
		err := row.Scan(&sum)
		if err != nil {
			return sink.KeptKey{}, err
		}
		return sink.KeptKey{Revision: r.ID, SHA256: batch.Digest(sum)}, nil
	})
	return keys, q.w.class("look for batches that wait for a manifest", err)
}
