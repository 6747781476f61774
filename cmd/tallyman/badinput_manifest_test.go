package main

import (
	"strings"
	"testing"

	"tallyman/schema/batch"
)

// Batches of a manifest that nobody knows wait in quarantine, and nothing waits
// behind them. When the manifest is known they load by themselves, and those of
// another one go on waiting.
func TestBadInputNoManifest(t *testing.T) {
	t.Parallel()
	s := newBadSite(t, nil)
	const before = "dataset: bad/later\ncolumns:\n  - {name: n, type: int64}\n"
	const after = before + "  - {name: more, type: text, nullable: true}\n"
	later := parse(t, after)
	st := s.stream(before, lines(`{"n":1}`))
	named := func(hash string) change { return edit(func(b *batch.Batch) { b.Schema = hash }) }
	unknown := func(hash, text string) []send {
		return bad(batch.NoManifest, "encoded by manifest "+hash, lines(text), named(hash))
	}
	st.produceCases([]badCase{
		{"one", unknown(later.Hash(), `{"n":2,"more":"x"}`)},
		{"two", unknown(later.Hash(), `{"n":3,"more":"y"}`)},
		{"broken", unknown(later.Hash(), `{"n":4,"less":"z"}`)},
		{"never", unknown(strings.Repeat("0", 64), `{"n":5}`)},
	})
	p := s.load()
	st.passed(p)
	st.check(p)

	succeed(t, s.env, "dataset", "apply", file(t, "later.yaml", after))
	states := func() string {
		var all string
		const sql = `SELECT string_agg(reason || ' ' || state, ', ' ORDER BY kafka_offset) FROM tallyman.quarantine`
		if err := s.owner.QueryRow(t.Context(), sql).Scan(&all); err != nil {
			t.Fatal(err)
		}
		return all
	}
	const want = "no_manifest redriven, no_manifest redriven, bad_rows open, no_manifest open"
	p.until("a redrive", func() bool { return states() == want })
	for series, want := range map[string]string{"loaded": "2", "refused": "1", "duplicate": ""} {
		p.until(series+" "+want, func() bool {
			return p.metric(`tallyman_loader_redriven_total{dataset="bad/later",outcome="`+series+`"}`) == want
		})
	}
	var rows string
	if err := s.owner.QueryRow(t.Context(), "SELECT string_agg(n || more, ' ' ORDER BY n) FROM "+st.table()+" WHERE more IS NOT NULL").Scan(&rows); err != nil || rows != "2x 3y" {
		t.Errorf("%q, %v", rows, err)
	}
	if next := st.position(); next != int64(len(st.sent)) {
		t.Errorf("the position is %d, want %d", next, len(st.sent))
	}
	p.checkLog()
}
