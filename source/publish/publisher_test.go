package publish_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tallyman/internal/sandbox"
	"tallyman/source/journal"
	"tallyman/source/publish"
)

func TestPublishesWhatIsAppended(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var mu sync.Mutex
	var acks []int16
	cluster := r.broker.Cluster()
	cluster.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
		mu.Lock()
		defer mu.Unlock()
		acks = append(acks, request.(*kmsg.ProduceRequest).Acks)
		return nil, nil, false
	})
	p := r.start()
	var all []*journal.Record
	for i := range 250 { // more than share a request
		one := r.add(fmt.Sprintf("{\"n\":%d}\n", i))
		p.Appended(one)
		all = append(all, one)
	}
	r.wait(p)
	r.wantTopic(all...)
	r.wantStats(0, 0)
	r.wantMetric("tallyman_source_published_batches_total", 250)
	r.wantMetric("tallyman_source_unpublished_batches", 0)
	r.wantMetric("tallyman_source_set_aside_batches", 0)

	mu.Lock()
	defer mu.Unlock()
	// An answer of the leader alone, or of nobody, would not outlive the leader.
	if len(acks) == 0 || slices.ContainsFunc(acks, func(a int16) bool { return a != -1 }) {
		t.Errorf("requests ask for the acknowledgements %d, want -1 (all in-sync replicas) in each", acks)
	}
}

func TestRepublishSendsTheSameAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	old := r.add("{\"n\":1}\n")
	r.reopen()
	p := r.start()
	one := r.add("{\"n\":2}\n")
	p.Appended(one)
	r.wait(p)
	n, err := p.Republish(t.Context())
	if n != 2 || err != nil {
		t.Errorf("published again: %d, %v, want 2", n, err)
	}
	r.wantTopic(old, old, one, one)
}

// What the broker will never take must not hold up what it takes, not even
// what shares a request with it.
func TestSetsAsideWhatIsRefusedForGood(t *testing.T) {
	t.Parallel()
	for _, refusal := range []*kerr.Error{
		kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidRecord, kerr.InvalidTimestamp, kerr.UnsupportedForMessageFormat, kerr.PolicyViolation,
	} {
		t.Run(refusal.Message, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			noise := make([]byte, 4000)
			_, _ = rand.Read(noise) // so that compression leaves it recognizably large
			fault := r.broker.Cluster().Fault(sandbox.Fault{
				Keys: []kmsg.Key{kmsg.Produce}, Err: refusal, Count: -1,
				When: func(request kmsg.Request) bool { return bytesIn(request) > len(noise) },
			})
			p := r.publisher()
			first := r.add("{\"n\":1}\n")
			bad := r.add(hex.EncodeToString(noise))
			last := r.add("{\"n\":3}\n")
			for _, one := range []*journal.Record{first, bad, last} {
				p.Appended(one)
			}
			noError(t, p.Start()) // all three at once, so that they share a request

			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			if err := p.Wait(ctx); !errors.Is(err, publish.ErrSetAside) {
				t.Errorf("wait says %v, want that a batch is set aside", err)
			}
			if waiting, aside := p.Pending(); waiting != 0 || aside != 1 {
				t.Errorf("%d wait and %d are set aside, want 0 and 1", waiting, aside)
			}
			r.wantTopic(first, last)
			r.wantMetric("tallyman_source_set_aside_batches", 1)
			r.wantMetric("tallyman_source_unpublished_batches", 0)
			r.log.wait(t, "ERROR batch is set aside")
			st := r.wantStats(1, 1)
			if len(st.Aside) == 1 && (st.Aside[0].Key != bad.Key || !strings.Contains(st.Aside[0].Reason, "refuses")) {
				t.Errorf("the journal lists %+v, want %s", st.Aside[0], bad.Key)
			}

			// The next opening tries again: the topic's limit may have been raised.
			fault.Remove()
			noError(t, p.Close())
			r.reopen()
			r.wait(r.start())
			r.wantTopic(first, bad, last)
			r.wantStats(0, 0)
		})
	}
}

// bytesIn returns the bytes of the records in a produce request.
func bytesIn(request kmsg.Request) int {
	n := 0
	for _, t := range request.(*kmsg.ProduceRequest).Topics {
		for _, p := range t.Partitions {
			n += len(p.Records)
		}
	}
	return n
}

