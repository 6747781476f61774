package consume

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tallyman/internal/sandbox"
	"tallyman/schema/batch"
)

// transact writes values in a transaction, and ends it one way or the other.
func (r *rig) transact(client *kgo.Client, commit kgo.TransactionEndTry, values ...string) {
	r.t.Helper()
	if err := client.BeginTransaction(); err != nil {
		r.t.Fatal(err)
	}
	if err := client.ProduceSync(r.t.Context(), records(0, values...)...).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
	if err := client.EndTransaction(r.t.Context(), commit); err != nil {
		r.t.Fatal(err)
	}
}

// Aborted transactions are passed over, committed ones are read, and so is what
// lies between; a transaction that is open holds everything behind it back.
func TestTransactions(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{}, 1)
	one, two := r.producer(kgo.TransactionalID("one")), r.producer(kgo.TransactionalID("two"))
	var want []string
	for i := range 10 {
		values := numbered(fmt.Sprintf("committed%d-", i), 3)
		r.transact(one, kgo.TryCommit, values...)
		r.transact(two, kgo.TryAbort, numbered("aborted", 5)...)
		r.produce(0, fmt.Sprint("plain", i))
		want = append(append(want, values...), fmt.Sprint("plain", i))
	}
	c := r.start(nil)
	r.untilRead(t, 0, want...)
	if err := one.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := one.ProduceSync(t.Context(), records(0, "open")...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	r.produce(0, "behind")
	if err := one.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
	r.untilRead(t, 0, append(want, "behind")...)
	end := r.broker.Cluster().PartitionInfo(topic, 0).HighWatermark
	r.until(t, "the position to pass the last marker", func() bool { return r.positions[0].Next == end })
	if got := r.values(0); len(got) != len(want)+1 {
		t.Errorf("%d values read, want %d", len(got), len(want)+1)
	}
	c.untilHealthy()
}

