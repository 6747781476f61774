package publish_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"tallyman/source/journal"
	"tallyman/source/publish"
)

// configured returns a publisher at work that has nothing but the defaults,
// and what change makes of them.
func (r *rig) configured(change func(*publish.Config)) *publish.Publisher {
	r.t.Helper()
	c := publish.Config{Journal: r.journal, Brokers: r.broker.Addrs(), Compression: kafka.Zstd, Logger: slog.New(r.log)}
	change(&c)
	p, err := publish.New(c)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { noError(r.t, p.Close()) })
	noError(r.t, p.Start())
	return p
}

// wantAside waits and checks that something is set aside.
func (r *rig) wantAside(p *publish.Publisher) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), limit)
	defer cancel()
	if err := p.Wait(ctx); !errors.Is(err, publish.ErrSetAside) {
		r.t.Errorf("wait says %v, want that a batch is set aside", err)
	}
}

// A journal, brokers and nothing else are enough to publish.
func TestDefaults(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.configured(func(*publish.Config) {})
	noError(t, p.Start()) // once more does nothing
	one := r.add("{\"n\":1}\n")
	p.Appended(one)
	r.wait(p)
	r.wantTopic(one)
	if _, err := publish.New(publish.Config{Brokers: r.broker.Addrs()}); err == nil {
		t.Error("a publisher of nothing is made")
	}
}

// Only the broker knows how large a message is when it is compressed, and what
// the topic's limit is by now: what an earlier opening took under another limit
// is not set aside before the broker was asked.
func TestTheBrokerJudgesSizes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	noError(t, r.broker.DeleteTopic(topic))
	noError(t, r.broker.CreateTopic(topic, 1, map[string]string{"max.message.bytes": "20000"}))
	noise := make([]byte, 20_000)
	_, _ = rand.Read(noise) // so that compression leaves it too large
	dense := r.add(hex.EncodeToString(noise))
	sparse := r.add(strings.Repeat("x", 40_000))
	r.reopen()
	p := r.configured(func(c *publish.Config) { c.MaxMessageBytes = 20_000 })
	r.wantAside(p)
	r.wantTopic(sparse)
	if st := r.wantStats(1, 1); len(st.Aside) == 1 && st.Aside[0].Key != dense.Key {
		t.Errorf("the journal lists %+v, want %s", st.Aside[0], dense.Key)
	}
}

// A batch that the journal can't give back is set aside, and the others go on.
func TestSetsAsideWhatCanNotBeRead(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	// Nothing fits between journal and broker, so that each batch is read from the journal.
	p := r.configured(func(c *publish.Config) { c.InFlightBytes = 1 })
	one := r.add("{\"n\":1}\n")
	p.Appended(one)
	missing := *one
	missing.Key.Sequence = 99
	p.Appended(&missing)
	last := r.add("{\"n\":2}\n")
	p.Appended(last)
	r.wantAside(p)
	r.wantTopic(one, last)
	r.log.wait(t, "ERROR batch is set aside")
}

// More than the bound in flight goes out, and so does a batch above it.
func TestBytesInFlight(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.configured(func(c *publish.Config) { c.InFlightBytes = 100 })
	var all []*journal.Record
	for n := range 40 {
		one := r.add(strings.Repeat("x", 5*n+1))
		p.Appended(one)
		all = append(all, one)
	}
	r.wait(p)
	r.wantTopic(all...)
	r.wantStats(0, 0)
}

// Requests of a broker that never answers queue up, and each has a time-out of
// its own. Close does not wait for one after another.
func TestCloseIsBoundedWithAQueue(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	swallowed := r.wire.silence()
	p := r.start()
	var all []*journal.Record
	for range 350 { // some hundred share a request
		one := r.add("{\"n\":1}\n")
		p.Appended(one)
		all = append(all, one)
	}
	select {
	case <-swallowed:
	case <-time.After(limit):
		t.Fatal("no request came")
	}
	closeWithin(t, p, 5*time.Second)
	r.wantStats(350, 0)

	r.wire.answer()
	r.reopen()
	r.wait(r.start())
	r.wantInTopic(all...)
}
