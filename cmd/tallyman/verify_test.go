package main

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tallyman/schema/batch"
	"tallyman/sink/postgres"
)

const verified = `dataset: verify/me
columns:
  - {name: n, type: int64}
  - {name: f, type: float64, nullable: true}
  - {name: s, type: text, nullable: true}
  - {name: j, type: json, nullable: true}
`

// verifyAs runs verify, which must end with a status, and reads its JSON.
func (s *badSite) verifyAs(status int, args ...string) verifyReport {
	s.t.Helper()
	r := invoke(s.t, s.env, append([]string{"verify", "verify/me", "-o", "json"}, args...)...)
	if r.status != status {
		s.t.Fatalf("verify %v ended with %d, want %d\n%s%s", args, r.status, status, r.stdout, r.stderr)
	}
	return decode[verifyReport](s.t, r.stdout)
}

// findings are those of a report in one line each, without the ids that nobody chose.
func (st *stream) findings(r verifyReport) []string {
	var all []string
	for _, f := range r.Findings {
		name := "another"
		for _, m := range st.sent {
			if f.Batch != nil && m.batch.ID == *f.Batch {
				name = m.name
			}
		}
		all = append(all, fmt.Sprintf("%s: %s, %d, %d", name, f.Kind, f.Want, f.Have))
	}
	slices.Sort(all)
	return all
}

func TestVerifyFindsWhatWasPlanted(t *testing.T) {
	t.Parallel()
	s := newBadSite(t, nil)
	st := s.stream(verified)
	batches := []string{"good", "deleted", "emptied", "doubled", "altered", "native", "discarded", "given up", "last"}
	for i, name := range batches {
		content := lines(fmt.Sprintf(`{"n":%d,"f":0.1,"s":"a","j":{"a":[1]}}`, i), `{"n":-1}`, `{"n":-1}`)
		if name == "native" {
			content = native(int64(i), 0.1, "x", `{"b": 2}`)
		}
		st.produce(name, good("", "", content))
	}
	st.passed(s.load())
	clean := s.verifyAs(exitDone, "--digest")
	if clean.Batches != 9 || clean.Rows != 25 || clean.TableRows != 25 || clean.Total != 0 ||
		!cmp.Equal(*clean.Digest, digestReport{Compared: 9, Examples: []uuid.UUID{}}) {
		t.Fatalf("%+v %+v", clean, clean.Digest)
	}
	contains(t, succeed(t, s.env, "verify", "verify/me", "--digest"), "9 batches with 25 rows", "the values of 9 batches were compared", "everything agrees")

	id := func(name string) uuid.UUID { return st.sentBy(name).batch.ID }
	s.exec("DELETE FROM "+st.table()+" WHERE n >= 0 AND _batch_id = $1", id("deleted"))
	s.exec("DELETE FROM "+st.table()+" WHERE _batch_id = $1", id("emptied"))
	s.exec("INSERT INTO "+st.table()+" SELECT * FROM "+st.table()+" WHERE n >= 0 AND _batch_id = $1", id("doubled"))
	s.exec("UPDATE "+st.table()+" SET f = 0.1::float8 + 1e-16 WHERE f IS NOT NULL AND _batch_id = $1", id("altered"))
	s.exec("UPDATE tallyman.loaded_elements SET outcome = 'discarded' WHERE unique_id = $1", id("discarded"))
	s.exec("INSERT INTO "+st.table()+" (n, _batch_id) VALUES (1, $1), (2, $2), (3, $2)", uuid.New(), batch.NewID())
	s.exec(`INSERT INTO tallyman.loaded_elements (revision_id, batch_time, unique_id, outcome, row_count, byte_count, digest)
		SELECT revision_id, batch_time, $1, 'loaded', 7, 0, digest FROM tallyman.loaded_elements WHERE unique_id = $2`, batch.NewID(), id("good"))

	counted := []string{
		"another: no_rows, 7, 0", "another: unknown_batch, 0, 1", "another: unknown_batch, 0, 2",
		"deleted: too_few_rows, 3, 2", "discarded: discarded_batch, 0, 3", "doubled: too_many_rows, 3, 4", "emptied: no_rows, 3, 0",
	}
	found := s.verifyAs(exitFound, "--limit", "0")
	if diff := cmp.Diff(counted, st.findings(found)); diff != "" || found.Total != 7 || found.Kinds[postgres.NoRows] != 2 {
		t.Errorf("%v %s", found.Kinds, diff)
	}
	found = s.verifyAs(exitFound, "--digest")
	want := append([]string{"altered: altered_batch, 3, 3"}, counted...)
	slices.Sort(want)
	if diff := cmp.Diff(want, st.findings(found)); diff != "" || found.Digest.Compared != 5 || found.Digest.NotCompared != 0 {
		t.Errorf("%+v %s", found.Digest, diff)
	}
	r := invoke(t, s.env, "verify", "verify/me", "--limit", "2")
	contains(t, r.stdout, "FINDING BATCH TIME LEDGER ROWS TABLE ROWS", "2 of 7 findings; --limit 0 lists all")
	contains(t, r.stderr, "verify/me is not as it should be: 7 findings")
	if past := s.verifyAs(exitFound, "--until", "2000-01-01"); past.Total != 1 || past.Batches != 0 || past.Findings[0].Kind != postgres.UnknownBatch {
		t.Errorf("%+v", past) // the row of no time
	}
}

