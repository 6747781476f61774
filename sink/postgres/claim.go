package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"tallyman/schema/batch"
	"tallyman/sink"
)

// claim is an id that the transaction asks the ledger for.
type claim struct {
	batch   *batch.Batch
	content batch.Digest
	size    int64        // bytes of the batch's value
	element int          // index of the element that the claim is for; -1: of a dead message
	discard bool         // the claim stays, without rows: somebody gave the batch up
	newV4   bool         // the id is of version 4, and its time was not known before
	ours    bool         // the ledger took it
	known   batch.Digest // of the content that the id stands for, once that is known
	as      number       // under which the ledger has the id, once that is known
	at      time.Time    // that the id stands for: the batch's, unless a v4 id came with another one before
	expired bool         // the ledger takes no id of that time any more
	counted bool         // of these: its number is accounted for, so it was loaded
}

// v4 says that the id has no time of its own.
func (c *claim) v4() bool { return c.batch.ID.Version() == 4 }

// plan is what a group asks for, before anything is asked.
type plan struct {
	group  *sink.Group
	claims []*claim // in the order of the ledger's key
	byID   map[uuid.UUID]*claim
	bytes  int64       // of all tuples
	loads  []int       // indexes of the elements that load, once that is known
	dead   []deadBatch // what goes to quarantine: the group's, and conflicts
	extra  []number    // of batches that the ledger has under other numbers
}

// deadBatch is a dead message with the digest of its content, which is made
// once: it may be large.
type deadBatch struct {
	*sink.Dead
	content batch.Digest // zero: not known
	key     batch.Digest // of its row, once it is known that it goes to quarantine
	kept    bool         // quarantine has the row already
}

// newPlan decides which copy of an id in the group is the one to load: the
// first, by the order in which the elements come.
func newPlan(g *sink.Group) *plan {
	p := &plan{group: g, byID: make(map[uuid.UUID]*claim, len(g.Elements)), dead: make([]deadBatch, len(g.Dead))}
	for i := range g.Elements {
		e := &g.Elements[i]
		p.bytes += int64(len(e.Tuples))
		if p.byID[e.Batch.ID] == nil {
			p.add(&claim{batch: e.Batch, content: e.Content, size: int64(len(e.Batch.Value)), element: i})
		}
	}
	for i := range g.Dead {
		d := &g.Dead[i]
		p.dead[i].Dead = d
		if d.Batch != nil && len(d.Batch.Value) > 0 {
			p.dead[i].content = d.Batch.Content()
		}
		if believable(d) && p.byID[d.Batch.ID] == nil {
			p.add(&claim{batch: d.Batch, content: p.dead[i].content, size: int64(len(d.Batch.Value)), element: -1})
		}
	}
	slices.SortFunc(p.claims, func(a, b *claim) int {
		if c := a.batch.Time.Compare(b.batch.Time); c != 0 {
			return c
		}
		return bytes.Compare(a.batch.ID[:], b.batch.ID[:])
	})
	return p
}

func (p *plan) add(c *claim) {
	c.at = c.batch.Time
	p.byID[c.batch.ID] = c
	p.claims = append(p.claims, c)
}

// v4Claims returns the claims of v4 ids among some.
func v4Claims(claims []*claim) []*claim {
	return slices.DeleteFunc(slices.Clone(claims), func(c *claim) bool { return !c.v4() })
}

// believable says that a dead message is the batch that it claims to be, so
// that a good copy of it must not load at the same moment. Its time may have no
// place in the ledger, which then has nothing to cross it with.
func believable(d *sink.Dead) bool {
	switch d.Reason {
	case batch.NoID, batch.BadID, batch.BadEnvelope, batch.BadDigest, batch.BadRows,
		batch.TooLarge, batch.Unreadable, batch.FromTheFuture, batch.Expired:
		return false
	default:
		return d.Batch != nil && d.Batch.ID != uuid.Nil
	}
}

