package serve

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tallyman/schema/batch"
	"tallyman/source"
)

// Every refusal says what is wrong, and nothing of the request is taken.
func TestRefusals(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(s *setup) { s.MaxBody, s.MaxRows, s.source = 4<<20, 1000, func(c *source.Config) { c.MaxRows = 2 } })
	id := batch.NewID().String()
	large := strings.Repeat(`{"n":1,"note":"`+strings.Repeat("x", 8<<10)+`"}`+"\n", 200)
	for name, c := range map[string]struct {
		ask  ask
		kind kind
		says string // in the detail
	}{
		"id is none":          {post("/batches", `{"n":1}`, "Idempotency-Key", "monday"), badID, "monday"},
		"id without a time":   {post("/batches", `{"n":1}`, "Idempotency-Key", uuid.NewString()), badID, "Tallyman-Batch-Time"},
		"time of no time":     {post("/batches", `{"n":1}`, "Idempotency-Key", uuid.NewString(), "Tallyman-Batch-Time", "monday"), badID, "monday"},
		"time out of range":   {post("/batches", `{"n":1}`, "Idempotency-Key", uuid.NewString(), "Tallyman-Batch-Time", "0001-01-01T00:00:00Z"), badID, "1582"},
		"time of another id":  {post("/batches", `{"n":1}`, "Idempotency-Key", id, "Tallyman-Batch-Time", "2026-01-01T00:00:00Z"), badID, "not the time in the id"},
		"time without an id":  {post("/batches", `{"n":1}`, "Tallyman-Batch-Time", "2026-01-01T00:00:00Z"), badID, "no Idempotency-Key"},
		"time for rows":       {post("/rows", `{"n":1}`, "Tallyman-Batch-Time", "2026-01-01T00:00:00Z"), badID, "/batches"},
		"nil id":              {post("/batches", `{"n":1}`, "Idempotency-Key", uuid.Nil.String()), badID, "nil"},
		"two ids":             {ask{"POST", orders + "/batches", http.Header{"Content-Type": {batch.NDJSON}, "Idempotency-Key": {id, id}}, strings.NewReader(`{"n":1}`)}, badID, "2 ids"},
		"id for rows":         {post("/rows", `{"n":1}`, "Idempotency-Key", id), badID, "/batches"},
		"no gzip":             {post("/batches", `{"n":1,"note":"some text"}`, "Content-Encoding", "gzip"), badBody, "gzip"},
		"no zstd":             {post("/rows", `{"n":1}`, "Content-Encoding", "zstd"), badBody, ""},
		"half a gzip":         {post("/rows", squeeze(t, "gzip", `{"n":1}`)[:20], "Content-Encoding", "gzip"), badBody, "EOF"},
		"empty gzip":          {post("/rows", "", "Content-Encoding", "gzip"), badBody, "EOF"},
		"brotli":              {post("/rows", `{"n":1}`, "Content-Encoding", "br"), badEncoding, "gzip"},
		"two encodings":       {post("/rows", `{"n":1}`, "Content-Encoding", "gzip, gzip"), badEncoding, "gzip"},
		"json":                {post("/rows", `{"n":1}`, "Content-Type", "application/json"), badMediaType, "application/json"},
		"no content type":     {post("/rows", `{"n":1}`, "Content-Type", ""), badMediaType, "0 content types"},
		"nonsense as type":    {post("/rows", `{"n":1}`, "Content-Type", ";;"), badMediaType, ";;"},
		"latin":               {post("/rows", "n\n1", "Content-Type", "text/csv; charset=latin1"), badMediaType, "latin1"},
		"CSV without header":  {post("/rows", "1", "Content-Type", "text/csv; header=absent"), badMediaType, "header"},
		"native to the rows":  {post("/rows", "x", "Content-Type", batch.Native), badMediaType, "/batches"},
		"native that is none": {post("/batches", "x", "Content-Type", batch.Native), badRows, "row 1"},
		"no rows":             {post("/batches", ""), badRows, "no rows"},
		"only a header":       {post("/batches", "n\n", "Content-Type", "text/csv"), badRows, "no rows"},
		"a blank line":        {post("/batches", "\n"), badRows, "blank"},
		"other column":        {post("/batches", `{"n":1,"m":2}`), badRows, `"m"`},
		"header":              {post("/batches", "n,m\n1,2", "Content-Type", "text/csv"), badRows, `"m"`},
		"other manifest":      {post("/batches", `{"n":1}`, "Tallyman-Manifest", "abc"), otherManifest, "abc"},
		"other dataset":       {ask{"POST", "/v1/datasets/shop/none/rows", http.Header{}, nil}, noDataset, "shop/none"},
		"no such dataset":     {ask{"GET", "/v1/datasets/a/b", http.Header{}, nil}, noDataset, "a/b"},
		"other path":          {ask{"GET", "/v2", http.Header{}, nil}, notFound, "openapi"},
		"other method":        {ask{"PUT", orders + "/rows", http.Header{}, nil}, methodNotAllowed, "POST"},
		"another site":        {post("/rows", `{"n":1}`, "Sec-Fetch-Site", "cross-site"), crossOrigin, "cross-origin"},
		"another origin":      {post("/rows", `{"n":1}`, "Origin", "https://example.com"), crossOrigin, "cross-origin"},
		"many rows":           {post("/rows", strings.Repeat("{\"n\":1}\n", 1001)), tooLarge, "1000"},
		"large batch":         {post("/batches", large), tooLarge, "bytes"},
		"large body":          {post("/rows", strings.Repeat(large, 3)), tooLarge, "bytes"},
		"bomb of gzip":        {post("/rows", squeeze(t, "gzip", strings.Repeat(large, 3)), "Content-Encoding", "gzip"), tooLarge, "bytes"},
		"bomb of zstd":        {post("/rows", squeeze(t, "zstd", strings.Repeat(large, 3)), "Content-Encoding", "zstd"), tooLarge, "bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			r := *r
			r.t = t
			got := r.do(c.ask)
			if p := r.refused(got, c.kind); !strings.Contains(p.Detail, c.says) {
				t.Errorf("the detail doesn't say %q: %s", c.says, p.Detail)
			}
			if got.header.Get("X-Content-Type-Options") != "nosniff" || got.header.Get("Cache-Control") != "no-store" {
				t.Errorf("headers %v", got.header)
			}
		})
	}
	if got := r.rows(); got != nil {
		t.Errorf("of refused requests %q were taken", got)
	}
}

