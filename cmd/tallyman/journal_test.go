package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/schema/rows"
	"tallyman/source/journal"
)

// outbox is a closed journal of web/visits and the batches in it: of the first
// five, which are native and of about 6 kB, one is published and one set aside;
// the last is NDJSON.
type outbox struct {
	dir      string
	manifest string // its file
	batches  []*batch.Batch
}

func newOutbox(t *testing.T) *outbox {
	t.Helper()
	o := &outbox{dir: filepath.Join(t.TempDir(), "state", "serve", "web", "visits"), manifest: file(t, "visits.yaml", visits)}
	m, err := schema.ParseManifest([]byte(visits))
	if err != nil {
		t.Fatal(err)
	}
	codec, err := rows.NewCodec(m)
	if err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(journal.Config{Dir: o.dir, Source: "shop", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 6 {
		b := &batch.Batch{ID: batch.NewID(), Dataset: m.Dataset, Schema: m.Hash(), ContentType: batch.Native, Rows: 3}
		b.Time, err = batch.TimeOf(b.ID)
		if n == 5 {
			b.ContentType, b.Value = batch.NDJSON, []byte("{\"n\":50,\"page\":\"\\u001b[31m\"}\n{\"n\":51}\n{\"n\":52,\"page\":\"\"}")
		} else {
			for row, page := range []any{strings.Repeat(fmt.Sprintf("%d\x1b,", n), 2000), nil, ""} {
				var failed error
				b.Value, failed = codec.Append(b.Value, b.ID, []any{int64(10*n + row), page})
				err = errors.Join(err, failed)
			}
		}
		a, failed := j.Append("web.visits", b)
		err = errors.Join(err, failed)
		switch n {
		case 1:
			err = errors.Join(err, j.MarkPublished(a.Key))
		case 2:
			err = errors.Join(err, j.SetAside(a.Key, "too \x1b large"))
		}
		if err != nil {
			t.Fatal(err)
		}
		o.batches = append(o.batches, b)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return o
}

// moved copies the journal, as from a machine that is lost.
func (o *outbox) moved(t *testing.T) *outbox {
	t.Helper()
	to := *o
	to.dir = filepath.Join(t.TempDir(), "rescued")
	if err := os.CopyFS(to.dir, os.DirFS(o.dir)); err != nil {
		t.Fatal(err)
	}
	return &to
}

func (o *outbox) args(command string, more ...string) []string {
	return append([]string{"source", "journal", command, "--journal", o.dir}, more...)
}

func (o *outbox) name(n int) string {
	return fmt.Sprintf("%s/%d", o.batches[n].Incarnation, o.batches[n].Sequence)
}

func TestJournalList(t *testing.T) {
	t.Parallel()
	o := newOutbox(t).moved(t)
	incarnation := o.batches[0].Incarnation.String()
	contains(t, succeed(t, nil, o.args("list")...), "of source shop", "OPENED SEQUENCES", "web/visits "+incarnation, "1-6 6 18", "4 1 0")
	all := decode[journalJSON](t, succeed(t, nil, o.args("list", "-o", "json")...))
	if s := all.Streams; len(s) != 1 || s[0].Rows != 18 || s[0].Unpublished != 4 || s[0].Aside != 1 || s[0].Opened == nil || s[0].Bytes < 30000 || all.Total != nil {
		t.Errorf("%+v", all)
	}
	text := succeed(t, nil, o.args("list", "--dataset", "web/visits", "--limit", "3")...)
	contains(t, text, o.name(0), o.batches[0].ID.String(), "unpublished", o.name(1), "published", o.name(2), `aside too \x1b large`, "3 of 6; --limit 0 lists all")
	for _, tc := range []struct {
		want int
		args []string
	}{
		{6, []string{"--incarnation", strings.ToUpper(incarnation)}},
		{4, []string{"--state", "unpublished"}}, {1, []string{"--state", "published"}}, {1, []string{"--state", "aside"}},
		{0, []string{"--dataset", "web/other"}}, {0, []string{"--incarnation", uuid.NewString()}},
	} {
		got := decode[journalJSON](t, succeed(t, nil, o.args("list", append(tc.args, "-o", "json")...)...))
		if *got.Total != tc.want || len(got.Batches) != tc.want {
			t.Errorf("%v: %+v, want %d", tc.args, got, tc.want)
		}
	}
	contains(t, succeed(t, nil, o.args("list", "--dataset", "web/other")...), "nothing in the journal that was asked for")
}

func TestJournalShow(t *testing.T) {
	t.Parallel()
	o := newOutbox(t)
	text := succeed(t, nil, o.args("show", o.name(2), "--manifest", o.manifest)...)
	for line := range strings.Lines(text) {
		if line = strings.TrimSuffix(line, "\n"); printable(line) != line {
			t.Errorf("a line is %q", line)
		}
	}
	contains(t, text, "batch "+o.batches[2].ID.String()+", 3 rows", "sequence 3 of incarnation", `state aside: too \x1b large`, "topic web.visits",
		"ce_id "+o.batches[2].ID.String(), "ce_digest sha-256=", "ROW n page _batch_id", `1 20 2\x1b,`, "2 21 NULL", "3 of 3 rows")
	contains(t, succeed(t, nil, o.args("show", o.batches[5].ID.String(), "--rows", "1")...), "ROW LINE", `1 {"n":50,"page":"\u001b[31m"}`, "1 of 3 rows")
	contains(t, succeed(t, nil, o.args("show", o.name(0))...), "0 of 0 rows", "its manifest, web/visits@", "was not given with --manifest")
	other := file(t, "other.yaml", strings.Replace(visits, "int64", "int32", 1))
	contains(t, succeed(t, nil, o.args("show", o.name(0), "--manifest", other)...), "not given with --manifest; given was web/visits@")
	shown := decode[journaledJSON](t, succeed(t, nil, o.args("show", o.name(0), "--manifest", o.manifest, "-o", "json")...))
	if !bytes.Equal(shown.Payload, o.batches[0].Value) || len(shown.Headers) != len(o.batches[0].Headers()) || shown.Content.Total != 3 || shown.State != "unpublished" {
		t.Errorf("%+v", shown)
	}
	fail(t, exitFailed, nil, o.args("show", uuid.NewString()), "nothing that is selected")
}

func TestJournalVerifyNamesTheBatchOfAFlippedByte(t *testing.T) {
	t.Parallel()
	whole := newOutbox(t)
	o := whole.moved(t)
	contains(t, succeed(t, nil, o.args("verify")...), "of source shop: in 1 stream, 6 batches with 18 rows", "are sound")

	names, err := filepath.Glob(filepath.Join(o.dir, "*.blob"))
	if err != nil || len(names) != 1 {
		t.Fatalf("%v are the files of values, want one: %v", names, err)
	}
	text, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	text[bytes.Index(text, []byte("3\x1b,3\x1b,"))+1000] ^= 0x10
	if err := os.WriteFile(names[0], text, 0o600); err != nil {
		t.Fatal(err)
	}
	r := invoke(t, nil, o.args("verify")...)
	if r.status != exitFound {
		t.Errorf("verify ended with %d\n%s%s", r.status, r.stdout, r.stderr)
	}
	contains(t, r.stdout, "batch web/visits "+o.name(3)+", id "+o.batches[3].ID.String()+": damaged on disk", "5 batches with 15 rows")
	contains(t, r.stderr, "1 fault")
	r = invoke(t, nil, o.args("verify", "-o", "json")...)
	if v := decode[journalVerified](t, r.stdout); r.status != exitFound || len(v.Faults) != 1 || v.Faults[0].Sequence != 4 || *v.Faults[0].ID != o.batches[3].ID || v.Batches != 5 {
		t.Errorf("%d: %+v", r.status, v)
	}

	// What can be read is read, and what can't is named.
	contains(t, succeed(t, nil, o.args("list")...), "1-6 6 15", "4 1 1")
	fail(t, exitFailed, nil, o.args("show", o.name(3)), o.name(3)[:36], "damaged on disk")
	r = invoke(t, nil, o.args("export")...)
	if r.status != exitFailed || strings.Count(r.stdout, "\n") != 5 {
		t.Errorf("export ended with %d\n%s", r.status, r.stderr)
	}
	contains(t, r.stderr, "4: damaged on disk", "1 of 6 batches left out, 5 written")

	// A store that can't be opened is a finding too.
	if err := os.Remove(names[0]); err != nil {
		t.Fatal(err)
	}
	if r := invoke(t, nil, o.args("verify")...); r.status != exitFound {
		t.Errorf("without its values, verify ended with %d\n%s%s", r.status, r.stdout, r.stderr)
	}
	marks, err := filepath.Glob(filepath.Join(o.dir, "MANIFEST-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range marks {
		if err := os.Truncate(name, 10); err != nil {
			t.Fatal(err)
		}
	}
	fail(t, exitFound, nil, o.args("verify"), o.dir, "damaged on disk")
}

func TestJournalExport(t *testing.T) {
	t.Parallel()
	o := newOutbox(t).moved(t)
	name := filepath.Join(t.TempDir(), "rescued.ndjson")
	contains(t, succeed(t, nil, o.args("export", "--file", name)...), "6 batches with 18 rows written to "+name)
	fail(t, exitFailed, nil, o.args("export", "--file", name), "exists")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range bytes.Lines(text) {
		m := decode[messageJSON](t, string(line))
		headers := []batch.Header{}
		for _, h := range m.Headers {
			headers = append(headers, batch.Header{Key: h.Key, Value: []byte(h.Value)})
		}
		got, err := batch.Parse([]byte(m.Key), m.Value, headers)
		if err != nil || m.Topic != "web.visits" {
			t.Fatalf("%s: %v", m.Topic, err)
		}
		if diff := cmp.Diff(o.batches[n], got); diff != "" {
			t.Errorf("message %d: %s", n, diff)
		}
		n++
	}
	if n != 6 {
		t.Errorf("%d messages, want 6", n)
	}
	if got := strings.Count(succeed(t, nil, o.args("export", "--state", "unpublished")...), "\n"); got != 4 {
		t.Errorf("%d messages are unpublished, want 4", got)
	}

	some := []string{o.name(1), o.batches[5].ID.String(), "--manifest", o.manifest}
	csv := succeed(t, nil, o.args("export", append(some, "--format", "csv")...)...)
	long := strings.Repeat("1\x1b,", 2000)
	want := "n,page\n10,\"" + long + "\"\n11,\n12,\"\"\n50,\x1b[31m\n51,\n52,\"\"\n"
	if diff := cmp.Diff(want, csv); diff != "" {
		t.Error(diff)
	}
	ndjson := succeed(t, nil, o.args("export", append(some, "--format", "ndjson")...)...)
	quoted, err := json.Marshal(long)
	if err != nil {
		t.Fatal(err)
	}
	want = `{"n":10,"page":` + string(quoted) + "}\n" + `{"n":11,"page":null}` + "\n" + `{"n":12,"page":""}` + "\n" + string(o.batches[5].Value) + "\n"
	if diff := cmp.Diff(want, ndjson); diff != "" {
		t.Error(diff)
	}
	other := file(t, "other.yaml", strings.Replace(visits, "int64", "int32", 1))
	fail(t, exitFailed, nil, o.args("export", o.name(1), "--format", "csv", "--manifest", other), "not given", "1 of 1 batch left out")
}

// A journal that a daemon holds is refused; a copy of it, and what a killed
// daemon leaves, are read. What is exported is what Kafka has, and can be pushed.
func TestJournalOfADaemon(t *testing.T) {
	t.Parallel()
	s := newPushSite(t)
	d := startServe(t, append(s.env, "TALLYMAN_ADMIN_LISTEN=off"), "--serve-manifests", s.manifest)
	if status, body := request(t, http.MethodPost, d.url+"/v1/datasets/web/visits/batches", visitsNDJSON, http.Header{"Content-Type": {"application/x-ndjson"}}); status != http.StatusAccepted {
		t.Fatalf("%d %s", status, body)
	}
	fail(t, exitFailed, s.env, []string{"source", "journal", "list"}, "in use by another process", "end that process", "copy")
	if err := d.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.cmd.Process.Wait(); err != nil {
		t.Fatal(err)
	}
	contains(t, succeed(t, s.env, "source", "journal", "verify"), "1 batch with 2 rows")
	csv := s.file("rescued.csv", succeed(t, s.env, "source", "journal", "export", "--format", "csv", "--manifest", s.manifest))
	contains(t, succeed(t, s.env, s.args(csv)...), "2 rows in 1 batch")
	fail(t, exitUsage, s.env, []string{"source", "journal", "list"}, "2 journals are below", filepath.Join("serve", "web", "visits"), filepath.Join("push"))
}

// A command line that can't be carried out reads nothing.
func TestJournalUsage(t *testing.T) {
	t.Parallel()
	empty := t.TempDir()
	for _, tc := range []struct{ args, says []string }{
		{[]string{"list", "--state", "open"}, []string{"--state"}},
		{[]string{"list", "--dataset", "x"}, []string{"namespace/name"}},
		{[]string{"list", "--incarnation", "1"}, []string{"--incarnation", "UUID"}},
		{[]string{"show"}, []string{"--help"}},
		{[]string{"show", "17"}, []string{"neither a batch's UUID nor INCARNATION/SEQUENCE"}},
		{[]string{"show", uuid.NewString() + "/0"}, []string{"neither"}},
		{[]string{"export", "--format", "xml"}, []string{"--format"}},
		{[]string{"export", "--format", "csv"}, []string{"--manifest is needed"}},
	} {
		fail(t, exitUsage, nil, append([]string{"source", "journal"}, tc.args...), tc.says...)
	}
	fail(t, exitFailed, nil, []string{"source", "journal", "list", "--journal", empty}, "no journal at or below "+empty)
	fail(t, exitFailed, nil, []string{"source", "journal", "verify", "--journal", filepath.Join(empty, "absent")}, "absent")
	fail(t, exitFailed, nil, []string{"source", "journal", "list"}, "no directory for journals")
}
