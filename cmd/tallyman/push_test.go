package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tallyman/internal/sandbox"
	"tallyman/internal/sandbox/sandboxtest"
)

const (
	visits = `dataset: web/visits
columns:
  - {name: n, type: int64}
  - {name: page, type: text, nullable: true}
`
	visitsCSV    = "page,n\nhome,1\n,2\n\"\",3\n"
	visitsNDJSON = `{"n":4,"page":"about"}` + "\n" + `{"n":5}` + "\n"
)

// pushSite is a broker of the test's own with the topic of a dataset.
type pushSite struct {
	t        *testing.T
	broker   *sandbox.Broker
	manifest string // its path
	env      []string
	dir      string // of the files to push
}

func newPushSite(t *testing.T) *pushSite {
	t.Helper()
	s := &pushSite{t: t, broker: sandboxtest.Broker(t, sandbox.BrokerConfig{}), manifest: file(t, "visits.yaml", visits), dir: t.TempDir()}
	s.env = []string{"KAFKA_BROKERS=" + s.broker.Addr(), "HOME=" + t.TempDir()}
	s.topic()
	return s
}

// topic makes the topic, which a broker that was stopped has lost.
func (s *pushSite) topic() {
	s.t.Helper()
	if err := s.broker.CreateTopic("web.visits", 1, nil); err != nil {
		s.t.Fatal(err)
	}
}

func (s *pushSite) file(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// args is the command line that pushes to the dataset.
func (s *pushSite) args(more ...string) []string {
	return append([]string{"push", "web/visits", "--manifest", s.manifest}, more...)
}

// published returns the ids of all batches on the topic, in its order.
func (s *pushSite) published() []string {
	s.t.Helper()
	end := s.broker.Cluster().PartitionInfo("web.visits", 0).HighWatermark
	client, err := kgo.NewClient(kgo.SeedBrokers(s.broker.Addrs()...), kgo.ConsumeTopics("web.visits"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		s.t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	keys := []string{}
	for seen := int64(0); seen < end; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			s.t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if seen++; len(r.Value) > 0 { // else it announces something
				keys = append(keys, string(r.Key))
			}
		})
	}
	return keys
}

// expect checks how many messages the topic has, and how many ids these are.
func (s *pushSite) expect(messages, ids int) []string {
	s.t.Helper()
	keys := s.published()
	distinct := slices.Clone(keys)
	slices.Sort(distinct)
	if distinct = slices.Compact(distinct); len(keys) != messages || len(distinct) != ids {
		s.t.Errorf("%d messages with %d ids are published, want %d with %d", len(keys), len(distinct), messages, ids)
	}
	return keys
}

// pushReport is what push prints as JSON.
type pushReport struct {
	Files []struct {
		File, Format, SHA256, Error     string
		Rows, Batches, Bytes, Published int64
		Again                           bool
	}
	Loaded *int64
}