// A row that can't be loaded is named, and so is the column.
func TestBadRowIsNamed(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for _, path := range []string{"/batches", "/rows"} {
		many := strings.Repeat(`{"n":1,"note":"of some length, so that the text is decoded in pieces"}`+"\n", 3000)
		p := r.refused(r.do(post(path, many+`{"n":"two"}`+"\n")), badRows)
		if p.Line != 3001 || p.Column != "n" || !strings.Contains(p.Detail, `line 3001, column "n"`) {
			t.Errorf("%+v", p)
		}
		p = r.refused(r.do(post(path, "n,note\n1,\"two\nlines\"\n,x\n", "Content-Type", "text/csv")), badRows)
		if p.Line != 4 || p.Column != "n" {
			t.Errorf("%+v", p)
		}
	}
	if got := r.rows(); got != nil {
		t.Errorf("of refused requests %q were taken", got)
	}
}

// A full disk refuses, says when to come again, and loses nothing.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(s *setup) { s.source = func(c *source.Config) { c.ReserveBytes = 1 << 60 } })
	for _, path := range []string{"/batches", "/rows"} {
		got := r.do(post(path, `{"n":1}`))
		r.refused(got, diskFull)
		if got.header.Get("Retry-After") != "30" {
			t.Errorf("headers %v", got.header)
		}
	}
}

