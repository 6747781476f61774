package postgres_test

import (
	"strings"
	"testing"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema/batch"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

// A batch that breaks a key of the table is at fault itself; others load.
func TestKeysOfTheTable(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := open(t, sandboxtest.Postgres(t, version), `
dataset: test/events
table: {primary_key: [n], indexes: [{columns: [note], unique: true}, {columns: [_batch_id]}]}
columns:
  - {name: n, type: int64}
  - {name: note, type: text, nullable: true}
`, postgres.Config{})
			if n := w.count("SELECT count(*) FROM pg_index WHERE indrelid = 'events__r1'::regclass"); n != 3 {
				t.Errorf("%d indexes", n)
			}
			c, p := w.committer(), w.partition(0)
			broken := verdict{class: sink.BadData, reason: batch.Constraint}
			good := w.element(batch.NewID(), p, 0, []any{1, "a"}, []any{2, nil}, []any{3, nil})
			for _, row := range [][]any{{1, "b"}, {4, "a"}} {
				err := w.refused(c, w.group(p, 2, good, w.element(batch.NewID(), p, 1, row)), broken)
				if !strings.Contains(err.Error(), "events__r1_") {
					t.Errorf("%v does not name the key", err)
				}
			}
			w.loads(c, w.group(p, 1, good))
		})
	}
}
