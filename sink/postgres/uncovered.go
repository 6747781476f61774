package postgres

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"tallyman/sink"
)

// UncoveredError says that a revision lacks batches that the active one has.
type UncoveredError struct {
	Revision, Active int64
	Uncovered        Uncovered

	passing bool // it was seen while the revision went on, so it may be there by now
}

// Error says how many, and which.
func (e *UncoveredError) Error() string {
	return fmt.Sprintf("revision %d does not cover the active one, %d: it lacks %s", e.Revision, e.Active, e.Uncovered.String())
}

// class gives the refusal its class.
func (e *UncoveredError) class() error {
	return &sink.Error{Class: sink.Misconfigured, Reason: reasonRevision, Err: e}
}

// Uncovered are the batches that one revision has and another has not.
type Uncovered struct {
	Batches int64     `json:"batches"`
	Rows    int64     `json:"rows"`
	Oldest  time.Time `json:"oldest"` // batch time
	Newest  time.Time `json:"newest"`
	// Forgotten are rows of batches that the ledger has forgotten with their months:
	// no topic brings them again.
	Forgotten int64 `json:"forgotten_rows"`
	// Streams are the ranges of numbers, of the first batches.
	Streams []UncoveredRange `json:"streams"`

	batches []uncoveredBatch // the first of them
}

// UncoveredRange is a range of a stream's batches. What sources do not number has
// no stream.
type UncoveredRange struct {
	Source      string    `json:"source"`
	Incarnation uuid.UUID `json:"incarnation"`
	First       uint64    `json:"first"`
	Last        uint64    `json:"last"`
}

// uncoveredBatch is one of them.
type uncoveredBatch struct {
	at          time.Time
	id          uuid.UUID
	source      string
	incarnation uuid.UUID
	sequence    uint64
	rows        int64
}

// String says how many they are, and names the first ranges.
func (u *Uncovered) String() string {
	var all []string
	if u.Batches > 0 {
		all = append(all, fmt.Sprintf("%d batches, %d rows, of the time from %s to %s", u.Batches, u.Rows, u.Oldest.Format(time.DateTime), u.Newest.Format(time.DateTime)))
	}
	if u.Forgotten > 0 {
		all = append(all, fmt.Sprintf("%d rows of batches that the ledger has forgotten", u.Forgotten))
	}
	const most = 5
	for i, r := range u.Streams {
		switch {
		case i == most:
			all = append(all, "and more")
		case i > most:
		case r.Incarnation == uuid.Nil:
			all = append(all, "some without numbers")
		default:
			all = append(all, fmt.Sprintf("batches %d to %d of source %q, stream %s", r.First, r.Last, r.Source, r.Incarnation))
		}
	}
	return strings.Join(all, ", ")
}

const (
	// The first ones are told one by one. A v4 id may have come with another time to
	// the other revision: with the same content it is the same batch. With OFFSET 0 the planner does not make a
	// join of it, but has a look into the index for each.
	listUncovered = `
WITH lacking AS MATERIALIZED (
    SELECT o.batch_time, o.unique_id, o.incarnation, o.sequence, o.row_count, o.digest
    FROM tallyman.loaded_elements o
    WHERE o.revision_id = $1 AND o.loaded_at >= $3
      AND NOT EXISTS (SELECT FROM tallyman.loaded_elements n WHERE (n.revision_id, n.batch_time, n.unique_id) = ($2, o.batch_time, o.unique_id) %s)
)
SELECT o.batch_time, o.unique_id, coalesce(s.source, ''), o.incarnation, o.sequence, o.row_count,
       count(*) OVER (), (sum(o.row_count) OVER ())::bigint, max(o.batch_time) OVER ()
FROM lacking o
LEFT JOIN tallyman.streams s ON (s.revision_id, s.incarnation) = ($1, o.incarnation)
WHERE NOT EXISTS (SELECT FROM tallyman.v4_ids v JOIN tallyman.loaded_elements n USING (revision_id, unique_id, batch_time)
                  WHERE (v.revision_id, v.unique_id) = ($2, o.unique_id) AND n.digest = o.digest %[1]s)
ORDER BY o.batch_time, o.unique_id
LIMIT 10000`

	filterUncovered = `
SELECT k.number
FROM unnest($2::timestamptz[], $3::uuid[]) WITH ORDINALITY AS k (batch_time, unique_id, number)
WHERE NOT EXISTS (SELECT FROM tallyman.loaded_elements n WHERE (n.revision_id, n.batch_time, n.unique_id) = ($1, k.batch_time, k.unique_id))
ORDER BY k.number`
)

