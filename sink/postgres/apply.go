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

// The reason for a manifest that can't be applied.
const reasonManifest batch.Reason = "manifest_refused"

// Applied says what Apply did, or Plan would do.
type Applied struct {
	Revision sink.Revision
	Hash     string // of the manifest
	// Created says that the dataset is new, Widened that the manifest is: its rows
	// go to the table of a dataset that was there. Else both were there.
	Created, Widened bool
	// Changes is in what the manifest differs from the newest one of the dataset.
	// It is told of a manifest that is refused, too.
	Changes []schema.Difference
}

const (
	selectDataset = `
SELECT r.revision_id, r.physical_schema, r.physical_table, r.state, r.created_at, d.manifest_hash, d.manifest
FROM tallyman.revisions r
JOIN tallyman.datasets d USING (dataset, manifest_hash)
WHERE r.dataset = $1 AND r.state = 'active'`

	selectTopicOwner = `SELECT dataset FROM tallyman.datasets WHERE topic = $1 LIMIT 1`

	selectTableOwner = `SELECT dataset FROM tallyman.revisions WHERE (physical_schema, physical_table) = ($1, $2)`

	// An array type makes room by itself, for any other type.
	selectTaken = `
SELECT kind, name
FROM pg_catalog.pg_namespace n
CROSS JOIN LATERAL (
    SELECT 'a relation' AS kind, relname AS name FROM pg_catalog.pg_class WHERE relnamespace = n.oid
    UNION ALL
    SELECT 'a type', typname FROM pg_catalog.pg_type WHERE typnamespace = n.oid AND typcategory <> 'A'
) taken
WHERE n.nspname = $1 AND name = ANY($2)
LIMIT 1`

	insertDataset = `INSERT INTO tallyman.datasets (dataset, manifest_hash, manifest, topic) VALUES ($1, $2, $3::json, $4)`

	deleteUnexpected = `DELETE FROM tallyman.expected_sources WHERE dataset = $1 AND NOT source = ANY (coalesce($2::text[], '{}'))`

	insertExpected = `
INSERT INTO tallyman.expected_sources AS e (dataset, source, continuous)
SELECT $1, k.source, k.continuous FROM unnest($2::text[], $3::boolean[]) AS k (source, continuous)
ON CONFLICT (dataset, source) DO UPDATE SET continuous = EXCLUDED.continuous WHERE e.continuous <> EXCLUDED.continuous`

	insertRevision = `
INSERT INTO tallyman.revisions (dataset, manifest_hash, physical_schema, physical_table, state)
VALUES ($1, $2, $3, $4, 'active') RETURNING revision_id`
)

// Apply makes a dataset by its manifest: the table of its first revision, the
// view that readers use, and the entries by which loaders find them, in one
// transaction. A dataset that is there gets the columns that a further manifest
// adds, while it is loaded by the others. A manifest that was applied before
// changes nothing but which sources are expected. What can't be applied is a Misconfigured error that says why,
// and leaves nothing behind.
func (w *Warehouse) Apply(ctx context.Context, m schema.Manifest) (Applied, error) {
	applied, err := whileLocked(ctx, w.cfg.moment(), func() (Applied, error) { return w.apply(ctx, m, true) })
	if isLocked(err) {
		err = w.inUse(ctx, m.Dataset, "Nothing was changed", []schema.Table{m.Table, applied.Revision.Physical}, err)
	}
	return applied, err
}

// Plan returns what Apply would do or refuse, and does nothing.
func (w *Warehouse) Plan(ctx context.Context, m schema.Manifest) (Applied, error) {
	return w.apply(ctx, m, false)
}

// survey is what applying a manifest takes.
type survey struct {
	applied Applied
	schema  string        // to be made unless it is there; empty: none
	lock    *schema.Table // to be locked before the statements; nil: none
	change  []string      // statements
}

func (w *Warehouse) apply(ctx context.Context, m schema.Manifest, act bool) (Applied, error) {
	if err := m.Validate(); err != nil {
		return Applied{}, err
	}
	conn, err := pgx.ConnectConfig(ctx, w.owner())
	if err != nil {
		return Applied{}, w.class("connect", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var s survey
	// Read committed, so that what another apply did is seen after the wait for it.
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) (err error) {
		if _, err = tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(initLock)); err != nil {
			return step("wait for another apply", err)
		}
		if s, err = examine(ctx, tx, m); err != nil || !act {
			return err
		}
		if s.lock != nil {
			if err := lockView(ctx, tx, *s.lock, w.cfg.moment()); err != nil {
				return err
			}
		}
		return s.execute(ctx, tx, m)
	})
	return s.applied, w.class("apply "+m.Dataset.String(), err)
}

