package postgres

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"tallyman/schema"
	"tallyman/schema/ddl"
	"tallyman/sink"
)

// sumModulus is a prime below 2^63; sums are kept modulo it.
const sumModulus = 9223372036854775783

// newSeed is a random number.
func newSeed() int64 {
	id := uuid.New()
	return int64(binary.BigEndian.Uint64(id[:8]))
}

// rowSum is some rows of a batch, added up.
type rowSum struct {
	rows int64
	sum  uint64
}

// eachSum reads rows of an id, a count and a sum.
func eachSum(rows pgx.Rows, do func(pgtype.UUID, rowSum)) error {
	var (
		id         pgtype.UUID
		count, sum int64
	)
	_, err := pgx.ForEachRow(rows, []any{&id, &count, &sum}, func() error {
		if sum < 0 { // a remainder has the sign of the dividend
			sum += sumModulus
		}
		do(id, rowSum{count, uint64(sum)})
		return nil
	})
	return err
}

func addSums(a, b uint64) uint64 { return (a + b) % sumModulus }

// sumOf is an expression over the rows of a batch, whose parameter $1 is the
// seed: it differs if a value does, whatever the order of the rows.
func (v *Verifier) sumOf(alias string) string {
	columns := filled(v.widest())
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = alias + "." + pgx.Identifier{c.Name}.Sanitize()
	}
	return fmt.Sprintf("(sum(hashtextextended(ROW(%s)::text, $1)) %% %d)::bigint", strings.Join(names, ", "), int64(sumModulus))
}

// widest is the manifest with every column of the table.
func (v *Verifier) widest() *schema.Manifest {
	if n := len(v.dataset.Manifests); n > 0 {
		return &v.dataset.Manifests[n-1].Manifest
	}
	return &v.dataset.Revision.Manifest
}

// sums loads batches into a temporary table like the dataset's, in the way in
// which a loader does, and adds up their values there.
func (v *Verifier) sums(ctx context.Context, elements []sink.Element) (map[uuid.UUID]rowSum, error) {
	conn, err := v.w.pool.Acquire(ctx)
	if err != nil {
		return nil, step("connect", err)
	}
	defer conn.Release()
	r := v.dataset.Revision
	r.Physical = schema.Table{Schema: "pg_temp", Name: "tallyman_verify"}
	g := &sink.Group{Revision: r, Elements: elements}
	t := &transaction{w: v.w, conn: conn.Conn(), group: g, target: targetOf(r.Physical, manifests(g)...), plan: &plan{}, shape: &shape{}}
	for i := range elements {
		t.plan.loads = append(t.plan.loads, i)
	}
	sums := map[uuid.UUID]rowSum{}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, plainText); err != nil {
			return err
		}
		name := ddl.PostgresName(r.Physical)
		_, err := tx.Exec(ctx, fmt.Sprintf("CREATE TEMPORARY TABLE %s (LIKE %s) ON COMMIT DROP", name, ddl.PostgresName(v.dataset.Revision.Physical)))
		if err != nil {
			return step("make a temporary table", err)
		}
		if err := t.shape.read(ctx, tx, r.Physical); err != nil {
			return err
		}
		if err := t.copyRows(ctx); err != nil {
			return err
		}
		id := pgx.Identifier{schema.BatchIDColumn}.Sanitize()
		rows, err := tx.Query(ctx, fmt.Sprintf("SELECT t.%s, count(*), %s FROM %s t GROUP BY 1", id, v.sumOf("t"), name), v.seed)
		if err != nil {
			return err
		}
		return eachSum(rows, func(id pgtype.UUID, s rowSum) { sums[id.Bytes] = s })
	})
	return sums, err
}
