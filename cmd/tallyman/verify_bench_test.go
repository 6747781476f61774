package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"testing"

	"tallyman/schema/batch"
)

// BenchmarkVerify verifies 600,000 loaded rows, as a process: their number by
// batch, and with digest their values, with the topic on the same machine.
func BenchmarkVerify(b *testing.B) {
	x := newBench(b, loadCase{contentType: batch.Native, batchRows: 1_000})
	x.load()
	for _, args := range [][]string{{"--limit=1"}, {"--digest"}} {
		b.Run(args[0], func(b *testing.B) {
			for b.Loop() {
				cmd := exec.Command(x.binary, append([]string{"verify", "bench/events", "-o", "json"}, args...)...)
				var out bytes.Buffer
				cmd.Env, cmd.Stdout, cmd.Stderr = x.env, &out, os.Stderr
				if err := cmd.Run(); err != nil {
					b.Fatalf("%v\n%s", err, &out)
				}
				var r verifyReport
				if err := json.Unmarshal(out.Bytes(), &r); err != nil {
					b.Fatal(err)
				}
				if r.TableRows != benchRows || r.Digest != nil && r.Digest.Compared != benchRows/1_000 {
					b.Fatalf("%s", &out)
				}
			}
			b.ReportMetric(benchRows*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}
