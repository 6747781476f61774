package consume

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"tallyman/internal/kafkaconn"
	"tallyman/internal/sandbox"
	"tallyman/sink"
)

// scanned reads spans of the topic, as partition/offset=value.
func (r *rig) scanned(change func(*Scanner), spans ...Span) (all []string, err error) {
	r.t.Helper()
	conn, err := kafkaconn.New(kafkaconn.Config{Brokers: r.broker.Addrs()})
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	s := &Scanner{Conn: conn, Topic: topic}
	if change != nil {
		change(s)
	}
	err = s.Scan(r.t.Context(), spans, func(m sink.Message, next int64) error {
		if next != m.Offset+1 {
			r.t.Errorf("offset %d, and %d after it", m.Offset, next)
		}
		all = append(all, fmt.Sprintf("%d/%d=%s", m.Partition.Number, m.Offset, m.Value))
		return nil
	})
	return all, err
}

func TestScan(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{}, 2)
	var want []string
	for i, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.ZstdCompression(), kgo.SnappyCompression(), kgo.GzipCompression(), kgo.Lz4Compression()} {
		p := r.producer(kgo.ProducerBatchCompression(codec))
		values := numbered(fmt.Sprintf("codec %d of many bytes ", i), 100)
		if err := p.ProduceSync(t.Context(), records(0, values...)...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		for j, v := range values {
			want = append(want, fmt.Sprintf("0/%d=%s", 100*i+j, v))
		}
	}
	r.produce(1, "other", "others")
	got, err := r.scanned(func(s *Scanner) { s.FetchBytes = 1000 }, Span{0, 0, 500}, Span{1, 0, 2})
	if diff := cmp.Diff(append(want[:500:500], "1/0=other", "1/1=others"), got); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	got, err = r.scanned(nil, Span{1, 1, 2}, Span{0, 250, 260}, Span{1, 1, 1})
	if diff := cmp.Diff(append([]string{"1/1=others"}, want[250:260]...), got); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	if err := r.broker.DeleteRecords(topic, 0, 490); err != nil {
		t.Fatal(err)
	}
	if got, err = r.scanned(nil, Span{0, 10, 495}); err != nil || !cmp.Equal(got, want[490:495]) {
		t.Errorf("%v %.300v", err, got)
	}
	// What is too large is left out.
	if got, err = r.scanned(func(s *Scanner) { s.MaxBatchBytes = 500 }, Span{0, 490, 500}, Span{1, 0, 2}); err != nil || len(got) != 2 {
		t.Errorf("%v %.300v", err, got)
	}
}

func TestScanEnds(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{}, 1)
	r.produce(0, "a", "b")
	if got, err := r.scanned(func(s *Scanner) { s.Patience = 1 }, Span{0, 0, 3}); err == nil || len(got) != 2 {
		t.Errorf("%v %v", got, err)
	}
	conn, err := kafkaconn.New(kafkaconn.Config{Brokers: r.broker.Addrs()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	enough, calls := errors.New("enough"), 0
	err = (&Scanner{Conn: conn, Topic: topic}).Scan(t.Context(), []Span{{0, 0, 2}}, func(sink.Message, int64) error {
		calls++
		return enough
	})
	if !errors.Is(err, enough) || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
}