// placeDead gives up the claims of dead messages whose times have no place in
// the ledger. There a good copy can't load either, so there is nothing to keep
// apart, while the claim would fail and hold up everything behind the message.
func (t *transaction) placeDead(ctx context.Context) error {
	if !slices.ContainsFunc(t.plan.claims, func(c *claim) bool { return c.element < 0 }) {
		return nil
	}
	ledger, err := readExtent(ctx, t.conn)
	if err != nil {
		return classify("read the ledger's partitions", inClaim, t.target, err)
	}
	t.plan.claims = slices.DeleteFunc(t.plan.claims, func(c *claim) bool {
		at := c.batch.Time
		lost := c.element < 0 && !ledger.takes(at)
		if lost {
			delete(t.plan.byID, c.batch.ID)
		}
		return lost
	})
	return nil
}

const (
	insertV4IDs = `
INSERT INTO tallyman.v4_ids (revision_id, unique_id, batch_time)
SELECT $1, unique_id, batch_time
FROM unnest($2::timestamptz[], $3::uuid[]) AS k (batch_time, unique_id)
WHERE batch_time >= (SELECT horizon FROM tallyman.ledger_window)
ORDER BY unique_id
ON CONFLICT (revision_id, unique_id) DO NOTHING
RETURNING unique_id`

	// No conflict target: the ledger has one key, and this is the statement that
	// must go on to run, and to double rows, when a test has dropped it. A v4 id is
	// asked for only with the time that it first came with, and none of a time
	// before the horizon, but for the constant one of ids derived from content.
	insertClaims = `
INSERT INTO tallyman.loaded_elements
       (revision_id, batch_time, unique_id, outcome, incarnation, sequence, row_count, byte_count, digest, seal)
SELECT $1, batch_time, unique_id, outcome, incarnation, sequence, row_count, byte_count, digest, seal
FROM unnest($2::timestamptz[], $3::uuid[], $4::boolean[], $5::uuid[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bytea[], $10::text[], $11::bigint[])
  AS k (batch_time, unique_id, v4, incarnation, sequence, row_count, byte_count, digest, outcome, seal)
WHERE (NOT v4 OR batch_time = (
    SELECT v.batch_time FROM tallyman.v4_ids v WHERE (v.revision_id, v.unique_id) = ($1, k.unique_id)))
  AND (batch_time >= (SELECT horizon FROM tallyman.ledger_window) OR batch_time = '0001-01-01T00:00:00Z')
ORDER BY batch_time, unique_id
ON CONFLICT DO NOTHING
RETURNING unique_id`
)

// ids returns the parts of the ledger's key of some claims, as arrays.
func ids(claims []*claim) (times []time.Time, unique []pgtype.UUID) {
	for _, c := range claims {
		times = append(times, c.at)
		unique = append(unique, pgtype.UUID{Bytes: c.batch.ID, Valid: true})
	}
	return times, unique
}

// queueClaims asks for all ids in one statement, in key order. An id that an
// open transaction holds is waited for. The times of v4 ids are settled first,
// in a statement of their own, so that the next one sees them all.
func (p *plan) queueClaims(b *pgx.Batch, revision int64) {
	if v4 := v4Claims(p.claims); len(v4) > 0 {
		times, unique := ids(v4)
		b.Queue(insertV4IDs, revision, times, unique).Query(p.each(func(c *claim) { c.newV4 = true }))
	}
	var (
		v4           []bool
		incarnations []pgtype.UUID
		sequences    []pgtype.Int8
		outcomes     []string
		rows, sizes  []int64
		digests      [][]byte
		seals        []pgtype.Int8
	)
	times, unique := ids(p.claims)
	for _, c := range p.claims {
		stream := c.batch.Incarnation != uuid.Nil
		v4 = append(v4, c.v4())
		incarnations = append(incarnations, pgtype.UUID{Bytes: c.batch.Incarnation, Valid: stream})
		sequences = append(sequences, pgtype.Int8{Int64: int64(c.batch.Sequence), Valid: stream})
		rows, sizes = append(rows, int64(c.batch.Rows)), append(sizes, c.size)
		digests, seals = append(digests, c.content[:]), append(seals, sealOf(c.batch))
		outcome := "loaded"
		if c.discard {
			outcome = "discarded"
		}
		outcomes = append(outcomes, outcome)
	}
	b.Queue(insertClaims, revision, times, unique, v4, incarnations, sequences, rows, sizes, digests, outcomes, seals).
		Query(p.each(func(c *claim) { c.ours, c.known, c.as = true, c.content, numberOf(c.batch) }))
}

