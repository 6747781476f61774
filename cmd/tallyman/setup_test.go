package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/schema/rows"
	"tallyman/sink"
	"tallyman/sink/postgres"
)

const clicks = `dataset: ads/clicks
columns:
  - {name: click_id, type: uuid}
  - {name: "Größe; \"x\"", type: text, nullable: true}
`

func decode[T any](t *testing.T, text string) (v T) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return v
}

// contains checks that text says every one of the things, in this order; blanks
// between words may be any number.
func contains(t *testing.T, text string, says ...string) {
	t.Helper()
	rest := strings.Join(strings.Fields(text), " ")
	for _, s := range says {
		i := strings.Index(rest, s)
		if i < 0 {
			t.Errorf("%q isn't said, or not there, in\n%s", s, text)
			return
		}
		rest = rest[i+len(s):]
	}
}

func TestInit(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			env := []string{"DATABASE_URL=" + sandboxtest.Postgres(t, version)}
			contains(t, succeed(t, env, "init"), "warehouse default: brought the schema from version 0 to ", "made 27 partitions", "up to 20")
			contains(t, succeed(t, env, "init"), "warehouse default: the schema is up to date", "made 0 partitions")
			var report struct {
				Target     string
				From       int64     `json:"from_version"`
				To         int64     `json:"to_version"`
				Partitions []string  `json:"partitions_made"`
				End        time.Time `json:"ledger_end"`
			}
			if err := json.Unmarshal([]byte(succeed(t, env, "init", "-o", "json")), &report); err != nil {
				t.Fatal(err)
			}
			if report.Target != "default" || report.From != report.To || report.To < 1 || report.Partitions == nil || report.End.Before(time.Now().AddDate(1, 11, 0)) {
				t.Errorf("%+v", report)
			}
			staging := append(slices.Clone(env), "TALLYMAN_WAREHOUSE_TARGET=staging")
			fail(t, exitFailed, staging, []string{"init"}, `"default"`, `"staging"`, "--rename-target")
			for _, args := range [][]string{{"dataset", "list"}, {"status"}} {
				fail(t, exitFailed, staging, args, `"default"`, `"staging"`, "--rename-target")
			}
			contains(t, succeed(t, staging, "init", "--rename-target"), "warehouse staging")
			succeed(t, staging, "dataset", "list")
		})
	}
}

func TestDatasets(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, version)
			manifest := file(t, "clicks.yaml", clicks)
			hash := parse(t, clicks).Hash()
			succeed(t, s.env, "init")
			contains(t, succeed(t, s.env, "dataset", "list"), "DATASET")
			if got := strings.TrimSpace(succeed(t, s.env, "dataset", "list", "-o", "json")); got != "[]" {
				t.Errorf("no datasets are %s", got)
			}
			contains(t, succeed(t, s.env, "dataset", "apply", manifest, "--partitions", "3", "--replication-factor", "1"),
				`ads/clicks: table "public"."clicks" made, topic ads.clicks made`)
			contains(t, succeed(t, s.env, "dataset", "apply", manifest, "--partitions", "2"), "there already", "there already")
			want := []appliedDataset{{Dataset: "ads/clicks", Hash: hash, Table: `"public"."clicks"`, Topic: "ads.clicks"}}
			if diff := cmp.Diff(want, decode[[]appliedDataset](t, succeed(t, s.env, "dataset", "apply", manifest, "-o", "json"))); diff != "" {
				t.Error(diff)
			}
			contains(t, succeed(t, s.env, "dataset", "list"), "DATASET", `ads/clicks active "public"."clicks" ads.clicks `+hash[:12])
			contains(t, succeed(t, s.env, "dataset", "show", "ads/clicks"),
				"ads/clicks, active", hash, `"public"."clicks" over "public"."clicks__r1"`, "click_id uuid no", `Größe; "x" text yes`)
			shown := decode[listedDataset](t, succeed(t, s.env, "dataset", "show", "ads/clicks", "-o", "json"))
			m, err := schema.ParseCanonical(shown.Manifest)
			if diff := cmp.Diff(parse(t, clicks), m); err != nil || diff != "" || shown.CreatedAt.IsZero() {
				t.Errorf("%v\n%s%+v", err, diff, shown)
			}
			shown.Manifest = nil
			if diff := cmp.Diff([]listedDataset{shown}, decode[[]listedDataset](t, succeed(t, s.env, "dataset", "list", "-o", "json"))); diff != "" {
				t.Error(diff)
			}
			fail(t, exitFailed, s.env, []string{"dataset", "show", "ads/none"}, "no dataset ads/none", "it has ads/clicks")
		})
	}
}

