package postgres

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"tallyman/schema/batch"
	"tallyman/sink"
)

// number is a batch's place in a stream; zero: it has none.
type number struct {
	stream   uuid.UUID
	sequence uint64
}

func numberOf(b *batch.Batch) number { return number{stream: b.Incarnation, sequence: b.Sequence} }

func (n number) compare(m number) int {
	return cmp.Or(bytes.Compare(n.stream[:], m.stream[:]), cmp.Compare(n.sequence, m.sequence))
}

// satisfy notes a copy's own number if the ledger has the batch under another one:
// nothing else will ever account for it.
func (p *plan) satisfy(b *batch.Batch, c *claim) {
	if n := numberOf(b); n.sequence > 0 && n != c.as {
		p.extra = append(p.extra, n)
	}
}

const (
	insertSatisfied = `
INSERT INTO tallyman.satisfied AS s (revision_id, incarnation, first, last, reason)
SELECT $1, incarnation, first, last, 'duplicate'
FROM unnest($2::uuid[], $3::bigint[], $4::bigint[]) AS k (incarnation, first, last)
ORDER BY incarnation, first
ON CONFLICT (revision_id, incarnation, first, reason) DO UPDATE SET last = EXCLUDED.last WHERE s.last < EXCLUDED.last`

	announce = `SELECT number, refusal FROM tallyman.announce($1, $2::uuid[], $3::text[], $4::bigint[], $5::timestamptz[], $6::boolean[])`
)

// queueSatisfied queues the numbers of duplicates, neighbours as one range.
func (t *transaction) queueSatisfied(b *pgx.Batch) {
	slices.SortFunc(t.plan.extra, number.compare)
	var (
		streams     []pgtype.UUID
		first, last []int64
		before      number
	)
	for _, n := range t.plan.extra {
		switch i := len(last) - 1; {
		case n == before:
		case i >= 0 && n == number{stream: before.stream, sequence: before.sequence + 1}:
			last[i]++
		default:
			streams = append(streams, pgtype.UUID{Bytes: n.stream, Valid: true})
			first, last = append(first, int64(n.sequence)), append(last, int64(n.sequence))
		}
		before = n
	}
	if len(streams) > 0 {
		b.Queue(insertSatisfied, t.group.Revision.ID, streams, first, last)
	}
}

// queueAnnouncements queues what sources announced. The warehouse's function
// goes through it in key order.
func (t *transaction) queueAnnouncements(b *pgx.Batch) {
	if len(t.group.Announcements) == 0 {
		return
	}
	var (
		streams   []pgtype.UUID
		sources   []string
		sequences []int64
		times     []time.Time
		finals    []bool
	)
	for _, a := range t.group.Announcements {
		streams, sources = append(streams, pgtype.UUID{Bytes: a.Incarnation, Valid: true}), append(sources, a.Source)
		sequences, times, finals = append(sequences, int64(a.Sequence)), append(times, a.At), append(finals, a.Final)
	}
	b.Queue(announce, t.group.Revision.ID, streams, sources, sequences, times, finals).Query(func(rows pgx.Rows) error {
		var (
			i   int
			why string
		)
		_, err := pgx.ForEachRow(rows, []any{&i, &why}, func() error {
			t.refused = append(t.refused, sink.RefusedAnnouncement{Index: i - 1, Why: sink.AnnouncementFault(why)})
			return nil
		})
		return err
	})
}
