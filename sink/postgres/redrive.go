package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/sink"
)

const (
	// What somebody gave up under another envelope is not loaded by this one.
	closeRedriven = `
UPDATE tallyman.quarantine SET closed_at = now(), closed_by = $3, state = CASE (
    SELECT outcome FROM tallyman.loaded_elements WHERE (revision_id, batch_time, unique_id) = ($1, $4, $5)
) WHEN 'discarded' THEN 'discarded' ELSE 'redriven' END
WHERE (revision_id, sha256) = ($1, $2) AND state = 'open'`

	// Other copies of the same content go with the one that is discarded, if its
	// id is taken in the ledger.
	closeDiscarded = `
UPDATE tallyman.quarantine SET state = 'discarded', closed_at = now(), closed_by = $3, closed_why = $4
WHERE revision_id = $1 AND state = 'open' AND (sha256 = $2 OR unique_id = $5 AND content = $6
  AND reason NOT IN ('no_id', 'bad_id', 'bad_envelope', 'bad_digest', 'bad_rows', 'id_conflict'))`

	// The reason for now, and what this release can read of the envelope.
	refuseAgain = `
UPDATE tallyman.quarantine
SET unique_id = $3, batch_time = $4, source = $5, incarnation = $6, sequence = $7, row_count = $8, content = $9, reason = $10, detail = $11
WHERE (revision_id, sha256) = ($1, $2) AND state = 'open'`
)

// Redrive implements sink.Redriver.
func (q *quarantine) Redrive(ctx context.Context, r sink.Revision, key sink.KeptKey, by string, judge sink.Judge) (sink.RedriveResult, error) {
	k, err := q.read(ctx, key)
	if err != nil {
		return sink.RedriveResult{}, err
	}
	if k.State != sink.Open {
		return sink.RedriveResult{}, &sink.ClosedError{Key: key, State: k.State}
	}
	if detail := k.incomplete(); detail != "" {
		return k.refused(detail), nil
	}
	var named *schema.Manifest
	if ref, err := schema.ParseRef(k.Message.Header("ce_dataschema")); err == nil && ref.Hash != "" {
		if named, err = q.w.Manifest(ctx, r, ref.Hash); err != nil {
			return sink.RedriveResult{}, err
		}
	}
	element, dead := judge(k.Message, named)
	switch {
	case dead != nil:
		return q.refuse(ctx, key, dead)
	case element == nil:
		return k.refused("a message of this type carries no batch: discard it"), nil
	}
	outcome, err := q.submit(ctx, r, key, by, element)
	var again *sink.Error
	var known *refusedError
	switch {
	case err == nil:
		return sink.RedriveResult{Outcome: outcome}, nil
	case errors.As(err, &known):
		return q.refuse(ctx, key, &sink.Dead{Message: element.Message, Batch: element.Batch, Reason: known.reason, Detail: known.detail})
	case errors.As(err, &again) && again.Class == sink.BadData:
		reason := again.Reason
		if reason == "" {
			reason = batch.Rejected
		}
		return q.refuse(ctx, key, &sink.Dead{Message: element.Message, Batch: element.Batch, Reason: reason, Detail: err.Error()})
	case errors.As(err, &again) && again.Reason == reasonLedgerWindow:
		return q.refuse(ctx, key, q.outOfWindow(ctx, element))
	default:
		return sink.RedriveResult{}, err
	}
}

// incomplete says what is missing of a message that can't be tried again, and
// what to do; empty: nothing.
func (k *keptBatch) incomplete() string {
	switch {
	case !k.Whole && k.Source != "":
		return fmt.Sprintf("of its %d bytes only the first %d are kept: publish it again from its source, %s", k.Size, len(k.Message.Value), k.Source)
	case !k.Whole:
		return fmt.Sprintf("of its %d bytes only the first %d are kept: publish it again from its source", k.Size, len(k.Message.Value))
	case k.Size == 0 && len(k.Message.Headers) == 0 && (k.Reason == batch.Unreadable || k.Reason == batch.TooLarge):
		return "nothing but its coordinates could be read: publish it again from its source, and discard this"
	}
	return ""
}

// refused is the result where the reason stays what it was.
func (k *keptBatch) refused(detail string) sink.RedriveResult {
	return sink.RedriveResult{Refusal: &batch.Refusal{Reason: k.Reason, Detail: detail}}
}

// refusedError says why an id can't load, by what is known of it.
type refusedError struct {
	reason batch.Reason
	detail string
}

func (e *refusedError) Error() string { return e.detail }