// Whatever the reason, it is the same batch that goes out again: a copy with
// another id or other bytes would be loaded as well.
func TestSendsAgainUntilAcknowledged(t *testing.T) {
	t.Parallel()
	const times = 2
	answer := func(err *kerr.Error) func(*rig) {
		return func(r *rig) {
			r.broker.Cluster().Fault(sandbox.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: err, Count: times})
		}
	}
	cases := map[string]struct {
		hurt   func(*rig)
		copies int
	}{
		"the leader moved":           {answer(kerr.NotLeaderForPartition), 1},
		"too few replicas":           {answer(kerr.NotEnoughReplicas), 1},
		"no rights":                  {answer(kerr.TopicAuthorizationFailed), 1},
		"unknown to this release":    {answer(kerr.UnknownServerError), 1},
		"stored by too few":          {answer(kerr.NotEnoughReplicasAfterAppend), 1 + times},
		"stored, but not in time":    {answer(kerr.RequestTimedOut), 1 + times},
		"stored, the answer is lost": {func(r *rig) { r.wire.lose(times) }, 1 + times},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			c.hurt(r)
			p := r.start()
			one := r.add("{\"n\":1}\n")
			p.Appended(one)
			r.wait(p)
			want := slices.Repeat([]*journal.Record{one}, c.copies)
			r.wantTopic(want...)
			r.wantStats(0, 0)
			r.wantMetric("tallyman_source_publish_failures_total", times)
			r.wantMetric("tallyman_source_published_batches_total", 1)
		})
	}
}

func TestWaitsForTheBroker(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.start()
	before := r.add("{\"n\":1}\n")
	p.Appended(before)
	r.wait(p)

	noError(t, r.broker.Stop())
	during := r.add("{\"n\":2}\n")
	p.Appended(during)
	r.log.wait(t, "WARN batch can't be published, trying again")
	r.wantStats(1, 0)
	r.wantMetric("tallyman_source_unpublished_batches", 1)

	noError(t, r.broker.Start(t.Context()))
	r.wait(p)
	r.log.wait(t, "INFO publishing again")
	r.wantTopic(before, during)
	r.wantStats(0, 0)
}

func TestCloseIsBoundedWithoutBroker(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	noError(t, r.broker.Stop())
	p := r.start()
	var all []*journal.Record
	for i := range 20 {
		one := r.add(fmt.Sprintf("{\"n\":%d}\n", i))
		p.Appended(one)
		all = append(all, one)
	}
	r.log.wait(t, "WARN batch can't be published, trying again")
	closeWithin(t, p, 5*time.Second)
	if err := p.Wait(t.Context()); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("wait says %v after close, want that it is closed", err)
	}
	r.wantStats(20, 0)

	noError(t, r.broker.Start(t.Context()))
	r.reopen()
	r.wait(r.start())
	r.wantTopic(all...)
}

// A broker that takes requests and never answers is the worst that can be away.
func TestCloseIsBoundedWithoutAnswers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	swallowed := r.wire.silence()
	p := r.start()
	p.Appended(r.add("{\"n\":1}\n"))
	select {
	case <-swallowed:
	case <-time.After(limit):
		t.Fatal("no request came")
	}
	closeWithin(t, p, limit)
	r.wantStats(1, 0) // stored by the broker, but nobody knows
}

func closeWithin(t *testing.T, p *publish.Publisher, most time.Duration) {
	t.Helper()
	began := time.Now()
	noError(t, p.Close())
	if took := time.Since(began); took > most {
		t.Errorf("close took %v, want %v at most", took, most)
	}
}

// A batch keeps the incarnation and the number that it was accepted with: they
// are how a gap in a stream is noticed.
func TestPublishesEarlierOpenings(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	all := []*journal.Record{r.add("{\"n\":1}\n"), r.add("{\"n\":2}\n")}
	r.reopen()
	all = append(all, r.add("{\"n\":3}\n")) // announced by nobody, until the next opening
	r.reopen()
	p := r.start()
	one := r.add("{\"n\":4}\n")
	p.Appended(one)
	r.wait(p)
	r.wantTopic(append(all, one)...)
	r.wantStats(0, 0)
	for i, want := range []uint64{1, 2, 1} {
		if b := all[i].Batch; b.Sequence != want || b.Incarnation == r.journal.Incarnation() {
			t.Errorf("batch %d is %s %d, want number %d of an earlier incarnation", i+1, b.Incarnation, b.Sequence, want)
		}
	}
}
