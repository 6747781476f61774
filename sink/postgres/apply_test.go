package postgres_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

func manifest(t *testing.T, text string) schema.Manifest {
	t.Helper()
	m, err := schema.ParseManifest([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestApplyIsRepeatable(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := bare(t, sandboxtest.Postgres(t, version), postgres.Config{})
			mustInit(t, w, october())
			m := manifest(t, events)
			first, err := w.Apply(t.Context(), m)
			if err != nil || !first.Created {
				t.Fatalf("%+v, %v", first, err)
			}
			want := postgres.Applied{Hash: m.Hash(), Revision: sink.Revision{
				ID: 1, Manifest: m, Physical: schema.Table{Schema: "public", Name: "events__r1"}, State: sink.Active}}
			again, err := w.Apply(t.Context(), m)
			if diff := cmp.Diff(want, again); err != nil || diff != "" {
				t.Errorf("%v\n%s", err, diff)
			}
			active, err := w.ActiveRevisions(t.Context())
			if diff := cmp.Diff([]sink.Revision{first.Revision}, active); err != nil || diff != "" {
				t.Errorf("%v\n%s", err, diff)
			}
		})
	}
}

// Of ten at the same time one makes the dataset, and the others find it made.
func TestAppliesAtTheSameTime(t *testing.T) {
	t.Parallel()
	for _, isolation := range []string{"read committed", "repeatable read"} {
		t.Run(isolation, func(t *testing.T) {
			t.Parallel()
			dsn := sandboxtest.Postgres(t, "18")
			mustInit(t, bare(t, dsn, postgres.Config{}), october())
			execute(t, session(t, dsn), fmt.Sprintf("ALTER ROLE postgres IN DATABASE %q SET default_transaction_isolation = '%s'",
				session(t, dsn).Config().Database, isolation))
			m := manifest(t, events)
			results := make([]postgres.Applied, 10)
			var group errgroup.Group
			for i := range results {
				w := bare(t, dsn, postgres.Config{})
				group.Go(func() (err error) {
					results[i], err = w.Apply(t.Context(), m)
					return err
				})
			}
			if err := group.Wait(); err != nil {
				t.Fatal(err)
			}
			created := 0
			for _, r := range results {
				if r.Created {
					created++
				}
				if r.Revision.ID != results[0].Revision.ID {
					t.Errorf("revisions %d and %d", r.Revision.ID, results[0].Revision.ID)
				}
			}
			if created != 1 {
				t.Errorf("%d of them created the dataset", created)
			}
		})
	}
}

// Of two datasets that want the same topic or table at the same time, one is
// refused.
func TestApplyOneTopicOneTable(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ first, second, says string }{
		"topic": {
			"dataset: a/b\ntopic: t\ncolumns: [{name: x, type: bool}]", "dataset: a/c\ntopic: t\ncolumns: [{name: x, type: bool}]",
			"topic t carries dataset a/"},
		"table": {
			"dataset: a/b\ncolumns: [{name: x, type: bool}]", "dataset: c/b\ncolumns: [{name: x, type: bool}]",
			`there is a relation called "public"."b" already`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := sandboxtest.Postgres(t, "18")
			mustInit(t, bare(t, dsn, postgres.Config{}), october())
			errs := make([]error, 2)
			var group errgroup.Group
			for i, text := range []string{tc.first, tc.second} {
				w, m := bare(t, dsn, postgres.Config{}), manifest(t, text)
				group.Go(func() error {
					_, errs[i] = w.Apply(t.Context(), m)
					return nil
				})
			}
			_ = group.Wait()
			if (errs[0] == nil) == (errs[1] == nil) {
				t.Fatalf("both or neither were applied: %v", errs)
			}
			refusal(t, errors.Join(errs...), "manifest_refused", tc.says)
		})
	}
}