// sumBehind leaves out the positions that a cluster, a topic or a partition has left
// behind that is gone. The other revision's loaders are given all that there are
// at once, but for those that are only about to begin.
const sumBehind = `
SELECT coalesce(sum(greatest(o.next_offset - coalesce(n.next_offset, 0), 0)), 0)::bigint
FROM tallyman.positions o
LEFT JOIN tallyman.positions n ON (n.revision_id, n.cluster, n.topic, n.partition) = ($2, o.cluster, o.topic, o.partition)
WHERE o.revision_id = $1 AND (n.next_offset IS NOT NULL
   OR NOT EXISTS (SELECT FROM tallyman.positions a WHERE a.revision_id = $2)
   OR (SELECT r.created_at > now() - interval '1 minute' FROM tallyman.revisions r WHERE r.revision_id = $2))`

// Behind returns how many messages of the topic revision of has read and revision
// by has not, for people and for who waits until the topic is read.
func (w *Warehouse) Behind(ctx context.Context, of, by int64) (n int64, err error) {
	err = w.pool.QueryRow(ctx, sumBehind, of, by).Scan(&n)
	return n, w.class("compare positions", err)
}

// Uncovered returns what revision of has and revision by has not.
func (w *Warehouse) Uncovered(ctx context.Context, of, by int64) (Uncovered, error) {
	conn, err := pgx.ConnectConfig(ctx, w.patient()) // it goes through the ledger of both
	if err != nil {
		return Uncovered{}, w.class("connect", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	u, err := uncovered(ctx, conn, of, by, time.Time{})
	if err == nil {
		u.Forgotten, err = w.countForgotten(ctx, conn, of, by)
	}
	return u, w.class("compare revisions", err)
}

// uncovered looks at what was loaded since a time, or if that is zero, at everything.
func uncovered(ctx context.Context, q queryer, of, by int64, since time.Time) (Uncovered, error) {
	each := "OFFSET 0"
	if since.IsZero() {
		each = ""
	}
	rows, err := q.Query(ctx, fmt.Sprintf(listUncovered, each), of, by, boundary(since, pgtype.NegativeInfinity))
	if err != nil {
		return Uncovered{}, err
	}
	var (
		u               Uncovered
		b               uncoveredBatch
		id, incarnation pgtype.UUID
		sequence        pgtype.Int8
	)
	_, err = pgx.ForEachRow(rows, []any{&b.at, &id, &b.source, &incarnation, &sequence, &b.rows, &u.Batches, &u.Rows, &u.Newest}, func() error {
		b.id, b.incarnation, b.sequence = id.Bytes, incarnation.Bytes, uint64(sequence.Int64)
		u.batches = append(u.batches, b)
		return nil
	})
	u.Newest = u.Newest.UTC()
	u.summarise()
	return u, err
}

// summarise finds the ranges of the batches at hand.
func (u *Uncovered) summarise() {
	u.Streams = []UncoveredRange{}
	if len(u.batches) == 0 {
		return
	}
	u.Oldest = u.batches[0].at.UTC()
	numbered := slices.Clone(u.batches)
	slices.SortFunc(numbered, func(a, b uncoveredBatch) int {
		return cmp.Or(bytes.Compare(a.incarnation[:], b.incarnation[:]), cmp.Compare(a.sequence, b.sequence))
	})
	for _, b := range numbered {
		if n := len(u.Streams); n > 0 && u.Streams[n-1].Incarnation == b.incarnation && b.sequence <= u.Streams[n-1].Last+1 {
			u.Streams[n-1].Last = b.sequence
			continue
		}
		u.Streams = append(u.Streams, UncoveredRange{Source: b.source, Incarnation: b.incarnation, First: b.sequence, Last: b.sequence})
	}
}

// stillUncovered returns which of the batches a revision still lacks.
func stillUncovered(ctx context.Context, q queryer, by int64, u Uncovered) (Uncovered, error) {
	times, ids := make([]time.Time, len(u.batches)), make([]pgtype.UUID, len(u.batches))
	for i, b := range u.batches {
		times[i], ids[i] = b.at, pgtype.UUID{Bytes: b.id, Valid: true}
	}
	rows, err := q.Query(ctx, filterUncovered, by, times, ids)
	if err != nil {
		return u, err
	}
	var left Uncovered
	var number int
	_, err = pgx.ForEachRow(rows, []any{&number}, func() error {
		b := u.batches[number-1]
		left.batches = append(left.batches, b)
		left.Batches++
		left.Rows += b.rows
		left.Newest = b.at.UTC()
		return nil
	})
	left.summarise()
	return left, err
}
