package intake

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tallyman/internal/sandbox"
	"tallyman/source/journal"
)

// lines is a file of n rows.
func lines(n int) string {
	var text strings.Builder
	text.WriteString("n,t\n")
	for i := range n {
		fmt.Fprintf(&text, "%d,row %d\n", i, i)
	}
	return text.String()
}

// want checks that the topic holds exactly the chunks of a content, each as
// often as it was published.
func (r *rig) want(format Format, text string, times, chunks, count int) {
	r.t.Helper()
	want := map[string]int{}
	for _, id := range r.ids(format, sha256.Sum256([]byte(text)), chunks) {
		want[id] = times
	}
	got, n := r.published()
	if diff := cmp.Diff(want, got); diff != "" || n != int64(count) {
		r.t.Errorf("%d rows, want %d\n%s", n, count, diff)
	}
}

// A push ends with the announcement that there are no more batches, and says so
// again when it is done once more; nothing else is announced.
func TestPushAnnouncesItsEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{})
	f := r.file("rows.csv", lines(2500))
	for times := 1; times <= 2; times++ {
		r.mustPush(f)
		if r.published(); len(r.told) != times {
			t.Fatalf("%d announcements, want %d", len(r.told), times)
		}
		for _, a := range r.told {
			if a.Sequence != 3 || !a.Final || a.Source != "here" || a.Incarnation != r.told[0].Incarnation {
				t.Errorf("announced %+v", a)
			}
		}
	}
}

func TestPush(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{})
	text := lines(2500)
	f := r.file("rows.csv", text)
	report := r.mustPush(f)
	sum := sha256.Sum256([]byte(text))
	want := Report{File: f.Name, Format: CSV, SHA256: fmt.Sprintf("%x", sum), Rows: 2500, Batches: 3, Bytes: int64(len(text)), Published: 3}
	if diff := cmp.Diff(want, report); diff != "" {
		t.Error(diff)
	}
	r.want(CSV, text, 1, 3, 2500)
	if diff := cmp.Diff([]Stage{Hashing, Encoding, Publishing}, r.stages); diff != "" {
		t.Error(diff)
	}

	// The same content again, under another name and from another producer: the same ids once more.
	r.cfg.Source = "there"
	want.File, want.Again = r.file("other.csv", text).Name, true
	if diff := cmp.Diff(want, r.mustPush(File{Name: want.File, Format: CSV})); diff != "" {
		t.Error(diff)
	}
	r.want(CSV, text, 2, 3, 2500)
}

// Compression changes no id, and standard input is like a file.
func TestPushSameContent(t *testing.T) {
	t.Parallel()
	text := lines(1500)
	var zipped bytes.Buffer
	gz := gzip.NewWriter(&zipped)
	if _, err := gz.Write([]byte(text[:5000])); err != nil {
		t.Fatal(err)
	}
	if err := gz.Close(); err != nil {
		t.Fatal(err)
	}
	gz.Reset(&zipped) // a second member: files that were put together
	if _, err := gz.Write([]byte(text[5000:])); err != nil {
		t.Fatal(err)
	}
	if err := gz.Close(); err != nil {
		t.Fatal(err)
	}
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = encoder.Close() }()
	for name, content := range map[string]string{
		"rows.csv": text, "rows.csv.gz": zipped.String(), "rows.csv.zst": string(encoder.EncodeAll([]byte(text), nil)), Stdin: text,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, sandbox.BrokerConfig{})
			f := File{Name: Stdin, Format: CSV}
			if name == Stdin {
				r.cfg.Stdin = strings.NewReader(content)
			} else {
				f = r.file(name, content)
			}
			if report := r.mustPush(f); report.Rows != 1500 || report.Bytes != int64(len(text)) || report.Again {
				t.Errorf("%+v", report)
			}
			r.want(CSV, text, 1, 2, 1500)
			if spools, err := filepath.Glob(filepath.Join(r.cfg.Dir, "push", "spool-*")); err != nil || len(spools) > 0 {
				t.Errorf("%v is left, %v", spools, err)
			}
			if name != Stdin {
				return
			}
			// Now it is found as a file, too.
			if report := r.mustPush(r.file("rows.csv", text)); !report.Again {
				t.Errorf("%+v", report)
			}
		})
	}
}

