package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/schema/ddl"
	"tallyman/sink"
)

// The ways in which a request about a revision is refused. Nothing is changed then.
var (
	// ErrNoRevision: there is no such revision, or no such dataset.
	ErrNoRevision = errors.New("there is no such revision")
	// ErrWrongRevision: the revision is not one for which that can be done now.
	ErrWrongRevision = errors.New("not with this revision")
)

const reasonRevision batch.Reason = "revision_refused"

// noRevision and wrongRevision say which of the two, and why.
func noRevision(format string, args ...any) error {
	return &sink.Error{Class: sink.Misconfigured, Reason: reasonRevision, Err: &revisionError{ErrNoRevision, fmt.Sprintf(format, args...)}}
}

func wrongRevision(format string, args ...any) error {
	return &sink.Error{Class: sink.Misconfigured, Reason: reasonRevision, Err: &revisionError{ErrWrongRevision, fmt.Sprintf(format, args...)}}
}

// revisionError is a refusal with its own words.
type revisionError struct {
	kind error
	text string
}

func (e *revisionError) Error() string { return e.text }
func (e *revisionError) Unwrap() error { return e.kind }

// RevisionInfo is a revision as people list it.
type RevisionInfo struct {
	ID        int64      `json:"revision_id"`
	Dataset   string     `json:"dataset"`
	State     sink.State `json:"state"`
	Table     string     `json:"table"`
	Hash      string     `json:"manifest_hash"` // of the manifest that it was made from
	CreatedAt time.Time  `json:"created_at"`
	Jobs      int64      `json:"active_jobs"` // about it
}

// activeJobs are the statuses of jobs that have not ended, as SQL.
const activeJobs = `('scheduled', 'running', 'stop_requested', 'stopping', 'error')`

const listRevisions = `
SELECT r.revision_id, r.dataset, r.state, format('%I.%I', r.physical_schema, r.physical_table), r.manifest_hash, r.created_at,
       (SELECT count(*) FROM tallyman.jobs j JOIN tallyman.job_status s USING (job_id) WHERE j.revision_id = r.revision_id AND s.status IN ` + activeJobs + `)
FROM tallyman.revisions r
WHERE $1 = '' OR r.dataset = $1
ORDER BY r.dataset, r.revision_id`

// Revisions returns all revisions of a dataset, or of all, those that were dropped too.
func (w *Warehouse) Revisions(ctx context.Context, dataset string) ([]RevisionInfo, error) {
	rows, err := w.pool.Query(ctx, listRevisions, dataset)
	if err != nil {
		return nil, w.class("list revisions", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[RevisionInfo])
	return all, w.class("list revisions", err)
}

// NewRevision says which revision to make.
type NewRevision struct {
	Dataset schema.Dataset
	// Table is the name of its table, in the schema of the dataset's. Defaults to the
	// dataset's with the revision's number.
	Table string
}

// CreateRevision makes a further revision of a dataset: an empty table like that
// of the active one, for a load to fill. Readers see it once it is activated.
func (w *Warehouse) CreateRevision(ctx context.Context, n NewRevision) (sink.Revision, error) {
	var r sink.Revision
	err := pgx.BeginTxFunc(ctx, w.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) (err error) {
		r, err = w.MakeRevision(ctx, tx, n)
		return err
	})
	return r, w.class("create a revision of "+n.Dataset.String(), err)
}

const (
	// What is made belongs to the owner of the schema, where there are roles.
	becomeOwnerHere = `
SELECT set_config('role', 'tallyman_owner', true)
FROM pg_catalog.pg_namespace
WHERE nspname = 'tallyman' AND nspowner = to_regrole('tallyman_owner') AND pg_has_role(nspowner, 'MEMBER')`

	insertBuilding = `
INSERT INTO tallyman.revisions (dataset, manifest_hash, physical_schema, physical_table, state)
VALUES ($1, $2, $3, $4, 'building') RETURNING revision_id`
)

// longestName is how many bytes PostgreSQL keeps of a name.
const longestName = 63

// MakeRevision is CreateRevision within somebody else's transaction.
func (w *Warehouse) MakeRevision(ctx context.Context, tx pgx.Tx, n NewRevision) (sink.Revision, error) {
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(initLock)); err != nil {
		return sink.Revision{}, err
	}
	var was string
	if err := tx.QueryRow(ctx, "SELECT current_setting('role')").Scan(&was); err != nil {
		return sink.Revision{}, err
	}
	if _, err := tx.Exec(ctx, becomeOwnerHere); err != nil {
		return sink.Revision{}, err
	}
	active, served, err := activeOf(ctx, tx, n.Dataset)
	if err != nil {
		return sink.Revision{}, err
	}
	made, err := makeTable(ctx, tx, n, active, served)
	if err != nil {
		return sink.Revision{}, err
	}
	if err := carryOver(ctx, tx, active.ID, made.ID); err != nil {
		return sink.Revision{}, err
	}
	_, err = tx.Exec(ctx, "SELECT set_config('role', $1, true)", was)
	return made, err
}

