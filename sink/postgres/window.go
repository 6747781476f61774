package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

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

// extent is what the ledger has room for.
type extent struct {
	parts   []slice   // by time
	horizon time.Time // as it is stored; zero: none
}

// monthOf returns the beginning of a time's month.
func monthOf(t time.Time) time.Time {
	return time.Date(t.UTC().Year(), t.UTC().Month(), 1, 0, 0, 0, 0, time.UTC)
}

const (
	// One that is on its way out takes nothing any more.
	selectBounds = `
SELECT relname, (bounds)[1]::timestamptz, (bounds)[2]::timestamptz
FROM (
    SELECT c.relname, regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''([^'']+)''\) TO \(''([^'']+)''\)') AS bounds
    FROM pg_catalog.pg_inherits i
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'tallyman.loaded_elements'::regclass AND NOT i.inhdetachpending
) parts
WHERE bounds IS NOT NULL
ORDER BY 2`

	selectHorizon = `SELECT horizon FROM tallyman.ledger_window`

	// isoBounds makes times readable again as they are printed: bounds come as text
	// in the session's own style, where a zone's abbreviation may be ambiguous.
	isoBounds = `SELECT set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO', true)`
)

// sender is what both a pool and a connection can do.
type sender interface {
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// readExtent reads the ledger's partitions from the catalog, and its horizon.
func readExtent(ctx context.Context, to sender) (e extent, err error) {
	b := &pgx.Batch{}
	b.Queue(isoBounds) // for this one transaction
	b.Queue(selectBounds).Query(func(rows pgx.Rows) error {
		e.parts, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (s slice, err error) {
			err = row.Scan(&s.name, &s.from, &s.to)
			s.from, s.to = s.from.UTC(), s.to.UTC()
			return s, err
		})
		return err
	})
	b.Queue(selectHorizon).QueryRow(func(row pgx.Row) error {
		var horizon pgtype.Timestamptz
		err := row.Scan(&horizon)
		e.horizon = finite(horizon)
		return err
	})
	return e, to.SendBatch(ctx, b).Close()
}

// takes says that a partition takes a batch time.
func (e extent) takes(at time.Time) bool {
	for _, s := range e.parts {
		if !at.Before(s.from) && at.Before(s.to) {
			return true
		}
	}
	return false
}

// Window returns the range of batch times that the ledger takes.
func (w *Warehouse) Window(ctx context.Context) (sink.Window, error) {
	e, err := readExtent(ctx, w.pool)
	if err != nil {
		return sink.Window{}, w.class("read the ledger's partitions", err)
	}
	window, err := e.window()
	if err != nil {
		return sink.Window{}, &sink.Error{Class: sink.Misconfigured, Reason: reasonNotInitialised, Err: err}
	}
	return window, nil
}

// window returns the range that the partitions cover from the newest back
// without a hole, and not before the stored horizon. The partition of content
// ids is no part of it.
func (e extent) window() (sink.Window, error) {
	var w sink.Window
	for i := len(e.parts) - 1; i >= 0 && e.parts[i].name != derivedPartition; i-- {
		if w.End.IsZero() {
			w.End = e.parts[i].to
		} else if !e.parts[i].to.Equal(w.Horizon) {
			break
		}
		w.Horizon = e.parts[i].from
		if e.parts[i].name == olderPartition {
			w.Horizon = time.Time{}
		}
	}
	if w.End.IsZero() {
		return w, errors.New("the ledger has no partitions: run tallyman init")
	}
	if e.horizon.After(w.Horizon) {
		w.Horizon = e.horizon
	}
	return w, nil
}

// firstSlices returns those of the ledger's first two partitions that it lacks
// and may have: what was dropped stays gone.
func (e extent) firstSlices(now time.Time) []slice {
	var constant time.Time // the batch time of v8 ids
	derived := slice{derivedPartition, constant, constant.AddDate(0, 0, 1)}
	var lack []slice
	if len(e.parts) == 0 || e.parts[0].name != derivedPartition {
		lack = append(lack, derived)
	}
	if n := len(e.parts); (n == 0 || e.parts[n-1].name == derivedPartition) && e.horizon.IsZero() {
		lack = append(lack, slice{olderPartition, derived.to, monthOf(now)})
	}
	return lack
}

const (
	addPartitions = `SELECT tallyman.add_partitions($1)`
	extendLedger  = `SELECT tallyman.extend_ledger()`
)

// fillLedger makes the partitions that the ledger lacks and returns their names:
// of content ids, of all times before the month of now, and of each month from
// there to monthsAhead after now. It goes on where the newest ends, so that
// nothing is left out if the last time is long ago.
func fillLedger(ctx context.Context, conn *pgx.Conn, now time.Time, monthsAhead int) ([]string, error) {
	have, err := readExtent(ctx, conn)
	if err != nil {
		return nil, step("read the ledger's partitions", err)
	}
	made := []string{}
	for _, s := range have.firstSlices(now) {
		name := pgx.Identifier{"tallyman", s.name}.Sanitize()
		statements := fmt.Sprintf(`CREATE TABLE %[1]s (LIKE tallyman.loaded_elements INCLUDING ALL);
ALTER TABLE tallyman.loaded_elements ATTACH PARTITION %[1]s FOR VALUES FROM ('%[2]s') TO ('%[3]s')`,
			name, s.from.Format(time.RFC3339), s.to.Format(time.RFC3339))
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			_, err := tx.Conn().PgConn().Exec(ctx, statements).ReadAll()
			return err
		})
		if err != nil {
			return made, step("make partition "+s.name+" of the ledger", err)
		}
		made = append(made, s.name)
	}
	months, err := names(ctx, conn, addPartitions, monthOf(now).AddDate(0, monthsAhead, 0))
	return append(made, months...), step("make partitions of the ledger", err)
}

// names returns what a query returns, texts.
func names(ctx context.Context, q queryer, sql string, args ...any) ([]string, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// ExtendLedger implements sink.Extender: 24 months ahead.
func (w *Warehouse) ExtendLedger(ctx context.Context) (int, error) {
	made, err := names(ctx, w.pool, extendLedger)
	return len(made), w.class("make partitions of the ledger", err)
}
