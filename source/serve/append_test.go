package serve

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tallyman/schema/batch"
	"tallyman/schema/rows"
	"tallyman/source"
)

// wantRows checks what the topic holds, in any order.
func (r *rig) wantRows(want ...string) {
	r.t.Helper()
	got := r.rows()
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		r.t.Errorf("rows on the topic (-want +got):\n%s", diff)
	}
}

// squeeze compresses a text.
func squeeze(t testing.TB, encoding, text string) string {
	t.Helper()
	var out bytes.Buffer
	switch encoding {
	case "gzip":
		z := gzip.NewWriter(&out)
		_, err := z.Write([]byte(text))
		fatal(t, err)
		fatal(t, z.Close())
	case "zstd":
		z, err := zstd.NewWriter(&out)
		fatal(t, err)
		_, err = z.Write([]byte(text))
		fatal(t, err)
		fatal(t, z.Close())
	default:
		return text
	}
	return out.String()
}

func TestBatchesOfEveryFormatAreTaken(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	codec, err := rows.NewCodec(r.source.Manifest())
	fatal(t, err)
	native := batch.NewID()
	tuples, err := codec.Append(nil, native, []any{int64(9), "native"})
	fatal(t, err)
	var want []string
	for _, c := range []struct {
		ask  ask
		rows []string
	}{
		{post("/batches", "{\"n\":1,\"note\":\"a\"}\n{\"n\":2}\n"), []string{"1 a", "2 NULL"}},
		{post("/batches", "n,note\n3,\n4,\"\"\n", "Content-Type", "text/csv; charset=UTF-8"), []string{"3 NULL", "4 "}},
		{post("/batches", squeeze(t, "gzip", "\ufeffnote,n\r\n\"b,\"\"c\",5\r\n"), "Content-Type", "text/csv", "Content-Encoding", "gzip"), []string{`5 b,"c`}},
		{post("/batches", squeeze(t, "zstd", `{"n":6}`), "Content-Encoding", "zstd"), []string{"6 NULL"}},
		{post("/batches", string(tuples), "Content-Type", batch.Native, "Idempotency-Key", native.String()), []string{"9 native"}},
	} {
		got := accepted[acceptedBatch](r, c.ask)
		if got.Rows != len(c.rows) || got.ID == uuid.Nil || got.Incarnation == uuid.Nil || got.Sequence == 0 {
			t.Errorf("answered %+v for %q", got, c.rows)
		}
		want = append(want, c.rows...)
	}
	r.wantRows(want...)
}

// The same key and content are answered as the first time, byte for byte; the
// same key and other content are a conflict.
func TestBatchIsTakenOnceUnderItsID(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, id := range []uuid.UUID{batch.NewID(), batch.FileID(r.source.Manifest().Dataset, "csv", batch.Digest{}, 1, "")} {
		key := id.String()
		first := r.do(post("/batches", `{"n":1}`, "Idempotency-Key", key))
		spelled := `"` + strings.ToUpper(key) + `"`
		again := r.do(post("/batches", "n\n1", "Content-Type", "text/csv", "Idempotency-Key", spelled))
		var got acceptedBatch
		if parse(t, first.body, &got); got.ID != id || first.status != http.StatusAccepted {
			t.Errorf("%d %s names another id than %s", first.status, first.body, key)
		}
		if diff := cmp.Diff(string(first.body), string(again.body)); diff != "" || again.status != first.status {
			t.Errorf("answered in another way: %d\n%s", again.status, diff)
		}
		r.refused(r.do(post("/batches", `{"n":2}`, "Idempotency-Key", key)), idConflict)
	}
	r.wantRows("1 NULL", "1 NULL")
}

// Ids of the other versions are taken like those of version 7; that of version
// 4 with its time, and with another time it is a conflict.
func TestBatchUnderAnIDFromElsewhere(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, id := range []string{uuid.Must(uuid.NewUUID()).String(), "1ec9414c-232a-6b00-b3c8-9f6bdeced846"} {
		for range 2 {
			if got := accepted[acceptedBatch](r, post("/batches", `{"n":1}`, "Idempotency-Key", id)); got.ID.String() != id {
				t.Errorf("answered %+v, want id %s", got, id)
			}
		}
	}
	id := uuid.NewString()
	for _, at := range []string{"2026-11-25T01:02:03.000004Z", "2026-11-25T02:02:03.0000049+01:00"} {
		if got := accepted[acceptedBatch](r, post("/batches", `{"n":4}`, "Idempotency-Key", id, "Tallyman-Batch-Time", at)); got.ID.String() != id {
			t.Errorf("answered %+v, want id %s", got, id)
		}
	}
	r.refused(r.do(post("/batches", `{"n":4}`, "Idempotency-Key", id, "Tallyman-Batch-Time", "2026-11-25T01:02:03Z")), idConflict)
	r.wantRows("1 NULL", "1 NULL", "4 NULL")
}

// Rows of requests at the same time share a batch.
func TestRowsShareABatch(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(s *setup) { s.source = func(c *source.Config) { c.MaxRows = 3; c.Linger = time.Hour } })
	first := accepted[acceptedRows](r, post("/rows", `{"n":0}`))
	if first.Rows != 1 || len(first.Batches) != 1 {
		t.Errorf("answered %+v", first)
	}
	// More than a batch holds goes into several, all named.
	got := accepted[acceptedRows](r, post("/rows", "n\n1\n2\n3\n4\n5\n6\n", "Content-Type", "text/csv"))
	if got.Rows != 6 || len(got.Batches) != 2 || got.Batches[0].Sequence+got.Batches[1].Sequence != 2+3 {
		t.Errorf("answered %+v", got)
	}
	r.wantRows("0 NULL", "1 NULL", "2 NULL", "3 NULL", "4 NULL", "5 NULL", "6 NULL")
}

func TestDatasetIsDescribed(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(s *setup) { s.MaxRows = 7 })
	var got served
	parse(t, r.do(ask{method: http.MethodGet, path: orders}).body, &got)
	want := served{
		Dataset: "shop/orders", ManifestHash: r.source.Manifest().Hash(), MaxBatchBytes: r.source.MaxValue(),
		MaxBodyBytes: 16 << 20, MaxRows: 7,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Requests under way are answered when the daemon ends, and their rows are durable.
func TestDrains(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(s *setup) { s.source = func(c *source.Config) { c.Linger = time.Hour } })
	fatal(t, r.daemon.Ready())
	body, more := io.Pipe()
	answers := make(chan answer, 1)
	go func() {
		got, err := r.try(ask{method: http.MethodPost, path: orders + "/batches", header: http.Header{"Content-Type": {batch.NDJSON}}, body: body})
		if err != nil {
			t.Error(err)
		}
		answers <- got
	}()
	_, err := more.Write([]byte(`{"n":1}`))
	fatal(t, err)
	r.await(func() bool { return testutil.ToFloat64(r.daemon.metrics.active) == 1 })
	r.stop()
	r.await(func() bool { return r.daemon.Ready() != nil })
	fatal(t, more.Close())
	if got := <-answers; got.status != http.StatusAccepted {
		t.Errorf("answered %d %s", got.status, got.body)
	}
	fatal(t, <-r.ended)
	if _, err := r.try(post("/batches", `{"n":2}`)); err == nil {
		t.Error("a daemon that has ended still answers")
	}
	r.wantRows("1 NULL")
}