// No flipped bit between broker and loader loses, doubles or alters a record,
// nor moves a position where it does not belong.
func TestFlippedBits(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	r, wire := newWiredRig(t, sandbox.BrokerConfig{}, 1)
	one, two := r.producer(kgo.TransactionalID("one")), r.producer(kgo.TransactionalID("two"))
	flipped := 0
	wire.hurt(func(key kmsg.Key, answer []byte) {
		// Without the frame's length: a changed one is a connection that hangs
		// until the request's deadline, which is another test.
		if (key == kmsg.Fetch || key == kmsg.ListOffsets) && random.IntN(4) == 0 {
			bit := 32 + random.IntN(8*len(answer)-32)
			answer[bit/8] ^= 1 << (bit % 8)
			flipped++
		}
	})
	var want []string
	for i := range 60 {
		values := numbered(fmt.Sprintf("%d-", i), 5)
		switch i % 4 {
		case 0:
			r.transact(one, kgo.TryCommit, values...)
			want = append(want, values...)
		case 1:
			r.transact(two, kgo.TryAbort, values...)
		default:
			r.produce(0, values...)
			want = append(want, values...)
		}
	}
	c := r.start(func(c *Config) { c.RequestTimeout, c.FetchBytes = time.Second, 1 }) // one batch at a time
	r.untilRead(t, 0, want[len(want)-5:]...)
	wire.hurt(nil)
	if err := c.stop(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(r.values(0), " "); got != strings.Join(want, " ") {
		t.Errorf("read (-want +got):\n%s", cmp.Diff(want, r.values(0)))
	}
	if p := r.positions[0]; p.Era != 1 || len(r.gaps[0]) != 0 || p.LogStart != 0 {
		t.Errorf("gaps %v, position %+v", r.gaps[0], p)
	}
	for _, record := range r.read[0] {
		if record.Refused != nil {
			t.Errorf("refused at %d: %v", record.Offset, record.Refused)
		}
	}
	t.Logf("%d bits flipped", flipped)
	if flipped == 0 {
		t.Error("no bit was flipped")
	}
}

// A batch that comes damaged every time is never passed, and somebody is told.
func TestDamagedForGood(t *testing.T) {
	t.Parallel()
	r, wire := newWiredRig(t, sandbox.BrokerConfig{}, 2)
	wire.hurt(func(key kmsg.Key, answer []byte) {
		if i := bytes.Index(answer, []byte("marked")); key == kmsg.Fetch && i >= 0 {
			answer[i] ^= 1
		}
	})
	r.produce(0, "before")
	r.produce(0, "marked")
	r.produce(0, "after")
	r.produce(1, "other")
	c := r.start(nil)
	r.untilRead(t, 0, "before")
	r.untilRead(t, 1, "other")
	c.untilUnhealthy("partition 0 of ads.clicks: the record batch at offset 1 came damaged, again and again")
	wire.hurt(nil)
	r.untilRead(t, 0, "before", "marked", "after")
	c.untilHealthy()
}

// raw is a record batch made by hand.
type raw struct {
	compression int16
	records     []byte
	count       int32
	delta       int32 // last offset delta
}

// append writes record batches as they are; only their checksums are right. The
// wire puts in what a broker would refuse to take.
func (r *rig) append(w *wire, batches ...raw) {
	r.t.Helper()
	client := r.producer()
	for _, b := range batches {
		rb := kmsg.RecordBatch{
			PartitionLeaderEpoch: -1, Magic: 2, Attributes: b.compression, LastOffsetDelta: b.delta, NumRecords: b.delta + 1,
			FirstTimestamp: 1_700_000_000_000, MaxTimestamp: 1_700_000_000_000, ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1,
			Records: b.records,
		}
		if b.compression > 4 {
			rb.Attributes = 0
		}
		rb.Length = int32(len(rb.AppendTo(nil)) - 12)
		batch := rb.AppendTo(nil)
		seal(batch)
		p := kmsg.NewProduceRequestTopicPartition()
		p.Records = batch
		t := kmsg.NewProduceRequestTopic()
		t.Topic, t.Partitions = topic, append(t.Partitions, p)
		t.TopicID = r.broker.Cluster().TopicInfo(topic).TopicID
		request := kmsg.NewPtrProduceRequest()
		request.Acks, request.TimeoutMillis, request.Topics = -1, 5000, append(request.Topics, t)
		answer, err := request.RequestWith(r.t.Context(), client)
		if err == nil {
			err = kerr.ErrorForCode(answer.Topics[0].Partitions[0].ErrorCode)
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}
	w.hurt(func(key kmsg.Key, answer []byte) {
		for _, b := range batches {
			i := bytes.Index(answer, b.records) - headerSize
			if key != kmsg.Fetch || i < 0 {
				continue
			}
			batch := answer[i : i+headerSize+len(b.records)]
			binary.BigEndian.PutUint16(batch[21:], uint16(b.compression))
			binary.BigEndian.PutUint32(batch[57:], uint32(b.count))
			seal(batch)
		}
	})
}

// seal puts the right checksum into a record batch.
func seal(batch []byte) {
	binary.BigEndian.PutUint32(batch[17:], crc32.Checksum(batch[21:], crc32.MakeTable(crc32.Castagnoli)))
}

// record encodes one record.
func record(delta int32, value string) []byte {
	var body []byte
	body = append(body, 0)
	body = binary.AppendVarint(body, 0)
	body = binary.AppendVarint(body, int64(delta))
	body = binary.AppendVarint(body, -1)
	body = binary.AppendVarint(body, int64(len(value)))
	body = append(body, value...)
	body = binary.AppendVarint(body, 0)
	return append(binary.AppendVarint(nil, int64(len(body))), body...)
}

func zstdOf(t testing.TB, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(data, nil)
}

// What is intact and can't be read goes to quarantine by its coordinates, and
// what surrounds it is read.
func TestUnreadableBatches(t *testing.T) {
	t.Parallel()
	good := record(0, strings.Repeat("good", 100))
	bomb := zstdOf(t, make([]byte, 256<<20))
	for name, tc := range map[string]struct {
		raw    raw
		reason batch.Reason
		detail string
	}{
		"bomb":             {raw{4, bomb, 1, 0}, batch.TooLarge, "a record batch that decompresses to more than 1048576 bytes"},
		"compressed large": {raw{0, make([]byte, 1<<20), 1, 0}, batch.TooLarge, "a record batch of 1048637 bytes, the limit is 1048576"},
		"truncated zstd":   {raw{4, zstdOf(t, good)[:20], 1, 0}, batch.Unreadable, "unexpected EOF"},
		"truncated gzip":   {raw{1, []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0}, 1, 0}, batch.Unreadable, "unexpected EOF"},
		"snappy of noise":  {raw{2, []byte("\x10 is not snappy at all"), 1, 0}, batch.Unreadable, "s2: corrupt input"},
		"snappy bomb":      {raw{2, []byte{0xff, 0xff, 0xff, 0xff, 0x07, 0}, 1, 0}, batch.TooLarge, "decompresses to more than"},
		"lz4 of noise":     {raw{3, []byte("not lz4 at all"), 1, 0}, batch.Unreadable, "lz4: bad magic number"},
		"unknown codec":    {raw{5, good, 1, 0}, batch.Unreadable, "unknown compression 5"},
		"fewer records":    {raw{0, good, 2, 1}, batch.Unreadable, "the records contradict their batch's header"},
		"more records":     {raw{0, append(record(0, "a"), record(1, "b")...), 1, 1}, batch.Unreadable, "contradict"},
		"offset outside":   {raw{0, record(1, "a"), 1, 0}, batch.Unreadable, "contradict"},
		"huge count":       {raw{0, good, 1<<31 - 1, 1<<31 - 2}, batch.Unreadable, "contradict"},
		"half a record":    {raw{0, good[:50], 1, 0}, batch.Unreadable, "contradict"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, wire := newWiredRig(t, sandbox.BrokerConfig{Settings: map[string]string{"message.max.bytes": "4000000"}}, 1)
			r.produce(0, "before")
			r.append(wire, tc.raw)
			r.produce(0, "after")
			c := r.start(func(c *Config) { c.MaxBatchBytes = 1 << 20 })
			r.untilRead(t, 0, "before", "after")
			if err := c.stop(); err != nil {
				t.Fatal(err)
			}
			refused := r.read[0][1]
			if refused.Refused == nil {
				t.Fatalf("read %q", r.values(0))
			}
			if refused.Offset != 1 || refused.Next != int64(tc.raw.delta)+2 || refused.Refused.Reason != tc.reason ||
				!strings.Contains(refused.Refused.Detail, tc.detail) {
				t.Errorf("refused %d to %d: %v, want %s: %s", refused.Offset, refused.Next, refused.Refused, tc.reason, tc.detail)
			}
			if got := c.metric("tallyman_loader_read_ahead_bytes"); got != 0 {
				t.Errorf("%v bytes of the budget were not given back", got)
			}
		})
	}
}

// A batch that compaction emptied, or in which it left holes, is passed.
func TestHoles(t *testing.T) {
	t.Parallel()
	r, wire := newWiredRig(t, sandbox.BrokerConfig{}, 1)
	r.append(wire,
		raw{records: append(record(2, "a"), record(5, "b")...), count: 2, delta: 9},
		raw{records: []byte("emptied"), count: 0, delta: 4},
		raw{records: record(0, "c"), count: 1},
	)
	r.start(nil)
	r.untilRead(t, 0, "a", "b", "c")
	var steps []string
	for _, record := range r.read[0] {
		steps = append(steps, fmt.Sprintf("%d:%d:%t", record.Offset, record.Next, record.Skip))
	}
	if got := strings.Join(steps, " "); got != "2:3:false 5:10:false 0:15:true 15:16:false" {
		t.Error(got)
	}
}