// sentBy returns the message of a case that was loaded.
func (st *stream) sentBy(name string) *sent {
	st.site.t.Helper()
	i := slices.IndexFunc(st.sent, func(m sent) bool { return m.name == name })
	if i < 0 {
		st.site.t.Fatalf("no case is called %s", name)
	}
	return &st.sent[i]
}

func TestVerifyWithoutTheTopic(t *testing.T) {
	t.Parallel()
	s := newBadSite(t, nil)
	st := s.stream(verified)
	st.produce("one", good("", "", lines(`{"n":1}`)))
	st.passed(s.load())
	s.exec("UPDATE " + st.table() + " SET n = 2")
	gone := kmsg.NewPtrDeleteTopicsRequest()
	gone.TimeoutMillis = 10_000
	gone.TopicNames = []string{st.manifest.Topic}
	gone.Topics = []kmsg.DeleteTopicsRequestTopic{{Topic: &st.manifest.Topic}}
	if _, err := gone.RequestWith(t.Context(), s.client); err != nil {
		t.Fatal(err)
	}
	r := s.verifyAs(exitDone, "--digest")
	if r.Digest.Compared != 0 || r.Digest.NotCompared != 1 || r.Digest.Examples[0] != st.sent[0].batch.ID || len(r.Unchecked) != 1 {
		t.Errorf("%+v", r)
	}
	contains(t, succeed(t, s.env, "verify", "verify/me", "--digest"), "can't be checked: the values of 1 batches",
		"not compared: "+st.sent[0].batch.ID.String())
}

func TestVerifyRowsThatSayNoBatch(t *testing.T) {
	t.Parallel()
	s := newBadSite(t, nil)
	st := s.stream(verified + "batch_id: false\n")
	st.produce("one", good("", "", lines(`{"n":1}`, `{"n":2}`)))
	st.passed(s.load())
	if r := s.verifyAs(exitDone); r.Rows != 2 || r.TableRows != 2 || len(r.Unchecked) != 1 {
		t.Errorf("%+v", r)
	}
	fail(t, exitUsage, s.env, []string{"verify", "verify/me", "--since", "1h"}, "no _batch_id")
	s.exec("DELETE FROM " + st.table() + " WHERE n = 1")
	if r := s.verifyAs(exitFound); r.Findings[0].Kind != postgres.OtherTotal || r.Findings[0].Want != 2 || r.Findings[0].Have != 1 {
		t.Errorf("%+v", r)
	}
	s.exec("INSERT INTO " + st.table() + " (n) VALUES (8), (9)")
	s.verifyAs(exitFound)
}

