package consume

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tallyman/internal/kafkaconn"
	"tallyman/internal/sandbox"
)

// owners returns how many partitions each member has. The caller holds mu.
func (w *warehouse) owners() map[string]int {
	count := map[string]int{}
	for _, name := range w.owner {
		count[name]++
	}
	return count
}

// untilShared waits until all partitions are owned, by so many members each.
func (r *rig) untilShared(shares ...int) {
	r.t.Helper()
	r.until(r.t, fmt.Sprintf("shares of %v", shares), func() bool {
		return slices.Equal(slices.Sorted(maps.Values(r.owners())), shares)
	})
}

// once fails the test if a value was read twice, or one is missing. Nothing may
// be running any more.
func (r *rig) once(want ...string) {
	r.t.Helper()
	read := map[string]int{}
	for number := range r.read {
		for _, v := range r.values(number) {
			read[v]++
		}
	}
	for _, v := range want {
		if read[v] != 1 {
			r.t.Errorf("%q was read %d times", v, read[v])
		}
	}
}

// Members that come share the partitions, those that leave give theirs up at
// once, and nothing is read twice or not at all.
func TestMembersComeAndGo(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{}, 4)
	var want []string
	write := func() {
		for number := range int32(4) {
			values := numbered(fmt.Sprintf("%d.%d-", number, len(want)), 10)
			r.produce(number, values...)
			want = append(want, values...)
		}
	}
	write()
	one := r.start(func(c *Config) { c.SessionTimeout = 10 * time.Second }) // nobody is found dead here
	r.untilShared(4)
	write()
	two := r.start(func(c *Config) { c.SessionTimeout = 10 * time.Second })
	r.untilShared(2, 2)
	write()
	if err := one.stop(); err != nil {
		t.Fatal(err)
	}
	r.untilShared(4)
	write()
	for number := range int32(4) {
		r.untilRead(t, number, want[len(want)-40+int(number)*10:][:10]...)
	}
	if err := two.stop(); err != nil {
		t.Fatal(err)
	}
	r.once(want...)
	if n := len(r.owner); n != 0 {
		t.Errorf("%d partitions were not given up", n)
	}
	if got := two.metric("tallyman_loader_group_generations_total"); got < 2 {
		t.Errorf("%v generations", got)
	}
}

