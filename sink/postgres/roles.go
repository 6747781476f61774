package postgres

import (
	"context"
	_ "embed"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tallyman/schema"
	"tallyman/schema/ddl"
)

// rolesSQL makes the roles; grantsSQL is what they may do in the schema tallyman.
//
//go:embed roles.sql
var rolesSQL string

//go:embed grants.sql
var grantsSQL string

// RolesScript returns the SQL that makes the roles, with what Init and Apply
// then grant to them as a comment.
func RolesScript() string {
	var b strings.Builder
	b.WriteString(rolesSQL)
	b.WriteString("\n-- With that, tallyman init grants, as tallyman_owner:\n--\n")
	for line := range strings.Lines(grantsSQL) {
		b.WriteString("--   " + line)
	}
	b.WriteString("--\n-- and tallyman dataset apply, for each dataset:\n--\n")
	example := schema.Table{Schema: "SCHEMA", Name: "TABLE"}
	for _, s := range datasetGrants(example, schema.Table{Schema: "SCHEMA", Name: "TABLE__r1"}) {
		b.WriteString("--   " + s + ";\n")
	}
	b.WriteString("--\n-- A table that Tallyman did not make is for its owner to grant in the same way.\n")
	b.WriteString("--\n-- What is left to do, with users of your own:\n--\n")
	for _, role := range []string{"owner", "loader", "reader"} {
		fmt.Fprintf(&b, "--   GRANT tallyman_%s TO ...;\n", role)
	}
	return b.String()
}

// makeRoles makes the roles and hands everything over to the owner.
func (w *Warehouse) makeRoles(ctx context.Context) error {
	conn, err := pgx.ConnectConfig(ctx, w.patient())
	if err != nil {
		return step("connect", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	_, err = conn.Exec(ctx, rolesSQL)
	return step("make roles", err)
}

// becomeOwner goes on as the role that owns the schema tallyman, where there are
// roles and this user has that one, so that whoever runs Init or Apply next can
// change what this one makes.
const becomeOwner = `
SELECT set_config('role', 'tallyman_owner', false)
FROM pg_catalog.pg_namespace
WHERE nspname = 'tallyman' AND nspowner = to_regrole('tallyman_owner') AND pg_has_role(nspowner, 'MEMBER')`

// owner is how to connect to change what there is, with time for it.
func (w *Warehouse) owner() *pgx.ConnConfig {
	cc := w.patient()
	cc.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		_, err := conn.Exec(ctx, becomeOwner).ReadAll()
		return err
	}
	return cc
}

const haveRoles = `
SELECT nspowner = to_regrole('tallyman_owner') AND to_regrole('tallyman_loader') IS NOT NULL AND to_regrole('tallyman_reader') IS NOT NULL
FROM pg_catalog.pg_namespace WHERE nspname = 'tallyman'`

// grant gives the roles, if there are any, exactly what they need.
func grant(ctx context.Context, conn *pgx.Conn) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		var have *bool
		if err := tx.QueryRow(ctx, haveRoles).Scan(&have); err != nil || have == nil || !*have {
			return err
		}
		if _, err := tx.Exec(ctx, grantsSQL); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, selectDatasets)
		if err != nil {
			return err
		}
		infos, err := pgx.CollectRows(rows, scanDataset)
		if err != nil {
			return err
		}
		for _, i := range infos {
			if err := grantDataset(ctx, tx, i.Revision.Manifest, i.Revision.Physical); err != nil {
				return err
			}
		}
		return nil
	})
}

// grantDataset lets the loader fill a dataset's table and the reader read its
// view, and the table itself, whose pages a Verifier goes through, if there are such roles. A table that was there before is for its owner
// to grant.
func grantDataset(ctx context.Context, q queryer, m schema.Manifest, table schema.Table) error {
	if m.Existing {
		return nil
	}
	view := m.Table
	var have *bool
	if err := q.QueryRow(ctx, haveRoles).Scan(&have); err != nil || have == nil || !*have {
		return err
	}
	const mayUse = `SELECT has_schema_privilege('tallyman_loader', $1, 'USAGE') AND has_schema_privilege('tallyman_reader', $1, 'USAGE')`
	statements := datasetGrants(view, table)
	var may bool
	if err := q.QueryRow(ctx, mayUse, view.Schema).Scan(&may); err != nil {
		return err
	}
	if may { // of public everybody has it, and its owner may be somebody else
		statements = statements[1:]
	}
	for _, s := range statements {
		if _, err := q.Exec(ctx, s); err != nil {
			return step("grant", err)
		}
	}
	return nil
}

// datasetGrants are the statements of grantDataset, the schema's first.
func datasetGrants(view, table schema.Table) []string {
	return []string{
		"GRANT USAGE ON SCHEMA " + pgx.Identifier{view.Schema}.Sanitize() + " TO tallyman_loader, tallyman_reader",
		"GRANT INSERT ON " + ddl.PostgresName(table) + " TO tallyman_loader",
		"GRANT SELECT ON " + ddl.PostgresName(view) + ", " + ddl.PostgresName(table) + " TO tallyman_reader",
	}
}
