package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"tallyman/sink"
)

// The ledger's first two partitions. The constant time of ids that are derived
// from content has one of its own, which is never dropped; the other takes
// every time before the first month.
const (
	derivedPartition = "loaded_elements_derived"
	olderPartition   = "loaded_elements_older"
)

// slice is one partition of the ledger: batch times in [from, to).
type slice struct {
	name     string
	from, to time.Time
}

// months returns the partitions that the ledger should have: those of content
// ids and of older times, one for each month from first to monthsAhead after it.
func months(first time.Time, monthsAhead int) []slice {
	var constant time.Time // the batch time of v8 ids
	month := time.Date(first.UTC().Year(), first.UTC().Month(), 1, 0, 0, 0, 0, time.UTC)
	all := []slice{
		{derivedPartition, constant, constant.AddDate(0, 0, 1)},
		{olderPartition, constant.AddDate(0, 0, 1), month},
	}
	for range monthsAhead + 1 {
		next := month.AddDate(0, 1, 0)
		all = append(all, slice{"loaded_elements_" + month.Format("2006_01"), month, next})
		month = next
	}
	return all
}

const selectBounds = `
SELECT relname, (bounds)[1]::timestamptz, (bounds)[2]::timestamptz
FROM (
    SELECT c.relname, regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''([^'']+)''\) TO \(''([^'']+)''\)') AS bounds
    FROM pg_catalog.pg_inherits i
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'tallyman.loaded_elements'::regclass
) parts
WHERE bounds IS NOT NULL
ORDER BY 2`

// querier is what both a pool and a connection can do.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// bounds reads the ledger's partitions from the catalog, by time.
func bounds(ctx context.Context, q querier) ([]slice, error) {
	rows, err := q.Query(ctx, selectBounds)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (s slice, err error) {
		err = row.Scan(&s.name, &s.from, &s.to)
		s.from, s.to = s.from.UTC(), s.to.UTC()
		return s, err
	})
}

// Window returns the range of batch times that the ledger has partitions for.
func (w *Warehouse) Window(ctx context.Context) (sink.Window, error) {
	parts, err := bounds(ctx, w.pool)
	if err != nil {
		return sink.Window{}, w.class("read the ledger's partitions", err)
	}
	window, err := windowOf(parts)
	if err != nil {
		return sink.Window{}, &sink.Error{Class: sink.Misconfigured, Reason: reasonNotInitialised, Err: err}
	}
	return window, nil
}

// windowOf returns the range that partitions, ordered by time, cover from the
// newest back without a hole. The one of content ids is no part of it.
func windowOf(parts []slice) (sink.Window, error) {
	var w sink.Window
	for i := len(parts) - 1; i >= 0 && parts[i].name != derivedPartition; i-- {
		if w.End.IsZero() {
			w.End = parts[i].to
		} else if !parts[i].to.Equal(w.Horizon) {
			break
		}
		w.Horizon = parts[i].from
		if parts[i].name == olderPartition {
			w.Horizon = time.Time{}
		}
	}
	if w.End.IsZero() {
		return w, errors.New("the ledger has no partitions: run tallyman init")
	}
	return w, nil
}

// addPartitions makes the partitions of the ledger that are missing and
// returns their names. A partition is made beside the ledger and then attached,
// which waits for nobody; created as a partition it would wait for open loads.
func addPartitions(ctx context.Context, conn *pgx.Conn, want []slice) ([]string, error) {
	have, err := bounds(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("read the ledger's partitions: %w", err)
	}
	var made []string
	for _, s := range want {
		if covered(have, s) {
			continue
		}
		name := pgx.Identifier{"tallyman", s.name}.Sanitize()
		statements := fmt.Sprintf(`CREATE TABLE %[1]s (LIKE tallyman.loaded_elements INCLUDING ALL);
ALTER TABLE tallyman.loaded_elements ATTACH PARTITION %[1]s FOR VALUES FROM ('%[2]s') TO ('%[3]s')`,
			name, s.from.Format(time.RFC3339), s.to.Format(time.RFC3339))
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			_, err := tx.Conn().PgConn().Exec(ctx, statements).ReadAll()
			return err
		})
		if err != nil {
			return made, fmt.Errorf("make partition %s of the ledger: %w", s.name, err)
		}
		made = append(made, s.name)
	}
	return made, nil
}

// covered says that the time at which s begins has a partition. Those of older
// times end where the first month once began, so s may lie within it.
func covered(have []slice, s slice) bool {
	for _, h := range have {
		if !s.from.Before(h.from) && s.from.Before(h.to) {
			return true
		}
	}
	return false
}
