package postgres_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyman/internal/sandbox"
	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema/batch"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

const (
	ledgerMonths = 24     // that a generated ledger goes over
	ledgerGap    = 10_000 // batches above the floor, of which every hundredth is missing
)

// grow generates a ledger of that many batches of one stream, all announced,
// over as many months as there are partitions.
func (w *warehouse) grow(batches int64) (stream uuid.UUID) {
	w.t.Helper()
	stream = uuid.New()
	const part = 1_000_000
	for from := int64(1); from <= batches; from += part {
		w.run(`INSERT INTO tallyman.loaded_elements (revision_id, batch_time, unique_id, outcome, incarnation, sequence, row_count, byte_count, digest)
			SELECT $1, date_trunc('month', now()) + n * ($5::interval / $6::float8), gen_random_uuid(), 'loaded', $2, n, 100, 10000, sha256(int8send(n))
			FROM generate_series($3::bigint, $4::bigint) n
			WHERE n <= $6::float8 - $7::bigint OR n % 100 <> 7`,
			w.revision.ID, pgUUID(stream), from, min(from+part-1, batches), strconv.Itoa(ledgerMonths*30)+" days", float64(batches), ledgerGap)
	}
	w.run(`INSERT INTO tallyman.streams (revision_id, incarnation, source, floor, announced, announced_at) VALUES ($1, $2, 'grown', $3, $4, now())`,
		w.revision.ID, pgUUID(stream), batches-ledgerGap, batches)
	w.run(`INSERT INTO tallyman.announcements (revision_id, incarnation, sequence, at, since) VALUES ($1, $2, $3, now(), now() - interval '1 hour')`,
		w.revision.ID, pgUUID(stream), batches)
	w.run("VACUUM (ANALYZE) tallyman.loaded_elements")
	return stream
}

func (w *warehouse) run(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.conn.Exec(w.t.Context(), sql, args...); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
}

// scaled are the questions whose cost must not follow history.
func (w *warehouse) scaled() map[string]func() error {
	position, committer := w.partition(0), w.committer()
	ctx := w.t.Context()
	return map[string]func() error{
		"claim 50": func() error {
			next := position.Next + 50
			var elements []sink.Element
			for at := position.Next; at < next; at++ {
				elements = append(elements, w.element(batch.NewID(), position, at, []any{at, "one row"}))
			}
			_, err := committer.Commit(ctx, w.group(position, next, elements...))
			position.Next = next
			return err
		},
		"missing": func() error {
			found, err := w.Missing(ctx, "", time.Minute)
			if err == nil && len(found) != ledgerGap/100 {
				err = fmt.Errorf("%d ranges are missing", len(found))
			}
			return err
		},
		"completeness": func() error {
			c, err := w.Completeness(ctx, w.revision, time.Minute)
			if err == nil && c.Missing != ledgerGap/100 {
				err = fmt.Errorf("%d batches are missing", c.Missing)
			}
			return err
		},
		"receipts": func() error {
			w.run("UPDATE tallyman.receipts SET due_at = now(), sent = NULL")
			found, _, err := w.TakeReceipts(ctx, sink.Due{Revision: w.revision, Cluster: "default", Grace: time.Minute, Every: time.Hour,
				Again: time.Hour, Lease: time.Hour, Limit: 10, All: true})
			if err == nil && (len(found) != 1 || len(found[0].Missing) != ledgerGap/100) {
				err = fmt.Errorf("receipts %+v", found)
			}
			return err
		},
		"floors": func() error {
			_, err := w.AdvanceFloors(ctx, w.revision)
			return err
		},
	}
}

// BenchmarkScale asks the same of a ledger of a million batches, and of one of
// as many millions as TALLYMAN_SCALE_MILLIONS says: each takes a
// quarter of a GB.
func BenchmarkScale(b *testing.B) {
	sizes := []int64{1}
	if text := os.Getenv("TALLYMAN_SCALE_MILLIONS"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		sizes = append(sizes, n)
	}
	asked := map[int64]map[string]func() error{}
	for _, millions := range sizes {
		w := open(b, sandboxtest.Postgres(b, "18"), events, postgres.Config{})
		began := time.Now()
		w.grow(millions * 1_000_000)
		b.Logf("%d million batches generated in %v: %d MiB", millions, time.Since(began).Round(time.Second),
			w.count("SELECT pg_database_size(current_database()) / 1048576"))
		asked[millions] = w.scaled()
	}
	for _, name := range slices.Sorted(maps.Keys(asked[1])) {
		for _, millions := range sizes {
			b.Run(fmt.Sprintf("%s/%dM", name, millions), func(b *testing.B) {
				for b.Loop() {
					if err := asked[millions][name](); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// What is asked all day finds what it looks for in the ledger by its indexes,
// in the plans that PostgreSQL chose for the very statements.
func TestTheLedgerIsNeverReadFromEndToEnd(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			server := sandboxtest.Server(t, version)
			grown := open(t, server.DSN("postgres"), events, postgres.Config{})
			grown.grow(300_000)
			execute(t, grown.conn,
				"ALTER DATABASE postgres SET session_preload_libraries = auto_explain",
				"ALTER DATABASE postgres SET auto_explain.log_min_duration = 0",
				"ALTER DATABASE postgres SET auto_explain.log_nested_statements = on")
			w := open(t, server.DSN("postgres"), events, postgres.Config{})
			asked := w.scaled()
			if err := asked["claim 50"](); err != nil { // and the first time makes what is needed
				t.Fatal(err)
			}
			for name, ask := range asked {
				plans := logged(t, server, func() {
					for range 10 { // with the plans for these very numbers, and those for any
						if err := ask(); err != nil {
							t.Fatalf("%s: %v", name, err)
						}
					}
				})
				if !strings.Contains(plans, "loaded_elements") {
					t.Errorf("%s: the ledger is in no plan:\n%s", name, plans)
				}
				for _, found := range regexp.MustCompile(`Seq Scan on (loaded_elements\w+)`).FindAllStringSubmatch(plans, -1) {
					if size := w.count("SELECT pg_relation_size(to_regclass($1))", "tallyman."+found[1]); size > 0 {
						t.Errorf("%s reads %s, which has %d bytes, from end to end", name, found[1], size)
					}
				}
			}
		})
	}
}

// logged returns what a server writes to its log meanwhile.
func logged(t *testing.T, server *sandbox.Postgres, do func()) string {
	t.Helper()
	path := filepath.Join(server.Dir(), "postgres.log")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	do()
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(after[len(before):])
}