func parse(t *testing.T, text string) schema.Manifest {
	t.Helper()
	m, err := schema.ParseManifest([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// What Kafka or the warehouse has against a manifest leaves nothing behind in
// the other.
func TestApplyAndTopics(t *testing.T) {
	t.Parallel()
	s := newSite(t, "18")
	manifest := file(t, "clicks.yaml", clicks)
	apply := []string{"dataset", "apply", manifest, "--partitions", "6", "--replication-factor", "1"}
	fail(t, exitFailed, s.env, apply, "run tallyman init first")
	succeed(t, s.env, "init")

	if err := s.broker.CreateTopic("ads.clicks", 2, map[string]string{"cleanup.policy": "compact,delete"}); err != nil {
		t.Fatal(err)
	}
	fail(t, exitFailed, s.env, apply, "ads.clicks is compacted")
	if got := strings.TrimSpace(succeed(t, s.env, "dataset", "list", "-o", "json")); got != "[]" {
		t.Errorf("applied in spite of it: %s", got)
	}
	if err := s.broker.DeleteTopic("ads.clicks"); err != nil {
		t.Fatal(err)
	}

	create := "kafka-topics.sh --bootstrap-server " + s.broker.Addr() + " --topic ads.clicks "
	s.forbidTopic("ads.clicks")
	fail(t, exitFailed, s.env, apply, "Authorization", "the table is there", create+"--create --config cleanup.policy=delete --partitions 6 --replication-factor 1")

	if err := s.broker.CreateTopic("ads.clicks", 2, nil); err != nil {
		t.Fatal(err)
	}
	r := invoke(t, s.env, apply...)
	if r.status != exitDone {
		t.Error(r)
	}
	contains(t, r.stdout, "there already", "there already")
	contains(t, r.stderr, "is there with 2 partitions and keeps them; for 6: "+create+"--alter --partitions 6")

	other := file(t, "other.yaml", strings.Replace(clicks, "columns:", "topic: another\ncolumns:", 1))
	fail(t, exitFailed, s.env, []string{"dataset", "apply", other}, "topic another instead of ads.clicks")
	if err := s.broker.DeleteTopic("another"); err == nil {
		t.Error("a topic was made for a manifest that the warehouse refused")
	}

	if err := s.broker.Stop(); err != nil {
		t.Fatal(err)
	}
	fail(t, exitFailed, s.env, apply, "Kafka ("+s.broker.Addr()+")")
}

// forbidTopic makes the broker refuse once to make a topic.
func (s *site) forbidTopic(name string) {
	s.broker.Cluster().ControlKey(int16(kmsg.CreateTopics), func(request kmsg.Request) (kmsg.Response, error, bool) {
		if request.(*kmsg.CreateTopicsRequest).Topics[0].Topic != name {
			s.broker.Cluster().KeepControl()
			return nil, nil, false
		}
		answer := request.ResponseKind().(*kmsg.CreateTopicsResponse)
		topic := kmsg.NewCreateTopicsResponseTopic()
		topic.Topic, topic.ErrorCode = name, kerr.TopicAuthorizationFailed.Code
		answer.Topics = append(answer.Topics, topic)
		return answer, nil, true
	})
}

func ptr[T any](v T) *T { return &v }

// A topic that is made is never compacted, whatever the brokers' default.
func TestApplyMakesNoCompactedTopic(t *testing.T) {
	t.Parallel()
	s := newSite(t, "18")
	succeed(t, s.env, "init")
	succeed(t, s.env, "dataset", "apply", file(t, "clicks.yaml", clicks))
	if got := s.policy(t, "ads.clicks"); got != "delete" {
		t.Errorf("cleanup.policy=%s: want delete, said for the topic itself", got)
	}
}

// policy returns a topic's cleanup.policy, unless that is the broker's default.
func (s *site) policy(t *testing.T, topic string) string {
	t.Helper()
	client := &kafka.Client{Addr: kafka.TCP(s.broker.Addr())}
	answer, err := client.DescribeConfigs(t.Context(), &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{{
		ResourceType: kafka.ResourceTypeTopic, ResourceName: topic, ConfigNames: []string{"cleanup.policy"},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	e := answer.Resources[0].ConfigEntries[0]
	if e.ConfigSource == 5 {
		return "by default " + e.ConfigValue
	}
	return e.ConfigValue
}

// fill publishes two messages to partition 0, of which one is left, and five to
// partition 1, of which it commits the first three as a batch of two rows, a
// duplicate and a dead one; the first is gone.
func fill(t *testing.T, s *site) {
	t.Helper()
	w, err := postgres.Open(t.Context(), postgres.Config{URL: s.dsn})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	active, err := w.ActiveRevisions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := active[0]
	codec, err := rows.NewCodec(r.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	b := &batch.Batch{ID: batch.NewID(), Source: "test", Dataset: r.Manifest.Dataset, ContentType: batch.Native, Rows: 2}
	if b.Time, err = batch.TimeOf(b.ID); err != nil {
		t.Fatal(err)
	}
	for range b.Rows {
		if b.Value, err = codec.Append(b.Value, b.ID, []any{uuid.New(), nil}); err != nil {
			t.Fatal(err)
		}
	}
	b.Seal()
	writer := &kafka.Writer{Addr: kafka.TCP(s.broker.Addr()), Topic: r.Manifest.Topic, RequiredAcks: kafka.RequireAll,
		Balancer: kafka.BalancerFunc(func(m kafka.Message, _ ...int) int { return int(m.Key[0]) })}
	defer func() { _ = writer.Close() }()
	zero, one := kafka.Message{Key: []byte{0}}, kafka.Message{Key: []byte{1}}
	if err := writer.WriteMessages(t.Context(), zero, zero, one, one, one, one, one); err != nil {
		t.Fatal(err)
	}
	for partition := range int32(2) {
		if err := s.broker.DeleteRecords(r.Manifest.Topic, partition, 1); err != nil {
			t.Fatal(err)
		}
	}
	at, err := w.Assign(t.Context(), r, []sink.Partition{{Cluster: "default", Topic: r.Manifest.Topic, Number: 1}})
	if err != nil {
		t.Fatal(err)
	}
	read := func(offset int64) sink.Message {
		return sink.Message{Partition: at[0].Partition, Offset: offset, Key: b.Key(), Value: b.Value}
	}
	c := w.NewCommitter()
	defer func() { _ = c.Close() }()
	_, err = c.Commit(t.Context(), &sink.Group{
		Revision: r,
		Advances: []sink.Advance{{Partition: at[0].Partition, Era: 1, From: 0, To: 3, LogStart: -1}},
		Elements: []sink.Element{
			{Message: read(0), Batch: b, Content: b.Content(), Tuples: b.Value},
			{Message: read(1), Batch: b, Content: b.Content(), Tuples: b.Value},
		},
		Dead: []sink.Dead{{Message: read(2), Reason: batch.BadDigest, Detail: "\x1b[31mred", Batch: b}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestStatusAndRewind(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, version)
			succeed(t, s.env, "init")
			contains(t, succeed(t, s.env, "status"), "warehouse default: the ledger takes batches up to 20", "no datasets yet")
			succeed(t, s.env, "dataset", "apply", file(t, "clicks.yaml", clicks), "--partitions", "2")
			contains(t, succeed(t, s.env, "status"), "DATASET", "ads/clicks 0 0 0 never 0 0")
			contains(t, succeed(t, s.env, "rewind", "ads/clicks"), "nothing to rewind")
			fill(t, s)
			contains(t, succeed(t, s.env, "status"), "DATASET ROWS BATCHES BEHIND LAST LOAD QUARANTINE UNREAD MISSING COMPLETE THROUGH", "ads/clicks 2 1 3 20", " 1 0 0 ?")
			contains(t, succeed(t, s.env, "status", "ads/clicks"), "2 rows in 1 batches", "3 messages of topic ads.clicks",
				"PARTITION POSITION LOG START LOG END BEHIND ERA", "default/1 3 1 5 2 1", "default/0 never read 1 2 1 0", "bad_digest 1 ")
			checkStatus(t, s, 3, 1, 2)
			contains(t, succeed(t, s.env, "rewind", "ads/clicks"), "is read again from its start", "PARTITION POSITION ERA 1 1 2")
			checkStatus(t, s, 1, 2, 4)
			want := rewound{Dataset: "ads/clicks", Topic: "ads.clicks", Positions: []rewoundPosition{{Partition: 1, Next: 1, Era: 3}}}
			if diff := cmp.Diff(want, decode[rewound](t, succeed(t, s.env, "rewind", "ads/clicks", "-o", "json"))); diff != "" {
				t.Error(diff)
			}
			fail(t, exitFailed, s.env, []string{"rewind", "ads/none"}, "it has ads/clicks")
			fail(t, exitFailed, s.env, []string{"status", "ads/none"}, "it has ads/clicks")
			checkAway(t, s)
		})
	}
}

// checkStatus compares everything that status says as JSON.
func checkStatus(t *testing.T, s *site, next, era, behind int64) {
	t.Helper()
	got := decode[statusReport](t, succeed(t, s.env, "status", "-o", "json"))
	if got.Ledger.End.Before(time.Now()) || got.Datasets[0].LastLoad == nil || got.Datasets[0].Bytes == 0 {
		t.Errorf("%+v", got)
	}
	want := statusReport{Target: "default", Datasets: []datasetStatus{{
		Dataset: "ads/clicks", Revision: 1, Table: `"public"."clicks"`, Topic: "ads.clicks", Rows: 2, Batches: 1, Bytes: got.Datasets[0].Bytes, Behind: ptr(behind + 1),
		Holds: []holdStatus{}, Quarantine: []quarantineStatus{{Reason: "bad_digest", Messages: 1, Bytes: got.Datasets[0].Bytes}},
		Partitions: []partitionStatus{
			{Cluster: "default", Topic: "ads.clicks", Partition: 1, Next: next, Era: era, LogStart: ptr[int64](1), LogEnd: ptr[int64](5), Behind: &behind},
			{Cluster: "default", Topic: "ads.clicks", Partition: 0, LogStart: ptr[int64](1), LogEnd: ptr[int64](2), Behind: ptr[int64](1)},
		},
	}}}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreTypes(time.Time{}, &time.Time{})); diff != "" {
		t.Error(diff)
	}
}

// checkAway takes Kafka away piece by piece: status goes on without it, a rewind
// changes nothing.
func checkAway(t *testing.T, s *site) {
	t.Helper()
	unknown := func(env []string, says ...string) {
		t.Helper()
		r := invoke(t, env, "status")
		contains(t, r.stdout, "ads/clicks 2 1 ? ")
		contains(t, r.stderr, says...)
		got := decode[statusReport](t, succeed(t, env, "status", "-o", "json"))
		if r.status != exitDone || got.Datasets[0].Behind != nil || got.KafkaError+got.Datasets[0].TopicError == "" {
			t.Errorf("%d, %+v", r.status, got)
		}
		r = invoke(t, env, "status", "ads/clicks")
		contains(t, r.stdout, "behind ? messages", "default/1 1 ? ? ? 3")
		contains(t, r.stderr, says[1:]...)
	}
	if err := s.broker.DeleteTopic("ads.clicks"); err != nil {
		t.Fatal(err)
	}
	unknown(s.env, "ads/clicks", "the topic does not exist")
	fail(t, exitFailed, s.env, []string{"rewind", "ads/clicks"}, "the topic does not exist", "no position was changed")
	if err := s.broker.Stop(); err != nil {
		t.Fatal(err)
	}
	unknown(s.env, "Kafka can't be asked", s.broker.Addr())
	fail(t, exitFailed, s.env, []string{"rewind", "ads/clicks"}, s.broker.Addr(), "no position was changed")
	unknown(slices.DeleteFunc(slices.Clone(s.env), func(e string) bool { return strings.HasPrefix(e, "KAFKA_BROKERS") }), "Kafka can't be asked", "KAFKA_BROKERS")
}

// A command line that can't be carried out ends with 2 and does nothing.
func TestSetUpUsage(t *testing.T) {
	t.Parallel()
	env := []string{"DATABASE_URL=host=127.0.0.1 port=1", "KAFKA_BROKERS=127.0.0.1:1"}
	bad := file(t, "bad.yaml", "dataset: a/b\ncolumns:\n  - {name: x, type: int}\n  - {name: x, type: bool}\n")
	good := file(t, "good.yaml", clicks)
	for _, tc := range []struct {
		env, args, says []string
	}{
		{env, []string{"init", "x"}, []string{"tallyman init --help"}},
		{nil, []string{"init"}, []string{"DATABASE_URL"}},
		{env, []string{"init", "-o", "xml"}, []string{"must be table or json"}},
		{env, []string{"dataset", "apply"}, []string{"tallyman dataset apply --help"}},
		{env, []string{"dataset", "apply", "none.yaml"}, []string{"none.yaml"}},
		{env, []string{"dataset", "apply", good, bad}, []string{bad + `: line 3: columns[0].type: unknown type "int"`, bad + `: line 4: columns[1].name`}},
		{env, []string{"dataset", "apply", good, "--partitions", "-1"}, []string{"--partitions"}},
		{env[:1], []string{"dataset", "apply", good}, []string{"KAFKA_BROKERS"}},
		{env, []string{"dataset", "show"}, []string{"tallyman dataset show --help"}},
		{env, []string{"dataset", "show", "clicks"}, []string{"namespace/name"}},
		{env, []string{"status", "clicks"}, []string{"namespace/name"}},
		{env, []string{"status", "a/b", "c/d"}, []string{"tallyman status --help"}},
		{env, []string{"rewind", "clicks"}, []string{"namespace/name"}},
		{env[:1], []string{"rewind", "a/b"}, []string{"KAFKA_BROKERS"}},
	} {
		fail(t, exitUsage, tc.env, tc.args, tc.says...)
	}
	for _, args := range [][]string{{"init"}, {"dataset", "apply", good}, {"dataset", "list"}, {"status"}, {"rewind", "a/b"}} {
		fail(t, exitFailed, env, args, "127.0.0.1:1")
	}
}
