package postgres_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

// idAt returns a v7 id of a time.
func idAt(at time.Time) uuid.UUID {
	id := uuid.New()
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(at.UnixMilli()))
	copy(id[:6], ms[2:])
	id[6] = id[6]&0x0f | 0x70
	return id
}

// mid returns the middle of a month, counted from January 2024.
func mid(n int) time.Time {
	return time.Date(2024, time.January+time.Month(n), 15, 0, 0, 0, 0, time.UTC)
}

// aged is a warehouse that was prepared in January 2024. Its streams have nine
// batches in each month, and the tenth is missing.
type aged struct {
	*warehouse
	announced, unheard, passed uuid.UUID
	months                     int
}

const agedStream = `
INSERT INTO tallyman.loaded_elements (revision_id, batch_time, unique_id, outcome, incarnation, sequence, row_count, byte_count, digest)
SELECT $1, $2, gen_random_uuid(), 'loaded', $3::text::uuid, n, 1, 1, sha256('') FROM generate_series($4::bigint * 10 + 1, $4::bigint * 10 + 9) n`

// newAged fills months before January 2024 and from then on.
func newAged(t *testing.T, version string, before, after int) *aged {
	t.Helper()
	dsn := sandboxtest.Postgres(t, version)
	mustInit(t, bare(t, dsn, postgres.Config{}), mid(0))
	a := &aged{warehouse: open(t, dsn, events, postgres.Config{}), announced: uuid.New(), unheard: uuid.New(), passed: uuid.New(), months: before + after}
	mustInit(t, a.Warehouse, mid(after))
	for n := range a.months {
		for _, stream := range []uuid.UUID{a.announced, a.unheard, a.passed} {
			if _, err := a.conn.Exec(t.Context(), agedStream, a.revision.ID, mid(n-before), stream.String(), n); err != nil {
				t.Fatal(err)
			}
		}
	}
	for stream, floor := range map[uuid.UUID]int{a.announced: 0, a.passed: a.months * 10} {
		if _, err := a.conn.Exec(t.Context(), `INSERT INTO tallyman.streams (revision_id, incarnation, source, floor, announced) VALUES ($1, $2::text::uuid, 'test', $3, $4)`,
			a.revision.ID, stream.String(), floor, a.months*10); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// check checks that it is known still what is missing, and that nothing is kept
// of what the floor has passed.
func (a *aged) check(t *testing.T, when string) {
	t.Helper()
	const holes = `SELECT coalesce(string_agg(first || '-' || last, ' ' ORDER BY first), '') FROM tallyman.holes($1, $2::text::uuid, 0, $3)`
	want := ""
	for n := range a.months {
		if n > 0 {
			want += " "
		}
		want += fmt.Sprintf("%d-%d", n*10+10, n*10+10)
	}
	for _, stream := range []uuid.UUID{a.announced, a.unheard} {
		var got string
		if err := a.conn.QueryRow(t.Context(), holes, a.revision.ID, stream.String(), a.months*10).Scan(&got); err != nil || got != want {
			t.Fatalf("%s: missing is %s, %v, want %s", when, got, err, want)
		}
	}
	if n := a.count(`SELECT count(*) FROM tallyman.satisfied WHERE incarnation = $1::text::uuid`, a.passed.String()); n != 0 {
		t.Errorf("%s: %d ranges are kept of what the floor has passed", when, n)
	}
}

// settled checks that a run left nothing half done, and where the ledger begins.
func (a *aged) settled(t *testing.T, report postgres.InitReport, horizon time.Time) {
	t.Helper()
	if !report.Window.Horizon.Equal(horizon) || report.Held != "" {
		t.Errorf("the horizon is %v, want %v; held: %q", report.Window.Horizon, horizon, report.Held)
	}
	if n := a.count(`SELECT count(*) FROM tallyman.loaded_elements WHERE batch_time < $1`, horizon); n != 0 {
		t.Errorf("%d batches are from before %v", n, horizon)
	}
	const loose = `SELECT count(*) FROM pg_class WHERE relnamespace = 'tallyman'::regnamespace AND relkind = 'r' AND relname LIKE 'loaded\_elements\_%' AND NOT relispartition`
	if n := a.count(loose); n != 0 {
		t.Errorf("%d partitions are detached and there still", n)
	}
	if n := a.count(`SELECT cardinality(leaving) FROM tallyman.ledger_window`); n != 0 {
		t.Errorf("%d partitions are leaving still", n)
	}
}

// idOf returns the id of a batch of a time.
func (a *aged) idOf(t *testing.T, at time.Time) (id string) {
	t.Helper()
	if err := a.conn.QueryRow(t.Context(), "SELECT unique_id::text FROM tallyman.loaded_elements WHERE batch_time = $1 LIMIT 1", at).Scan(&id); err != nil {
		t.Fatalf("%v: %v", at, err)
	}
	return id
}

func firstOf(t time.Time) time.Time { return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC) }

// A run is cut off at each of its messages, before the server gets it and after
// the server has done it. What was missing stays so, nothing loads twice, and the
// next run finishes it.
func TestRetentionInterrupted(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		for name, months := range map[string][2]int{"older": {60, 1}, "month": {1, 90}} {
			t.Run(version+"/"+name, func(t *testing.T) {
				t.Parallel()
				a := newAged(t, version, months[0], months[1])
				line := newWire(t, a.dsn)
				through := bare(t, line.dsn, postgres.Config{})
				n, cuts := 1-months[0], 0
				if name == "month" {
					n = 0
				}
				retention := postgres.Retention{Months: 3}
				for _, answer := range []bool{false, true} {
					for after, ended := 0, false; !ended; after++ {
						now := mid(n + 3)
						id := a.idOf(t, mid(n-1))
						cut := line.cutAfter("SET horizon", after, answer)
						_, err := through.Init(t.Context(), postgres.InitOptions{Retention: &retention, Now: func() time.Time { return now }})
						if ended = err == nil; !ended && !cut.Load() {
							t.Fatal(err)
						}
						a.check(t, fmt.Sprintf("cut after message %d of %s (answer: %v)", after, now, answer))
						if a.claimable(t, mid(n-1), id) {
							t.Fatalf("cut after message %d (answer: %v): a batch of %v can load a second time", after, answer, mid(n-1))
						}
						report, err := a.Init(t.Context(), postgres.InitOptions{Now: func() time.Time { return now }})
						if err != nil {
							t.Fatal(err)
						}
						a.check(t, "the next run")
						a.settled(t, report, firstOf(mid(n)))
						a.replay(t, mid(n-1))
						n++
						cuts++
					}
				}
				t.Logf("cut off %d times", cuts)
				if cuts < 20 {
					t.Errorf("cut off %d times only", cuts)
				}
			})
		}
	}
}

