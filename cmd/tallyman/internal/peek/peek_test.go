package peek_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"tallyman/cmd/tallyman/internal/peek"
	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/schema/rows"
	"tallyman/sink"
)

const manifest = `dataset: a/b
columns:
  - {name: n, type: int64, nullable: true}
  - {name: f, type: float64, nullable: true}
  - {name: b, type: bool, nullable: true}
  - {name: s, type: text, nullable: true}
  - {name: t, type: timestamptz, nullable: true}
  - {name: u, type: uuid, nullable: true}
  - {name: j, type: json, nullable: true}
`

// kept returns a message as quarantine has it.
func kept(t testing.TB, reason batch.Reason, content string, n int, value []byte) *sink.KeptMessage {
	t.Helper()
	m, err := schema.ParseManifest([]byte(manifest))
	if err != nil {
		t.Fatal(err)
	}
	b := &batch.Batch{ID: batch.NewID(), Source: "test", Dataset: m.Dataset, ContentType: content, Rows: n, Value: value}
	if b.Time, err = batch.TimeOf(b.ID); err != nil {
		t.Fatal(err)
	}
	b.Seal()
	return &sink.KeptMessage{
		Kept:     sink.Kept{Reason: reason, Whole: true, Size: int64(len(value))},
		Message:  sink.Message{Key: b.Key(), Value: value, Headers: b.Headers()},
		Manifest: &m,
	}
}

func native(t testing.TB, id uuid.UUID, tuples ...[]any) (value []byte) {
	t.Helper()
	m, err := schema.ParseManifest([]byte(manifest))
	if err != nil {
		t.Fatal(err)
	}
	codec, err := rows.NewCodec(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range tuples {
		if value, err = codec.Append(value, id, v); err != nil {
			t.Fatal(err)
		}
	}
	return value
}

// texts returns a row's values, NULL as "-".
func texts(r peek.Row) (all []string) {
	for _, v := range r.Values {
		if v == nil {
			all = append(all, "-")
		} else {
			all = append(all, *v)
		}
	}
	return all
}

func TestNativeRows(t *testing.T) {
	t.Parallel()
	id := uuid.MustParse("01890000-0000-7000-8000-000000000001")
	value := native(t, id,
		[]any{int64(math.MinInt64), 0.1, true, "a\x1b", time.Date(2024, 2, 29, 1, 2, 3, 4000, time.UTC), id, json.RawMessage(`{"a": 1}`)},
		[]any{nil, nil, nil, nil, nil, nil, nil})
	s := peek.Rows(kept(t, batch.Constraint, batch.Native, 2, value), 0)
	if s.Problem != "" || s.Total != 2 || len(s.Rows) != 2 || s.Bad != 0 {
		t.Fatalf("%+v", s)
	}
	if diff := cmp.Diff([]string{"n", "f", "b", "s", "t", "u", "j", "_batch_id"}, s.Columns); diff != "" {
		t.Error(diff)
	}
	want := []string{"-9223372036854775808", "0.1", "true", "a\x1b", "2024-02-29T01:02:03.000004Z", id.String(), `{"a": 1}`, id.String()}
	if diff := cmp.Diff(want, texts(s.Rows[0])); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"-", "-", "-", "-", "-", "-", "-", id.String()}, texts(s.Rows[1])); diff != "" {
		t.Error(diff)
	}
}

// Every type there is shows as text, and none as the bytes that it travels in
// but bytes themselves.
func TestEveryType(t *testing.T) {
	t.Parallel()
	m, err := schema.ParseManifest([]byte(`dataset: a/b
batch_id: false
columns:
  - {name: a, type: int16}
  - {name: b, type: float32}
  - {name: c, type: "decimal(12,2)"}
  - {name: d, type: bytes}
  - {name: e, type: date}
  - {name: f, type: time}
  - {name: g, type: timestamp}
  - {name: h, type: "int64[]"}
  - {name: i, type: "decimal(12,2)[]"}
`))
	if err != nil {
		t.Fatal(err)
	}
	codec, err := rows.NewCodec(m)
	if err != nil {
		t.Fatal(err)
	}
	line := []byte(`{"a":-7,"b":0.1,"c":1234567890.10,"d":"AP8=","e":"2024-02-29","f":"12:34:56.123456","g":"2024-02-29T01:02:03.000004","h":[1,null,3],"i":[0.50]}`)
	value, _, err := codec.AppendNDJSON(nil, uuid.Nil, line)
	if err != nil {
		t.Fatal(err)
	}
	k := kept(t, batch.Constraint, batch.Native, 1, value)
	k.Manifest = &m
	want := []string{"-7", "0.1", "1234567890.10", `\x00ff`, "2024-02-29", "12:34:56.123456", "2024-02-29T01:02:03.000004", "{1,NULL,3}", "{0.50}"}
	s := peek.Rows(k, 0)
	if diff := cmp.Diff(want, texts(s.Rows[0])); diff != "" {
		t.Errorf("%s%s", diff, s.Problem)
	}
}

