package demo

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"tallyman/internal/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

// The comparison sees everything that can be wrong with a table, and nothing in
// one that is right. Each case changes a table that holds what was sent.
func TestCompareSees(t *testing.T) {
	t.Parallel()
	const tableSQL = `
CREATE TABLE public.conversions (
	event_id uuid NOT NULL, occurred_at timestamptz NOT NULL, server text NOT NULL, campaign bigint NOT NULL,
	converted boolean NOT NULL, revenue double precision, attributes json, _batch_id uuid NOT NULL)`
	type counts struct{ Lost, Doubled, Altered int64 }
	for name, tc := range map[string]struct {
		change        string
		rows, batches counts
	}{
		"nothing":         {"SELECT 1", counts{}, counts{}},
		"a row deleted":   {"DELETE FROM conversions WHERE event_id = (SELECT min(event_id::text)::uuid FROM conversions)", counts{Lost: 1}, counts{Altered: 1}},
		"a batch deleted": {"DELETE FROM conversions WHERE _batch_id = (SELECT min(_batch_id::text)::uuid FROM conversions)", counts{Lost: 10}, counts{Lost: 1}},
		"a row twice":     {"INSERT INTO conversions SELECT * FROM conversions LIMIT 1", counts{Doubled: 1}, counts{Doubled: 1}},
		"all twice":       {"INSERT INTO conversions SELECT * FROM conversions", counts{Doubled: 30}, counts{Doubled: 3}},
		"one of no batch": {"INSERT INTO conversions SELECT gen_random_uuid(), occurred_at, server, campaign, converted, revenue, attributes, gen_random_uuid() FROM conversions LIMIT 1",
			counts{Altered: 1}, counts{Altered: 1}},
		"a time":          {"UPDATE conversions SET occurred_at = occurred_at + interval '1 microsecond' WHERE event_id = (SELECT min(event_id::text)::uuid FROM conversions)", counts{Altered: 1}, counts{}},
		"a large number":  {"UPDATE conversions SET campaign = campaign - 1 WHERE event_id = (SELECT min(event_id::text)::uuid FROM conversions)", counts{Altered: 1}, counts{}},
		"a null":          {"UPDATE conversions SET revenue = CASE WHEN revenue IS NULL THEN 0 END WHERE event_id = (SELECT min(event_id::text)::uuid FROM conversions)", counts{Altered: 1}, counts{}},
		"space in a JSON": {"UPDATE conversions SET attributes = (attributes::text || ' ')::json WHERE event_id = (SELECT min(event_id::text)::uuid FROM conversions WHERE attributes IS NOT NULL)", counts{Altered: 1}, counts{}},
		"another batch":   {"UPDATE conversions SET _batch_id = gen_random_uuid() WHERE event_id = (SELECT min(event_id::text)::uuid FROM conversions)", counts{Altered: 1}, counts{Altered: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := sandboxtest.Postgres(t, "18")
			conn, err := pgx.Connect(t.Context(), dsn)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close(t.Context()) }()
			file, lines := sentFile(t)
			for _, sql := range []string{tableSQL, "CREATE TEMPORARY TABLE copied (b uuid, e uuid, o timestamptz, s text, c bigint, v boolean, r double precision, a text)"} {
				if _, err := conn.Exec(t.Context(), sql); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := conn.PgConn().CopyFrom(t.Context(), strings.NewReader(lines), "COPY copied FROM STDIN"); err != nil {
				t.Fatal(err)
			}
			for _, sql := range []string{"INSERT INTO conversions SELECT e, o, s, c, v, r, a::json, b FROM copied", tc.change} {
				if _, err := conn.Exec(t.Context(), sql); err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
			}
			rows, batches, err := compare(t.Context(), conn, file, "public.conversions")
			if err != nil {
				t.Fatal(err)
			}
			got := [2]counts{{rows.Lost, rows.Doubled, rows.Altered}, {batches.Lost, batches.Doubled, batches.Altered}}
			if diff := cmp.Diff([2]counts{tc.rows, tc.batches}, got); diff != "" {
				t.Error(diff)
			}
			if rows.Sent != 30 || batches.Sent != 3 {
				t.Errorf("sent %d rows in %d batches, want 30 in 3", rows.Sent, batches.Sent)
			}
		})
	}
}

// sentFile writes what a generator would note of three batches.
func sentFile(t *testing.T) (name, lines string) {
	t.Helper()
	g := newGenerator(1, 0)
	var text []byte
	for range 3 {
		id := uuid.New()
		for range 10 {
			e := g.next()
			text = e.appendCopy(text, id)
		}
	}
	name = filepath.Join(t.TempDir(), "sent")
	if err := os.WriteFile(name, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return name, string(text)
}