func TestClosedSource(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	fatal(t, r.source.Close())
	for _, path := range []string{"/batches", "/rows"} {
		got := r.do(post(path, `{"n":1}`))
		r.refused(got, closing)
		if got.header.Get("Retry-After") == "" {
			t.Errorf("headers %v", got.header)
		}
	}
}

// A client that asks too often is told when to come again; another is served.
func TestRateOfAClient(t *testing.T) {
	t.Parallel()
	tokens := tokenFile(t, "one aaaaaaaaaaaaaaaa\ntwo bbbbbbbbbbbbbbbb\n")
	r := newRig(t, func(s *setup) { s.Rate, s.TokenFile = 1, tokens })
	accepted[acceptedRows](r, post("/rows", `{"n":1}`, "Authorization", "Bearer aaaaaaaaaaaaaaaa"))
	got := r.do(post("/rows", `{"n":2}`, "Authorization", "Bearer aaaaaaaaaaaaaaaa"))
	if p := r.refused(got, tooManyRequests); p.Limit != 1 || got.header.Get("Retry-After") != "1" {
		t.Errorf("%+v, %v", p, got.header)
	}
	accepted[acceptedRows](r, post("/rows", `{"n":3}`, "Authorization", "Bearer bbbbbbbbbbbbbbbb"))
	// Guesses at a token are counted by address.
	r.refused(r.do(post("/rows", `{"n":4}`)), unauthenticated)
	r.refused(r.do(post("/rows", `{"n":4}`)), tooManyRequests)
	r.wantRows("1 NULL", "3 NULL")
}

// hold makes a request whose body does not end until the returned func is called.
func (r *rig) hold(size int) (end func() answer) {
	r.t.Helper()
	body, more := io.Pipe()
	answers := make(chan answer, 1)
	go func() {
		got, err := r.try(ask{http.MethodPost, orders + "/rows", http.Header{"Content-Type": {batch.NDJSON}}, body})
		if err != nil {
			r.t.Error(err)
		}
		answers <- got
	}()
	_, err := more.Write([]byte(`{"n":7}` + strings.Repeat(" ", size)))
	fatal(r.t, err)
	return func() answer {
		_ = more.Close()
		return <-answers
	}
}

func TestRequestsAtTheSameTime(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(s *setup) { s.MaxRequests = 1 })
	end := r.hold(0)
	r.await(func() bool { return testutil.ToFloat64(r.daemon.metrics.active) == 1 })
	got := r.do(post("/rows", `{"n":1}`))
	if p := r.refused(got, busy); p.Limit != 1 || got.header.Get("Retry-After") != "1" {
		t.Errorf("%+v, %v", p, got.header)
	}
	if got := end(); got.status != http.StatusAccepted {
		t.Errorf("answered %d %s", got.status, got.body)
	}
	r.wantRows("7 NULL")
}

// Bodies that would need more memory than all may hold are refused, and the
// memory is given back.
func TestMemoryOfAllRequests(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(s *setup) { s.MaxBody, s.Memory = 1<<20, 5<<20 })
	var ends []func() answer
	for range 4 {
		ends = append(ends, r.hold(1<<20-100))
	}
	refused := 0
	r.await(func() bool {
		got := r.do(post("/rows", `{"n":1}`+strings.Repeat(" ", 1<<20-100)))
		if got.status != http.StatusAccepted {
			r.refused(got, busy)
			refused++
		}
		return refused > 0
	})
	for _, end := range ends {
		end()
	}
	r.await(func() bool { return r.daemon.memory.TryAcquire(5 << 20) })
	r.daemon.memory.Release(5 << 20)
}

// A body that comes too slowly is cut off.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(s *setup) { s.ReadTimeout = 200 * time.Millisecond })
	end := r.hold(0)
	r.await(func() bool { return testutil.CollectAndCount(r.daemon.metrics.requests) == 1 })
	got := end()
	r.refused(got, slowRequest)
	if got := r.rows(); got != nil {
		t.Errorf("of a request that was cut off %q were taken", got)
	}
}
