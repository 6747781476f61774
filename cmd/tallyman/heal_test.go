package main

import (
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"testing"
	"time"

	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/source/journal"
)

// Batches of a daemon that the topic lost before anybody read them are published
// again by the daemon, told by the loader, with no human step; the journal then
// shows what the warehouse has confirmed.
func TestDaemonHealsWhatTheTopicLost(t *testing.T) {
	t.Parallel()
	s := newIncompleteSite(t, "18")
	state := t.TempDir()
	env := append(slices.Clone(s.env),
		"TALLYMAN_SOURCE_DIR="+state, "TALLYMAN_SERVE_MANIFESTS="+s.manifest, "TALLYMAN_ADMIN_LISTEN=127.0.0.1:0",
		"TALLYMAN_SERVE_REPLAY_GRACE=500ms", "TALLYMAN_SERVE_TARGETS=default", "TALLYMAN_WAREHOUSE_TARGET=default",
	)
	daemon := startServe(t, env)
	post := func(rows string) {
		t.Helper()
		status, text := request(t, http.MethodPost, daemon.url+"/v1/datasets/web/visits/batches", rows, http.Header{"Content-Type": {"application/x-ndjson"}})
		if status != http.StatusAccepted {
			t.Fatalf("%d %s", status, text)
		}
	}
	post(visitsNDJSON)
	post(visitsNDJSON)
	for end := time.Now().Add(stall); s.topicEnd() < 2; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nothing is published")
		}
	}
	if err := s.broker.DeleteRecords("web.visits", 0, s.topicEnd()); err != nil {
		t.Fatal(err)
	}
	post(visitsNDJSON)
	s.member()
	s.must("wait", "web/visits", "--complete-through", "now", "--timeout", "60s")
	if n := s.ask("SELECT count(DISTINCT _batch_id)::text FROM public.visits"); n != "3" {
		t.Errorf("%s batches are loaded, want 3", n)
	}
	contains(t, daemon.get("/metrics"), `tallyman_source_replayed_batches_total{dataset="web/visits"} `)
	confirmed := func() int {
		daemon.drain()
		list := decode[journalJSON](t, succeed(t, env, "source", "journal", "list", "-o", "json"))
		return list.Streams[0].Confirmed
	}
	for end := time.Now().Add(stall); confirmed() != 3; daemon = startServe(t, env) {
		if time.Now().After(end) {
			t.Fatal("the journal does not show what is confirmed")
		}
	}
}

// topicEnd returns how far the dataset's topic is written.
func (s *incompleteSite) topicEnd() int64 {
	return s.broker.Cluster().PartitionInfo("web.visits", 0).HighWatermark
}

// A stream of which all is trimmed is listed, with what is confirmed and gone, and
// is no fault.
func TestJournalListShowsWhatIsTrimmed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, err := journal.Open(journal.Config{Dir: dir, Source: "shop", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	d := schema.Dataset{Namespace: "web", Name: "visits"}
	b := &batch.Batch{ID: batch.NewID(), Dataset: d, ContentType: batch.NDJSON, Rows: 1, Value: []byte("{}\n")}
	b.Time, err = batch.TimeOf(b.ID)
	a, failed := j.Append("web.visits", b)
	_, said := j.Announce("web.visits", d, true)
	if err := errors.Join(err, failed, said, j.MarkPublished(a.Key)); err != nil {
		t.Fatal(err)
	}
	if n, err := j.Trim(a.Key.Stream, []journal.Range{{First: 1, Last: 1}}, time.Now().Add(time.Hour)); n != 1 || err != nil {
		t.Fatalf("trimmed %d, %v", n, err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	contains(t, succeed(t, nil, "source", "journal", "list", "--journal", dir), "DAMAGED CONFIRMED TRIMMED", "none 0 0 0 0 0 0 0 1")
	succeed(t, nil, "source", "journal", "verify", "--journal", dir)
}