// activeOf returns the active revision of a dataset and the manifests that its
// table takes rows by.
func activeOf(ctx context.Context, tx pgx.Tx, d schema.Dataset) (sink.Revision, []AppliedManifest, error) {
	rows, err := tx.Query(ctx, selectDataset, d.String())
	if err != nil {
		return sink.Revision{}, nil, err
	}
	have, err := pgx.CollectExactlyOneRow(rows, scanDataset)
	if errors.Is(err, pgx.ErrNoRows) {
		return sink.Revision{}, nil, noRevision("the warehouse has no dataset %s: make it with tallyman dataset apply MANIFEST", d)
	}
	if err != nil {
		return sink.Revision{}, nil, err
	}
	all, err := readManifests(ctx, tx, d.String())
	return have.Revision, servedBy(have.Revision, all[d.String()]), err
}

// makeTable makes the table of a further revision and its entry.
func makeTable(ctx context.Context, tx pgx.Tx, n NewRevision, active sink.Revision, served []AppliedManifest) (sink.Revision, error) {
	m := active.Manifest
	if m.Existing {
		return sink.Revision{}, wrongRevision("the table %s was there before its dataset, which has no view over it that could be put over another: it has one revision", ddl.PostgresName(m.Table))
	}
	made := sink.Revision{Manifest: m, State: sink.Building}
	var parts []ddl.Part
	for number := 2; ; number++ {
		made.Physical = ddl.Physical(m, number)
		if n.Table != "" {
			made.Physical.Name = n.Table
		}
		var err error
		if parts, err = partsLike(ctx, tx, active, made.Physical); err != nil {
			return made, err
		}
		taken, err := isTaken(ctx, tx, m, made.Physical, parts)
		if err != nil {
			return made, err
		}
		if taken == "" {
			break
		}
		if n.Table != "" {
			return made, wrongRevision("there is %s already: name another table", taken)
		}
	}
	statements, err := ddl.PostgresTable(m, made.Physical)
	if err == nil && m.Partition != nil {
		statements = append(statements, ddl.PostgresParts(m, made.Physical, parts)...)
	}
	if added := allAdded(m, served); err == nil && len(added) > 0 {
		var add string
		add, err = ddl.PostgresAddColumns(made.Physical, added)
		statements = append(statements, add)
	}
	if err != nil {
		return made, refused(m, "%w", err)
	}
	for _, statement := range statements {
		if _, err := tx.Exec(ctx, statement); err != nil {
			return made, err
		}
	}
	if err := grantDataset(ctx, tx, m, made.Physical); err != nil {
		return made, err
	}
	err = tx.QueryRow(ctx, insertBuilding, m.Dataset.String(), m.Hash(), made.Physical.Schema, made.Physical.Name).Scan(&made.ID)
	return made, err
}

// isTaken says what has the name of a table, or of one of its partitions, already.
func isTaken(ctx context.Context, tx pgx.Tx, m schema.Manifest, physical schema.Table, parts []ddl.Part) (string, error) {
	names := []string{physical.Name}
	if m.Partition != nil {
		names = append(names, ddl.Rest(physical).Name)
	}
	for _, p := range parts {
		names = append(names, p.Table.Name)
	}
	for _, name := range names {
		if len(name) > longestName {
			return "", wrongRevision("the name %q is longer than the %d bytes that PostgreSQL keeps: name another table", name, longestName)
		}
	}
	var owner string
	switch err := tx.QueryRow(ctx, selectTableOwner, physical.Schema, physical.Name).Scan(&owner); {
	case err == nil:
		return fmt.Sprintf("a revision of %s with the table %s", owner, ddl.PostgresName(physical)), nil
	case !errors.Is(err, pgx.ErrNoRows):
		return "", err
	}
	var kind, name string
	switch err := tx.QueryRow(ctx, selectTaken, physical.Schema, names).Scan(&kind, &name); {
	case err == nil:
		return kind + " called " + ddl.PostgresName(schema.Table{Schema: physical.Schema, Name: name}), nil
	case !errors.Is(err, pgx.ErrNoRows):
		return "", err
	}
	return "", nil
}

