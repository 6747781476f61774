package serve

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tallyman/schema/batch"
)

// FuzzBatches: any body, of any type and encoding, is accepted or refused as
// the client's fault, never as the daemon's; the same request again gets the
// same answer; and all memory is given back.
func FuzzBatches(f *testing.F) {
	for _, body := range []string{
		"", "{}", `{"n":1}`, "{\"n\":1,\"note\":\"a\"}\n{\"n\":2}\n", "n,note\n1,a\n2,\"b\n\"\"c\"\n", "note\nx\n", "\ufeffn\r\n1\r\n", "\x00\x03",
		squeeze(f, "gzip", `{"n":1}`), squeeze(f, "zstd", `{"n":1}`),
	} {
		for media := range uint8(3) {
			for encoding := range uint8(5) {
				f.Add([]byte(body), media, encoding)
			}
		}
	}
	r := newRig(f, func(s *setup) { s.MaxBody, s.Memory, s.Rate = 64<<10, 64<<20, 1_000_000 })
	f.Fuzz(func(t *testing.T, body []byte, media, encoding uint8) {
		id := batch.NewID().String()
		types := []string{batch.NDJSON, "text/csv", batch.Native}
		headers := http.Header{"Content-Type": {types[int(media)%len(types)]}, "Idempotency-Key": {id}}
		switch encoding % 5 {
		case 1: // as the fuzzer makes it
			headers.Set("Content-Encoding", "gzip")
		case 2:
			headers.Set("Content-Encoding", "zstd")
		case 3: // well compressed
			headers.Set("Content-Encoding", "gzip")
			body = []byte(squeeze(t, "gzip", string(body)))
		case 4:
			headers.Set("Content-Encoding", "zstd")
			body = []byte(squeeze(t, "zstd", string(body)))
		}
		ask := func() *httptest.ResponseRecorder {
			request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, orders+"/batches", bytes.NewReader(body))
			request.Header = headers
			w := httptest.NewRecorder()
			r.daemon.ServeHTTP(w, request)
			return w
		}
		first, again := ask(), ask()
		if diff := cmp.Diff(first.Body.String(), again.Body.String()); diff != "" || first.Code != again.Code {
			t.Errorf("answered %d and %d\n%s", first.Code, again.Code, diff)
		}
		switch {
		case first.Code == http.StatusAccepted:
			var got acceptedBatch
			if err := json.Unmarshal(first.Body.Bytes(), &got); err != nil || got.ID.String() != id || got.Rows < 1 {
				t.Errorf("%v: %s", err, first.Body)
			}
		case first.Code < 400 || first.Code >= 500:
			t.Errorf("answered %d %s", first.Code, first.Body)
		}
		if !r.daemon.memory.TryAcquire(64 << 20) {
			t.Fatal("memory is not given back")
		}
		r.daemon.memory.Release(64 << 20)
	})
}
