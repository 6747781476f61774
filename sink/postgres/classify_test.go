package postgres

import (
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"tallyman/sink"
)

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
