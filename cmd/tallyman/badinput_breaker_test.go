package main

import (
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
		if next := st.position(); next >= 20 {
			t.Errorf("%s: %d messages were passed, in a window of 20", name, next)
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
