package postgres_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/sink/postgres"
)

// announce takes one announcement, so many seconds from now, and returns why not.
func (w *warehouse) announce(stream uuid.UUID, sequence int64, second int) (refusal string) {
	w.t.Helper()
	const sql = `SELECT coalesce((SELECT refusal FROM tallyman.announce($1, ARRAY[$2::uuid], '{test}', ARRAY[$3::bigint], ARRAY[now() + $4 * interval '1 second'], '{false}')), '')`
	if err := w.conn.QueryRow(w.t.Context(), sql, w.revision.ID, pgUUID(stream), sequence, second).Scan(&refusal); err != nil {
		w.t.Fatal(err)
	}
	return refusal
}

// What is missing far below is not counted for every announcement: such a count
// takes seconds, and is made where a commit waits for it. What is refused after
// a count is refused for a minute without another.
func TestAnnouncementsSpareTheCount(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := open(t, sandboxtest.Postgres(t, version), events, postgres.Config{})
			stream := uuid.New()
			state := func() string {
				t.Helper()
				var s string
				sql := "SELECT concat_ws(' ', announced, at_most, looked_at > '-infinity', refused) FROM tallyman.streams WHERE incarnation = $1"
				if err := w.conn.QueryRow(t.Context(), sql, pgUUID(stream)).Scan(&s); err != nil {
					t.Fatal(err)
				}
				return s
			}
			step := func(sequence int64, second int, refusal, want string) {
				t.Helper()
				if got := w.announce(stream, sequence, second); got != refusal {
					t.Errorf("%d: %q, want %q", sequence, got, refusal)
				}
				if diff := cmp.Diff(want, state()); diff != "" {
					t.Errorf("%d: (announced, at most missing, looked, refused) %s", sequence, diff)
				}
			}
			satisfy := func(first, last int64) {
				t.Helper()
				w.run("INSERT INTO tallyman.satisfied VALUES ($1, $2, $3, $4, 'duplicate')", w.revision.ID, pgUUID(stream), first, last)
			}
			step(1_000_000, 1, "", "1000000 1000000 f 0")
			satisfy(3, 2_000_000)
			step(2_000_000, 2, "", "2000000 2 f 0") // counted
			satisfy(2_000_001, 2_000_010)
			step(2_000_009, 3, "", "2000009 11 f 0") // not counted: 2 are missing, and it is enough to know that not more than 11 are
			step(5_000_000, 4, "too_many_missing", "2000009 11 f 1")
			step(3_000_009, 5, "too_many_missing", "2000009 11 t 2") // what is known ends near, so it was counted
			w.run("DELETE FROM tallyman.satisfied WHERE first = 3")
			satisfy(1, 3_500_000)
			step(3_000_010, 6, "too_many_missing", "2000009 11 t 3") // now none is missing, but it was counted just now
			w.run("UPDATE tallyman.streams SET looked_at = now() - interval '2 minutes'")
			step(3_000_011, 7, "", "3000011 0 t 3")
		})
	}
}

// While the tables are new, and nobody knows how large they become, the plans of
// what every announcement does find the stream by its key; a loader keeps them.
func TestAnnouncePlansOfANewWarehouse(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := open(t, sandboxtest.Postgres(t, version), events, postgres.Config{})
			const where = " FROM tallyman.streams t WHERE (t.revision_id, t.incarnation) = (1, '11111111-1111-4111-8111-111111111111')"
			for _, sql := range []string{
				"SELECT t.*" + where + " FOR NO KEY UPDATE",
				"UPDATE tallyman.streams t SET announced = 3" + strings.TrimPrefix(where, " FROM tallyman.streams t"),
			} {
				rows, err := w.conn.Query(t.Context(), "EXPLAIN "+sql)
				if err != nil {
					t.Fatal(err)
				}
				plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
				if text := strings.Join(plan, "\n"); err != nil || !strings.Contains(text, "using streams_pkey") {
					t.Errorf("%s: %v\n%s", sql, err, text)
				}
			}
		})
	}
}

// Floors are moved up while streams are announced on: a stream that grows meanwhile
// holds up neither its own floor nor another's.
func TestFloorsBesideAnnouncements(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := open(t, sandboxtest.Postgres(t, version), events, postgres.Config{})
			const streams, numbers = 20, 100
			all := make([]string, streams)
			for i := range all {
				stream := uuid.New()
				all[i] = stream.String()
				w.numbered(stream, numbers, "true", false)
			}
			w.run("UPDATE tallyman.streams SET announced = 1")
			source := session(t, w.dsn)
			ended := make(chan error, 1)
			go func() {
				var err error
				for n := 2; n <= numbers && err == nil; n++ {
					_, err = source.Exec(t.Context(), `SELECT tallyman.announce($1, ARRAY[s::uuid], '{test}', ARRAY[$3::bigint], ARRAY[now()], '{false}')
						FROM unnest($2::text[]) s`, w.revision.ID, all, n)
				}
				ended <- err
			}()
			for running := true; running; {
				select {
				case err := <-ended:
					if err != nil {
						t.Error(err)
					}
					running = false
				default:
				}
				if _, err := w.AdvanceFloors(t.Context(), w.revision); err != nil {
					t.Errorf("floors: %v", err)
				}
			}
			if n := w.count("SELECT count(*) FROM tallyman.streams WHERE floor = announced AND announced = $1", numbers); n != streams {
				t.Errorf("%d streams are accounted for, want %d", n, streams)
			}
		})
	}
}
