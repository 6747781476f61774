package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"tallyman/schema/batch"
)

// quarantined makes a dataset of which a loader has quarantined a batch for
// each of several reasons.
func (s *badSite) quarantined() (st *stream, p *process) {
	st = s.stream(`dataset: bad/kept
columns:
  - {name: n, type: int64}
  - {name: s, type: text, nullable: true}
`, lines(`{"n":1}`))
	s.exec("ALTER TABLE " + st.table() + " ADD CONSTRAINT positive CHECK (n > 0)")
	st.produceCases([]badCase{
		{"a native row", bad(batch.Constraint, "line 1", native(int64(-7), "\x1b[31mred\x1b[0m\n<b>"))},
		{"a line of three", bad(batch.Constraint, "line 2", lines(`{"n":1}`, `{"n":0,"s":"two"}`, `{"n":3}`))},
		{"no integer", bad(batch.BadRows, "row 2", lines(`{"n":1}`, `{"n":"\u001b[31m"}`))},
		{"no id", bad(batch.NoID, "ce_id", message(func(r *kgo.Record) { r.Headers = []kgo.RecordHeader{{Key: "\x1b[2J", Value: []byte{0xff}}} }))},
		{"other content", []send{good("", "", lines(`{"n":5}`))[0], bad(batch.IDConflict, "stands for", lines(`{"n":6}`))[0]}},
		{"given up", bad(batch.Constraint, "positive", lines(`{"n":-8}`))},
	})
	p = s.load()
	st.passed(p)
	st.check(p)
	return st, p
}

// ids are the IDs of what lies in quarantine, by the case that sent it.
func (st *stream) ids() map[string]string {
	st.site.t.Helper()
	names := map[int64]string{}
	for _, m := range st.sent {
		names[m.record.Offset] = m.name
	}
	ids := map[string]string{}
	for _, k := range decode[listingJSON](st.site.t, succeed(st.site.t, st.site.env, "quarantine", "list", "--state", "all", "--limit", "0", "-o", "json")).Batches {
		ids[names[k.Offset]] = k.ID
	}
	return ids
}

func TestQuarantineListAndShow(t *testing.T) {
	t.Parallel()
	s := newBadSite(t, nil)
	contains(t, succeed(t, s.env, "quarantine", "list"), "nothing in quarantine that was asked for")
	st, _ := s.quarantined()
	ids := st.ids()

	contains(t, succeed(t, s.env, "quarantine", "list"), "ID DATASET STATE REASON SINCE BATCH AT DETAIL", "bad/kept open", "6 of 6")
	contains(t, succeed(t, s.env, "quarantine", "list", "--limit", "1"), "1 of 6; --limit 0 lists all")
	for _, tc := range []struct {
		want int64
		args []string
	}{
		{3, []string{"--reason", "constraint"}},
		{6, []string{"--dataset", "bad/kept", "--since", "1h", "--until", "2200-01-01"}},
		{0, []string{"--dataset", "bad/other"}},
		{0, []string{"--until", "1h"}},
		{0, []string{"--state", "redriven"}},
		{0, []string{"--id", uuid.NewString()}},
	} {
		got := decode[listingJSON](t, succeed(t, s.env, append([]string{"quarantine", "list", "-o", "json"}, tc.args...)...))
		if got.Total != tc.want || len(got.Batches) != int(tc.want) {
			t.Errorf("%v: %d of %d, want %d", tc.args, len(got.Batches), got.Total, tc.want)
		}
	}

	show := func(name string, says ...string) {
		t.Helper()
		text := succeed(t, s.env, "quarantine", "show", ids[name][:8])
		for line := range strings.Lines(text) {
			if line = strings.TrimSuffix(line, "\n"); printable(line) != line {
				t.Errorf("%s shows %q", name, line)
			}
		}
		contains(t, text, says...)
	}
	show("a native row", "dataset bad/kept, revision 1", "topic bad.kept of cluster default, partition 0, offset 1", "1 rows, of source stranger",
		"state open", "reason constraint", "kept whole", "HEADER VALUE", "ce_specversion 1.0", "content-type application/vnd.tallyman.rows",
		"ROW n s _batch_id", `> 1 -7 \x1b[31mred\x1b[0m\n<b>`, "1 of 1 rows; row 1 is at fault")
	show("a line of three", `1 {"n":1} > 2 {"n":0,"s":"two"} 3 {"n":3}`, "row 2 is at fault")
	show("no integer", `> 2 {"n":"\u001b[31m"}`, "row 2 is at fault in column n")
	show("no id", "batch none", "reason no_id", `\x1b[2J \xff`)

	shown := decode[shownJSON](t, succeed(t, s.env, "quarantine", "show", ids["a line of three"], "--rows", "1", "-o", "json"))
	m := st.sentAs("a line of three")
	if string(shown.Payload) != string(m.record.Value) || shown.Key != string(m.record.Key) || len(shown.Headers) != len(m.record.Headers) ||
		*shown.Batch != m.batch.ID || shown.Content.Bad != 2 || len(shown.Content.Rows) != 2 || shown.Content.Total != 3 {
		t.Errorf("%+v", shown)
	}
	fail(t, exitFailed, s.env, []string{"quarantine", "show", "0000000000000000"}, "nothing with the ID 0000000000000000")
}

// sentAs returns the message of a case.
func (st *stream) sentAs(name string) *sent {
	for i := range st.sent {
		if st.sent[i].name == name && st.sent[i].outcome == "quarantined" {
			return &st.sent[i]
		}
	}
	st.site.t.Fatalf("no case is called %s", name)
	return nil
}

