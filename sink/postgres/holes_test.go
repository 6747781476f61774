package postgres_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"pgregory.net/rapid"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/sink/postgres"
)

// numbersMissing goes through a stream's numbers one by one.
const numbersMissing = `
SELECT n FROM generate_series($3::bigint + 1, $4::bigint) n
EXCEPT SELECT sequence FROM tallyman.loaded_elements WHERE (revision_id, incarnation) = ($1, $2)
EXCEPT SELECT n FROM tallyman.satisfied s, generate_series(s.first, s.last) n WHERE (revision_id, incarnation) = ($1, $2)
EXCEPT SELECT sequence FROM tallyman.quarantine WHERE (revision_id, incarnation) = ($1, $2) AND reason IN ('rejected', 'expired')
ORDER BY n`

// plantNumber notes a number of a stream in one of the tables: in the ledger,
// loaded or discarded, of a month of its own or of files, or in quarantine.
var plantNumber = [...]string{
	`INSERT INTO tallyman.loaded_elements VALUES ($1, now() + $3 % 3 * interval '40 days', gen_random_uuid(), 'loaded', $2, $3, 1, 1, sha256(''))`,
	`INSERT INTO tallyman.loaded_elements VALUES ($1, '0001-01-01 00:00Z', gen_random_uuid(), 'discarded', $2, $3, 1, 1, sha256(''))`,
	quarantineNumber + `'rejected', '', '{}', 0, sha256(''), true)`,
	quarantineNumber + `'expired', '', '{}', 0, sha256(''), true)`,
	quarantineNumber + `'bad_digest', '', '{}', 0, sha256(''), true)`,
}

const quarantineNumber = `INSERT INTO tallyman.quarantine (revision_id, sha256, incarnation, sequence,
	cluster, topic, partition, kafka_offset, reason, detail, headers, payload_size, payload_sha256, payload_whole)
VALUES ($1, sha256(uuid_send(gen_random_uuid())), $2, $3, 'c', 't', 0, 0, `

func TestHolesAreTheNumbersThatAreNowhere(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := open(t, sandboxtest.Postgres(t, version), events, postgres.Config{})
			rapid.Check(t, func(r *rapid.T) {
				tx, err := w.conn.Begin(t.Context())
				if err != nil {
					r.Fatal(err)
				}
				defer func() { _ = tx.Rollback(t.Context()) }()
				stream, other := pgUUID(uuid.New()), pgUUID(uuid.New())
				number := rapid.Int64Range(1, 40)
				for range rapid.IntRange(0, 60).Draw(r, "numbers") {
					in, of := rapid.IntRange(0, len(plantNumber)-1).Draw(r, "table"), stream
					if rapid.IntRange(0, 9).Draw(r, "other") == 0 {
						of = other
					}
					run(t, r, tx, plantNumber[in], w.revision.ID, of, number.Draw(r, "number"))
				}
				for range rapid.IntRange(0, 4).Draw(r, "ranges") {
					first := number.Draw(r, "first")
					run(t, r, tx, `INSERT INTO tallyman.satisfied VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`, w.revision.ID, stream,
						first, first+rapid.Int64Range(0, 12).Draw(r, "more"), rapid.SampledFrom([]string{"duplicate", "accepted", "forgotten"}).Draw(r, "reason"))
				}
				above, upto := rapid.Int64Range(0, 45).Draw(r, "above"), rapid.Int64Range(0, 45).Draw(r, "upto")
				want := numbers(t, r, tx, numbersMissing, w.revision.ID, stream, above, upto)
				got := numbers(t, r, tx, `SELECT n FROM tallyman.holes($1, $2, $3, $4) h, generate_series(h.first, h.last) n`, w.revision.ID, stream, above, upto)
				if diff := cmp.Diff(want, got); diff != "" {
					r.Fatalf("holes above %d up to %d (-want +got):\n%s", above, upto, diff)
				}
				// Ranges are as long as they can be.
				if ends := numbers(t, r, tx, `SELECT h.last FROM tallyman.holes($1, $2, $3, $4) h JOIN tallyman.holes($1, $2, $3, $4) n ON n.first <= h.last + 1 AND n.first > h.first`,
					w.revision.ID, stream, above, upto); len(ends) > 0 {
					r.Fatalf("ranges that end at %v touch the next ones", ends)
				}
				reached := upto
				if len(want) > 0 {
					reached = want[0] - 1
				}
				if got := numbers(t, r, tx, `SELECT tallyman.reached($1, $2, $3, $4)`, w.revision.ID, stream, above, max(above, upto)); above <= upto && got[0] != reached {
					r.Fatalf("reached %d, want %d", got[0], reached)
				}
			})
			// What nobody announced yet is asked for with no end.
			if n := w.count(`SELECT count(*) FROM tallyman.holes(1, gen_random_uuid(), 5, NULL)`); n != 0 {
				t.Errorf("%d holes up to nowhere", n)
			}
			if n := w.count(`SELECT last FROM tallyman.holes(1, gen_random_uuid(), 0, 9223372036854775806)`); n != 1<<63-2 {
				t.Errorf("the only hole ends at %d", n)
			}
		})
	}
}

func run(t *testing.T, r *rapid.T, tx pgx.Tx, sql string, args ...any) {
	if _, err := tx.Exec(t.Context(), sql, args...); err != nil {
		r.Fatalf("%s: %v", sql, err)
	}
}

func numbers(t *testing.T, r *rapid.T, tx pgx.Tx, sql string, args ...any) []int64 {
	rows, err := tx.Query(t.Context(), sql, args...)
	if err != nil {
		r.Fatalf("%s: %v", sql, err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		r.Fatalf("%s: %v", sql, err)
	}
	return append([]int64{}, all...)
}

func pgUUID(id uuid.UUID) pgtype.UUID { return pgtype.UUID{Bytes: id, Valid: true} }
