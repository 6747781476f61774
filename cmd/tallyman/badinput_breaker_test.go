package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"tallyman/schema/batch"
)

// A stream of nothing but bad batches does not drain a topic into quarantine:
// the dataset stops, others go on, and it goes on by itself when they are good.
func TestBadInputBreaker(t *testing.T) {
	t.Parallel()
	s := newBadSite(t, nil)
	mended := s.stream("dataset: bad/mended\ncolumns:\n  - {name: n, type: int64}\n", lines(`{"n":-1}`))
	noise := s.stream("dataset: bad/noise\ncolumns:\n  - {name: n, type: int64}\n")
	healthy := s.stream(everyType("bad/healthy"), lines(`{"k":"good"}`))
	s.exec("ALTER TABLE " + mended.table() + " ADD CONSTRAINT positive CHECK (n > 0)")
	for range 60 {
		mended.produce("refused", good("", ""))
		noise.produce("noise", bad(batch.NoID, "ce_id", message(func(r *kgo.Record) { r.Headers = nil })))
	}
	healthy.produce("healthy", good("k", "good"))
	p := s.load("TALLYMAN_LOADER_BREAKER_WINDOW=20")
	healthy.passed(p)
	healthy.check(p)
	for _, st := range []*stream{mended, noise} {
		name := st.manifest.Dataset.String()
		p.until("breaker of "+name, func() bool {
			return strings.Contains(p.ready(), name+" is stopped (breaker_open): most of the newest batches can't be loaded, the next because of") &&
				p.metric(`tallyman_loader_stopped{dataset="`+name+`",reason="breaker_open"}`) == "1"
		})
		next := st.position()
		if next >= 20 {
			t.Errorf("%s: %d messages were passed, in a window of 20", name, next)
		}
		p.probes(name, 2)
		if again := st.position(); again != next || st.open() != next {
			t.Errorf("%s: while the breaker is open the position went from %d to %d, with %d messages in quarantine", name, next, again, st.open())
		}
	}
	given := mended.position()
	for i := range given {
		mended.sent[i].want = bad(batch.Constraint, "SQLSTATE 23514")[0].want
	}
	s.exec("ALTER TABLE " + mended.table() + " DROP CONSTRAINT positive")
	mended.passed(p)
	mended.check(p)
	p.checkLog()
}

// probes waits until a load that is stopped has tried again some times.
func (p *process) probes(dataset string, times int) {
	p.t.Helper()
	count := func() (n int) {
		for line := range strings.Lines(p.log.String()) {
			if strings.Contains(line, "load stopped") && strings.Contains(line, "dataset="+dataset+" ") {
				n++
			}
		}
		return n
	}
	enough := count() + times
	p.until(fmt.Sprintf("%d probes of %s", times, dataset), func() bool { return count() >= enough })
}

// open counts the stream's messages that lie open in quarantine.
func (st *stream) open() (n int64) {
	st.site.t.Helper()
	const sql = "SELECT count(*) FROM tallyman.quarantine WHERE revision_id = $1 AND state = 'open'"
	if err := st.site.owner.QueryRow(st.site.t.Context(), sql, st.revision).Scan(&n); err != nil {
		st.site.t.Fatal(err)
	}
	return n
}

// A dataset whose quarantine is full stops at the first message that it has no
// room for, and goes on by itself when there is room again.
func TestBadInputQuarantineFull(t *testing.T) {
	t.Parallel()
	s := newBadSite(t, nil)
	full := s.stream("dataset: bad/full\ncolumns:\n  - {name: s, type: text}\n", lines(`{"s":"`+strings.Repeat("x", 1000)+`"}`))
	healthy := s.stream(everyType("bad/healthy"), lines(`{"k":"good"}`))
	for i := range 10 { // each another, else all of them were one message
		full.produce("noise", bad(batch.BadDigest, "digest", says("ce_digest", fmt.Sprintf("sha-256=%064d", i))))
	}
	full.produce("good", good("", ""))
	healthy.produce("healthy", good("k", "good"))
	p := s.load("TALLYMAN_LOADER_QUARANTINE_MAX_BYTES=4KiB")
	healthy.passed(p)
	healthy.check(p)
	for _, next := range []int64{4, 8} { // of 1,008 bytes
		p.until(fmt.Sprintf("a stop at %d", next), func() bool {
			return full.position() == next &&
				strings.Contains(p.ready(), "bad/full is stopped (quarantine_full): quarantine of bad/full holds 4032 bytes") &&
				p.metric(`tallyman_loader_stopped{dataset="bad/full",reason="quarantine_full"}`) == "1"
		})
		p.probes("bad/full", 2)
		if again := full.position(); again != next || full.open() != 4 {
			t.Errorf("the position went from %d to %d, with %d messages in quarantine, want 4", next, again, full.open())
		}
		var ids []string
		for _, k := range decode[listingJSON](t, succeed(t, s.env, "quarantine", "list", "-o", "json")).Batches {
			ids = append(ids, k.ID)
		}
		succeed(t, s.env, append([]string{"quarantine", "discard", "--reason", "noise"}, ids...)...)
	}
	full.passed(p)
	if n := full.open(); n != 2 {
		t.Errorf("%d messages in quarantine, want the last 2", n)
	}
	p.until("readiness", func() bool { return p.ready() == "ok\n" })
	p.checkLog()
}
