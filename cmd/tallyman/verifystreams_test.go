package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"tallyman/sink/postgres"
)

// What sources announced is accounted for, and whatever breaks the sum is found:
// a batch that is missing, one that vanished, and a number that two batches have.
func TestVerifyAccountsForStreams(t *testing.T) {
	t.Parallel()
	s := newBadSite(t, nil)
	st := s.stream(verified)
	for i, name := range []string{"one", "two", "three"} {
		st.produce(name, good("", "", lines(fmt.Sprintf(`{"n":%d}`, i))))
	}
	st.passed(s.load())
	stream := uuid.New()
	for i, name := range []string{"one", "two", "three"} {
		s.exec("UPDATE tallyman.loaded_elements SET incarnation = $1, sequence = $2 WHERE unique_id = $3", stream, i+1, st.sentBy(name).batch.ID)
	}
	s.exec("INSERT INTO tallyman.streams (revision_id, incarnation, source, state, floor, announced, announced_at) VALUES (1, $1, 'shop', 'closed', 3, 3, now())", stream)
	s.exec("INSERT INTO tallyman.announcements (revision_id, incarnation, sequence, at, since) VALUES (1, $1, 3, now(), now() - interval '1 hour')", stream)
	whole := streamCounts{Announced: 3, Loaded: 3}
	if r := s.verifyAs(exitDone); r.Streams.Number != 1 || r.Streams.Total != whole || r.Streams.Worst[0].streamCounts != whole || r.Streams.Worst[0].Source != "shop" {
		t.Errorf("%+v", r.Streams)
	}
	contains(t, succeed(t, s.env, "verify", "verify/me"), "1 streams", "shop "+stream.String()+" closed 3 3 0 0 0 0 0 0", "everything agrees")

	// A cloned journal numbered another batch 2, and one is announced that never came.
	s.exec("UPDATE tallyman.loaded_elements SET sequence = 2 WHERE unique_id = $1", st.sentBy("three").batch.ID)
	s.exec("UPDATE tallyman.streams SET announced = 4")
	s.exec("UPDATE tallyman.announcements SET sequence = 4")
	r := s.verifyAs(exitFound)
	if want := (streamCounts{Announced: 4, Loaded: 2, Missing: 1, Unaccounted: 1, Overdue: 1, Twice: 1}); r.Streams.Total != want || r.Total != 0 {
		t.Errorf("%+v", r)
	}
	if diff := cmp.Diff([]numbersJSON{{Incarnation: stream.String(), First: 3, Last: 3}}, r.Streams.FirstUnaccounted); diff != "" {
		t.Error(diff)
	}
	if twice := r.Streams.FirstTwice; len(twice) != 1 || twice[0].First != 2 || !slices.Contains(twice[0].Batches, st.sentBy("three").batch.ID.String()) || len(twice[0].Batches) != 2 {
		t.Errorf("%+v", twice)
	}
	out := invoke(t, s.env, "verify", "verify/me")
	contains(t, out.stdout, "nowhere: 3 of stream "+stream.String(), "numbered 2 in stream "+stream.String()+": ")
	contains(t, out.stderr, "1 announced batches that were accounted for are nowhere; 1 batches have the number of another (was a journal cloned while it ran?); 1 batches are missing")
	if strings.Contains(out.stdout, "everything agrees") {
		t.Error(out.stdout)
	}
	// What has just been announced is on its way.
	s.exec("UPDATE tallyman.loaded_elements SET sequence = 3 WHERE unique_id = $1", st.sentBy("three").batch.ID)
	s.exec("UPDATE tallyman.announcements SET since = now()")
	if r := s.verifyAs(exitDone); r.Streams.Total != (streamCounts{Announced: 4, Loaded: 3, Missing: 1}) {
		t.Errorf("%+v", r.Streams)
	}
	s.exec("DELETE FROM tallyman.loaded_elements WHERE sequence = 1")
	if r := s.verifyAs(exitFound); r.Streams.Total.Unaccounted != 1 || r.Kinds[postgres.UnknownBatch] != 1 {
		t.Errorf("%+v %v", r.Streams, r.Kinds)
	}
}