// A label makes other ids of the same content; the format is a part of them as well.
func TestPushAgainOnPurpose(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{})
	f := r.file("rows.csv", lines(3))
	r.mustPush(f)
	first, _ := r.published()
	r.cfg.Again = "correction"
	if report := r.mustPush(f); report.Again {
		t.Errorf("%+v", report)
	}
	both, count := r.published()
	labelled := r.ids(CSV, sha256.Sum256([]byte(lines(3))), 1)[0]
	if len(first) != 1 || len(both) != 2 || both[labelled] != 1 || count != 6 {
		t.Errorf("%v, then %v with %d rows", first, both, count)
	}
}

// A file without rows is published at once, and was not published before.
func TestPushNoRows(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{})
	for _, f := range []File{r.file("rows.csv", "n,t\n"), r.file("rows.ndjson", ""), {Name: Stdin, Format: NDJSON}} {
		report := r.mustPush(f)
		if report.Again || report.Rows != 0 || report.Batches != 0 {
			t.Errorf("%+v", report)
		}
	}
}

// A row that can't be read refuses the file before anything is published, and
// leaves nothing behind; the file put right is another content.
func TestPushRefusesTheWholeFile(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{})
	text := lines(3000)
	bad := strings.Replace(text, "2999,", "2999x,", 1)
	f := r.file("rows.csv", bad)
	report, err := r.push(t.Context(), f)
	var at *RowError
	if !errors.As(err, &at) || at.Line != 3001 || at.Column != "n" || !strings.HasPrefix(err.Error(), f.Name+": line 3001, column \"n\": ") {
		t.Errorf("%v", err)
	}
	if report.Batches != 0 || report.SHA256 == "" {
		t.Errorf("%+v", report)
	}
	if got, _ := r.published(); len(got) > 0 {
		t.Errorf("published: %v", got)
	}
	if left, err := os.ReadDir(filepath.Join(r.cfg.Dir, "push")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if report := r.mustPush(r.file("rows.csv", text)); report.Again || report.Rows != 3000 {
		t.Errorf("%+v", report)
	}
}

func TestPushRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{})
	var zipped bytes.Buffer
	gz := gzip.NewWriter(&zipped)
	_, err := gz.Write([]byte(lines(2000)))
	if err = errors.Join(err, gz.Close()); err != nil {
		t.Fatal(err)
	}
	cut := zipped.String()[:zipped.Len()-100]
	for name, tc := range map[string]struct {
		file File
		says string
	}{
		"no such file":     {File{Name: filepath.Join(t.TempDir(), "none.csv"), Format: CSV}, "no such file"},
		"a directory":      {File{Name: t.TempDir(), Format: CSV}, "it is a directory"},
		"a file cut short": {r.file("rows.csv.gz", cut), "read: unexpected EOF"},
		"a damaged file":   {r.file("rows.csv.zst", "\x28\xb5\x2f\xfd damaged"), "read: "},
	} {
		if _, err := r.push(t.Context(), tc.file); err == nil || !strings.HasPrefix(err.Error(), tc.file.Name+": ") || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, _ := r.published(); len(got) > 0 {
		t.Errorf("published: %v", got)
	}
}

// A second reading that differs from the first is refused.
func TestPushNoticesAChange(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{})
	f := r.file("rows.csv", lines(10))
	in, err := New(r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, changed := range []bool{false, true} {
		src, err := in.open(t.Context(), f.Name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(in.root()); err != nil {
			t.Fatal(err)
		}
		p := &push{Intake: in, file: f, src: src, seed: maphash.MakeSeed(), dir: filepath.Join(in.root(), "test"), topic: topic{limit: 1 << 20}}
		if p.fingerprint, err = src.digest(t.Context(), p.seed, func(int64) {}); err != nil {
			t.Fatal(err)
		}
		if changed {
			if err := os.WriteFile(f.Name, []byte(strings.Replace(lines(10), "row 3", "row X", 1)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.MkdirAll(p.dir, 0o750); err != nil {
			t.Fatal(err)
		}
		reading := p.begin(t.Context())
		if _, err := p.encode(t.Context(), reading); errors.Is(err, errChanged) != changed || !changed && err != nil {
			t.Errorf("changed %t: %v", changed, err)
		}
		reading.end()
		if err := src.close(); err != nil {
			t.Fatal(err)
		}
	}
	if got, _ := r.published(); len(got) > 0 {
		t.Errorf("published: %v", got)
	}
}

// holdAfter hangs up on every request to publish but the first n, and says so;
// letGo ends that.
func (r *rig) holdAfter(n int, held func()) {
	cluster, taken := r.broker.Cluster(), 0
	cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		if r.free.Load() {
			cluster.DropControl()
			return nil, nil, false
		}
		if taken++; taken <= n {
			return nil, nil, false
		}
		cluster.KeepControl()
		held()
		return nil, errors.New("hang up"), true
	})
}

func (r *rig) letGo() { r.free.Store(true) }

// A push that was interrupted goes on under the same ids with what is not yet
// published, and does not read the file again.
func TestPushGoesOn(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{})
	text := lines(20_000)
	f := r.file("rows.csv", text)
	var reached []Stage
	ctx, interrupt := context.WithCancel(t.Context())
	r.holdAfter(1, interrupt) // one request: the batches of one partition
	report, err := r.push(ctx, f)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "push the same file again to go on") || report.Batches != 20 || report.Published > 19 {
		t.Fatalf("%+v, %v", report, err)
	}
	before, _ := r.published()
	if len(before) == 0 || len(before) == 20 {
		t.Fatalf("%d of 20 batches are published: that is no interruption", len(before))
	}
	r.letGo()
	r.cfg.Source = "there" // the journal keeps its own name
	r.cfg.Progress = func(p Progress) { reached = append(reached, p.Stage) }
	report = r.mustPush(f)
	if report.Again || report.Rows != 20_000 || report.Published != 20 {
		t.Errorf("%+v", report)
	}
	if slices.Contains(reached, Encoding) {
		t.Error("the file was encoded again")
	}
	got, count := r.published()
	want := r.ids(CSV, sha256.Sum256([]byte(text)), 20)
	slices.Sort(want)
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(got))); diff != "" || count != 20_000 {
		t.Errorf("%d rows\n%s", count, diff)
	}
	for id := range before {
		if got[id] > 2 {
			t.Errorf("%s was published %d times", id, got[id])
		}
	}
}

