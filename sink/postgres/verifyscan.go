package postgres

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/schema/ddl"
)

const (
	// Rows are written as text to be added up, always in the same way.
	plainText = `
SELECT set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO', true), set_config('IntervalStyle', 'postgres', true),
       set_config('extra_float_digits', '1', true), set_config('bytea_output', 'hex', true)`

	selectSlice = `
SELECT batch_time, unique_id, outcome = 'loaded', row_count, digest
FROM tallyman.loaded_elements
WHERE revision_id = $1 AND batch_time >= $2 AND batch_time < $4 AND (batch_time, unique_id) > ($2, $3)
ORDER BY batch_time, unique_id
LIMIT $5`

	// A table with children is no row of pages that could be read in pieces.
	selectSize = `
SELECT c.relkind = 'r' AND NOT c.relhassubclass, pg_relation_size(c.oid), current_setting('block_size')::bigint
FROM pg_catalog.pg_class c
WHERE c.oid = $1::text::regclass`

	selectLedgerTotal = `
SELECT count(*), coalesce(sum(row_count), 0)::bigint
FROM tallyman.loaded_elements
WHERE revision_id = $1 AND outcome = 'loaded'`
)

// pieceBytes is how much of the table one statement reads.
const pieceBytes = 64 << 20

// unknownKept is how many batches that the ledger does not have are told apart.
const unknownKept = 100_000

// slice reads the ledger and the table in one snapshot.
func (v *Verifier) slice(ctx context.Context) error {
	conn, err := pgx.ConnectConfig(ctx, v.w.patient())
	if err != nil {
		return step("connect", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	moment := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	return pgx.BeginTxFunc(ctx, conn, moment, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, plainText); err != nil {
			return err
		}
		e, err := readExtent(ctx, tx)
		if err != nil {
			return err
		}
		if v.window, err = e.window(); err != nil {
			return err
		}
		if !v.dataset.Revision.Manifest.BatchID {
			return v.total(ctx, tx)
		}
		if err := v.ledger(ctx, tx); err != nil {
			return err
		}
		return v.table(ctx, tx)
	})
}

// boundary is a time in a query; zero: infinity, of that sign.
func boundary(t time.Time, none pgtype.InfinityModifier) pgtype.Timestamptz {
	if t.IsZero() {
		return pgtype.Timestamptz{InfinityModifier: none, Valid: true}
	}
	return pgtype.Timestamptz{Time: t, Valid: true}
}

// ledger reads the slice's batches. The constant time of content ids is the
// zero time, so a slice that goes on within them goes on by id.
func (v *Verifier) ledger(ctx context.Context, tx pgx.Tx) error {
	v.from, v.to = v.to, ledgerKey{}
	low := boundary(v.from.at, pgtype.NegativeInfinity)
	if v.started {
		low = pgtype.Timestamptz{Time: v.from.at, Valid: true}
	}
	rows, err := tx.Query(ctx, selectSlice, v.dataset.Revision.ID, low, pgtype.UUID{Bytes: v.from.id, Valid: true},
		boundary(v.options.Until, pgtype.Infinity), v.options.SliceBatches)
	if err != nil {
		return step("read the ledger", err)
	}
	v.index, v.unknown = map[uuid.UUID]int32{}, map[uuid.UUID]int64{}
	var (
		at      time.Time
		id      pgtype.UUID
		loaded  bool
		count   int64
		content []byte
	)
	_, err = pgx.ForEachRow(rows, []any{&at, &id, &loaded, &count, &content}, func() error {
		v.index[id.Bytes] = int32(len(v.tallies))
		t := tally{id: id.Bytes, at: at.UnixMicro(), loaded: loaded, content: batch.Digest(content)}
		if loaded {
			t.want = count
		}
		v.tallies = append(v.tallies, t)
		return nil
	})
	if err != nil {
		return step("read the ledger", err)
	}
	if len(v.tallies) < v.options.SliceBatches {
		v.ended = true
	} else {
		v.to = ledgerKey{at.UTC(), id.Bytes}
	}
	return nil
}

// within says that a batch of that key belongs to the slice, if to any.
func (v *Verifier) within(k ledgerKey) bool {
	after := k.at.After(v.from.at) || k.at.Equal(v.from.at) && bytes.Compare(k.id[:], v.from.id[:]) > 0
	if !v.started && v.options.Since.IsZero() {
		after = true
	}
	if !v.ended {
		return after && (k.at.Before(v.to.at) || k.at.Equal(v.to.at) && bytes.Compare(k.id[:], v.to.id[:]) <= 0)
	}
	return after && (v.options.Until.IsZero() || k.at.Before(v.options.Until))
}

// table counts the table's rows by batch, some pages at a time.
func (v *Verifier) table(ctx context.Context, tx pgx.Tx) error {
	sum := "0::bigint"
	var args []any
	if v.options.Values {
		sum, args = v.sumOf("t"), []any{v.seed}
	}
	id := pgx.Identifier{schema.BatchIDColumn}.Sanitize()
	s := statement{fmt.Sprintf("SELECT t.%s, count(*), %s FROM %s t", id, sum, ddl.PostgresName(v.dataset.Revision.Physical)), "GROUP BY 1", args}
	return v.pieces(ctx, tx, s, func(rows pgx.Rows) error {
		var strangers []stranger
		err := eachSum(rows, func(id pgtype.UUID, s rowSum) {
			if i, ok := v.index[id.Bytes]; ok && id.Valid {
				t := &v.tallies[i]
				t.have += s.rows
				t.sum = addSums(t.sum, s.sum)
				return
			}
			strangers = append(strangers, stranger{id.Bytes, s.rows})
		})
		if err != nil {
			return err
		}
		return v.meet(ctx, tx, strangers)
	})
}

