package postgres

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"tallyman/schema/batch"
	"tallyman/sink"
)

// Payloads up to keepWhole bytes are kept whole, of larger ones the first
// keepHead: a value of 100 MiB costs the server several times as much memory.
const (
	keepWhole = 8 << 20
	keepHead  = 64 << 10
)

const (
	// The claim was made so that no good copy loads in the same moment.
	returnClaims = `SELECT tallyman.return_claims($1, $2, $3)`

	closeQuarantine = `
UPDATE tallyman.quarantine q SET state = 'redriven', closed_at = now()
FROM unnest($2::uuid[], $3::bytea[]) AS l (unique_id, content)
WHERE q.revision_id = $1 AND q.state = 'open' AND q.unique_id = l.unique_id
  AND (q.content IS NULL OR q.content = l.content)
  AND q.reason NOT IN ('no_id', 'bad_id', 'bad_envelope', 'bad_digest', 'bad_rows', 'id_conflict')`

	sumQuarantine = `SELECT coalesce(sum(octet_length(payload)), 0)::bigint FROM tallyman.quarantine WHERE revision_id = $1 AND state = 'open'`

	selectKnown = `SELECT sha256 FROM tallyman.quarantine WHERE revision_id = $1 AND sha256 = ANY ($2::bytea[])`

	insertQuarantine = `
INSERT INTO tallyman.quarantine
       (revision_id, sha256, unique_id, batch_time, source, incarnation, sequence, row_count, content,
        cluster, topic, partition, kafka_offset, kafka_timestamp, reason, detail,
        message_key, headers, payload, payload_size, payload_sha256, payload_whole)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)
ON CONFLICT (revision_id, sha256) DO NOTHING`
)

// lookUpDead finds out which dead messages quarantine has already: a topic that
// is read again brings them all once more.
func (t *transaction) lookUpDead(ctx context.Context) error {
	if len(t.plan.dead) == 0 {
		return nil
	}
	keys := make([][]byte, len(t.plan.dead))
	for i := range t.plan.dead {
		d := &t.plan.dead[i]
		d.key = deadKey(d.Dead)
		keys[i] = d.key[:]
	}
	rows, err := t.conn.Query(ctx, selectKnown, t.group.Revision.ID, keys)
	if err != nil {
		return classify("look up messages in quarantine", inClaim, t.target, err)
	}
	var key []byte
	kept := map[batch.Digest]bool{}
	_, err = pgx.ForEachRow(rows, []any{&key}, func() error {
		kept[batch.Digest(key)] = true
		return nil
	})
	for i := range t.plan.dead {
		t.plan.dead[i].kept = kept[t.plan.dead[i].key]
	}
	return classify("look up messages in quarantine", inClaim, t.target, err)
}

// checkQuarantine refuses, before anything commits, what would make the
// dataset's quarantine larger than it may be.
func (t *transaction) checkQuarantine(ctx context.Context) error {
	limit := t.w.cfg.QuarantineMaxBytes
	if len(t.plan.dead) == 0 || limit == 0 {
		return nil
	}
	var have int64
	if err := t.conn.QueryRow(ctx, sumQuarantine, t.group.Revision.ID).Scan(&have); err != nil {
		return classify("measure quarantine", inFinish, t.target, err)
	}
	more := int64(0)
	for i := range t.plan.dead {
		if d := &t.plan.dead[i]; !d.kept {
			more += int64(len(kept(d.Value)))
		}
	}
	if more > 0 && have+more > limit {
		return &sink.Error{Class: sink.Misconfigured, Reason: sink.QuarantineFull, Err: fmt.Errorf(
			"quarantine of %s holds %d bytes, %d more would exceed its limit of %d: see why batches are refused, or raise loader.quarantine_max_bytes",
			t.group.Revision.Manifest.Dataset, have, more, limit)}
	}
	return nil
}