// What people have decided about a dataset, and what its sources have said, holds
// for every revision: which streams there are and how far they were announced, which
// of them are retired, what was accepted as lost or forgotten, and what was
// discarded. What comes again from the topic finds it there.
const (
	carryStreams = `
INSERT INTO tallyman.streams AS n (revision_id, incarnation, source, state, announced, announced_at, seen_at, retired_by, retired_why, retired_at)
SELECT $2, incarnation, source, state, announced, announced_at, seen_at, retired_by, retired_why, retired_at
FROM tallyman.streams WHERE revision_id = $1
ORDER BY incarnation
ON CONFLICT (revision_id, incarnation) DO UPDATE
SET announced = GREATEST(n.announced, EXCLUDED.announced), announced_at = GREATEST(n.announced_at, EXCLUDED.announced_at),
    state = CASE WHEN 'retired' IN (n.state, EXCLUDED.state) THEN 'retired' WHEN EXCLUDED.announced_at > n.announced_at THEN EXCLUDED.state ELSE n.state END,
    retired_by = coalesce(n.retired_by, EXCLUDED.retired_by), retired_why = coalesce(n.retired_why, EXCLUDED.retired_why),
    retired_at = coalesce(n.retired_at, EXCLUDED.retired_at)`

	carryAnnouncements = `
INSERT INTO tallyman.announcements (revision_id, incarnation, sequence, at, since)
SELECT $2, incarnation, announced, announced_at, seen_at
FROM tallyman.streams WHERE revision_id = $1 AND announced_at > '-infinity'
ORDER BY incarnation, announced
ON CONFLICT DO NOTHING`

	carrySatisfied = `
INSERT INTO tallyman.satisfied (revision_id, incarnation, first, last, reason, why, by_whom, at)
SELECT $2, incarnation, first, last, reason, why, by_whom, at
FROM tallyman.satisfied WHERE revision_id = $1 AND reason IN ('accepted', 'forgotten')
ORDER BY incarnation, first, reason
ON CONFLICT DO NOTHING`

	// By the messages that were given up: there are few, and of the ledger's entries many.
	carryV4 = `
INSERT INTO tallyman.v4_ids (revision_id, unique_id, batch_time)
SELECT $2, v.unique_id, v.batch_time
FROM tallyman.quarantine q
JOIN tallyman.v4_ids v ON (v.revision_id, v.unique_id) = ($1, q.unique_id)
WHERE q.revision_id = $1 AND q.state = 'discarded'
ORDER BY v.unique_id
ON CONFLICT DO NOTHING`

	carryDiscarded = `
INSERT INTO tallyman.loaded_elements (revision_id, batch_time, unique_id, outcome, incarnation, sequence, row_count, byte_count, digest, seal)
SELECT $2, l.batch_time, l.unique_id, l.outcome, l.incarnation, l.sequence, l.row_count, l.byte_count, l.digest, l.seal
FROM tallyman.quarantine q
JOIN tallyman.loaded_elements l ON (l.revision_id, l.batch_time, l.unique_id) = ($1, q.batch_time, q.unique_id) AND l.outcome = 'discarded'
WHERE q.revision_id = $1 AND q.state = 'discarded'
ORDER BY l.batch_time, l.unique_id
ON CONFLICT DO NOTHING`
)

// carryOver does so, from one revision to another.
func carryOver(ctx context.Context, tx pgx.Tx, from, to int64) error {
	b := &pgx.Batch{}
	for _, statement := range []string{carryV4, carryDiscarded, carrySatisfied, carryStreams, carryAnnouncements} {
		b.Queue(statement, from, to)
	}
	return tx.SendBatch(ctx, b).Close()
}

const selectBuilding = `
SELECT coalesce(max(revision_id), 0) FROM tallyman.revisions WHERE dataset = $1 AND state = 'building'`

// Building returns the newest revision of a dataset that is being built; 0: none
// is. Until the transaction ends nobody else makes one.
func (w *Warehouse) Building(ctx context.Context, tx pgx.Tx, d schema.Dataset) (id int64, err error) {
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(initLock)); err != nil {
		return 0, err
	}
	err = tx.QueryRow(ctx, selectBuilding, d.String()).Scan(&id)
	return id, err
}

const selectTarget = `
SELECT revision_id, manifest_hash FROM tallyman.revisions
WHERE dataset = $1 AND CASE WHEN $2::bigint = 0 THEN state = $3 ELSE revision_id = $2 AND state <> 'retired' END
ORDER BY revision_id DESC LIMIT 1`

// FindRevision returns a revision of a dataset and the hash of the manifest that it
// was made from: the one with an id, or if that is 0, the newest in a state. 0:
// there is none. It is one statement, without a lock.
func FindRevision(ctx context.Context, q interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}, d schema.Dataset, id int64, state sink.State) (revision int64, hash string, err error) {
	err = q.QueryRow(ctx, selectTarget, d.String(), id, state).Scan(&revision, &hash)
	if errors.Is(err, pgx.ErrNoRows) {
		err = nil
	}
	return revision, hash, err
}