func TestVerifyWhileLoadersLoad(t *testing.T) {
	t.Parallel()
	s := newBadSite(t, nil)
	manifest := file(t, "four.yaml", verified)
	succeed(t, s.env, "dataset", "apply", manifest, "--partitions", "4", "--replication-factor", "1")
	st := s.stream(verified)
	loaders := []*process{s.load(), s.load()}
	const rounds, each = 6, 150
	begin := make(chan struct{}, rounds)
	var (
		wg        sync.WaitGroup
		published error
	)
	wg.Go(func() {
		for range begin {
			for i := range each {
				d := st.begin()
				lines(slices.Repeat([]string{`{"n":1,"s":"x"}`}, 20)...)(d)
				d.seal()
				d.record.Topic, d.record.Partition = st.manifest.Topic, int32(i%4)
				published = errors.Join(published, s.client.ProduceSync(t.Context(), d.record).FirstErr())
			}
		}
	})
	counts := map[int64]bool{}
	for round := range rounds {
		begin <- struct{}{}
		for range 3 {
			counts[s.verifyAs(exitDone, []string{"--digest", "--limit=20"}[round%2]).Batches] = true
		}
	}
	close(begin)
	wg.Wait()
	if published != nil || len(counts) < 3 {
		t.Fatalf("%v; %d different counts were seen", published, len(counts))
	}
	const count = rounds * each
	loaders[0].until("everything is loaded", func() bool { return s.verifyAs(exitDone).Batches == count })
	if r := s.verifyAs(exitDone, "--digest"); r.Digest.Compared != count || r.TableRows != 20*count {
		t.Errorf("%+v", r)
	}
}

func TestVerifyUsage(t *testing.T) {
	t.Parallel()
	s := newSite(t, "18")
	succeed(t, s.env, "init")
	fail(t, exitUsage, s.env, []string{"verify"}, "accepts 1 arg")
	fail(t, exitUsage, s.env, []string{"verify", "me"}, "me")
	fail(t, exitUsage, s.env, []string{"verify", "a/b", "--since", "tomorrow"}, "--since")
	fail(t, exitUsage, s.env, []string{"verify", "a/b", "--since", "1h", "--until", "2h"}, "is not before")
	fail(t, exitFailed, s.env, []string{"verify", "a/b"}, "a/b")
}

// A journal tells of values when the topic is gone, also a copy from elsewhere.
func TestVerifyAgainstAJournal(t *testing.T) {
	t.Parallel()
	s := newBadSite(t, nil)
	st := s.stream(visits)
	o := newOutbox(t)
	for _, b := range o.batches[1:] {
		d := &draft{codec: st.codec, batch: *b}
		d.seal()
		d.record.Topic = st.manifest.Topic
		if err := s.client.ProduceSync(t.Context(), d.record).FirstErr(); err != nil {
			t.Fatal(err)
		}
		st.sent = append(st.sent, sent{name: "of the journal", batch: d.batch, record: d.record})
	}
	st.produce("of another source", good("", "", lines(`{"n":1}`)))
	st.passed(s.load())
	verify := func(status int, args ...string) verifyReport {
		t.Helper()
		r := invoke(t, s.env, append([]string{"verify", "web/visits", "-o", "json"}, args...)...)
		if r.status != status {
			t.Fatalf("%v ended with %d, want %d\n%s%s", args, r.status, status, r.stdout, r.stderr)
		}
		return decode[verifyReport](t, r.stdout)
	}
	if r := verify(exitDone, "--journal", o.dir); r.Digest.Compared != 5 || r.Digest.NotCompared != 1 || r.Digest.Examples[0] != st.sent[5].batch.ID {
		t.Errorf("%+v", r.Digest)
	}
	if r := verify(exitDone, "--journal", o.moved(t).dir, "--digest"); r.Digest.Compared != 6 || r.Digest.NotCompared != 0 {
		t.Errorf("%+v", r.Digest)
	}
	s.exec("UPDATE " + st.table() + " SET n = 99 WHERE n = 50")
	if r := verify(exitFound, "--journal", o.dir); r.Total != 1 || r.Findings[0].Kind != postgres.AlteredBatch || *r.Findings[0].Batch != o.batches[5].ID {
		t.Errorf("%+v", r)
	}
	fail(t, exitFailed, s.env, []string{"verify", "web/visits", "--journal", t.TempDir()}, "there is no journal")
}
