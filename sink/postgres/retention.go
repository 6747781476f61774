package postgres

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// Retention is how long the ledger keeps batches, by their times: months and
// days of the calendar. The zero value keeps them for ever.
type Retention struct {
	Months, Days int
}

var retentionText = regexp.MustCompile(`^([1-9][0-9]{0,3})(d|mo)$`)

// leastRetention is the shortest retention, in days. What is forgotten is refused
// when it comes again, so it must be longer than anybody publishes again.
const leastRetention = 30

// ParseRetention reads what String writes: 400d, 13mo or off.
func ParseRetention(text string) (Retention, error) {
	if text == "off" {
		return Retention{}, nil
	}
	found := retentionText.FindStringSubmatch(text)
	if found == nil {
		return Retention{}, fmt.Errorf("%q is no retention: want days like 400d, months like 13mo, or off", text)
	}
	n, _ := strconv.Atoi(found[1]) // up to four digits
	if found[2] == "mo" {
		return Retention{Months: n}, nil
	}
	if n < leastRetention {
		return Retention{}, fmt.Errorf("a retention of %s is too short: batches that are older are refused, also if a source "+
			"or a backup brings them back; at least %dd", text, leastRetention)
	}
	return Retention{Days: n}, nil
}

// String returns the retention as it is given to tallyman init.
func (r Retention) String() string {
	switch {
	case r.Months > 0:
		return fmt.Sprintf("%dmo", r.Months)
	case r.Days > 0:
		return fmt.Sprintf("%dd", r.Days)
	default:
		return "off"
	}
}

// horizon is from when on batches are kept: the ledger forgets whole months.
func (r Retention) horizon(now time.Time) time.Time {
	return monthOf(now.UTC().AddDate(0, -r.Months, -r.Days))
}

const (
	storeRetention = `UPDATE tallyman.ledger_window SET retention = $1`

	selectRetention = `SELECT retention, leaving FROM tallyman.ledger_window`

	// Never lowered: what lies before it may be forgotten already.
	raiseHorizon = `
UPDATE tallyman.ledger_window SET horizon = GREATEST(horizon, coalesce($1::timestamptz, '-infinity')) RETURNING horizon`

	leave = `UPDATE tallyman.ledger_window SET leaving = leaving || $1::text WHERE NOT $1::text = ANY (leaving)`

	left = `UPDATE tallyman.ledger_window SET leaving = array_remove(leaving, $1::text)`

	selectAttached = `
SELECT c.oid IS NOT NULL, i.inhrelid IS NOT NULL, coalesce(i.inhdetachpending, false)
FROM (SELECT to_regclass($1)::oid AS oid) c
LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid AND i.inhparent = 'tallyman.loaded_elements'::regclass`

	fold = `SELECT tallyman.fold($1::text::regclass, $2)`

	recall = `SELECT tallyman.recall($1::text::regclass)`

	selectRules = `
SELECT conname FROM pg_catalog.pg_constraint
WHERE conrelid = $1::text::regclass AND contype = 'c' AND conname LIKE 'horizon\_%'`

	deleteOlder = `DELETE FROM tallyman.loaded_elements_older WHERE batch_time < $1`

	// What the ledger has forgotten is refused by its time, whatever it was.
	deleteV4IDs = `DELETE FROM tallyman.v4_ids WHERE batch_time < $1`

	// What the floor has passed needs no range.
	deleteForgotten = `
DELETE FROM tallyman.satisfied s USING tallyman.streams t
WHERE s.reason = 'forgotten' AND (t.revision_id, t.incarnation) = (s.revision_id, s.incarnation) AND s.last <= t.floor`
)

// forgetting is one run of the retention.
type forgetting struct {
	w       *Warehouse
	conn    *pgx.Conn
	horizon time.Time
	report  *InitReport
}

// retain forgets what the retention lets go, and finishes what an interrupted run
// has begun. It can be ended at any point: the horizon is raised before anything
// goes, and a partition goes in the transaction that has kept what it accounts for.
func (w *Warehouse) retain(ctx context.Context, conn *pgx.Conn, o InitOptions, report *InitReport) error {
	if o.Retention != nil {
		months := pgtype.Interval{Months: int32(o.Retention.Months), Days: int32(o.Retention.Days), Valid: *o.Retention != Retention{}}
		if _, err := conn.Exec(ctx, storeRetention, months); err != nil {
			return step("store the retention", err)
		}
	}
	var (
		stored  pgtype.Interval
		leaving []string
		goal    *time.Time
		raised  pgtype.Timestamptz
	)
	if err := conn.QueryRow(ctx, selectRetention).Scan(&stored, &leaving); err != nil {
		return step("read the retention", err)
	}
	kept := Retention{Months: int(stored.Months), Days: int(stored.Days)}
	if kept != (Retention{}) {
		at := kept.horizon(o.Now())
		goal = &at
	}
	report.Retention = kept.String()
	if err := conn.QueryRow(ctx, raiseHorizon, goal).Scan(&raised); err != nil {
		return step("raise the ledger's horizon", err)
	}
	f := &forgetting{w: w, conn: conn, horizon: finite(raised), report: report}
	if f.horizon.IsZero() {
		return nil
	}
	return step("forget what is before the ledger's horizon", f.run(ctx, leaving))
}