// A push that ended while it read the file left a journal without a state; the
// next starts over.
func TestPushStartsOver(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{})
	text := lines(2500)
	dir := filepath.Join(r.cfg.Dir, "push", r.ids(CSV, sha256.Sum256([]byte(text)), 1)[0])
	j, err := journal.Open(journal.Config{Dir: filepath.Join(dir, "journal"), Source: "another", Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, stateName+".new"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.mustPush(r.file("rows.csv", text))
	r.want(CSV, text, 1, 3, 2500)
}

func TestPushWithOtherMeaning(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{})
	f := r.file("rows.csv", "n,t\n1,-\n")
	r.mustPush(f)
	same := r.cfg.Manifest
	r.cfg.Null = "-"
	_, err := r.push(t.Context(), f)
	if !errors.Is(err, ErrOtherManifest) || !strings.Contains(err.Error(), `with "" for NULL, not "-"`) {
		t.Errorf("%v", err)
	}
	r.cfg.Null, r.cfg.Manifest = "", manifest(t, strings.Replace(pairs, "nullable: true", "nullable: false", 1))
	_, err = r.push(t.Context(), f)
	if !errors.Is(err, ErrOtherManifest) || !strings.Contains(err.Error(), same.Hash()) || !strings.Contains(err.Error(), r.cfg.Manifest.Hash()) ||
		!strings.Contains(err.Error(), "id_conflict") || !strings.Contains(err.Error(), "--again") {
		t.Errorf("%v", err)
	}
	if got, _ := r.published(); len(got) != 1 {
		t.Errorf("%v", got)
	}
	r.cfg.Again = "by the other manifest"
	r.mustPush(f)
}

// Two pushes of the same content at the same time: one is refused.
func TestPushOneAtATime(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{})
	f := r.file("rows.csv", lines(10))
	var second error
	inner := r.cfg
	r.cfg.Progress = func(p Progress) {
		if p.Stage != Encoding || second != nil {
			return
		}
		in, err := New(inner)
		if err != nil {
			t.Error(err)
			return
		}
		_, second = in.Push(t.Context(), f)
	}
	r.mustPush(f)
	if !errors.Is(second, ErrInUse) {
		t.Errorf("%v", second)
	}
}

