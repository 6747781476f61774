package kafkaconn_test

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tallyman/internal/kafkaconn"
	"tallyman/internal/sandbox"
	"tallyman/internal/sandbox/sandboxtest"
)

func connect(t *testing.T, c kafkaconn.Config) *kafkaconn.Conn {
	t.Helper()
	conn, err := kafkaconn.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		config kafkaconn.Config
		want   string
	}{
		"no broker": {kafkaconn.Config{}, "no Kafka brokers are configured"},
		"no port":   {kafkaconn.Config{Brokers: []string{"a"}}, `Kafka broker "a": must be host:port`},
		"no host":   {kafkaconn.Config{Brokers: []string{":1"}}, `Kafka broker ":1": must be host:port`},
		"no file": {kafkaconn.Config{Brokers: []string{"a:1"}, TLS: &kafkaconn.TLS{CAFile: "none.pem", KeyFile: "k"}},
			"kafka.tls.ca_file: open none.pem: no such file or directory\nkafka.tls.key_file is set without kafka.tls.cert_file"},
		"no PEM": {kafkaconn.Config{Brokers: []string{"a:1"}, TLS: &kafkaconn.TLS{CAFile: "kafkaconn_test.go"}},
			"kafka.tls.ca_file: kafkaconn_test.go holds no certificate in PEM"},
		"no password": {kafkaconn.Config{Brokers: []string{"a:1"}, SASL: &kafkaconn.SASL{Mechanism: "PLAIN", PasswordFile: os.DevNull}},
			"kafka.sasl.user or kafka.sasl.user_file is needed with kafka.sasl.mechanism\nkafka.sasl.password_file: /dev/null is empty"},
		"mechanism": {kafkaconn.Config{Brokers: []string{"a:1"}, SASL: &kafkaconn.SASL{Mechanism: "GSSAPI", User: "u", Password: "p"}},
			`kafka.sasl.mechanism: "GSSAPI" is none of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512`},
		"compression": {kafkaconn.Config{Brokers: []string{"a:1"}, Compression: "lzo"},
			`kafka.compression: "lzo" is none of zstd, gzip, lz4, snappy, none`},
		"cluster": {kafkaconn.Config{Brokers: []string{"a:1"}, Cluster: "a b"}, `Kafka cluster name "a b": must not contain a slash or white space`},
	} {
		if _, err := kafkaconn.New(tc.config); err == nil || err.Error() != tc.want {
			t.Errorf("%s: %v, want %s", name, err, tc.want)
		}
	}
}

