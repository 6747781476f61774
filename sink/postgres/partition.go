package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tallyman/schema"
	"tallyman/schema/ddl"
	"tallyman/sink"
)

// SkippedPartition is a partition of a dataset's table that Init did not make.
type SkippedPartition struct {
	Dataset   string    `json:"dataset"`
	Partition string    `json:"partition"`
	From      time.Time `json:"from"`
	To        time.Time `json:"to"`
	Reason    string    `json:"reason"`
}

// reach is for how many periods a table has partitions: behind the one of now
// when it is made, for rows that come late, and ahead of it from each Init on.
func reach(every schema.Period) (behind, ahead int) {
	switch every {
	case schema.Day:
		return 7, 62
	case schema.Month:
		return 1, 24
	default:
		return 1, 3
	}
}

// firstParts are the partitions of a table that is made now; none unless the
// manifest says so.
func firstParts(m schema.Manifest, physical schema.Table, now time.Time) []ddl.Part {
	if m.Partition == nil {
		return nil
	}
	behind, ahead := reach(m.Partition.Every)
	return ddl.Parts(m.Partition.Every, physical, now, behind, ahead)
}

// mostBehind bounds the partitions of the past that a table is made with.
const mostBehind = 1000

// partsLike returns the partitions for a table that is to hold what the table of r
// holds: from the oldest period on of which that has a partition. Rows of the past
// would else all be in the one for the rest, which is looked through, while nobody
// can use it, whenever a partition is made.
func partsLike(ctx context.Context, tx pgx.Tx, r sink.Revision, physical schema.Table) ([]ddl.Part, error) {
	now := time.Now()
	parts := firstParts(r.Manifest, physical, now)
	if parts == nil {
		return nil, nil
	}
	if _, err := tx.Exec(ctx, isoBounds); err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, selectParts, ddl.PostgresName(r.Physical))
	if err != nil {
		return nil, err
	}
	var from, to, oldest time.Time
	if _, err := pgx.ForEachRow(rows, []any{&from, &to}, func() error {
		if oldest.IsZero() {
			oldest = from
		}
		return nil
	}); err != nil {
		return nil, err
	}
	every := r.Manifest.Partition.Every
	behind, ahead := reach(every)
	for !oldest.IsZero() && parts[0].From.After(oldest) && behind < mostBehind {
		behind++
		parts = ddl.Parts(every, physical, now, behind, ahead)
	}
	return parts, nil
}

// selectParts returns the ranges of a table's partitions, by time.
const selectParts = `
SELECT b[1]::timestamptz, b[2]::timestamptz
FROM pg_catalog.pg_inherits i
JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
CROSS JOIN regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''([^'']+)''\) TO \(''([^'']+)''\)') AS b
WHERE i.inhparent = $1::text::regclass AND b IS NOT NULL
ORDER BY 1`

// TableEnd implements sink.Extender. Only partitions by a manifest are known to
// be by time. Where there is none for now, they ended when the last one did.
func (w *Warehouse) TableEnd(ctx context.Context, r sink.Revision) (end time.Time, err error) {
	if r.Manifest.Partition == nil {
		return end, nil
	}
	now := time.Now()
	b := &pgx.Batch{}
	b.Queue(isoBounds) // for this one transaction
	b.Queue(selectParts, ddl.PostgresName(r.Physical)).Query(func(rows pgx.Rows) error {
		var from, to time.Time
		_, err := pgx.ForEachRow(rows, []any{&from, &to}, func() error {
			if from.Equal(end) || !from.After(now) {
				end = to.UTC()
			}
			return nil
		})
		return err
	})
	err = w.pool.SendBatch(ctx, b).Close()
	return end, w.class("read the partitions of "+r.Manifest.Dataset.String(), err)
}

// selectLacking returns which of some ranges no partition overlaps, by number.
// The bounds of the one for the rest are null, so it overlaps none.
const selectLacking = `
WITH have AS (
    SELECT (CASE b[1] WHEN 'MINVALUE' THEN '-infinity' ELSE trim('''' FROM b[1]) END)::timestamptz AS low,
           (CASE b[2] WHEN 'MAXVALUE' THEN 'infinity' ELSE trim('''' FROM b[2]) END)::timestamptz AS high
    FROM pg_catalog.pg_inherits i
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
    CROSS JOIN regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \((MINVALUE|''[^'']+'')\) TO \((MAXVALUE|''[^'']+'')\)') AS b
    WHERE i.inhparent = $1::text::regclass
)
SELECT number
FROM unnest($2::timestamptz[], $3::timestamptz[]) WITH ORDINALITY AS want (low, high, number)
WHERE NOT EXISTS (SELECT FROM have WHERE have.low < want.high AND have.high > want.low)
ORDER BY number`

