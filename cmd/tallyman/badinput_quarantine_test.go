package main

import (
	"fmt"

	"github.com/google/go-cmp/cmp"

	"tallyman/schema/batch"
)

// listed returns what tallyman quarantine list has of the stream, by offset.
func (st *stream) listed() map[int64]keptJSON {
	st.site.t.Helper()
	all := decode[listingJSON](st.site.t, succeed(st.site.t, st.site.env,
		"quarantine", "list", "--dataset", st.manifest.Dataset.String(), "--limit", "0", "-o", "json"))
	listed := map[int64]keptJSON{}
	for _, k := range all.Batches {
		listed[k.Offset] = k
	}
	if len(listed) != len(all.Batches) || all.Total != int64(len(listed)) {
		st.site.t.Errorf("%s: %d messages listed, %d of them at offsets of their own, %d in all", st.manifest.Dataset, len(all.Batches), len(listed), all.Total)
	}
	return listed
}

// checkListed sees that every message that was quarantined has its line.
func (st *stream) checkListed() {
	st.site.t.Helper()
	want, got := map[int64]batch.Reason{}, map[int64]batch.Reason{}
	for i := range st.sent {
		if m := &st.sent[i]; m.outcome == "quarantined" {
			want[m.record.Offset] = m.reason
		}
	}
	for offset, k := range st.listed() {
		got[offset] = k.Reason
	}
	if diff := cmp.Diff(want, got); diff != "" {
		st.site.t.Errorf("%s: quarantine list: %s", st.manifest.Dataset, diff)
	}
}

// checkRedrive tries everything again that was quarantined, of which nothing was
// mended: it is refused for the same reason as by the loader, and shows.
func (st *stream) checkRedrive() {
	t := st.site.t
	t.Helper()
	before := st.listed()
	r := invoke(t, st.site.env, "quarantine", "redrive", "--all", "--yes", "--dataset", st.manifest.Dataset.String(), "-o", "json")
	if r.status != exitFound {
		t.Fatalf("%s: redrive ended with %d\n%s", st.manifest.Dataset, r.status, r.stderr)
	}
	want, got := map[string]string{}, map[string]string{}
	for _, k := range before {
		want[k.ID] = "refused " + string(k.Reason)
		if shown := decode[shownJSON](t, succeed(t, st.site.env, "quarantine", "show", k.ID, "-o", "json")); shown.ID != k.ID {
			t.Errorf("shown is %+v", shown)
		}
	}
	for _, k := range decode[[]redrivenJSON](t, r.stdout) {
		got[k.ID] = fmt.Sprint(k.Outcome, " ", k.Reason)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: redrive: %s", st.manifest.Dataset, diff)
	}
	for offset, k := range st.listed() {
		if was := before[offset]; k.State != "open" || k.Reason != was.Reason {
			t.Errorf("%s, offset %d: %s %s after a redrive, before %s", st.manifest.Dataset, offset, k.State, k.Reason, was.Reason)
		}
	}
}
