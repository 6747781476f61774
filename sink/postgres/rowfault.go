package postgres

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"tallyman/schema"
	"tallyman/schema/ddl"
)

const isPartition = `
SELECT EXISTS (SELECT FROM pg_catalog.pg_partition_ancestors(to_regclass($1)) a WHERE a.relid = to_regclass($2))`

// rowFault classifies an error that rows may be at fault for. A violated
// constraint names the partition that a row went to, or the domain of a column,
// where the table is meant. It is looked up after the error, which is rare, and
// so it ends the transaction.
func (t *transaction) rowFault(ctx context.Context, step string, p phase, err error) error {
	to := t.target
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || !strings.HasPrefix(pg.Code, "23") {
		return classify(step, p, to, err)
	}
	named := schema.Table{Schema: pg.SchemaName, Name: pg.TableName}
	switch {
	case pg.TableName == "":
		to.domain = t.domainNamed(pg.DataTypeName)
	case named != to.table:
		var within bool
		_, failed := t.conn.Exec(ctx, "ROLLBACK")
		if failed == nil {
			failed = t.conn.QueryRow(ctx, isPartition, ddl.PostgresName(named), ddl.PostgresName(to.table)).Scan(&within)
		}
		if failed != nil {
			return classify("look up the table of a violated constraint", inCatalog, to, failed)
		}
		if within {
			to.partition = named
		}
	}
	return classify(step, p, to, err)
}

// domainNamed returns name if it is the domain of a column that a manifest fills.
func (t *transaction) domainNamed(name string) string {
	if t.shape == nil {
		return ""
	}
	for column := range t.target.columns {
		if c := t.shape.columns[column]; c.kind == "d" && c.typeName == name {
			return name
		}
	}
	return ""
}