func TestPush(t *testing.T) {
	t.Parallel()
	s := newPushSite(t)
	csv, ndjson := s.file("a.csv", visitsCSV), s.file("b.ndjson", visitsNDJSON)
	want := csv + ": 3 rows in 1 batches published\n" + ndjson + ": 2 rows in 1 batches published\n"
	if diff := cmp.Diff(want, succeed(t, s.env, s.args(csv, ndjson)...)); diff != "" {
		t.Error(diff)
	}
	first := s.expect(2, 2)

	// The file's bytes make the ids, not its name or how it is compressed.
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write([]byte(visitsCSV)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	zipped := s.file("other.csv.gz", packed.String())
	contains(t, succeed(t, s.env, s.args(zipped)...), "3 rows in 1 batches published before, and once more under the same ids")
	elsewhere := append(slices.Clone(s.env), "HOME="+t.TempDir())
	got := decode[pushReport](t, succeed(t, elsewhere, s.args(zipped, ndjson, "-o", "json")...)).Files
	if len(got) != 2 || got[0].File != zipped || got[0].Format != "csv" || len(got[0].SHA256) != 64 || got[0].Rows != 3 ||
		got[0].Bytes != int64(len(visitsCSV)) || got[0].Published != 1 || got[0].Again || got[0].Error != "" ||
		got[1].Format != "ndjson" || got[1].Rows != 2 || got[1].Batches != 1 {
		t.Errorf("%+v", got)
	}
	if diff := cmp.Diff([]string{first[0], first[1], first[0], first[0], first[1]}, s.expect(5, 2)); diff != "" {
		t.Error(diff)
	}

	for _, label := range []string{"June", "July"} {
		if diff := cmp.Diff(csv+": 3 rows in 1 batches published\n", succeed(t, s.env, s.args(csv, "--again", label)...)); diff != "" {
			t.Error(diff)
		}
	}
	s.expect(7, 4)
	if got := decode[pushReport](t, succeed(t, s.env, s.args(csv, "-o", "json")...)).Files; len(got) != 1 || !got[0].Again {
		t.Errorf("%+v", got)
	}
}

// A row that can't be read refuses its whole file, also the batches before it,
// and no other file of the command line.
func TestPushRefusesAFile(t *testing.T) {
	t.Parallel()
	s := newPushSite(t)
	bad := s.file("bad.csv", "n,page\n"+strings.Repeat("7,x\n", 1500)+"seven,x\n")
	worse := s.file("worse.ndjson", `{"n":1}`+"\n"+`{"n":"x"}`+"\n")
	good := s.file("good.csv", visitsCSV)
	r := invoke(t, s.env, s.args(bad, worse, good)...)
	if r.status != exitFailed {
		t.Errorf("ended with %d", r.status)
	}
	contains(t, r.stderr, bad+`: line 1502, column "n": `, worse+`: line 2, column "n": `)
	if strings.Contains(r.stdout, "bad.csv") || strings.Contains(r.stdout, "worse") {
		t.Error(r.stdout)
	}
	contains(t, r.stdout, good+": 3 rows in 1 batches published")
	s.expect(1, 1)

	r = invoke(t, s.env, s.args(bad, good, "-o", "json")...)
	got := decode[pushReport](t, r.stdout).Files
	if r.status != exitFailed || len(got) != 2 || got[0].Batches != 0 || got[0].Published != 0 || !got[1].Again {
		t.Errorf("%d, %+v", r.status, got)
	}
	contains(t, got[0].Error, `line 1502, column "n"`)
	s.expect(2, 1)

	// The mended file is another content, and is published.
	contains(t, succeed(t, s.env, s.args(s.file("bad.csv", "n,page\n7,x\n"))...), "1 rows in 1 batches published")
	s.expect(3, 2)
}

func TestPushStandardInput(t *testing.T) {
	t.Parallel()
	s := newPushSite(t)
	for _, args := range [][]string{s.args("--format", "csv", "-"), s.args("--format", "csv")} {
		var stdout, stderr bytes.Buffer
		p := program{stdin: strings.NewReader(visitsCSV), stdout: &stdout, stderr: &stderr, env: s.env}
		if status := p.run(t.Context(), args); status != exitDone || stderr.Len() > 0 {
			t.Errorf("%d\n%s", status, stderr.String())
		}
		contains(t, stdout.String(), "-: 3 rows in 1 batches published")
	}
	contains(t, succeed(t, s.env, s.args(s.file("a.csv", visitsCSV))...), "published before")
	s.expect(3, 1)
}

// A command line that can't be carried out ends with 2 and publishes nothing.
func TestPushUsage(t *testing.T) {
	t.Parallel()
	s := newPushSite(t)
	csv := s.file("a.csv", visitsCSV)
	for _, tc := range []struct{ args, says []string }{
		{[]string{"push"}, []string{"tallyman push --help"}},
		{[]string{"push", "visits", csv}, []string{"namespace/name"}},
		{[]string{"push", "web/visits", csv}, []string{"--manifest is needed", "tallyman dataset apply"}},
		{[]string{"push", "web/others", csv, "--manifest", s.manifest}, []string{"is the manifest of web/visits, not of web/others"}},
		{[]string{"push", "web/visits", csv, "--manifest", "none.yaml"}, []string{"none.yaml"}},
		{s.args(), []string{"--format is needed for standard input: csv or ndjson"}},
		{s.args(csv, "-"), []string{"--format is needed for standard input"}},
		{s.args("-", "-", "--format", "csv"), []string{"standard input can be read only once"}},
		{s.args(csv, "--format", "xml"), []string{`--format "xml" is neither csv nor ndjson`}},
		{s.args(s.file("a.txt", visitsCSV)), []string{"a.txt: the name does not tell the format", "--format tells it"}},
	} {
		fail(t, exitUsage, s.env, tc.args, tc.says...)
	}
	fail(t, exitUsage, s.env[1:], s.args(csv), "KAFKA_BROKERS")
	fail(t, exitFailed, s.env, s.args(filepath.Join(s.dir, "none.csv")), "none.csv")
	s.expect(0, 0)
}

// errInterrupted stands for the signal that ends a push.
var errInterrupted = errors.New("the test interrupts")

// interrupted pushes and cancels the push as soon as its log says a text, or
// the function is called that start is given. It must end soon after.
func (s *pushSite) interrupted(at string, start func(interrupt func()), args []string) result {
	s.t.Helper()
	ctx, cancel := context.WithCancelCause(s.t.Context())
	defer cancel(nil)
	var once sync.Once
	var began time.Time
	interrupt := func() { once.Do(func() { began = time.Now(); cancel(errInterrupted) }) }
	start(interrupt)
	var stdout bytes.Buffer
	w := &watch{text: at, found: interrupt}
	p := program{stdin: strings.NewReader(""), stdout: &stdout, stderr: w, env: s.env}
	status := p.run(ctx, args)
	if ctx.Err() == nil {
		s.t.Fatalf("not interrupted, and ended with %d\n%s%s", status, &stdout, w.all.String())
	}
	if took := time.Since(began); took > 15*time.Second {
		s.t.Errorf("took %v to end after the interrupt", took)
	}
	return result{status, stdout.String(), w.all.String()}
}

// watch keeps what is written and calls found at the first write with text in it.
type watch struct {
	text  string
	found func()
	all   bytes.Buffer
}

func (w *watch) Write(b []byte) (int, error) {
	if w.text != "" && bytes.Contains(b, []byte(w.text)) {
		w.found()
	}
	return w.all.Write(b)
}

// A push without Kafka waits, ends when it is interrupted, says that nothing
// was published, and begins no other file. Pushed again, all is published.
func TestPushWithoutKafka(t *testing.T) {
	t.Parallel()
	s := newPushSite(t)
	args := s.args(s.file("a.csv", visitsCSV), s.file("b.ndjson", visitsNDJSON))
	if err := s.broker.Stop(); err != nil {
		t.Fatal(err)
	}
	r := s.interrupted("waiting for Kafka, with nothing published yet", func(func()) {}, args)
	if r.status != exitFailed || r.stdout != "" {
		t.Errorf("%d\n%s", r.status, r.stdout)
	}
	contains(t, r.stderr, "a.csv: interrupted, with nothing published; push the file again", errInterrupted.Error(), "b.ndjson: not begun")
	if err := s.broker.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.topic()
	contains(t, succeed(t, s.env, args...), "a.csv: 3 rows in 1 batches published", "b.ndjson: 2 rows in 1 batches published")
	s.expect(2, 2)
}

// A push that is interrupted while it publishes keeps what remains, says where,
// and the next one goes on with it.
func TestPushInterruptedWhilePublishing(t *testing.T) {
	t.Parallel()
	s := newPushSite(t)
	args := s.args(s.file("long.csv", "n\n"+strings.Repeat("1\n", 2500)))
	var away sync.Mutex // guards gone
	gone := true
	r := s.interrupted("", func(interrupt func()) {
		s.broker.Cluster().ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
			s.broker.Cluster().KeepControl()
			away.Lock()
			defer away.Unlock()
			if gone {
				interrupt()
				return nil, errors.New("the broker is away"), true
			}
			return nil, nil, false
		})
	}, args)
	if r.status != exitFailed || r.stdout != "" {
		t.Errorf("%d\n%s", r.status, r.stdout)
	}
	contains(t, r.stderr, "long.csv: 0 of 3 batches are published, the rest is kept in ", "push the same file again to go on: interrupted: "+errInterrupted.Error())
	s.expect(0, 0)
	away.Lock()
	gone = false
	away.Unlock()
	contains(t, succeed(t, s.env, args...), "long.csv: 2500 rows in 3 batches published")
	s.expect(3, 3)
}