// statement is a SELECT of the table, called t, that lacks its WHERE.
type statement struct {
	text, group string // what comes before and after it
	args        []any
}

// pieces runs a statement over some pages of the table after another.
func (v *Verifier) pieces(ctx context.Context, tx pgx.Tx, s statement, each func(pgx.Rows) error) error {
	var (
		plain       bool
		size, block int64
	)
	err := tx.QueryRow(ctx, selectSize, ddl.PostgresName(v.dataset.Revision.Physical)).Scan(&plain, &size, &block)
	if err != nil {
		return step("measure the table", err)
	}
	run := func(where string, args ...any) error {
		rows, err := tx.Query(ctx, strings.Join([]string{s.text, where, s.group}, " "), args...)
		if err == nil {
			err = each(rows)
		}
		return step("count the table's rows", err)
	}
	if !plain {
		return run("", s.args...)
	}
	n := len(s.args)
	where := fmt.Sprintf("WHERE t.ctid >= $%d AND t.ctid < $%d", n+1, n+2)
	for first := int64(0); first < size/block; first += pieceBytes / block {
		v.options.Progress(first*block, size)
		next := min(first+pieceBytes/block, size/block)
		if err := run(where, append(s.args[:n:n], pageStart(first), pageStart(next))...); err != nil {
			return err
		}
	}
	v.options.Progress(size, size)
	return nil
}

// pageStart comes before every row of a page.
func pageStart(page int64) pgtype.TID {
	return pgtype.TID{BlockNumber: uint32(page), Valid: true}
}

// stranger is a batch that the slice of the ledger does not have.
type stranger struct {
	id   uuid.UUID
	rows int64
}

// meet decides which strangers are unknown to the ledger, and not only of
// another slice. What has no time belongs to the first.
func (v *Verifier) meet(ctx context.Context, tx pgx.Tx, strangers []stranger) error {
	var v4 []pgtype.UUID
	for _, s := range strangers {
		if s.id.Version() == 4 {
			v4 = append(v4, pgtype.UUID{Bytes: s.id, Valid: true})
		}
	}
	times := map[uuid.UUID]time.Time{}
	if len(v4) > 0 {
		rows, err := tx.Query(ctx, selectV4Times, v.dataset.Revision.ID, v4)
		if err != nil {
			return step("look up the times of v4 ids", err)
		}
		var (
			id pgtype.UUID
			at time.Time
		)
		_, err = pgx.ForEachRow(rows, []any{&id, &at}, func() error {
			times[id.Bytes] = at.UTC()
			return nil
		})
		if err != nil {
			return step("look up the times of v4 ids", err)
		}
	}
	for _, s := range strangers {
		at, timed := times[s.id]
		if !timed {
			var err error
			at, err = batch.TimeOf(s.id)
			timed = err == nil
		}
		switch {
		case timed && !v.within(ledgerKey{at, s.id}), !timed && v.started:
		case timed && s.id.Version() != 8 && at.Before(v.window.Horizon):
			v.found.Forgotten += s.rows
		case !timed && s.id.Version() == 4 && !v.window.Horizon.IsZero():
			v.found.Forgotten += s.rows // its time went with the ledger's row, if it ever was there
		default:
			v.stray(s)
		}
	}
	return nil
}

// stray takes note of rows of a batch that the ledger does not have.
func (v *Verifier) stray(s stranger) {
	if _, known := v.unknown[s.id]; known || len(v.unknown) < unknownKept {
		v.unknown[s.id] += s.rows
		return
	}
	v.found.TableRows += s.rows
	v.found.Total[UnknownBatch]++
}

// total compares all rows with the whole ledger, where no row says of which
// batch it is.
func (v *Verifier) total(ctx context.Context, tx pgx.Tx) error {
	v.ended = true
	f := Finding{Kind: OtherTotal}
	if err := tx.QueryRow(ctx, selectLedgerTotal, v.dataset.Revision.ID).Scan(&v.found.Batches, &f.Want); err != nil {
		return step("add up the ledger", err)
	}
	s := statement{text: "SELECT NULL::uuid, count(*), 0::bigint FROM " + ddl.PostgresName(v.dataset.Revision.Physical) + " t"}
	err := v.pieces(ctx, tx, s, func(rows pgx.Rows) error {
		return eachSum(rows, func(_ pgtype.UUID, s rowSum) { f.Have += s.rows })
	})
	if err != nil {
		return err
	}
	v.found.Rows, v.found.TableRows = f.Want, f.Have
	// A table that was there before may have rows that Tallyman did not load, and
	// behind a horizon there are those that the ledger has forgotten.
	switch more := f.Have - f.Want; {
	case more < 0, more > 0 && !v.dataset.Revision.Manifest.Existing && v.window.Horizon.IsZero():
		v.add(f)
	case more > 0 && !v.dataset.Revision.Manifest.Existing:
		v.found.Forgotten += more
	}
	return nil
}
