package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/schema/ddl"
	"tallyman/sink"
)

// The reason for a manifest that can't be applied.
const reasonManifest batch.Reason = "manifest_refused"

// Applied says what Apply did.
type Applied struct {
	Revision sink.Revision
	Hash     string // of the manifest
	// Created says that the dataset is new; else it was there, by this manifest.
	Created bool
}

const (
	selectDataset = `
SELECT r.revision_id, r.physical_schema, r.physical_table, r.state, r.created_at, d.manifest_hash, d.manifest
FROM tallyman.revisions r
JOIN tallyman.datasets d USING (dataset, manifest_hash)
WHERE r.dataset = $1 AND r.state = 'active'`

	selectTopicOwner = `SELECT dataset FROM tallyman.datasets WHERE topic = $1 LIMIT 1`

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

	insertRevision = `
INSERT INTO tallyman.revisions (dataset, manifest_hash, physical_schema, physical_table, state)
VALUES ($1, $2, $3, $4, 'active') RETURNING revision_id`
)

// Apply makes a dataset by its manifest: the table of its first revision, the
// view that readers use, and the entries by which loaders find them, in one
// transaction. The same manifest again changes nothing. What can't be applied
// is a Misconfigured error that says why.
func (w *Warehouse) Apply(ctx context.Context, m schema.Manifest) (Applied, error) {
	if err := m.Validate(); err != nil {
		return Applied{}, err
	}
	var applied Applied
	conn, err := pgx.ConnectConfig(ctx, w.patient())
	if err != nil {
		return Applied{}, w.class("connect", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	// Read committed, so that what another apply did is seen after the wait for it.
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) (err error) {
		if _, err = tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(initLock)); err != nil {
			return step("wait for another apply", err)
		}
		applied, err = apply(ctx, tx, m)
		return err
	})
	if err != nil {
		return Applied{}, w.class("apply "+m.Dataset.String(), err)
	}
	return applied, nil
}

func apply(ctx context.Context, tx pgx.Tx, m schema.Manifest) (Applied, error) {
	rows, err := tx.Query(ctx, selectDataset, m.Dataset.String())
	if err != nil {
		return Applied{}, err
	}
	have, err := pgx.CollectExactlyOneRow(rows, scanDataset)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return create(ctx, tx, m)
	case err != nil:
		return Applied{}, err
	case have.Hash == m.Hash():
		return Applied{Revision: have.Revision, Hash: have.Hash}, nil
	default:
		return Applied{}, refused(m, "the warehouse has this dataset by another manifest, %s, and this release can't change one: "+
			"make a dataset of another name, or take back what differs: %s", have.Hash, strings.Join(difference(have.Revision.Manifest, m), "; "))
	}
}

// refused is the error for a manifest that can't be applied.
func refused(m schema.Manifest, format string, args ...any) error {
	return &sink.Error{Class: sink.Misconfigured, Reason: reasonManifest,
		Err: fmt.Errorf("apply %s: "+format, append([]any{m.Dataset}, args...)...)}
}

// create makes a dataset that the warehouse doesn't have.
func create(ctx context.Context, tx pgx.Tx, m schema.Manifest) (Applied, error) {
	var owner string
	switch err := tx.QueryRow(ctx, selectTopicOwner, m.Topic).Scan(&owner); {
	case err == nil:
		return Applied{}, refused(m, "topic %s carries dataset %s already: name another topic in the manifest", m.Topic, owner)
	case !errors.Is(err, pgx.ErrNoRows):
		return Applied{}, err
	}
	r := sink.Revision{Manifest: m, Physical: ddl.Physical(m, 1), State: sink.Active}
	if err := createSchema(ctx, tx, m.Table.Schema); err != nil {
		return Applied{}, err
	}
	var kind, name string
	switch err := tx.QueryRow(ctx, selectTaken, m.Table.Schema, []string{m.Table.Name, r.Physical.Name}).Scan(&kind, &name); {
	case err == nil:
		return Applied{}, refused(m, "there is %s called %s already: name another table in the manifest, or drop it",
			kind, ddl.PostgresName(schema.Table{Schema: m.Table.Schema, Name: name}))
	case !errors.Is(err, pgx.ErrNoRows):
		return Applied{}, err
	}
	statements, err := ddl.PostgresTable(m, r.Physical)
	if err != nil {
		return Applied{}, refused(m, "%w", err)
	}
	for _, s := range append(statements, ddl.PostgresView(m, r.Physical)...) {
		if _, err := tx.Exec(ctx, s); err != nil {
			return Applied{}, err
		}
	}
	if _, err := tx.Exec(ctx, insertDataset, m.Dataset.String(), m.Hash(), string(m.Canonical()), m.Topic); err != nil {
		return Applied{}, err
	}
	err = tx.QueryRow(ctx, insertRevision, m.Dataset.String(), m.Hash(), r.Physical.Schema, r.Physical.Name).Scan(&r.ID)
	return Applied{Revision: r, Hash: m.Hash(), Created: true}, err
}

// difference lists in what one manifest of a dataset differs from another.
func difference(have, want schema.Manifest) []string {
	var all []string
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	if have.Topic != want.Topic {
		add("topic %s instead of %s", want.Topic, have.Topic)
	}
	if have.Table != want.Table {
		add("table %s instead of %s", ddl.PostgresName(want.Table), ddl.PostgresName(have.Table))
	}
	if have.BatchID != want.BatchID {
		add("batch_id %t instead of %t", want.BatchID, have.BatchID)
	}
	old := map[string]schema.Column{}
	for _, c := range have.Columns {
		old[c.Name] = c
	}
	for _, c := range want.Columns {
		before, ok := old[c.Name]
		delete(old, c.Name)
		switch {
		case !ok:
			add("column %q is new", c.Name)
		case before.Type != c.Type:
			add("column %q is %s instead of %s", c.Name, c.Type, before.Type)
		case before.Nullable != c.Nullable:
			add("column %q has nullable %t instead of %t", c.Name, c.Nullable, before.Nullable)
		}
	}
	for _, c := range have.Columns {
		if _, gone := old[c.Name]; gone {
			add("column %q is gone", c.Name)
		}
	}
	if len(all) == 0 {
		add("the columns are in another order")
	}
	return all
}
