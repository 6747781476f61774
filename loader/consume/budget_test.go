package consume

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tallyman/internal/sandbox"
)

// setHold keeps what is handed over from now on, or commits it and all the rest.
func (r *rig) setHold(c *running, hold bool, numbers ...int32) {
	r.update(func() {
		for _, number := range numbers {
			r.hold[number] = hold
		}
		if hold {
			return
		}
		m := c.config.Handler.(*member)
		kept := r.held
		r.held = nil
		for _, record := range kept {
			if number := record.Partition.Number; r.hold[number] {
				r.held = append(r.held, record)
			} else {
				m.commit(number, record)
			}
		}
	})
}

// bytesHeld sums the bytes of the records that the handler keeps. The caller holds mu.
func (w *warehouse) bytesHeld() (n int) {
	for _, record := range w.held {
		n += len(record.Key) + len(record.Value)
		for _, h := range record.Headers {
			n += len(h.Value)
		}
	}
	return n
}

// padded returns n values of a size. Records of them are three times as large:
// key and header repeat the value.
func padded(prefix string, n, size int) []string {
	var values []string
	for i := range n {
		head := fmt.Sprintf("%s%d ", prefix, i)
		values = append(values, head+strings.Repeat("x", size-len(head)))
	}
	return values
}

// A warehouse that commits nothing is read ahead of up to the budget and no
// further; afterwards everything arrives.
func TestReadAheadIsBounded(t *testing.T) {
	t.Parallel()
	const readAhead = 1 << 20
	r := newRig(t, sandbox.BrokerConfig{}, 4)
	for number := range int32(4) { // batches of an eighth of the budget
		for i := range 10 {
			r.produce(number, padded(fmt.Sprintf("%d-", i), 4, 10_000)...)
		}
		r.hold[number] = true
	}
	c := r.start(func(c *Config) { c.ReadAhead = readAhead })
	r.until(t, "the budget to be nearly full", func() bool { return r.bytesHeld() > readAhead*3/4 })
	if got := c.metric("tallyman_loader_read_ahead_bytes"); got > readAhead {
		t.Errorf("%v bytes read ahead", got)
	}
	r.setHold(c, false, 0, 1, 2, 3)
	for number := range int32(4) {
		r.untilRead(t, number, padded("9-", 4, 10_000)...)
		r.update(func() { // the other partitions are still being read
			if n := len(r.values(number)); n != 40 {
				t.Errorf("%d values of partition %d", n, number)
			}
		})
	}
	if err := c.Healthy(); err != nil {
		t.Errorf("Healthy: %v", err)
	}
}

// A partition that is not committed holds up no other.
func TestSlowPartition(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{}, 4)
	for number := range int32(4) {
		for i := range 20 {
			r.produce(number, padded(fmt.Sprintf("%d-", i), 4, 50_000)...)
		}
	}
	r.hold[1] = true
	c := r.start(func(c *Config) { c.ReadAhead = 2 << 20 })
	for _, number := range []int32{0, 2, 3} {
		r.untilRead(t, number, padded("19-", 4, 50_000)...)
	}
	r.until(t, "something of the slow partition", func() bool { return len(r.held) > 0 })
	r.setHold(c, false, 1)
	r.untilRead(t, 1, padded("19-", 4, 50_000)...)
}

// A batch larger than the budget, and one larger than the scratch, go alone.
func TestLargeBatches(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{Settings: map[string]string{"message.max.bytes": "20000000"}}, 2)
	client := r.producer(kgo.ProducerBatchMaxBytes(18_000_000), kgo.ProducerBatchCompression(kgo.ZstdCompression()))
	var want []string
	for i := range 4 {
		v := padded(fmt.Sprintf("%d-", i), 1, 1_000_000<<(i%3)) // batches of 3, 6 and 12 MB
		if err := client.ProduceSync(t.Context(), records(int32(i%2), v...)...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		want = append(want, v...)
	}
	c := r.start(func(c *Config) { c.ReadAhead = 1 << 20 })
	r.untilRead(t, 0, want[0], want[2])
	r.untilRead(t, 1, want[1], want[3])
	if err := c.stop(); err != nil {
		t.Fatal(err)
	}
	if got := c.metric("tallyman_loader_read_ahead_bytes"); got != 0 {
		t.Errorf("%v bytes of the budget were not given back", got)
	}
}

// Tiny records take more memory than their bytes: they are counted with it.
func TestTinyRecords(t *testing.T) {
	t.Parallel()
	const n = 100_000
	r, wire := newWiredRig(t, sandbox.BrokerConfig{}, 1)
	var all []byte
	for i := range int32(n) {
		all = append(all, record(i, "")...)
	}
	r.append(wire, raw{compression: 4, records: zstdOf(t, all), count: n, delta: n - 1})
	r.hold[0] = true
	c := r.start(func(c *Config) { c.ReadAhead = 4 << 20 })
	r.until(t, "the budget to be full", func() bool { return c.budget.held.Load() > 3<<20 })
	r.update(func() {
		if got := int64(len(r.held)) * recordMemory; got > 4<<20 {
			t.Errorf("%d records are held, which take %d bytes", len(r.held), got)
		}
	})
	r.setHold(c, false, 0)
	r.until(t, "the end", func() bool { return r.positions[0].Next == n })
}