func TestQuarantineRedriveAndDiscard(t *testing.T) {
	t.Parallel()
	s := newBadSite(t, nil)
	st, p := s.quarantined()
	ids := st.ids()
	redrive := func(status int, args ...string) map[string]string {
		t.Helper()
		r := invoke(t, s.env, append([]string{"quarantine", "redrive", "-o", "json"}, args...)...)
		if r.status != status {
			t.Fatalf("redrive %v ended with %d, want %d\n%s%s", args, r.status, status, r.stdout, r.stderr)
		}
		outcomes := map[string]string{}
		for _, one := range decode[[]redrivenJSON](t, r.stdout) {
			outcomes[one.ID] = strings.TrimSpace(one.Outcome + " " + string(one.Reason))
		}
		return outcomes
	}
	want := map[string]string{
		ids["a native row"]: "refused constraint", ids["a line of three"]: "refused constraint", ids["no integer"]: "refused bad_rows",
		ids["no id"]: "refused no_id", ids["other content"]: "refused id_conflict", ids["given up"]: "refused constraint",
	}
	if diff := cmp.Diff(want, redrive(exitFound, "--all", "--yes")); diff != "" {
		t.Error(diff)
	}
	fail(t, exitUsage, s.env, []string{"quarantine", "redrive", "--all"}, "redrive 6 batches? Say --yes")
	fail(t, exitFailed, s.env, []string{"quarantine", "redrive", "--all", "--dataset", "bad/misspelt", "--yes"}, "the warehouse has no dataset bad/misspelt; it has bad/kept")
	discard := func(name string, says ...string) {
		t.Helper()
		contains(t, succeed(t, s.env, "quarantine", "discard", ids[name], "--reason", "of no use"), append([]string{ids[name][:12]}, says...)...)
	}
	discard("given up", "discarded later copies are duplicates")
	discard("given up", "discarded it was closed before")
	discard("no id", "only this message is closed")
	contains(t, succeed(t, s.env, "quarantine", "show", ids["no id"]), "state discarded", " by ", "@", ": of no use")

	s.exec("ALTER TABLE " + st.table() + " DROP CONSTRAINT positive")
	want = map[string]string{ids["a native row"]: "loaded", ids["a line of three"]: "loaded"}
	if diff := cmp.Diff(want, redrive(exitDone, "--all", "--yes", "--reason", "constraint", "--dataset", "bad/kept")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{ids["a native row"]: "duplicate"}, redrive(exitDone, ids["a native row"])); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{ids["given up"]: "refused constraint"}, redrive(exitFound, ids["given up"])); diff != "" {
		t.Error(diff)
	}
	contains(t, succeed(t, s.env, "quarantine", "redrive", "--all", "--yes", "--dataset", "bad/kept", "--reason", "expired"), "nothing was redriven")

	// Whatever comes of them later is known.
	for _, name := range []string{"a native row", "a line of three", "given up"} {
		again := st.sentAs(name).record
		if err := s.client.ProduceSync(t.Context(), &kgo.Record{Topic: again.Topic, Key: again.Key, Value: again.Value, Headers: again.Headers}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	p.until("three duplicates", func() bool {
		return p.metric(`tallyman_loader_batches_total{dataset="bad/kept",outcome="duplicate"}`) == "3"
	})
	var rows int
	sql := fmt.Sprintf(`SELECT (SELECT count(*) FROM %[1]s WHERE _batch_id = $1) + 10 * (SELECT count(*) FROM %[1]s WHERE _batch_id = $2)
		+ 100 * (SELECT count(*) FROM %[1]s WHERE _batch_id = $3)`, st.table())
	if err := s.owner.QueryRow(t.Context(), sql, st.sentAs("a native row").batch.ID.String(), st.sentAs("a line of three").batch.ID.String(),
		st.sentAs("given up").batch.ID.String()).Scan(&rows); err != nil || rows != 31 {
		t.Errorf("rows %d, %v, want 1 and 3 and none", rows, err)
	}
	p.checkLog()
}

// A command line that can't be carried out does nothing.
func TestQuarantineUsage(t *testing.T) {
	t.Parallel()
	env := []string{"DATABASE_URL=host=127.0.0.1 port=1"}
	for _, tc := range []struct{ args, says []string }{
		{[]string{"list", "--since", "yesterday"}, []string{"--since", "how long ago"}},
		{[]string{"list", "--state", "closed"}, []string{"--state"}},
		{[]string{"list", "--id", "1"}, []string{"--id", "UUID"}},
		{[]string{"list", "--dataset", "x"}, []string{"namespace/name"}},
		{[]string{"show"}, []string{"--help"}},
		{[]string{"show", "xyz"}, []string{"not an ID"}},
		{[]string{"redrive"}, []string{"no IDs"}},
		{[]string{"redrive", "abcd", "--all"}, []string{"either IDs or --all"}},
		{[]string{"redrive", "--reason", "constraint"}, []string{"need --all"}},
		{[]string{"discard", "abcd"}, []string{"--reason is required"}},
		{[]string{"discard", "%", "--reason", "x"}, []string{"not an ID"}},
	} {
		fail(t, exitUsage, env, append([]string{"quarantine"}, tc.args...), tc.says...)
	}
	for _, args := range [][]string{{"list"}, {"show", "abcd"}, {"redrive", "abcd"}, {"redrive", "--all"}, {"discard", "abcd", "--reason", "x"}} {
		fail(t, exitFailed, env, append([]string{"quarantine"}, args...), "127.0.0.1:1")
	}
}
