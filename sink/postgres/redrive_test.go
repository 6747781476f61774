package postgres_test

import (
	"testing"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

// bury quarantines a batch and returns its key there.
func (w *warehouse) bury(e sink.Element, reason batch.Reason) sink.KeptKey {
	w.t.Helper()
	g := w.group(w.partition(0), e.Offset+1)
	g.Dead = []sink.Dead{{Message: e.Message, Batch: e.Batch, Reason: reason}}
	if _, err := w.committer().Commit(w.t.Context(), g); err != nil {
		w.t.Fatal(err)
	}
	l, err := w.Quarantine().List(w.t.Context(), sink.Selection{ID: e.Batch.ID}, 0)
	if err != nil || len(l.Kept) != 1 {
		w.t.Fatalf("%d messages in quarantine, %v", len(l.Kept), err)
	}
	return l.Kept[0].Key
}

// as is a judge for whom a message is an element.
func as(e sink.Element) sink.Judge {
	return func(sink.Message, *schema.Manifest) (*sink.Element, *sink.Dead) { return &e, nil }
}

// A redrive whose session ends in the middle leaves nothing, and can be
// repeated: here it has claimed the id and waits for the table.
func TestRedriveKilled(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			dsn := sandboxtest.Postgres(t, version)
			w := open(t, dsn, events, postgres.Config{})
			e := w.element(batch.NewID(), w.partition(0), 0, []any{int64(1), nil})
			key := w.bury(e, batch.NoManifest)
			execute(t, w.conn, "BEGIN", "LOCK TABLE public.events__r1 IN EXCLUSIVE MODE")
			failed := make(chan error, 1)
			go func() {
				_, err := w.Quarantine().Redrive(t.Context(), w.revision, key, "", as(e))
				failed <- err
			}()
			watcher := session(t, dsn)
			const kill = `
SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'LOCK TABLE%') killed`
			for killed := 0; killed == 0; {
				select {
				case err := <-failed:
					t.Fatalf("the redrive did not wait: %v", err)
				default:
				}
				if err := watcher.QueryRow(t.Context(), kill).Scan(&killed); err != nil {
					t.Fatal(err)
				}
			}
			if err := <-failed; sink.ClassOf(err) != sink.Retryable {
				t.Errorf("a redrive that was killed: %v", err)
			}
			execute(t, w.conn, "ROLLBACK")
			if n := w.count("SELECT count(*) FROM tallyman.loaded_elements"); n != 0 {
				t.Errorf("%d batches in the ledger, want none", n)
			}
			res, err := w.Quarantine().Redrive(t.Context(), w.revision, key, "", as(e))
			if err != nil || res.Outcome != sink.Loaded {
				t.Errorf("the redrive again: %+v, %v", res, err)
			}
			if n := w.count("SELECT count(*) FROM public.events"); n != 1 {
				t.Errorf("%d rows, want 1", n)
			}
			if n := w.count("SELECT count(*) FROM tallyman.quarantine WHERE state = 'redriven'"); n != 1 {
				t.Errorf("%d messages are redriven, want 1", n)
			}
		})
	}
}

// A redrive that loads a batch whose message somebody closed without the
// ledger's knowing is rolled back.
func TestRedriveOfWhatWasGivenUp(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{})
	e := w.element(batch.NewID(), w.partition(0), 0, []any{int64(1), nil})
	key := w.bury(e, batch.BadRows)
	_, err := w.Quarantine().Redrive(t.Context(), w.revision, key, "", func(sink.Message, *schema.Manifest) (*sink.Element, *sink.Dead) {
		if res, err := w.Quarantine().Discard(t.Context(), key, sink.Discard{Why: "no use"}); err != nil || res.Refused {
			t.Errorf("discard: %+v, %v", res, err)
		}
		return &e, nil
	})
	if err == nil {
		t.Error("a message that was given up has loaded")
	}
	if n := w.count("SELECT count(*) FROM tallyman.loaded_elements"); n != 0 {
		t.Errorf("%d batches in the ledger, want none", n)
	}
}

// What was given up is in the ledger, as that, and counts as loaded nowhere.
func TestDiscardedInTheLedger(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{})
	e := w.element(batch.NewID(), w.partition(0), 0, []any{int64(1), nil}, []any{int64(2), nil})
	key := w.bury(e, batch.Constraint)
	if _, err := w.Quarantine().Discard(t.Context(), key, sink.Discard{By: "somebody", Why: "a test"}); err != nil {
		t.Fatal(err)
	}
	const entry = `
SELECT count(*) FROM tallyman.loaded_elements l JOIN tallyman.quarantine q USING (revision_id, unique_id, batch_time)
WHERE outcome = 'discarded' AND l.row_count = 2 AND byte_count = q.payload_size AND digest = q.content`
	if n := w.count(entry); n != 1 {
		t.Errorf("%d entries of the ledger say that it was discarded, want 1", n)
	}
	all, err := w.Status(t.Context())
	if err != nil || all[0].Batches != 0 || all[0].Rows != 0 || len(all[0].Quarantine) != 0 {
		t.Errorf("%+v, %v: want nothing loaded and nothing open", all, err)
	}
	// Far ahead of the ledger's end only the message is closed.
	late := w.element(batch.NewID(), w.partition(0), 1, []any{int64(3), nil})
	late.Batch.Time = late.Batch.Time.AddDate(50, 0, 0)
	key = w.bury(late, batch.FromTheFuture)
	res, err := w.Quarantine().Discard(t.Context(), key, sink.Discard{Why: "a test"})
	if err != nil || res.Refused {
		t.Errorf("a batch of the far future: %+v, %v", res, err)
	}
}

// A batch whose time has no place in the ledger is refused, not waited for.
func TestRedriveOutOfWindow(t *testing.T) {
	t.Parallel()
	w := open(t, sandboxtest.Postgres(t, "18"), events, postgres.Config{})
	e := w.element(batch.NewID(), w.partition(0), 0, []any{int64(1), nil})
	e.Batch.Time = e.Batch.Time.AddDate(50, 0, 0)
	key := w.bury(e, batch.FromTheFuture)
	res, err := w.Quarantine().Redrive(t.Context(), w.revision, key, "", as(e))
	if err != nil || res.Refusal == nil || res.Refusal.Reason != batch.FromTheFuture {
		t.Errorf("%+v, %v", res, err)
	}
}
