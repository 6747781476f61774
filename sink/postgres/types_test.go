package postgres_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

// A modifier rounds and trims, and an array takes the elements of another type
// as it takes a column's.
func TestChangedModifiers(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), `
dataset: test/events
columns:
  - {name: price, type: "decimal(12,2)"}
  - {name: prices, type: "decimal(12,2)[]"}
  - {name: ids, type: "int64[]"}
  - {name: at, type: timestamp}
  - {name: clock, type: time}
`, postgres.Config{})
	execute(t, w.conn, "DROP VIEW events")
	c, p := w.committer(), w.partition(0)
	g := w.group(p, 1, w.element(batch.NewID(), p, 0, []any{"1.25", []string{"1.25"}, []int64{1}, time.Now(), time.Now()}))
	for _, tc := range []struct{ change, says, back string }{
		{"price TYPE numeric(12,1)", `column "price" is numeric(12,1), the manifest needs numeric(12,2)`, "price TYPE numeric(12,2)"},
		{"price TYPE numeric(13,2)", `column "price" is numeric(13,2), the manifest needs numeric(12,2)`, "price TYPE numeric(12,2)"},
		{"price TYPE numeric", `column "price" is numeric, the manifest needs numeric(12,2)`, "price TYPE numeric(12,2)"},
		{"prices TYPE numeric(12,1)[]", `column "prices" is numeric(12,1)[], the manifest needs numeric(12,2)[]`, "prices TYPE numeric(12,2)[]"},
		{"prices TYPE numeric(12,2) USING 1", `column "prices" is numeric(12,2), the manifest needs numeric(12,2)[]`, "prices TYPE numeric(12,2)[] USING NULL"},
		{"ids TYPE int[]", `column "ids" is integer[], the manifest needs bigint[]`, "ids TYPE bigint[]"},
		{"at TYPE timestamp(0)", `column "at" is timestamp(0) without time zone, the manifest needs timestamp without time zone`, "at TYPE timestamp"},
		{"at TYPE timestamptz", `column "at" is timestamp with time zone, the manifest needs timestamp without time zone`, "at TYPE timestamp"},
		{"clock TYPE time(3)", `column "clock" is time(3) without time zone, the manifest needs time without time zone`, "clock TYPE time"},
	} {
		execute(t, w.conn, "ALTER TABLE events__r1 ALTER "+tc.change)
		if err := w.refused(c, g, verdict{class: sink.Misconfigured, reason: "column_mismatch"}); !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%v does not say %q", err, tc.says)
		}
		execute(t, w.conn, "ALTER TABLE events__r1 ALTER "+tc.back)
	}
	w.loads(c, g)
}

// A dataset with a column of every type, and of arrays of it, is made and loaded.
func TestEveryTypeLoads(t *testing.T) {
	t.Parallel()
	manifest := "dataset: test/events\ncolumns:\n"
	for _, typ := range schema.Types() {
		if typ == schema.Decimal {
			typ = schema.MakeDecimal(12, 2)
		}
		manifest += fmt.Sprintf("- {name: '%s', type: '%s'}\n- {name: '%[1]s[]', type: '%[1]s[]', nullable: true}\n", typ, typ)
	}
	const text = `t|{t,NULL}|\x00ff|{"\\x00ff",NULL}|2024-02-29|{2024-02-29,NULL}|-1.50|{-1.50,NULL}|0.1|{0.1,NULL}|0.1|{0.1,NULL}|-5|{-5,NULL}|-5|{-5,NULL}|-5|{-5,NULL}|` +
		`{"a":1}|{"{\"a\":1}",NULL}|é|{é,NULL}|12:34:56.5|{12:34:56.5,NULL}|2024-02-29 12:34:56.5|{"2024-02-29 12:34:56.5",NULL}|2024-02-29 12:34:56.5+00|{"2024-02-29 12:34:56.5+00",NULL}|` +
		`0192f0c1-2b3c-7d4e-8f50-617283940a1b|{0192f0c1-2b3c-7d4e-8f50-617283940a1b,NULL}`
	at := time.Date(2024, 2, 29, 12, 34, 56, 500_000_000, time.UTC)
	var row []any
	for _, v := range []any{true, []byte{0, 255}, at, "-1.5", float32(0.1), 0.1, -5, -5, -5, `{"a":1}`, "é", at, at, at, uuid.MustParse("0192f0c1-2b3c-7d4e-8f50-617283940a1b")} {
		row = append(row, v, []any{v, nil})
	}
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := open(t, sandboxtest.Postgres(t, version), manifest, postgres.Config{})
			p := w.partition(0)
			w.loads(w.committer(), w.group(p, 1, w.element(batch.NewID(), p, 0, row)))
			execute(t, w.conn, "SET timezone = 'UTC'")
			columns, err := w.conn.Query(t.Context(), "SELECT * FROM events", pgx.QueryExecModeSimpleProtocol)
			if err != nil {
				t.Fatal(err)
			}
			defer columns.Close()
			var got []string
			for columns.Next() {
				for _, v := range columns.RawValues() {
					got = append(got, string(v))
				}
			}
			if err := columns.Err(); err != nil {
				t.Fatal(err)
			}
			want := strings.Split(text, "|")
			if diff := cmp.Diff(want, got[:min(len(got), len(want))]); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A column numeric without digits, which many tables have, holds every decimal
// as it is. One with other digits would round.
func TestDecimalIntoANumericThatWasThere(t *testing.T) {
	t.Parallel()
	const m = "dataset: test/there\ntable: {existing: true}\ncolumns: [{name: price, type: \"decimal(12,2)\"}]\n"
	dsn := sandboxtest.Postgres(t, "18")
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	execute(t, conn, "CREATE TABLE there (price numeric)")
	w := open(t, dsn, m, postgres.Config{})
	c, p := w.committer(), w.partition(0)
	w.loads(c, w.group(p, 1, w.element(batch.NewID(), p, 0, []any{"1.5"})))
	var got string
	if err := conn.QueryRow(t.Context(), "SELECT price::text FROM there").Scan(&got); err != nil || got != "1.50" {
		t.Errorf("%s, %v", got, err)
	}
	execute(t, conn, "ALTER TABLE there ALTER price TYPE numeric(12,1)")
	p = w.partition(0)
	err = w.refused(c, w.group(p, 2, w.element(batch.NewID(), p, 1, []any{"1.25"})), verdict{class: sink.Misconfigured, reason: "column_mismatch"})
	const want = `column "price" is numeric(12,1), the manifest needs numeric(12,2), or numeric without digits, or a domain over numeric(12,2)`
	if !strings.Contains(err.Error(), want) {
		t.Errorf("%v does not say %s", err, want)
	}
}