// queueQuarantine queues what quarantine has to know: batches that load close
// their open rows, dead messages get rows, in the order of the table's key.
func (t *transaction) queueQuarantine(b *pgx.Batch) {
	revision := t.group.Revision.ID
	var returned, loaded []*claim
	for _, c := range t.plan.claims {
		switch {
		case c.discard: // it stays, and its message is closed by who discards it
		case (c.ours || c.newV4) && c.element < 0:
			returned = append(returned, c)
		case c.ours:
			loaded = append(loaded, c)
		}
	}
	if len(returned) > 0 {
		times, unique := ids(returned)
		b.Queue(returnClaims, revision, times, unique)
	}
	if len(loaded) > 0 {
		_, unique := ids(loaded)
		contents := make([][]byte, len(loaded))
		for i, c := range loaded {
			contents[i] = c.content[:]
		}
		b.Queue(closeQuarantine, revision, unique, contents)
	}
	rows := slices.DeleteFunc(slices.Clone(t.plan.dead), func(d deadBatch) bool { return d.kept })
	// Stable: of copies of a message the first one is kept.
	slices.SortStableFunc(rows, func(a, b deadBatch) int { return bytes.Compare(a.key[:], b.key[:]) })
	for _, r := range rows {
		b.Queue(insertQuarantine, r.values(revision)...)
	}
}

// deadKey is the SHA-256 of the headers and the value, each part preceded by
// its length; of the coordinates for a message that has neither.
func deadKey(d *sink.Dead) batch.Digest {
	var buf bytes.Buffer
	part := func(b []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		buf.Write(n[:])
		buf.Write(b)
	}
	for _, h := range d.Headers {
		part([]byte(h.Key))
		part(h.Value)
	}
	if len(d.Headers) == 0 && len(d.Value) == 0 {
		part(fmt.Appendf(nil, "%s/%s/%d/%d", d.Partition.Cluster, d.Partition.Topic, d.Partition.Number, d.Offset))
	}
	h := sha256.New()
	h.Write(buf.Bytes())
	h.Write(d.Value)
	return batch.Digest(h.Sum(nil))
}

// kept returns what is kept of a payload.
func kept(payload []byte) []byte {
	if len(payload) > keepWhole {
		return payload[:keepHead]
	}
	return payload
}

// values is the row of quarantine for a dead message.
func (d deadBatch) values(revision int64) []any {
	var published pgtype.Timestamptz
	if year := d.Timestamp.Year(); !d.Timestamp.IsZero() && year > -4000 && year < 200_000 {
		published = pgtype.Timestamptz{Time: d.Timestamp.Truncate(time.Microsecond), Valid: true}
	}
	headers := make([][]byte, 0, 2*len(d.Headers))
	for _, h := range d.Headers {
		headers = append(headers, []byte(h.Key), h.Value)
	}
	sum := sha256.Sum256(d.Value)
	return append(append([]any{revision, d.key[:]}, d.identity()...),
		d.Partition.Cluster, d.Partition.Topic, d.Partition.Number, d.Offset, published, string(d.Reason), storable(d.Detail),
		d.Key, headers, kept(d.Value), int64(len(d.Value)), sum[:], len(d.Value) <= keepWhole,
	)
}

// identity returns the columns from unique_id to content: the batch as far as
// its envelope could be read.
func (d deadBatch) identity() []any {
	var (
		unique, incarnation pgtype.UUID
		sequence, rows      pgtype.Int8
		at                  pgtype.Timestamptz
		source              pgtype.Text
		content             []byte // nil: not known
	)
	if b := d.Batch; b != nil {
		if b.ID != uuid.Nil {
			unique = pgtype.UUID{Bytes: b.ID, Valid: true}
			at = pgtype.Timestamptz{Time: b.Time, Valid: true}
		}
		stream := b.Incarnation != uuid.Nil
		incarnation = pgtype.UUID{Bytes: b.Incarnation, Valid: stream}
		sequence = pgtype.Int8{Int64: int64(b.Sequence), Valid: stream}
		rows = pgtype.Int8{Int64: int64(b.Rows), Valid: b.Rows > 0}
		source = optional(b.Source)
	}
	if d.content != (batch.Digest{}) {
		content = d.content[:]
	}
	return []any{unique, at, source, incarnation, sequence, rows, content}
}

// storable makes a text of a stranger's bytes that PostgreSQL can keep.
func storable(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// optional makes NULL of an empty text.
func optional(s string) pgtype.Text { return pgtype.Text{String: storable(s), Valid: s != ""} }