// What carries nothing takes memory too while it waits for its turn.
func TestManyAbortedTransactions(t *testing.T) {
	t.Parallel()
	const readAhead = 10 * recordMemory
	r := newRig(t, sandbox.BrokerConfig{}, 1)
	client := r.producer(kgo.TransactionalID("one"))
	for range 20 {
		r.transact(client, kgo.TryAbort, "aborted")
	}
	r.produce(0, "end")
	r.hold[0] = true
	c := r.start(func(c *Config) { c.ReadAhead = readAhead })
	r.until(t, "the budget to be full", func() bool { return c.budget.held.Load() == readAhead })
	r.update(func() {
		if n := len(r.held); n > 10 {
			t.Errorf("%d steps are held", n)
		}
	})
	r.setHold(c, false, 0)
	r.untilRead(t, 0, "end")
}

// A bomb costs no more than the limit.
func TestBombMemory(t *testing.T) {
	bomb := zstdOf(t, make([]byte, 256<<20))
	s, err := newInflaters(1, 32<<20, newBudget(32<<20))
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err = s.inflate(t.Context(), &rawBatch{attributes: 4, records: bomb}, func(inflated) error { return nil })
	runtime.ReadMemStats(&after)
	if !errors.Is(err, errTooLarge) {
		t.Errorf("inflate: %v", err)
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 64<<20 {
		t.Errorf("%d bytes were allocated", got)
	}
	if held := s.budget.held.Load(); held != 0 {
		t.Errorf("%d bytes of the budget were not given back", held)
	}
}

// Every codec is read.
func TestCodecs(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{}, 1)
	var want []string
	for name, codec := range map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	} {
		for _, size := range []int{100, 900_000} { // within the scratch
			values := padded(name, 3, size/3)
			client := r.producer(kgo.ProducerBatchCompression(codec))
			if err := client.ProduceSync(t.Context(), records(0, values...)...).FirstErr(); err != nil {
				t.Fatal(err)
			}
			want = append(want, values...)
		}
	}
	r.start(nil)
	r.untilRead(t, 0, want...)
	for i, record := range r.read[0] {
		if string(record.Key) != "key of "+want[i] || len(record.Headers) != 2 || string(record.Headers[0].Value) != "id of "+want[i] {
			t.Errorf("record %d has key %.40q, headers %.80q", i, record.Key, record.Headers)
		}
		if age := time.Since(record.Timestamp); age < 0 || age > time.Hour {
			t.Errorf("record %d is %v old", i, age)
		}
	}
}

// Java's framing around snappy blocks.
func TestXerialSnappy(t *testing.T) {
	t.Parallel()
	block := func(b []byte) []byte {
		return append([]byte{0, 0, 0, byte(len(b))}, b...)
	}
	var framed bytes.Buffer
	framed.Write(append(bytes.Clone(xerial), 0, 0, 0, 1, 0, 0, 0, 1))
	framed.Write(block([]byte{2, 1 << 2, 'a', 'b'})) // a literal of two bytes
	framed.Write(block([]byte{1, 0 << 2, 'c'}))
	got, err := unsnappy(make([]byte, 0, 3), framed.Bytes())
	if string(got) != "abc" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := unsnappy(make([]byte, 0, 2), framed.Bytes()); !errors.Is(err, errTooLarge) {
		t.Errorf("into too little: %v", err)
	}
}

// A broker that has something and does not send it is noticed; the session
// starts anew, and somebody is told until it goes on.
func TestStall(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{}, 1)
	r.produce(0, "a")
	var mended atomic.Bool
	cluster := r.broker.Cluster()
	cluster.ControlKey(int16(kmsg.Fetch), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if mended.Load() {
			return nil, nil, false
		}
		answer := request.ResponseKind().(*kmsg.FetchResponse)
		t, p := kmsg.NewFetchResponseTopic(), kmsg.NewFetchResponseTopicPartition()
		p.HighWatermark, p.LastStableOffset = 1, 1
		t.Topic, t.Partitions = topic, append(t.Partitions, p)
		answer.Topics = append(answer.Topics, t)
		return answer, nil, true
	})
	c := r.start(func(c *Config) { c.StallAfter = 100 * time.Millisecond })
	c.untilUnhealthy("partition 0 of ads.clicks: the broker has records and sends none that can be read, for 100ms")
	r.until(t, "another generation", func() bool { return len(r.begins[0]) > 1 })
	mended.Store(true)
	r.untilRead(t, 0, "a")
	c.untilHealthy()
}