// expect keeps which sources the manifest that was applied last expects, also if
// it was applied before: they are no part of what its rows are.
func expect(ctx context.Context, tx pgx.Tx, m schema.Manifest) error {
	var (
		sources    []string
		continuous []bool
	)
	for _, s := range m.Sources {
		sources, continuous = append(sources, s.Name), append(continuous, s.Continuous)
	}
	if _, err := tx.Exec(ctx, deleteUnexpected, m.Dataset.String(), sources); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, insertExpected, m.Dataset.String(), sources, continuous)
	return err
}

// examine finds out what there is of the dataset, and what applying takes.
func examine(ctx context.Context, tx pgx.Tx, m schema.Manifest) (survey, error) {
	rows, err := tx.Query(ctx, selectDataset, m.Dataset.String())
	if err != nil {
		return survey{}, err
	}
	have, err := pgx.CollectExactlyOneRow(rows, scanDataset)
	switch {
	case errors.Is(err, pgx.ErrNoRows) && m.Existing:
		return examineExisting(ctx, tx, m)
	case errors.Is(err, pgx.ErrNoRows):
		return examineNew(ctx, tx, m)
	case err != nil:
		return survey{}, err
	default:
		return examineWider(ctx, tx, have.Revision, m)
	}
}

// execute does what the survey found necessary.
func (s *survey) execute(ctx context.Context, tx pgx.Tx, m schema.Manifest) error {
	if s.schema != "" {
		if err := createSchema(ctx, tx, s.schema); err != nil {
			return err
		}
	}
	for _, statement := range s.change {
		if _, err := tx.Exec(ctx, statement); err != nil {
			return err
		}
	}
	r := &s.applied.Revision
	if s.applied.Created {
		if err := grantDataset(ctx, tx, m, r.Physical); err != nil {
			return err
		}
	}
	if s.applied.Created || s.applied.Widened {
		if _, err := tx.Exec(ctx, insertDataset, m.Dataset.String(), m.Hash(), string(m.Canonical()), m.Topic); err != nil {
			return err
		}
	}
	if s.applied.Created {
		if err := tx.QueryRow(ctx, insertRevision, m.Dataset.String(), m.Hash(), r.Physical.Schema, r.Physical.Name).Scan(&r.ID); err != nil {
			return err
		}
	}
	return expect(ctx, tx, m)
}

// refused is the error for a manifest that can't be applied.
func refused(m schema.Manifest, format string, args ...any) error {
	return &sink.Error{Class: sink.Misconfigured, Reason: reasonManifest,
		Err: fmt.Errorf("apply %s: "+format, append([]any{m.Dataset}, args...)...)}
}

// newRevision is the first revision of a dataset that the warehouse doesn't have.
func newRevision(ctx context.Context, tx pgx.Tx, m schema.Manifest) (survey, error) {
	s := survey{applied: Applied{Hash: m.Hash(), Created: true,
		Revision: sink.Revision{Manifest: m, Physical: ddl.Physical(m, 1), State: sink.Active}}}
	var owner string
	switch err := tx.QueryRow(ctx, selectTopicOwner, m.Topic).Scan(&owner); {
	case err == nil:
		return s, refused(m, "topic %s carries dataset %s already: name another topic in the manifest", m.Topic, owner)
	case !errors.Is(err, pgx.ErrNoRows):
		return s, err
	}
	return s, nil
}

// examineNew looks at a dataset whose table is to be made.
func examineNew(ctx context.Context, tx pgx.Tx, m schema.Manifest) (survey, error) {
	s, err := newRevision(ctx, tx, m)
	if err != nil {
		return s, err
	}
	physical := s.applied.Revision.Physical
	parts := firstParts(m, physical, time.Now())
	names := []string{m.Table.Name, physical.Name}
	if m.Partition != nil {
		names = append(names, ddl.Rest(physical).Name)
	}
	for _, p := range parts {
		names = append(names, p.Table.Name)
	}
	var kind, name string
	switch err := tx.QueryRow(ctx, selectTaken, m.Table.Schema, names).Scan(&kind, &name); {
	case err == nil:
		return s, refused(m, "there is %s called %s already: name another table in the manifest, or drop it; "+
			"to load into a table as it is, say existing: true in the manifest's table",
			kind, ddl.PostgresName(schema.Table{Schema: m.Table.Schema, Name: name}))
	case !errors.Is(err, pgx.ErrNoRows):
		return s, err
	}
	s.schema = m.Table.Schema
	if s.change, err = ddl.PostgresTable(m, physical); err != nil {
		return s, refused(m, "%w", err)
	}
	if m.Partition != nil {
		s.change = append(s.change, ddl.PostgresParts(m, physical, parts)...)
	}
	s.change = append(s.change, ddl.PostgresView(m, physical)...)
	return s, nil
}