func TestPushAndTopics(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{})
	f := r.file("rows.csv", "n,t\n1,a\n2,"+strings.Repeat("x", 30_000)+"\n")
	for name, tc := range map[string]struct {
		configs map[string]string // nil: no topic
		says    string
	}{
		"none":      {nil, "there is no topic pairs"},
		"compacted": {map[string]string{"cleanup.policy": "compact"}, "is compacted"},
		"small":     {map[string]string{"max.message.bytes": "20000"}, "the rows from line 2 on make a message of"},
	} {
		if err := r.broker.DeleteTopic("pairs"); err != nil {
			t.Fatal(err)
		}
		if tc.configs != nil {
			r.create(tc.configs)
		}
		report, err := r.push(t.Context(), f)
		if err == nil || !strings.Contains(err.Error(), tc.says) || errors.Is(err, ErrTooLarge) != (name == "small") || report.Batches != 0 {
			t.Errorf("%s: %+v, %v", name, report, err)
		}
		if _, err := os.Stat(filepath.Join(r.cfg.Dir, "push")); err == nil {
			if left, err := os.ReadDir(filepath.Join(r.cfg.Dir, "push")); err != nil || len(left) > 0 {
				t.Errorf("%s leaves %v, %v", name, left, err)
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		if tc.configs == nil {
			r.create(nil)
		}
	}
}

// What the broker refuses although the topic's settings allow it is named, and
// the rest is published; a later push tries it again.
func TestPushWhatTheBrokerRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{})
	f := r.file("rows.csv", lines(1))
	for range 2 { // in company and alone
		r.broker.Cluster().ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
			return refuse(request.(*kmsg.ProduceRequest), kerr.InvalidRecord.Code), nil, true
		})
	}
	report, err := r.push(t.Context(), f)
	if err == nil || !strings.Contains(err.Error(), "0 of 1 batches are published") || !strings.Contains(err.Error(), "the broker refuses the batch") || report.Published != 0 {
		t.Errorf("%+v, %v", report, err)
	}
	if report := r.mustPush(f); report.Published != 1 || report.Again {
		t.Errorf("%+v", report)
	}
	r.want(CSV, lines(1), 1, 1, 1)
}

// refuse answers a produce request with an error for every partition.
func refuse(request *kmsg.ProduceRequest, code int16) *kmsg.ProduceResponse {
	answer := request.ResponseKind().(*kmsg.ProduceResponse)
	for _, asked := range request.Topics {
		topic := kmsg.NewProduceResponseTopic()
		topic.Topic, topic.TopicID = asked.Topic, asked.TopicID
		for _, p := range asked.Partitions {
			partition := kmsg.NewProduceResponseTopicPartition()
			partition.Partition, partition.ErrorCode = p.Partition, code
			topic.Partitions = append(topic.Partitions, partition)
		}
		answer.Topics = append(answer.Topics, topic)
	}
	return answer
}

// A file is read while Kafka is away, and published when it is back.
func TestPushWaitsForKafka(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{DataDir: t.TempDir()})
	if err := r.broker.Stop(); err != nil {
		t.Fatal(err)
	}
	says := make(signal, 1)
	r.cfg.Logger = slog.New(slog.NewTextHandler(says, nil))
	ended := make(chan error, 1)
	f := r.file("rows.csv", lines(1500))
	go func() {
		in, err := New(r.cfg)
		if err == nil {
			_, err = in.Push(t.Context(), f)
		}
		ended <- err
	}()
	if line := <-says; !strings.Contains(line, "waiting for Kafka") {
		t.Errorf("%s", line)
	}
	if err := r.broker.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	r.want(CSV, lines(1500), 1, 2, 1500)
}

// signal gives on the first line that is written to it.
type signal chan string

func (s signal) Write(line []byte) (int, error) {
	select {
	case s <- string(line):
	default:
	}
	return len(line), nil
}

// Ended before the file is read whole, a push has published nothing and says so.
func TestPushInterruptedWhileReading(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{})
	// More than is encoded while the file is hashed.
	f := r.file("rows.csv", "n,t\n"+strings.Repeat("1,"+strings.Repeat("x", 64<<10)+"\n", 2*earlyBytes>>16))
	for _, stage := range []Stage{Hashing, Encoding} {
		ctx, interrupt := context.WithCancel(t.Context())
		r.cfg.Progress = func(p Progress) {
			if p.Stage == stage {
				interrupt()
			}
		}
		report, err := r.push(ctx, f)
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "interrupted, with nothing published") || report.Batches != 0 {
			t.Errorf("%s: %+v, %v", stage, report, err)
		}
	}
	if got, _ := r.published(); len(got) > 0 {
		t.Errorf("published: %v", got)
	}
}

// A push that waits for standard input ends when it is interrupted, though
// nothing comes in.
func TestPushInterruptedAtStdin(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.BrokerConfig{})
	in, out := io.Pipe()
	defer func() { _ = out.Close() }()
	r.cfg.Stdin = in
	ctx, interrupt := context.WithCancel(t.Context())
	go func() {
		_, _ = out.Write([]byte("n,t\n1,a\n")) // returns when it is read
		interrupt()
	}()
	report, err := r.push(ctx, File{Name: Stdin, Format: CSV})
	if !errors.Is(err, context.Canceled) || report.Batches != 0 {
		t.Errorf("%+v, %v", report, err)
	}
}