// submit commits one element as a group that moves no position. Its message in
// quarantine is closed last; if somebody gave it up meanwhile, nothing loads.
func (q *quarantine) submit(ctx context.Context, r sink.Revision, key sink.KeptKey, by string, e *sink.Element) (sink.Outcome, error) {
	g := &sink.Group{Revision: r, Elements: []sink.Element{*e}}
	t := &transaction{w: q.w, group: g, target: targetOf(r.Physical, manifests(g)...), plan: newPlan(g)}
	outcome := sink.Loaded
	g.Admit = func(res sink.Result) error {
		outcome = res.Outcomes[0]
		if reason := outcome.Refused(); reason != "" {
			return &refusedError{reason, t.plan.dead[len(t.plan.dead)-1].Detail}
		}
		return nil
	}
	t.settle = func(ctx context.Context) error {
		tag, err := t.conn.Exec(ctx, closeRedriven, key.Revision, key.SHA256[:], optional(by), e.Batch.Time, e.Batch.ID.String())
		if err == nil && outcome == sink.Loaded && tag.RowsAffected() == 0 {
			return &sink.ClosedError{Key: key, State: sink.Discarded}
		}
		return classify("close the message in quarantine", inFinish, t.target, err)
	}
	err := q.run(ctx, t)
	return outcome, err
}

// run runs a transaction on a connection of the pool.
func (q *quarantine) run(ctx context.Context, t *transaction) error {
	conn, err := q.w.pool.Acquire(ctx)
	if err != nil {
		return q.w.class("connect", err)
	}
	c := committer{conn: conn.Conn()}
	defer conn.Release() // which closes it, if something is still open
	t.conn = c.conn
	if _, err = t.run(ctx, &q.blocked); err != nil {
		c.abandon(ctx)
	}
	return err
}

// refuse keeps why a message still can't be loaded.
func (q *quarantine) refuse(ctx context.Context, key sink.KeptKey, d *sink.Dead) (sink.RedriveResult, error) {
	result := sink.RedriveResult{Refusal: &batch.Refusal{Reason: d.Reason, Detail: d.Detail, Batch: d.Batch}}
	row := deadBatch{Dead: d}
	if d.Batch != nil && len(d.Batch.Value) > 0 {
		row.content = d.Batch.Content()
	}
	args := append([]any{key.Revision, key.SHA256[:]}, row.identity()...)
	_, err := q.w.pool.Exec(ctx, refuseAgain, append(args, string(d.Reason), storable(d.Detail))...)
	return result, q.w.class("keep the reason", err)
}

// outOfWindow refuses an element whose time has no place in the ledger.
func (q *quarantine) outOfWindow(ctx context.Context, e *sink.Element) *sink.Dead {
	d := &sink.Dead{Message: e.Message, Batch: e.Batch, Reason: batch.Expired,
		Detail: fmt.Sprintf("batch time %s is before what the ledger takes", e.Batch.Time)}
	if w, err := q.w.Window(ctx); err == nil && !e.Batch.Time.Before(w.End) {
		d.Reason, d.Detail = batch.FromTheFuture, fmt.Sprintf("batch time %s is after the ledger's end, %s", e.Batch.Time, w.End)
	}
	return d
}

// Discard implements sink.Quarantine.
func (q *quarantine) Discard(ctx context.Context, key sink.KeptKey, d sink.Discard) (sink.DiscardResult, error) {
	k, err := q.read(ctx, key)
	if err != nil {
		return sink.DiscardResult{}, err
	}
	if k.State != sink.Open {
		return sink.DiscardResult{}, &sink.ClosedError{Key: key, State: k.State}
	}
	g := &sink.Group{Revision: sink.Revision{ID: key.Revision}}
	t := &transaction{w: q.w, group: g, target: targetOf(schema.Table{}), plan: newPlan(g)}
	if k.claimable() {
		t.plan.add(&claim{content: k.content, size: k.Size, element: -1, discard: true, batch: &batch.Batch{
			ID: k.ID, Time: k.time, Incarnation: k.Incarnation, Sequence: k.Sequence, Rows: int(k.Rows)}})
	}
	var result sink.DiscardResult
	t.settle = func(ctx context.Context) error {
		// The claim is gone if its time has no place in the ledger.
		c := t.plan.byID[k.ID]
		var id, content any
		if result.Refused = c != nil && c.known == k.content && c.at.Equal(k.time); result.Refused {
			id, content = k.ID.String(), k.content[:]
		}
		tag, err := t.conn.Exec(ctx, closeDiscarded, key.Revision, key.SHA256[:], optional(d.By), optional(d.Why), id, content)
		if err == nil && tag.RowsAffected() == 0 {
			return &sink.ClosedError{Key: key, State: sink.Redriven}
		}
		return classify("close the message in quarantine", inFinish, t.target, err)
	}
	err = q.run(ctx, t)
	return result, err
}

// claimable says that the message's identity is to be believed and that its id
// may be taken in the ledger, unless it has no place there.
func (k *keptBatch) claimable() bool {
	switch k.Reason {
	case batch.NoID, batch.BadID, batch.BadEnvelope, batch.BadDigest, batch.BadRows, batch.Unreadable, batch.IDConflict:
		return false
	default:
		return k.ID != uuid.Nil && k.content != (batch.Digest{})
	}
}