// sealOf returns what the ledger keeps of the digest that came with a batch.
func sealOf(b *batch.Batch) pgtype.Int8 {
	return pgtype.Int8{Int64: int64(binary.BigEndian.Uint64(b.Digest[:8])), Valid: b.Digest != batch.Digest{}}
}

// each returns a reader of ids that does something to the claim of each.
func (p *plan) each(do func(*claim)) func(pgx.Rows) error {
	return func(rows pgx.Rows) error {
		var id pgtype.UUID
		_, err := pgx.ForEachRow(rows, []any{&id}, func() error {
			do(p.byID[id.Bytes])
			return nil
		})
		return err
	}
}

// resolve finds out what the ids stand for that the ledger had already, and
// with that what becomes of every element.
func (t *transaction) resolve(ctx context.Context) (sink.Result, error) {
	var had []*claim
	for _, c := range t.plan.claims {
		if !c.ours {
			had = append(had, c)
		}
	}
	if len(had) > 0 {
		if err := t.lookUp(ctx, had); err != nil {
			return sink.Result{}, err
		}
	}
	res := t.plan.outcomes()
	for _, outcome := range res.Outcomes {
		if outcome.Refused() != "" {
			res.Known++
		}
	}
	res.Known += len(t.group.Dead)
	if err := t.lookUpDead(ctx); err != nil {
		return sink.Result{}, err
	}
	for _, d := range t.plan.dead {
		if !d.kept {
			res.Known--
		}
	}
	return res, nil
}

// outcomes decides about every element, and drops dead messages whose very
// content is loaded, by this transaction or by an earlier one.
func (p *plan) outcomes() sink.Result {
	res := sink.Result{Outcomes: make([]sink.Outcome, len(p.group.Elements))}
	for i := range p.group.Elements {
		e := &p.group.Elements[i]
		c := p.byID[e.Batch.ID]
		switch {
		case c.ours && c.element == i:
			res.Outcomes[i] = sink.Loaded
			p.loads = append(p.loads, i)
		case !e.Batch.Time.Equal(c.at):
			res.Outcomes[i] = sink.Conflict
			p.refuse(e, batch.IDConflict, fmt.Sprintf("id %s stands for the batch time %s, this copy has %s",
				e.Batch.ID, c.at.Format(time.RFC3339Nano), e.Batch.Time.Format(time.RFC3339Nano)))
		case c.expired && c.counted && numberOf(e.Batch) == numberOf(c.batch):
			res.Outcomes[i] = sink.Duplicate // its row is forgotten, its number is not
		case c.expired:
			res.Outcomes[i] = sink.Expired
			p.refuse(e, batch.Expired, fmt.Sprintf("batch time %s is before the ledger's horizon, and it is not known whether it was loaded",
				e.Batch.Time.Format(time.RFC3339Nano)))
		case e.Content == c.known:
			res.Outcomes[i] = sink.Duplicate
			p.satisfy(e.Batch, c)
		default:
			res.Outcomes[i] = sink.Conflict
			p.refuse(e, batch.IDConflict, fmt.Sprintf("id %s stands for the content %s, this copy has %s", e.Batch.ID, c.known, e.Content))
		}
	}
	p.dead = slices.DeleteFunc(p.dead, func(d deadBatch) bool {
		if !believable(d.Dead) || d.Reason == batch.IDConflict {
			return false
		}
		c := p.byID[d.Batch.ID]
		known := c != nil && (c.element >= 0 || !c.ours) && c.known == d.content
		if known && d.Reason != batch.WrongDataset {
			p.satisfy(d.Batch, c)
		}
		return known
	})
	return res
}

// refuse sends an element to quarantine for what is known of its id.
func (p *plan) refuse(e *sink.Element, reason batch.Reason, detail string) {
	p.dead = append(p.dead, deadBatch{content: e.Content, Dead: &sink.Dead{
		Message: e.Message, Batch: e.Batch, Reason: reason, Detail: detail}})
}
