package batch_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tallyman/schema/batch"
)

// Whatever the headers say: no panic; an error is a Refusal with a reason; and
// what is read, written again and read again is the same batch.
func FuzzParse(f *testing.F) {
	for _, v := range readVectors(f).Messages {
		var lines strings.Builder
		for _, h := range v.Headers {
			if h[0] != "ce_digest" {
				lines.WriteString(h[0] + ":" + h[1] + "\n")
			}
		}
		f.Add(lines.String(), v.ValueHex)
	}
	f.Fuzz(func(t *testing.T, lines, value string) {
		var headers []batch.Header
		for line := range strings.Lines(lines) {
			key, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
			if key != "ce_digest" {
				headers = append(headers, batch.Header{Key: key, Value: []byte(text)})
			}
		}
		_, err := batch.Parse(nil, []byte(value), headers)
		var r *batch.Refusal
		if !errors.As(err, &r) || r.Reason == "" || r.Detail == "" {
			t.Fatalf("without a digest: %v", err)
		}
		if r.Reason != batch.BadDigest {
			return
		}
		r.Batch.Seal()
		first, err := batch.Parse(r.Batch.Key(), []byte(value), r.Batch.Headers())
		if err != nil {
			t.Fatalf("the sealed batch is refused: %v", err)
		}
		again, err := batch.Parse(first.Key(), first.Value, first.Headers())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(first, again); diff != "" {
			t.Error(diff)
		}
	})
}
