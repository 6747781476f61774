package rows_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"

	"tallyman/schema"
	"tallyman/schema/rows"
)

// benchRows is a batch of 1,000 rows in seven columns, about 190 bytes each as
// native tuples, in each of the forms that they come in.
type benchRows struct {
	codec  *rows.Codec
	id     uuid.UUID
	values [][]any
	text   [][]rows.Field
	ndjson []byte
	native []byte
}

const benchRowCount = 1_000

func newBenchRows(b *testing.B) *benchRows {
	b.Helper()
	m := schema.Manifest{
		Dataset: schema.Dataset{Namespace: "ads", Name: "conversions"},
		BatchID: true,
		Columns: []schema.Column{
			{Name: "conversion_id", Type: schema.UUID},
			{Name: "occurred_at", Type: schema.TimestampTZ},
			{Name: "attribution_server", Type: schema.Text},
			{Name: "campaign", Type: schema.Int64},
			{Name: "is_test", Type: schema.Bool},
			{Name: "revenue", Type: schema.Float64, Nullable: true},
			{Name: "attributes", Type: schema.JSON},
		},
	}
	codec, err := rows.NewCodec(m)
	if err != nil {
		b.Fatal(err)
	}
	x := &benchRows{codec: codec, id: uuid.MustParse("0192f0c1-2b3c-7d4e-8f50-617283940a1b")}
	r := rand.New(rand.NewPCG(1, 2))
	for range benchRowCount {
		at := time.UnixMicro(1_760_000_000_000_000 + r.Int64N(1e12)).UTC()
		row := []any{
			uuid.NewSHA1(x.id, strconv.AppendUint(nil, r.Uint64(), 10)), at, "fra-" + strconv.Itoa(r.IntN(9)), r.Int64N(4000),
			r.IntN(20) == 0, float64(r.IntN(50_000)) / 100,
			fmt.Sprintf(`{"country": "DE", "device": "ios", "keyword": "%08x", "session": "%016x", "bid": %d}`, r.Uint32(), r.Uint64(), r.IntN(900)),
		}
		object := map[string]any{}
		var fields []rows.Field
		for i, c := range m.Columns {
			object[c.Name] = row[i]
			text := fmt.Sprint(row[i])
			switch c.Type {
			case schema.TimestampTZ:
				text = at.Format(time.RFC3339Nano)
			case schema.JSON:
				object[c.Name] = json.RawMessage(text)
			}
			fields = append(fields, rows.Field{Value: []byte(text)})
		}
		line, err := json.Marshal(object)
		if err != nil {
			b.Fatal(err)
		}
		if x.native, err = codec.Append(x.native, x.id, row); err != nil {
			b.Fatal(err)
		}
		x.values = append(x.values, row)
		x.text = append(x.text, fields)
		x.ndjson = append(append(x.ndjson, line...), '\n')
	}
	return x
}

// report adds rows per second to what the benchmark prints.
func report(b *testing.B) {
	b.ReportMetric(float64(b.N)*benchRowCount/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkAppend(b *testing.B) {
	x := newBenchRows(b)
	b.SetBytes(int64(len(x.native)))
	b.ReportAllocs()
	var dst []byte
	for b.Loop() {
		dst = dst[:0]
		for _, row := range x.values {
			var err error
			if dst, err = x.codec.Append(dst, x.id, row); err != nil {
				b.Fatal(err)
			}
		}
	}
	report(b)
}

func BenchmarkAppendText(b *testing.B) {
	x := newBenchRows(b)
	b.SetBytes(int64(len(x.native)))
	b.ReportAllocs()
	var dst []byte
	for b.Loop() {
		dst = dst[:0]
		for _, row := range x.text {
			var err error
			if dst, err = x.codec.AppendText(dst, x.id, row); err != nil {
				b.Fatal(err)
			}
		}
	}
	report(b)
}

// BenchmarkAppendNDJSON reads objects whose keys are in alphabetical order, as
// many languages write them, and so not in the manifest's.
func BenchmarkAppendNDJSON(b *testing.B) {
	x := newBenchRows(b)
	b.SetBytes(int64(len(x.ndjson)))
	b.ReportAllocs()
	var dst []byte
	for b.Loop() {
		var err error
		if dst, _, err = x.codec.AppendNDJSON(dst[:0], x.id, x.ndjson); err != nil {
			b.Fatal(err)
		}
	}
	if !bytes.Equal(dst[:2], x.native[:2]) {
		b.Fatal("not tuples")
	}
	report(b)
}

func BenchmarkWalk(b *testing.B) {
	x := newBenchRows(b)
	b.SetBytes(int64(len(x.native)))
	b.ReportAllocs()
	for b.Loop() {
		if err := x.codec.Walk(x.native, benchRowCount, x.id); err != nil {
			b.Fatal(err)
		}
	}
	report(b)
}
