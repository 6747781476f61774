package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"tallyman/schema"
	"tallyman/schema/ddl"
	"tallyman/sink"
)

const selectPresent = `SELECT to_regclass($1) IS NOT NULL, to_regclass($2) IS NOT NULL`

// present refuses a manifest of a dataset whose table or view somebody has
// dropped, or whose table no longer takes the rows by the manifests that are
// served. Neither is made again here: an empty table in the place of one whose
// batches the ledger has would make a loss look like success.
func present(ctx context.Context, tx pgx.Tx, r sink.Revision, served []AppliedManifest) error {
	m := r.Manifest
	var table, view bool
	err := tx.QueryRow(ctx, selectPresent, ddl.PostgresName(r.Physical), ddl.PostgresName(m.Table)).Scan(&table, &view)
	if err != nil {
		return err
	}
	if !table {
		return refused(m, "the table %s is gone, and the ledger has what was loaded into it: bring it back, from a backup if it had rows",
			ddl.PostgresName(r.Physical))
	}
	var have shape
	if err := have.read(ctx, tx, r.Physical); err != nil {
		return err
	}
	manifests := make([]*schema.Manifest, len(served))
	for i := range served {
		manifests[i] = &served[i].Manifest
	}
	if err := have.check(r.Physical, manifests); err != nil {
		return refusedTable(m, err)
	}
	if !view {
		return refused(m, "the view %s is gone. This makes it again, as the owner of the table, and who reads it has to be granted it: %s",
			ddl.PostgresName(m.Table), ddl.PostgresWidenView(m, r.Physical, allAdded(m, served)))
	}
	return nil
}

// allAdded returns the columns that the served manifests added to the first
// one, in the order in which they were added.
func allAdded(first schema.Manifest, served []AppliedManifest) []schema.Column {
	added := []schema.Column{}
	for _, a := range served {
		added = append(added, schema.Added(first, a.Manifest)...)
		first = a.Manifest
	}
	return added
}