func TestApplyRefusesATakenName(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ before, says string }{
		"table":          {"CREATE TABLE events ()", `there is a relation called "public"."events" already`},
		"view":           {"CREATE VIEW events AS SELECT 1", `there is a relation called "public"."events" already`},
		"sequence":       {"CREATE SEQUENCE events", `there is a relation called "public"."events" already`},
		"enum":           {"CREATE TYPE events AS ENUM ()", `there is a type called "public"."events" already`},
		"domain":         {"CREATE DOMAIN events__r1 AS text", `there is a type called "public"."events__r1" already`},
		"physical table": {"CREATE TABLE events__r1 ()", `there is a relation called "public"."events__r1" already`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := sandboxtest.Postgres(t, "15")
			w := bare(t, dsn, postgres.Config{})
			mustInit(t, w, october())
			execute(t, session(t, dsn), tc.before)
			_, err := w.Apply(t.Context(), manifest(t, events))
			refusal(t, err, "manifest_refused", tc.says)
			if infos, err := w.Datasets(t.Context()); err != nil || len(infos) != 0 {
				t.Errorf("left behind %+v, %v", infos, err)
			}
		})
	}
}

// PostgreSQL calls the arrays of a table's rows by its name and an underscore,
// and by another if somebody wants that one.
func TestApplyTakesAnArraysName(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t, "18")
	w := bare(t, dsn, postgres.Config{})
	mustInit(t, w, october())
	execute(t, session(t, dsn), "CREATE TABLE events ()")
	if _, err := w.Apply(t.Context(), manifest(t, "dataset: a/b\ntable: {name: _events}\ncolumns: [{name: x, type: bool}]")); err != nil {
		t.Error(err)
	}
}

func TestApplyTellsTheDifference(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{})
	for name, tc := range map[string]struct{ change, by, says string }{
		"topic":     {"columns:", "topic: other\ncolumns:", "topic other instead of test.events"},
		"table":     {"columns:", "table: {schema: s}\ncolumns:", `table "s"."events" instead of "public"."events"`},
		"batch id":  {"columns:", "batch_id: false\ncolumns:", "batch_id false instead of true"},
		"type":      {"int64", "float64", `column "n" is float64 instead of int64`},
		"nullable":  {", nullable: true", "", `column "note" has nullable false instead of true`},
		"new, gone": {"{name: n,", "{name: m,", `column "m" is new: int64, required: make it nullable, since the rows that are there have no value for it; column "n" is gone`},
		"existing":  {"columns:", "table: {existing: true}\ncolumns:", "table.existing true instead of false"},
	} {
		changed := strings.Replace(events, tc.change, tc.by, 1)
		_, err := w.Apply(t.Context(), manifest(t, changed))
		refusal(t, err, "manifest_refused", tc.says)
		if err != nil && !strings.HasPrefix(err.Error(), "apply test/events: ") {
			t.Errorf("%s: the dataset isn't named: %v", name, err)
		}
	}
}

func TestApplyRefusesAnInvalidManifest(t *testing.T) {
	t.Parallel()
	w := bare(t, sandboxtest.Postgres(t, "18"), postgres.Config{})
	m := manifest(t, events)
	m.Table.Name = strings.Repeat("x", 51)
	var faults schema.Faults
	if _, err := w.Apply(t.Context(), m); !errors.As(err, &faults) {
		t.Errorf("%v, want the manifest's faults", err)
	}
}

// Names are whatever a manifest allows: they are quoted wherever they appear,
// from the table to the COPY.
func TestApplyQuotesNames(t *testing.T) {
	t.Parallel()
	const odd = `
dataset: test/odd
table: {schema: "it's; \"mine\" \\ Größe", name: "select 1; --\"'\\ 表"}
columns:
  - {name: "a\"b;--", type: int64}
  - {name: "'; DROP TABLE x; --", type: text, nullable: true}
  - {name: " ", type: bool}
  - {name: "$1", type: text}
  - {name: "\u0001\U0001F600", type: text}
`
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := open(t, sandboxtest.Postgres(t, version), odd, postgres.Config{})
			p := w.partition(0)
			e := w.element(batch.NewID(), p, 0, []any{int64(7), nil, true, "x", `\.`})
			res, err := w.committer().Commit(t.Context(), w.group(p, 1, e))
			if err != nil || res.Outcomes[0] != sink.Loaded {
				t.Fatalf("%v, %v", res, err)
			}
			if n := w.count(`SELECT "a""b;--" FROM "it's; ""mine"" \ Größe"."select 1; --""'\ 表" WHERE "$1" = 'x' AND _batch_id = $1`, e.Batch.ID); n != 7 {
				t.Errorf("read back %d, want 7", n)
			}
		})
	}
}
