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

// missing returns the partitions that the ledger lacks, which has those of
// have, by time: of content ids, of all times before the month of now, and of
// each month from there to monthsAhead after now. It goes on where the newest
// ends, so that nothing is left out if the last time is long ago, and what is
// gone from the old end stays gone.
func missing(have []slice, now time.Time, monthsAhead int) []slice {
	var constant time.Time // the batch time of v8 ids
	month := time.Date(now.UTC().Year(), now.UTC().Month(), 1, 0, 0, 0, 0, time.UTC)
	last := month.AddDate(0, monthsAhead, 0)
	derived := slice{derivedPartition, constant, constant.AddDate(0, 0, 1)}
	var lack []slice
	if len(have) == 0 || have[0].name != derivedPartition {
		lack = append(lack, derived)
	}
	if n := len(have); n > 0 && have[n-1].name != derivedPartition {
		month = have[n-1].to
	} else {
		lack = append(lack, slice{olderPartition, derived.to, month})
	}
	for ; !month.After(last); month = month.AddDate(0, 1, 0) {
		lack = append(lack, slice{"loaded_elements_" + month.Format("2006_01"), month, month.AddDate(0, 1, 0)})
	}
	return lack
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

// isoBounds makes times readable again as they are printed: bounds come as text
// in the session's own style, where a zone's abbreviation may be ambiguous.
const isoBounds = `SELECT set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO', true)`

// sender is what both a pool and a connection can do.
type sender interface {
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// bounds reads the ledger's partitions from the catalog, by time.
func bounds(ctx context.Context, to sender) (parts []slice, err error) {
	b := &pgx.Batch{}
	b.Queue(isoBounds) // for this one transaction
	b.Queue(selectBounds).Query(func(rows pgx.Rows) error {
		parts, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (s slice, err error) {
			err = row.Scan(&s.name, &s.from, &s.to)
			s.from, s.to = s.from.UTC(), s.to.UTC()
			return s, err
		})
		return err
	})
	return parts, to.SendBatch(ctx, b).Close()
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

// addPartitions makes the partitions that the ledger lacks and returns their
// names. A partition is made beside the ledger and then attached, which waits
// for nobody; created as a partition it would wait for open loads.
func addPartitions(ctx context.Context, conn *pgx.Conn, now time.Time, monthsAhead int) ([]string, error) {
	have, err := bounds(ctx, conn)
	if err != nil {
		return nil, step("read the ledger's partitions", err)
	}
	made := []string{}
	for _, s := range missing(have, now, monthsAhead) {
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
	return made, nil
}
