package postgres

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/sink"
)

// What can't even be sent is a mistake in the program: waiting does not mend it.
// A connection that is lost before anything of a batch has run is an outage.
func TestOwnMistakes(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), sandboxtest.Postgres(t, "18"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		want sink.Class
		arg  any
	}{
		{"an argument of no type that the server knows", sink.Misconfigured, struct{}{}},
		{"a connection that is lost", sink.Retryable, 1},
	} {
		b := &pgx.Batch{}
		b.Queue("SELECT $1::int4", tc.arg)
		if tc.want == sink.Retryable {
			_ = conn.Close(context.Background())
		}
		if err := classify("ask", inCatalog, target{}, conn.SendBatch(t.Context(), b).Close()); sink.ClassOf(err) != tc.want {
			t.Errorf("%s: %v is %v, want %v", tc.name, err, sink.ClassOf(err), tc.want)
		}
	}
}

// A table of 32 TiB can't be had here: what the server then says is known from
// its source, mdextend in src/backend/storage/smgr/md.c and ExtendBufferedRel…
// in src/backend/storage/buffer/bufmgr.c. Other limits are the rows'.
func TestFullTableIsNotTheRowsFault(t *testing.T) {
	t.Parallel()
	for routine, want := range map[string]sink.Class{
		"mdextend": sink.Misconfigured, "ExtendBufferedRelShared": sink.Misconfigured, "mdzeroextend": sink.Misconfigured,
		"index_form_tuple_context": sink.BadData, "RelationGetBufferForTuple": sink.BadData,
	} {
		if got := judge(inCopy, target{}, &pgconn.PgError{Code: "54000", Routine: routine}); got.class != want {
			t.Errorf("54000 of %s is %v, want %v", routine, got.class, want)
		}
	}
}
