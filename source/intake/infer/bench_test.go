package infer_test

import (
	"bytes"
	"fmt"
	"testing"

	"tallyman/source/intake"
	"tallyman/source/intake/infer"
)

// BenchmarkInfer reads rows of 10 columns in the shapes that files mostly have.
func BenchmarkInfer(b *testing.B) {
	const n = 100_000
	var csv, ndjson bytes.Buffer
	csv.WriteString("id,at,name,city,amount,ratio,count,flag,note,code\n")
	for i := range n {
		at, name, amount := fmt.Sprintf("2024-02-29T12:%02d:%02dZ", i/60%60, i%60), fmt.Sprint("customer ", i%5000), fmt.Sprintf("%d.%02d", i%1000, i%100)
		fmt.Fprintf(&csv, "%d,%s,%s,Berlin,%s,0.%05d,%d,%t,,%05d\n", i, at, name, amount, i%100000, i%17, i%2 == 0, i%9999)
		fmt.Fprintf(&ndjson, `{"id":%d,"at":"%s","name":"%s","city":"Berlin","amount":%s,"ratio":0.%05d,"count":%d,"flag":%t,"note":null,"code":"%05d"}`+"\n",
			i, at, name, amount, i%100000, i%17, i%2 == 0, i%9999)
	}
	for format, text := range map[intake.Format][]byte{intake.CSV: csv.Bytes(), intake.NDJSON: ndjson.Bytes()} {
		b.Run(string(format), func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				_, err := infer.Infer(b.Context(), bytes.NewReader(text), infer.Config{Dataset: dataset(), Layout: intake.Layout{Format: format}})
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
