package peek_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tallyman/cmd/tallyman/internal/peek"
	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/schema/rows"
)

const everyType = `dataset: a/all
columns:
  - {name: n, type: int64}
  - {name: i2, type: int16, nullable: true}
  - {name: b, type: bool, nullable: true}
  - {name: f4, type: float32, nullable: true}
  - {name: f, type: float64, nullable: true}
  - {name: m, type: "decimal(30,4)", nullable: true}
  - {name: "t,\"x", type: text, nullable: true}
  - {name: by, type: bytes, nullable: true}
  - {name: d, type: date, nullable: true}
  - {name: c, type: time, nullable: true}
  - {name: ts, type: timestamp, nullable: true}
  - {name: tz, type: timestamptz, nullable: true}
  - {name: u, type: uuid, nullable: true}
  - {name: j, type: json, nullable: true}
  - {name: ns, type: "int64[]", nullable: true}
  - {name: bs, type: "bytes[]", nullable: true}
  - {name: ms, type: "decimal(9,2)[]", nullable: true}
  - {name: fs, type: "float64[]", nullable: true}
  - {name: js, type: "json[]", nullable: true}
`

// What the writer makes of native rows of every type reads as the same rows.
func TestWrittenRowsReadTheSame(t *testing.T) {
	t.Parallel()
	m, err := schema.ParseManifest([]byte(everyType))
	if err != nil {
		t.Fatal(err)
	}
	codec, err := rows.NewCodec(m)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Join([]string{
		`{"n":1}`,
		`{"n":-9223372036854775808,"i2":-32768,"b":true,"f4":1e-7,"f":1e300,"m":"12345678901234567890.1200","t,\"x":"","by":"","d":"0001-01-01","c":"00:00:00","ts":"0001-01-01T00:00:00","tz":"0001-01-01T00:00:00Z","u":"0192f0c1-2b3c-7d4e-8f50-617283940a1b","j":{"a": [1,  2]},"ns":[],"bs":[],"ms":[],"fs":[],"js":[]}`,
		`{"n":2,"b":false,"f4":"NaN","f":"-Infinity","m":-0.0001,"t,\"x":"a,\"b\"\r\nc\u001b[31m<é>","by":"AP8=","d":"9999-12-31","c":"23:59:59.999999","ts":"2026-01-31T12:00:00.5","tz":"2026-01-31T12:00:00.000001+02:00","j":"x","ns":[1,null,-3],"bs":["AP8=",""],"ms":["1.50",null],"fs":["Infinity",-0.0,1.5],"js":[{"a":1},"b",null]}`,
		`{"n":3,"f4":16777216,"f":1e21,"m":0,"t,\"x":"NULL","j":null,"c":"12:00:00"}`,
	}, "\n")
	b := &batch.Batch{ID: batch.NewID(), Source: "test", Dataset: m.Dataset, ContentType: batch.Native, Rows: 4}
	if b.Value, _, err = codec.AppendNDJSON(nil, b.ID, []byte(lines)); err != nil {
		t.Fatal(err)
	}
	var ndjson, csv, fromLines bytes.Buffer
	write(t, &ndjson, m, false, b)
	write(t, &csv, m, true, b)
	again, n, err := codec.AppendNDJSON(nil, b.ID, ndjson.Bytes())
	if err != nil || n != 4 || !bytes.Equal(again, b.Value) {
		t.Errorf("%d rows, %v, of other content:\n%s", n, err, &ndjson)
	}
	if header := `n,i2,b,f4,f,m,"t,""x",by,`; !strings.HasPrefix(csv.String(), header) {
		t.Errorf("CSV begins with %.80s", &csv)
	}
	asLines := *b
	asLines.ContentType, asLines.Value = batch.NDJSON, []byte(lines)
	write(t, &fromLines, m, true, &asLines)
	if diff := cmp.Diff(csv.String(), fromLines.String()); diff != "" {
		t.Errorf("CSV of the same rows as NDJSON differs: %s", diff)
	}
	var same bytes.Buffer
	write(t, &same, m, false, &asLines)
	if same.String() != lines+"\n" {
		t.Errorf("lines became %s", &same)
	}
}

func write(t *testing.T, out *bytes.Buffer, m schema.Manifest, csv bool, b *batch.Batch) {
	t.Helper()
	w, err := peek.NewWriter(out, m, csv)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Batch(b); err != nil {
		t.Error(err)
	}
}

// Of a batch that can't be written whole there is nothing, and the next goes on.
func TestBatchThatCantBeWritten(t *testing.T) {
	t.Parallel()
	m, err := schema.ParseManifest([]byte(manifest))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := peek.NewWriter(&out, m, false)
	if err != nil {
		t.Fatal(err)
	}
	b := &batch.Batch{ID: batch.NewID(), ContentType: batch.Native, Rows: 2}
	b.Value = native(t, b.ID, []any{int64(1), nil, nil, "fine", nil, nil, nil}, []any{int64(1), nil, nil, "xyz", nil, nil, nil})
	b.Value = bytes.Replace(b.Value, []byte("xyz"), []byte("x\xffz"), 1)
	if err := w.Batch(b); err == nil || !strings.Contains(err.Error(), "row 2") {
		t.Errorf("text that is not UTF-8 gave %v", err)
	}
	b.Rows = 3
	if err := w.Batch(b); err == nil || !strings.Contains(err.Error(), "2 of 3 rows") {
		t.Errorf("a row too few gave %v", err)
	}
	if out.Len() > 0 {
		t.Errorf("written was %q", &out)
	}
	failing, err := peek.NewWriter(failingWriter{}, m, false)
	if err != nil {
		t.Fatal(err)
	}
	b.Value = native(t, b.ID, []any{int64(1), nil, nil, "fine", nil, nil, nil})
	b.Rows = 1
	var of *peek.OutError
	if err := failing.Batch(b); !errors.As(err, &of) {
		t.Errorf("a full disk gave %v", err)
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("no space left") }