// A member that is cut off is replaced when its session times out, and comes
// back when it can.
func TestMemberCutOff(t *testing.T) {
	t.Parallel()
	r, wire := newWiredRig(t, sandbox.BrokerConfig{}, 4)
	as := func(client string) func(c *Config) {
		return func(c *Config) {
			conn, err := kafkaconn.New(kafkaconn.Config{Brokers: r.broker.Addrs(), ClientID: client, DialTimeout: 200 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(conn.Close)
			c.Conn, c.RequestTimeout, c.SessionTimeout = conn, 300*time.Millisecond, 300*time.Millisecond
		}
	}
	victim := r.start(as("victim"))
	r.start(as("other"))
	r.untilShared(2, 2)
	wire.mute("victim", true)
	r.untilShared(4)
	for number := range int32(4) {
		r.produce(number, "while away")
		r.untilRead(t, number, "while away")
	}
	victim.untilUnhealthy("join consumer group test")
	wire.mute("victim", false)
	r.untilShared(2, 2)
	victim.untilHealthy()
}

// fail has the coordinator answer requests with an error, so many times. The
// channel is closed with the last of them.
func (r *rig) fail(key kmsg.Key, refusal *kerr.Error, times int) <-chan struct{} {
	failed := make(chan struct{})
	r.broker.Cluster().ControlKey(int16(key), func(request kmsg.Request) (kmsg.Response, error, bool) {
		r.broker.Cluster().KeepControl()
		switch times--; {
		case times < 0:
			return nil, nil, false
		case times == 0:
			close(failed)
		}
		answer := request.ResponseKind()
		switch a := answer.(type) {
		case *kmsg.FindCoordinatorResponse:
			a.ErrorCode = refusal.Code
		case *kmsg.JoinGroupResponse:
			a.ErrorCode = refusal.Code
		case *kmsg.SyncGroupResponse:
			a.ErrorCode = refusal.Code
		case *kmsg.HeartbeatResponse:
			a.ErrorCode = refusal.Code
		case *kmsg.OffsetCommitResponse:
			t, p := kmsg.NewOffsetCommitResponseTopic(), kmsg.NewOffsetCommitResponseTopicPartition()
			p.ErrorCode = refusal.Code
			t.Topic, t.Partitions = topic, append(t.Partitions, p)
			a.Topics = append(a.Topics, t)
		}
		return answer, nil, true
	})
	return failed
}

// The coordinator's errors end a generation, or prevent one, and are waited for.
func TestCoordinatorErrors(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		key     kmsg.Key
		refusal *kerr.Error
		times   int
	}{
		"coordinator not there": {kmsg.FindCoordinator, kerr.CoordinatorNotAvailable, 2},
		"coordinator loading":   {kmsg.JoinGroup, kerr.CoordinatorLoadInProgress, 2},
		"sync refused":          {kmsg.SyncGroup, kerr.RebalanceInProgress, 2},
		"evicted":               {kmsg.Heartbeat, kerr.UnknownMemberID, 1},
		"coordinator moved":     {kmsg.Heartbeat, kerr.NotCoordinator, 1},
		"offsets refused":       {kmsg.OffsetCommit, kerr.GroupAuthorizationFailed, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, sandbox.BrokerConfig{}, 2)
			r.produce(1, "first")
			failed := r.fail(tc.key, tc.refusal, tc.times)
			c := r.start(func(c *Config) { c.SessionTimeout = 400 * time.Millisecond })
			select {
			case <-failed:
			case <-time.After(patience):
				t.Fatal("nothing was refused")
			}
			r.produce(1, "second")
			r.untilRead(t, 1, "first", "second")
			c.untilHealthy()
			if err := c.stop(); err != nil {
				t.Fatal(err)
			}
			r.once("first", "second")
		})
	}
}

// Partitions that are added are read soon.
func TestPartitionsAdded(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{}, 1)
	r.produce(0, "a")
	c := r.start(nil)
	r.untilRead(t, 0, "a")
	if err := r.broker.AddPartitions(t.Context(), topic, 3); err != nil {
		t.Fatal(err)
	}
	r.produce(2, "b")
	r.untilRead(t, 2, "b")
	if got := c.metric("tallyman_loader_partitions"); got != 3 {
		t.Errorf("%v partitions owned", got)
	}
}

// A topic that is made again with other partitions is shared out anew.
func TestTopicMadeAgainWithMorePartitions(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{}, 1)
	r.produce(0, "old")
	c := r.start(nil)
	r.untilRead(t, 0, "old")
	r.remake(4, "new")
	r.produce(3, "b")
	r.untilRead(t, 0, "new")
	r.untilRead(t, 3, "b")
	c.untilHealthy()
}

// Reading goes on where the leaders go.
func TestLeadersMove(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{Brokers: 3}, 2)
	r.start(nil)
	for i := range 6 {
		for number := range int32(2) {
			if err := r.broker.Cluster().MoveTopicPartition(topic, number, int32(i+int(number))%3); err != nil {
				t.Fatal(err)
			}
			v := fmt.Sprintf("%d-%d", number, i)
			r.produce(number, v)
			r.untilRead(t, number, v)
		}
	}
}

// A broker that goes away and comes back is waited for.
func TestBrokerAway(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{DataDir: t.TempDir()}, 2)
	r.produce(0, "before")
	c := r.start(nil)
	r.untilRead(t, 0, "before")
	if err := r.broker.Stop(); err != nil {
		t.Fatal(err)
	}
	c.untilUnhealthy("connection refused")
	if err := r.broker.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.produce(0, "after")
	r.produce(1, "other")
	r.untilRead(t, 0, "before", "after")
	r.untilRead(t, 1, "other")
	c.untilHealthy()
}