// The bad row is found and shown, wherever it is.
func TestBadRow(t *testing.T) {
	t.Parallel()
	id := uuid.MustParse("01890000-0000-7000-8000-000000000001")
	null := []any{nil, nil, nil, nil, nil, nil, nil}
	value := native(t, id, null, null, null, null)
	k := kept(t, batch.BadRows, batch.Native, 4, value)
	if s := peek.Rows(k, 1); s.Bad != 1 || s.BadColumn != "_batch_id" { // of another batch
		t.Errorf("%+v", s)
	}
	k.Reason, k.Detail = batch.Rejected, `copy: numeric field overflow (SQLSTATE 22003); COPY b__r1, line 3, column f`
	s := peek.Rows(k, 1)
	if s.Bad != 3 || s.BadColumn != "f" || len(s.Rows) != 2 || s.Rows[1].Number != 3 || s.Total != 4 {
		t.Errorf("%+v", s)
	}
	lines := kept(t, batch.BadRows, batch.NDJSON, 3, []byte("{\"n\":1}\n{\"n\":\"x\"}\r\n{\"n\":2}"))
	s = peek.Rows(lines, 1)
	if s.Bad != 2 || s.BadColumn != "n" || s.Total != 3 || len(s.Rows) != 2 || s.Rows[1].Line != `{"n":"x"}` {
		t.Errorf("%+v", s)
	}
}

// What does not decode is shown up to there.
func TestBrokenRows(t *testing.T) {
	t.Parallel()
	value := native(t, uuid.Nil, []any{int64(1), nil, nil, "x", nil, nil, nil}, []any{int64(2), nil, nil, "y", nil, nil, nil})
	for name, tc := range map[string]struct {
		value   []byte
		problem string
		total   int
	}{
		"cut":         {value[:len(value)-1], `row 2: column "_batch_id": a length of 16, with 15 bytes left`, 2},
		"cut early":   {value[:3], `row 1: column "n": the value ends before the field's length`, 1},
		"a byte":      {append(value[:len(value):len(value)], 0), "row 3: a byte is left over", 3},
		"other width": {append([]byte{0, 3}, value[2:]...), "row 1: it has 3 fields, want 8", 1},
		"-2 fields":   {append([]byte{0xff, 0xfe}, value[2:]...), "row 1: it has -2 fields, want 8", 1},
		"-2 bytes":    {append([]byte{0, 8, 0xff, 0xff, 0xff, 0xfe}, value[6:]...), `row 1: column "n": a length of -2`, 1},
		"nothing":     {nil, "there is no value", 0},
	} {
		s := peek.Rows(kept(t, batch.BadDigest, batch.Native, 2, tc.value), 0)
		if !strings.HasPrefix(s.Problem, tc.problem) || s.Total != tc.total {
			t.Errorf("%s: %q after %d rows, want %q after %d", name, s.Problem, s.Total, tc.problem, tc.total)
		}
	}
	// An integer of four bytes.
	short := append([]byte{0, 8, 0, 0, 0, 4, 0, 0, 0, 1}, value[14:]...)
	if s := peek.Rows(kept(t, batch.BadRows, batch.Native, 2, short), 0); *s.Rows[0].Values[0] != `\x00000001` || s.Bad != 1 || s.BadColumn != "n" {
		t.Errorf("%+v", s)
	}
	k := kept(t, batch.NoManifest, batch.Native, 2, value)
	k.Manifest = nil
	if s := peek.Rows(k, 0); !strings.Contains(s.Problem, "manifest") {
		t.Errorf("%+v", s)
	}
	k = kept(t, batch.NoID, "", 0, []byte("any\x00thing"))
	k.Message.Headers, k.Message.Key = nil, nil
	if s := peek.Rows(k, 0); len(s.Rows) != 1 || s.Rows[0].Line != "any\x00thing" {
		t.Errorf("%+v", s)
	}
	k = kept(t, batch.TooLarge, batch.NDJSON, 2, []byte(`{"n":`))
	k.Whole, k.Size = false, 9<<20
	if s := peek.Rows(k, 0); !strings.Contains(s.Problem, "only the first of 9437184 bytes are kept") {
		t.Errorf("%+v", s)
	}
}

// Whatever a stranger sends is shown, in memory that it pays for.
func FuzzRows(f *testing.F) {
	value := native(f, uuid.Nil, []any{int64(1), 0.5, false, "x", time.Now(), uuid.Nil, json.RawMessage("[]")})
	f.Add(value, 3)
	f.Add([]byte("{}\n{}"), 0)
	f.Fuzz(func(t *testing.T, value []byte, limit int) {
		for _, content := range []string{batch.Native, batch.NDJSON} {
			k := kept(t, batch.BadRows, content, 1, value)
			s := peek.Rows(k, max(limit, 0))
			if len(s.Rows) > s.Total || s.Total > len(value)+1 {
				t.Errorf("%d of %d rows in %d bytes", len(s.Rows), s.Total, len(value))
			}
		}
	})
}