func TestTopics(t *testing.T) {
	t.Parallel()
	broker := sandboxtest.Broker(t, sandbox.BrokerConfig{})
	conn := connect(t, kafkaconn.Config{Brokers: broker.Addrs(), MetadataTTL: 200 * time.Millisecond}) // also the time that asking may take
	if err := conn.APICheck(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := conn.CreateTopic(t.Context(), kafkaconn.NewTopic{
		Name: "ads.clicks", Partitions: 3, Replication: 1,
		Configs: map[string]string{"cleanup.policy": "compact", "max.message.bytes": "2097152", "retention.ms": "-1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.CreateTopic(t.Context(), kafkaconn.NewTopic{Name: "ads.clicks"}); !errors.Is(err, kafkaconn.ErrTopicExists) {
		t.Errorf("created twice: %v", err)
	}
	topics, err := conn.Topics(t.Context(), "ads.clicks", "none")
	if err != nil {
		t.Fatal(err)
	}
	if len(topics) != 1 || !cmp.Equal(topics["ads.clicks"].Partitions(), []int32{0, 1, 2}) || topics["ads.clicks"].Replicas != 1 {
		t.Errorf("topics are %+v", topics)
	}
	config, err := conn.TopicConfig(t.Context(), "ads.clicks")
	if diff := cmp.Diff(kafkaconn.TopicConfig{CleanupPolicy: "compact", MaxMessageBytes: 2 << 20, RetentionMs: -1}, config); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if _, err := conn.TopicConfig(t.Context(), "none"); !errors.Is(err, kafkaconn.ErrNoTopic) {
		t.Errorf("settings of a missing topic: %v", err)
	}
	if _, err := conn.LogStarts(t.Context(), "none"); !errors.Is(err, kafkaconn.ErrNoTopic) {
		t.Errorf("log starts of a missing topic: %v", err)
	}
}

func TestOffsets(t *testing.T) {
	t.Parallel()
	broker := sandboxtest.Broker(t, sandbox.BrokerConfig{Brokers: 3})
	if err := broker.CreateTopic("a.b", 4, nil); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, kafkaconn.Config{Brokers: broker.Addrs()})
	w := &kafka.Writer{Addr: conn.Addr(), Topic: "a.b", Transport: conn.Transport(), RequiredAcks: kafka.RequireAll,
		Balancer: kafka.BalancerFunc(func(m kafka.Message, _ ...int) int { return int(m.Key[0]) })}
	t.Cleanup(func() { _ = w.Close() })
	var messages []kafka.Message
	for _, partition := range []byte{1, 1, 1, 3} {
		messages = append(messages, kafka.Message{Key: []byte{partition}})
	}
	if err := w.WriteMessages(t.Context(), messages...); err != nil {
		t.Fatal(err)
	}
	if err := broker.DeleteRecords("a.b", 1, 2); err != nil {
		t.Fatal(err)
	}
	starts, err := conn.LogStarts(t.Context(), "a.b")
	if diff := cmp.Diff(map[int32]int64{0: 0, 1: 2, 2: 0, 3: 0}, starts); err != nil || diff != "" {
		t.Errorf("log starts: %v\n%s", err, diff)
	}
	ends, err := conn.HighWaters(t.Context(), "a.b")
	if diff := cmp.Diff(map[int32]int64{0: 0, 1: 3, 2: 0, 3: 1}, ends); err != nil || diff != "" {
		t.Errorf("high watermarks: %v\n%s", err, diff)
	}
}

// A broker that lacks an API is named with what is missing, and why it is needed.
func TestAPICheckNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	broker := sandboxtest.Broker(t, sandbox.BrokerConfig{})
	broker.Cluster().ControlKey(int16(kmsg.ApiVersions), func(request kmsg.Request) (kmsg.Response, error, bool) {
		broker.Cluster().KeepControl()
		answer := request.ResponseKind().(*kmsg.ApiVersionsResponse)
		for key := range int16(kmsg.MaxKey) {
			if k := kmsg.NewApiVersionsResponseApiKey(); kmsg.Key(key) != kmsg.JoinGroup {
				k.ApiKey, k.MaxVersion = key, 99
				if kmsg.Key(key) == kmsg.Fetch {
					k.MinVersion = 12
				}
				answer.ApiKeys = append(answer.ApiKeys, k)
			}
		}
		return answer, nil, true
	})
	err := connect(t, kafkaconn.Config{Brokers: broker.Addrs()}).APICheck(t.Context())
	var missing *kafkaconn.MissingAPIError
	want := []string{
		"Fetch (to read records) is offered in versions 12 to 99, needed in one of 10 to 11",
		"JoinGroup (to join a consumer group) is not offered",
	}
	if !errors.As(err, &missing) || !cmp.Equal(want, missing.Missing) {
		t.Errorf("%v", err)
	}
}

// A broker that accepts and never answers costs the request's time limit and no more.
func TestSilentBroker(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	conn := connect(t, kafkaconn.Config{Brokers: []string{l.Addr().String()}, RequestTimeout: 100 * time.Millisecond})
	for name, ask := range map[string]func(context.Context) error{
		"APICheck":    conn.APICheck,
		"Topics":      func(ctx context.Context) error { _, err := conn.Topics(ctx); return err },
		"TopicConfig": func(ctx context.Context) error { _, err := conn.TopicConfig(ctx, "x"); return err },
		"CreateTopic": func(ctx context.Context) error { return conn.CreateTopic(ctx, kafkaconn.NewTopic{Name: "x"}) },
	} {
		if err := ask(t.Context()); err == nil || !strings.Contains(err.Error(), "no answer from Kafka ("+l.Addr().String()+") in 100ms") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