// lackingParts returns those of the partitions that the table lacks.
func lackingParts(ctx context.Context, conn *pgx.Conn, physical schema.Table, want []ddl.Part) ([]ddl.Part, error) {
	var from, to []time.Time
	for _, p := range want {
		from, to = append(from, p.From), append(to, p.To)
	}
	var lacking []ddl.Part
	b := &pgx.Batch{}
	b.Queue(isoBounds) // for this one transaction
	b.Queue(selectLacking, ddl.PostgresName(physical), from, to).Query(func(rows pgx.Rows) error {
		var number int
		_, err := pgx.ForEachRow(rows, []any{&number}, func() error {
			lacking = append(lacking, want[number-1])
			return nil
		})
		return err
	})
	return lacking, conn.SendBatch(ctx, b).Close()
}

// extendTables makes the partitions ahead that the tables of datasets lack.
// What one table has against it does not keep the others from theirs.
func (w *Warehouse) extendTables(ctx context.Context, conn *pgx.Conn, now time.Time, report *InitReport) error {
	rows, err := conn.Query(ctx, selectDatasets)
	if err != nil {
		return step("read datasets", err)
	}
	infos, err := pgx.CollectRows(rows, scanDataset)
	if err != nil {
		return step("read datasets", err)
	}
	var faults []error
	for _, i := range infos {
		if i.Revision.Manifest.Partition != nil {
			faults = append(faults, w.extendTable(ctx, conn, i.Revision, now, report))
		}
	}
	return errors.Join(faults...)
}

// extendTable does it for one table, from the period of now on: who took away
// partitions of the past does not get them back.
func (w *Warehouse) extendTable(ctx context.Context, conn *pgx.Conn, r sink.Revision, now time.Time, report *InitReport) error {
	name := r.Manifest.Dataset.String()
	every := r.Manifest.Partition.Every
	_, ahead := reach(every)
	lacking, err := lackingParts(ctx, conn, r.Physical, ddl.Parts(every, r.Physical, now, 0, ahead))
	if err != nil {
		return step("read the partitions of "+name, err)
	}
	for _, p := range lacking {
		_, err := whileLocked(ctx, w.cfg.moment(), func() (struct{}, error) {
			return struct{}{}, w.attach(ctx, conn, r, p)
		})
		var reason string
		pg := (*pgconn.PgError)(nil)
		switch {
		case err == nil:
			report.TablePartitions = append(report.TablePartitions, ddl.PostgresName(p.Table))
			continue
		case isLocked(err):
			return w.inUse(ctx, r.Manifest.Dataset, "It lacks partitions still", []schema.Table{r.Physical, ddl.Rest(r.Physical)}, err)
		case errors.As(err, &pg) && pg.Code == "23514":
			reason = fmt.Sprintf("%s has rows of that time already", ddl.PostgresName(ddl.Rest(r.Physical)))
		case errors.As(err, &pg) && pg.Code == "42P07":
			reason = "there is a relation of that name already"
		default:
			return err
		}
		report.Skipped = append(report.Skipped, SkippedPartition{name, ddl.PostgresName(p.Table), p.From, p.To, reason})
	}
	return nil
}

// attach makes a partition of a table that is loaded. It waits for who uses the
// partition for the rest, since that is looked through for rows of the range,
// and loads that go there wait behind it: so for a moment only.
func (w *Warehouse) attach(ctx context.Context, conn *pgx.Conn, r sink.Revision, p ddl.Part) error {
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT set_config('lock_timeout', $1, true)", milliseconds(w.cfg.moment())); err != nil {
			return err
		}
		for _, statement := range ddl.PostgresAttach(r.Manifest, r.Physical, p) {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	})
	return step("make partition "+ddl.PostgresName(p.Table), err)
}

// lockTries is how often the lock for a change is tried to get: each time for a
// moment, because everything that comes later waits behind it, loaders too.
const lockTries = 20

// whileLocked does what takes such a lock, until it has it or tried often enough.
func whileLocked[T any](ctx context.Context, pause time.Duration, do func() (T, error)) (T, error) {
	return backoff.Retry(ctx, func() (T, error) {
		done, err := do()
		if !isLocked(err) {
			err = backoff.Permanent(err)
		}
		return done, err
	}, backoff.WithBackOff(backoff.NewConstantBackOff(pause)), backoff.WithMaxTries(lockTries))
}