// cutAfter has the wire hang up a number of messages after one that says text, if
// there are so many; cut tells whether it did.
func (w *wire) cutAfter(text string, messages int, answer bool) (cut *atomic.Bool) {
	cut = new(atomic.Bool)
	var next func() after
	next = func() after {
		if messages == 0 {
			cut.Store(true)
			return hangUp
		}
		messages--
		w.next = &watch{answer: answer, do: next} // the caller holds the lock
		return passOn
	}
	w.look(watch{text: text, do: func() after {
		w.next = &watch{answer: answer, do: next}
		return passOn
	}})
	return cut
}

// replay brings again what was loaded, with numbers and without.
func (a *aged) replay(t *testing.T, at time.Time) {
	t.Helper()
	p := a.partition(0)
	known := renumber(a.element(idAt(at), p, p.Next, []any{int64(1), "again"}), a.passed, 1)
	stranger := a.element(idAt(at), p, p.Next+1, []any{int64(1), "again"})
	res, err := a.committer().Commit(t.Context(), a.group(p, p.Next+2, known, stranger))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(res.Outcomes, []sink.Outcome{sink.Duplicate, sink.Expired}) {
		t.Errorf("of %v: %v", at, res.Outcomes)
	}
	if n := a.count("SELECT count(*) FROM public.events"); n != 0 {
		t.Fatalf("%d rows were loaded twice", n)
	}
}

// claimable says that the ledger takes an id.
func (a *aged) claimable(t *testing.T, at time.Time, id string) bool {
	t.Helper()
	const claim = `INSERT INTO tallyman.loaded_elements (revision_id, batch_time, unique_id, outcome, row_count, byte_count, digest)
		VALUES ($1, $2, $3::text::uuid, 'loaded', 1, 1, sha256('')) ON CONFLICT DO NOTHING`
	tag, err := a.conn.Exec(t.Context(), claim, a.revision.ID, at, id)
	if pg := (*pgconn.PgError)(nil); err != nil && (!errors.As(err, &pg) || pg.Code != "23514") {
		t.Fatal(err)
	}
	return err == nil && tag.RowsAffected() > 0
}

// renumber returns the same batch as one of a stream.
func renumber(e sink.Element, stream uuid.UUID, sequence uint64) sink.Element {
	b := *e.Batch
	b.Incarnation, b.Sequence = stream, sequence
	b.Seal()
	e.Batch, e.Headers = &b, b.Headers()
	return e
}