// A cluster that came back empty is another one, even if the member's session
// outlived that.
func TestBrokerBackEmpty(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{}, 1)
	r.produce(0, numbered("old", 5)...)
	r.start(nil)
	r.untilRead(t, 0, numbered("old", 5)...)
	if err := r.broker.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := r.broker.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.create(1, nil)
	r.produce(0, numbered("new", 20)...)
	r.untilRead(t, 0, numbered("new", 20)...)
}

// What a person has to mend ends Run; an outage at the start is waited for.
func TestStart(t *testing.T) {
	t.Parallel()
	t.Run("no topic", func(t *testing.T) {
		t.Parallel()
		c := newRig(t, sandbox.BrokerConfig{}, 0).start(nil)
		const want = "topic can't be loaded from: topic ads.clicks does not exist: make it with tallyman dataset apply"
		if err := c.wait(); err == nil || err.Error() != want {
			t.Errorf("Run: %v", err)
		}
	})
	t.Run("compacted", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, sandbox.BrokerConfig{}, 0)
		r.create(1, map[string]string{"cleanup.policy": "compact"})
		if err := r.start(nil).wait(); err == nil || !strings.Contains(err.Error(), "cleanup.policy=compact") {
			t.Errorf("Run: %v", err)
		}
	})
	t.Run("old broker", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, sandbox.BrokerConfig{}, 1)
		r.broker.Cluster().ControlKey(int16(kmsg.ApiVersions), func(request kmsg.Request) (kmsg.Response, error, bool) {
			r.broker.Cluster().KeepControl()
			return request.ResponseKind(), nil, true
		})
		if err := r.start(nil).wait(); err == nil || !strings.Contains(err.Error(), "Fetch (to read records) is not offered") {
			t.Errorf("Run: %v", err)
		}
	})
	t.Run("outage", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, sandbox.BrokerConfig{DataDir: t.TempDir()}, 1)
		r.produce(0, "a")
		if err := r.broker.Stop(); err != nil {
			t.Fatal(err)
		}
		c := r.start(nil)
		c.untilUnhealthy("connection refused")
		if err := r.broker.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.untilRead(t, 0, "a")
		c.untilHealthy()
	})
	t.Run("outage and an end", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, sandbox.BrokerConfig{}, 1)
		if err := r.broker.Stop(); err != nil {
			t.Fatal(err)
		}
		c := r.start(nil)
		c.untilUnhealthy("connection refused")
		if err := c.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Run("configuration", func(t *testing.T) {
		t.Parallel()
		if _, err := New(Config{}); err == nil {
			t.Error("an empty Config was taken")
		}
	})
}

// The group hears of what was committed, also at the end.
func TestOffsetHints(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{}, 2)
	r.produce(0, numbered("a", 7)...)
	c := r.start(nil)
	r.untilRead(t, 0, numbered("a", 7)...)
	told := func() int64 { return r.broker.Cluster().GroupInfo("test").Commits[topic][0].Offset }
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); told() != 7; <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("the group was told %d", told())
		}
	}
	r.produce(0, "last")
	r.untilRead(t, 0, "last")
	if err := c.stop(); err != nil {
		t.Fatal(err)
	}
	if told() != 8 {
		t.Errorf("the group was told %d", told())
	}
}

// A coordinator that doesn't answer delays no end: the partitions are given up
// in order all the same.
func TestEndWithoutTheCoordinator(t *testing.T) {
	t.Parallel()
	r, wire := newWiredRig(t, sandbox.BrokerConfig{}, 2)
	r.produce(0, "a")
	lost := wire.lose(kmsg.OffsetCommit)
	c := r.start(func(c *Config) { c.RequestTimeout, c.SessionTimeout = patience, patience })
	r.untilRead(t, 0, "a")
	select {
	case <-lost:
	case <-time.After(patience):
		t.Fatal("the group was not told of the position")
	}
	began := time.Now()
	if err := c.stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the end took %v", took)
	}
	r.update(func() {
		if n := len(r.owner); n != 0 {
			t.Errorf("%d partitions were not given up", n)
		}
	})
}