func (f *forgetting) run(ctx context.Context, leaving []string) error {
	have, err := readExtent(ctx, f.conn)
	if err != nil {
		return err
	}
	for _, s := range have.parts {
		switch {
		case s.name == derivedPartition:
		case !s.to.After(f.horizon) && !slices.Contains(leaving, s.name):
			leaving = append(leaving, s.name)
		case s.name == olderPartition && s.from.Before(f.horizon) && s.to.After(f.horizon):
			if err := f.narrow(ctx); err != nil {
				return f.held(s.name, err)
			}
		}
	}
	for _, name := range leaving {
		if err := f.drop(ctx, name); err != nil {
			return f.held(name, err)
		}
	}
	if _, err := f.conn.Exec(ctx, deleteV4IDs, f.horizon); err != nil {
		return err
	}
	_, err = f.conn.Exec(ctx, deleteForgotten)
	return err
}

// held reports a partition that somebody uses for too long. It is no failure:
// its batches are refused already, and the next run goes on.
func (f *forgetting) held(name string, err error) error {
	if isLocked(err) {
		f.report.Held = name
		return nil
	}
	return err
}

// glance is how long a loader may have to wait behind what is done here.
const glance = 100 * time.Millisecond

// narrow has the partition of all times before the first month refuse those
// before the horizon, and then forgets what it has of them. Its other batches
// stay, so it can't be dropped yet.
func (f *forgetting) narrow(ctx context.Context) error {
	table := pgx.Identifier{"tallyman", olderPartition}.Sanitize()
	rule := "horizon_" + f.horizon.Format("2006_01")
	have, err := names(ctx, f.conn, selectRules, table)
	if err != nil {
		return err
	}
	if !slices.Contains(have, rule) {
		statement := fmt.Sprintf(`ALTER TABLE %s ADD CONSTRAINT %s CHECK (batch_time >= '%s') NOT VALID`,
			table, pgx.Identifier{rule}.Sanitize(), f.horizon.Format(time.RFC3339))
		for _, earlier := range have {
			statement += ", DROP CONSTRAINT " + pgx.Identifier{earlier}.Sanitize()
		}
		_, err := whileLocked(ctx, glance, func() (struct{}, error) {
			return struct{}{}, f.within(ctx, glance, []statementOf{{statement, nil}})
		})
		if err != nil {
			return err
		}
	}
	return f.within(ctx, f.patience(), []statementOf{
		{fold, []any{table, f.horizon}}, {recall, []any{table}}, {deleteOlder, []any{f.horizon}}})
}

// statementOf is a statement with its arguments.
type statementOf struct {
	sql  string
	args []any
}

// within runs statements as one transaction that waits for each lock for a limited time.
func (f *forgetting) within(ctx context.Context, limit time.Duration, all []statementOf) error {
	return pgx.BeginFunc(ctx, f.conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT set_config('lock_timeout', $1, true)", milliseconds(limit)); err != nil {
			return err
		}
		for _, s := range all {
			if _, err := tx.Exec(ctx, s.sql, s.args...); err != nil {
				return step("forget", err)
			}
		}
		return nil
	})
}

// drop takes a partition out of the ledger, from wherever an earlier run has
// left it, and drops it.
func (f *forgetting) drop(ctx context.Context, name string) error {
	table := pgx.Identifier{"tallyman", name}.Sanitize()
	var there, attached, pending bool
	if err := f.conn.QueryRow(ctx, selectAttached, table).Scan(&there, &attached, &pending); err != nil {
		return err
	}
	switch {
	case !there:
		_, err := f.conn.Exec(ctx, left, name)
		return err
	case pending:
		if err := f.detach(ctx, table, "FINALIZE"); err != nil {
			return err
		}
	case attached:
		// What it accounts for is known before it can't be seen any more. Only what
		// open transactions add to it now is not, for the moment until it is dropped.
		if err := f.within(ctx, f.patience(), []statementOf{{leave, []any{name}}, {fold, []any{table, nil}}}); err != nil {
			return err
		}
		if err := f.detach(ctx, table, "CONCURRENTLY"); err != nil {
			return err
		}
	}
	err := f.within(ctx, f.patience(), []statementOf{
		{fold, []any{table, nil}}, {recall, []any{table}}, {"DROP TABLE " + table, nil}, {left, []any{name}}})
	if err == nil {
		f.report.Forgotten = append(f.report.Forgotten, name)
	}
	return err
}

// patience is how long a partition's readers are waited for.
func (f *forgetting) patience() time.Duration { return 10 * f.w.cfg.LockTimeout }

// detach takes a partition out beside open loads, which go on: a statement that
// is no part of a transaction. It waits until nobody sees the partition any more.
func (f *forgetting) detach(ctx context.Context, table, how string) error {
	if _, err := f.conn.Exec(ctx, "SELECT set_config('lock_timeout', $1, false)", milliseconds(f.patience())); err != nil {
		return err
	}
	_, err := f.conn.Exec(ctx, "ALTER TABLE tallyman.loaded_elements DETACH PARTITION "+table+" "+how)
	err = step("detach "+table, err)
	if _, reset := f.conn.Exec(ctx, "RESET lock_timeout"); err == nil {
		err = reset
	}
	return err
}
