package main

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema/batch"
)

// member starts a loader that ends with the test, and returns what it prints.
func (s *incompleteSite) member() (printed func() string) {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "log")
	log, err := os.Create(path)
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "load", "web/visits")
	cmd.Env = append([]string{asProgram, "TALLYMAN_LOADER_RECEIPT_INTERVAL=50ms"}, s.env...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
	})
	return func() string {
		text, err := os.ReadFile(path)
		if err != nil {
			s.t.Fatal(err)
		}
		return string(text)
	}
}

// receipts returns what is on the topic, by key, oldest first.
func (s *incompleteSite) receipts() map[string][]*batch.Receipt {
	s.t.Helper()
	all := map[string][]*batch.Receipt{}
	for _, record := range sandboxtest.Records(s.t, s.broker, batch.ReceiptsTopic) {
		r, err := batch.ParseReceipt(record.Value)
		if err != nil {
			s.t.Fatal(err)
		}
		all[string(record.Key)] = append(all[string(record.Key)], r)
	}
	return all
}

// told waits until each stream's newest receipt is as wanted.
func (s *incompleteSite) told(want ...batch.Receipt) {
	s.t.Helper()
	var diff string
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		got := []batch.Receipt{}
		for all := range maps.Values(s.receipts()) {
			got = append(got, *all[len(all)-1])
		}
		diff = cmp.Diff(want, got, cmpopts.IgnoreFields(batch.Receipt{}, "Target", "Dataset", "Source", "Incarnation", "At"),
			cmpopts.EquateEmpty(), cmpopts.SortSlices(func(a, b batch.Receipt) bool { return len(a.Missing) > len(b.Missing) }))
		if diff == "" {
			return
		}
	}
	s.t.Fatalf("newest receipts (-want +got):\n%s", diff)
}

// The sources of two pushes are told what became of them, by either of two
// loaders and once: that all of one is loaded, and that the other's batch is
// missing, until it is there.
func TestReceipts(t *testing.T) {
	t.Parallel()
	s := newIncompleteSite(t, "18")
	first, second := file(t, "a.csv", visitsCSV), file(t, "b.ndjson", visitsNDJSON)
	for _, path := range []string{first, second} {
		s.must("push", "web/visits", "--manifest", s.manifest, path)
	}
	// Offsets: a batch, its end, the other batch, its end. The first one expires.
	if err := s.broker.DeleteRecords("web.visits", 0, 1); err != nil {
		t.Fatal(err)
	}
	s.member()
	s.member()
	over := batch.Receipt{Through: 1, Considered: 1, Announced: 1, Closed: true}
	s.told(batch.Receipt{Considered: 1, Announced: 1, Closed: true, Missing: []batch.Range{{First: 1, Last: 1}}}, over)
	s.must("push", "web/visits", "--manifest", s.manifest, first)
	s.told(over, over)
	for key, all := range s.receipts() {
		again := 0
		for i := 1; i < len(all); i++ {
			if !cmp.Equal(all[i-1], all[i], cmpopts.IgnoreFields(batch.Receipt{}, "At")) {
				continue
			}
			// A push that is repeated announces its end once more, after its batch; if it
			// was told in between that all is loaded, it is told so again.
			if again++; again > 1 || all[i].Through != all[i].Announced {
				t.Errorf("%s: told twice: %+v", key, all[i])
			}
		}
		if r := all[0]; r.Target != s.ask("SELECT name FROM tallyman.target") || r.Dataset.String() != "web/visits" || r.Source == "" || string(r.Key()) != key {
			t.Errorf("%s: %+v", key, r)
		}
	}
}

// Without the topic, datasets load, with one warning that says what to do; once
// it is there, sources are told.
func TestNoReceiptsTopic(t *testing.T) {
	t.Parallel()
	s := newIncompleteSite(t, "18")
	if err := s.broker.DeleteTopic(batch.ReceiptsTopic); err != nil {
		t.Fatal(err)
	}
	printed := s.member()
	const warning = "tallyman dataset apply makes the topic tallyman.receipts"
	for n, path := range []string{file(t, "a.csv", visitsCSV), file(t, "b.ndjson", visitsNDJSON)} {
		s.must("push", "web/visits", "--manifest", s.manifest, path)
		s.must("wait", "web/visits", "--complete-through", "now", "--timeout", "60s")
		for end := time.Now().Add(60 * time.Second); n == 0 && !strings.Contains(printed(), warning); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("no warning:\n%s", printed())
			}
		}
	}
	if n := strings.Count(printed(), warning); n != 1 {
		t.Errorf("%d warnings:\n%s", n, printed())
	}
	succeed(t, s.env, "dataset", "apply", s.manifest)
	over := batch.Receipt{Through: 1, Considered: 1, Announced: 1, Closed: true}
	s.told(over, over)
}

// Whoever may not make the topic of receipts is told how, and the dataset is
// applied; so is whoever has one that forgets.
func TestApplyAndReceiptsTopic(t *testing.T) {
	t.Parallel()
	s := newSite(t, "18")
	manifest := file(t, "clicks.yaml", clicks)
	apply := []string{"dataset", "apply", manifest, "--replication-factor", "1"}
	succeed(t, s.env, "init")
	if err := s.broker.CreateTopic("ads.clicks", 2, nil); err != nil {
		t.Fatal(err)
	}
	s.forbidTopic(batch.ReceiptsTopic)
	says := func(status int, says ...string) {
		t.Helper()
		r := invoke(t, s.env, apply...)
		if r.status != status {
			t.Error(r)
		}
		contains(t, r.stderr, says...)
		contains(t, r.stdout, "ads/clicks", "topic ads.clicks there already")
	}
	says(exitDone, "Authorization", "sources don't publish again what is missing",
		"kafka-topics.sh --bootstrap-server "+s.broker.Addr()+" --topic tallyman.receipts --create --partitions 1 --config cleanup.policy=compact --replication-factor 1")
	succeed(t, s.env, append(apply, "--dry-run")...) // which makes none
	if err := s.broker.CreateTopic(batch.ReceiptsTopic, 1, map[string]string{"cleanup.policy": "delete"}); err != nil {
		t.Fatal(err)
	}
	says(exitDone, "topic tallyman.receipts has cleanup.policy=delete", "set it to compact")
	if err := s.broker.DeleteTopic(batch.ReceiptsTopic); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		succeed(t, s.env, apply...)
	}
	if got := s.policy(t, batch.ReceiptsTopic); got != "compact" {
		t.Errorf("cleanup.policy=%s", got)
	}
}
