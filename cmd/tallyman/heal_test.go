package main

import (
	"net/http"
	"slices"
	"testing"
	"time"
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
