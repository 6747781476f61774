package postgres_test

import (
	"testing"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema/batch"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

// A sequence behind a column that no manifest fills may be used up. That is the
// table's fault: no batch is bad for it, and each loads once it is mended.
func TestCommitWithAnExhaustedSequence(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := open(t, sandboxtest.Postgres(t, version), events, postgres.Config{})
			exec := func(statement string) {
				t.Helper()
				if _, err := w.conn.Exec(t.Context(), statement); err != nil {
					t.Fatal(err)
				}
			}
			exec(`CREATE SEQUENCE public.numbers AS integer MAXVALUE 2`)
			exec(`ALTER TABLE public.events__r1 ADD COLUMN number integer NOT NULL DEFAULT nextval('public.numbers')`)
			c := w.committer()
			p := w.partition(0)
			g := w.group(p, 1, w.element(batch.NewID(), p, 0, []any{int64(1), "one"}, []any{int64(2), "two"}, []any{int64(3), nil}))
			if _, err := c.Commit(t.Context(), g); sink.ClassOf(err) != sink.Misconfigured {
				t.Errorf("a sequence that is used up is %v: %v", sink.ClassOf(err), err)
			}
			exec(`ALTER SEQUENCE public.numbers MAXVALUE 1000`)
			if _, err := c.Commit(t.Context(), g); err != nil {
				t.Errorf("the same group, with more numbers: %v", err)
			}
		})
	}
}
