package batch_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tallyman/schema/batch"
)

// Whatever the headers say: no panic; an error is a Refusal with a reason; and
// what is read, written again and read again is the same batch.
func FuzzParse(f *testing.F) {
	for _, v := range readVectors(f).Messages {
		at := map[string]string{}
		for _, h := range v.Headers {
			at[h[0]] = h[1]
		}
		f.Add(at["ce_id"], at["ce_time"], at["ce_source"], at["ce_incarnation"], at["ce_sequence"],
			at["ce_subject"], at["ce_dataschema"], at["ce_rows"], at["content-type"], v.Content)
	}
	f.Fuzz(func(t *testing.T, id, at, source, incarnation, sequence, subject, schema, rows, contentType, value string) {
		headers := []batch.Header{
			{Key: "ce_specversion", Value: []byte("1.0")}, {Key: "ce_type", Value: []byte("tallyman.batch.v1")},
			{Key: "ce_source", Value: []byte(source)}, {Key: "ce_subject", Value: []byte(subject)},
			{Key: "ce_rows", Value: []byte(rows)}, {Key: "content-type", Value: []byte(contentType)},
		}
		for key, text := range map[string]string{
			"ce_id": id, "ce_time": at, "ce_incarnation": incarnation, "ce_sequence": sequence, "ce_dataschema": schema,
		} {
			if text != "" {
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
