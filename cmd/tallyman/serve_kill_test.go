package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"tallyman/schema/batch"
)

const (
	killClients = 64
	kills       = 8
)

// barrage is what clients have posted, and what they were answered.
type barrage struct {
	t      *testing.T
	url    string
	client *http.Client
	next   atomic.Int64 // the n of the next row
	ending atomic.Bool

	mu      sync.Mutex
	batches map[string][]int64 // by id; the rows of batches, which go on until they are accepted
	sure    []int64            // rows without an id that were accepted
	unsure  []int64            // and those whose outcome is not known
	posts   int                // requests that were made
	drops   int                // answers that did not come, or were not looked at
}

// post makes one request that may end at any moment. It reports whether 202 came back.
func (b *barrage) post(random *rand.Rand, path, body, id string) bool {
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Duration(1+random.IntN(200))*time.Millisecond)
	if random.IntN(2) == 0 {
		cancel()
		ctx, cancel = context.WithTimeout(b.t.Context(), stall)
	}
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, b.url+"/v1/datasets/web/visits/"+path, strings.NewReader(body))
	if err != nil {
		b.t.Error(err)
		return false
	}
	r.Header.Set("Content-Type", "application/x-ndjson")
	if id != "" {
		r.Header.Set("Idempotency-Key", id)
	}
	status, text := 0, []byte(nil)
	response, err := b.client.Do(r)
	if err == nil {
		status = response.StatusCode
		text, err = io.ReadAll(response.Body)
		_ = response.Body.Close()
	}
	dropped := err != nil || id != "" && random.IntN(5) == 0
	b.mu.Lock()
	defer b.mu.Unlock()
	b.posts++
	if dropped {
		b.drops++
		return false
	}
	if status != http.StatusAccepted && status != http.StatusServiceUnavailable && status != http.StatusTooManyRequests {
		b.t.Errorf("answered %d %s", status, text)
	}
	return status == http.StatusAccepted
}

// rows makes up to n new rows.
func (b *barrage) rows(n int) (body string, numbers []int64) {
	var text strings.Builder
	for range n {
		number := b.next.Add(1)
		numbers = append(numbers, number)
		fmt.Fprintf(&text, `{"n":%d,"page":"/%d"}`+"\n", number, number)
	}
	return text.String(), numbers
}

// run posts batches, each until it is accepted, and now and then rows, once.
func (b *barrage) run(random *rand.Rand) {
	for !b.ending.Load() {
		body, numbers := b.rows(1 + random.IntN(20))
		if random.IntN(4) == 0 {
			known := b.post(random, "rows", body, "")
			b.mu.Lock()
			if known {
				b.sure = append(b.sure, numbers...)
			} else {
				b.unsure = append(b.unsure, numbers...)
			}
			b.mu.Unlock()
			continue
		}
		id := batch.NewID().String()
		b.mu.Lock()
		b.batches[id] = numbers
		b.mu.Unlock()
		for !b.post(random, "batches", body, id) {
			if b.t.Context().Err() != nil {
				return
			}
			rest := time.NewTimer(time.Duration(random.IntN(20)) * time.Millisecond) // a client's pause before it tries again
			<-rest.C
		}
	}
}

// The daemon is killed again and again under 64 clients that give up, lose
// answers and try again. Every batch is loaded once and whole, every row that
// was accepted without an id once, and one whose outcome is unknown once at most.
func TestServeKilled(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("random choices are from seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	s := newSite(t, "18")
	manifest := file(t, "visits.yaml", visits)
	succeed(t, s.env, "init")
	succeed(t, s.env, "dataset", "apply", manifest, "--partitions", "2")
	ctx, stop := context.WithCancel(t.Context())
	loaded := make(chan int, 1)
	var log bytes.Buffer
	go func() {
		p := program{stdin: strings.NewReader(""), stdout: io.Discard, stderr: &log, env: s.env}
		loaded <- p.run(ctx, []string{"load", "web/visits"})
	}()
	defer func() {
		stop()
		if status := <-loaded; status != exitDone {
			t.Errorf("the load ended with %d\n%s", status, &log)
		}
	}()

	env := append(s.env, "TALLYMAN_SERVE_MANIFESTS="+manifest, "TALLYMAN_SERVE_RATE=100000")
	d := startServe(t, env)
	b := &barrage{t: t, url: d.url, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: killClients}}, batches: map[string][]int64{}}
	var group sync.WaitGroup
	for i := range killClients {
		group.Go(func() { b.run(rand.New(rand.NewPCG(seed, uint64(i+1)))) })
	}
	for range kills {
		life := time.NewTimer(time.Duration(200+random.IntN(600)) * time.Millisecond)
		<-life.C
		d.kill()
		d = startServe(t, env, "--serve-listen", strings.TrimPrefix(b.url, "http://"))
	}
	b.ending.Store(true)
	group.Wait()
	b.client.CloseIdleConnections()
	d.drain()
	// What the journal still has is published by the next opening.
	startServe(t, env).drain()
	t.Logf("%d batches, %d rows without an id, %d with an unknown outcome, in %d posts of which %d were dropped", len(b.batches), len(b.sure), len(b.unsure), b.posts, b.drops)
	b.compare(s.dsn)
}

// compare reads the table by plain SQL until it has everything that was
// accepted, and compares it with what was posted.
func (b *barrage) compare(dsn string) {
	t := b.t
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if len(b.batches) == 0 || len(b.sure) == 0 || b.drops == 0 {
		t.Error("nothing was posted, or nothing was dropped")
	}
	known := int64(len(b.sure))
	for _, numbers := range b.batches {
		known += int64(len(numbers))
	}
	await(t, func() bool {
		var n int64
		err := conn.QueryRow(t.Context(), "SELECT count(*) FROM public.visits WHERE NOT n = ANY($1)", b.unsure).Scan(&n)
		return err == nil && n >= known
	})
	found := map[string][]int64{}
	times := map[int64]int{}
	rows, err := conn.Query(t.Context(), "SELECT _batch_id, n, page FROM public.visits ORDER BY _batch_id, n")
	if err != nil {
		t.Fatal(err)
	}
	var id uuid.UUID
	var n int64
	var page string
	_, err = pgx.ForEachRow(rows, []any{&id, &n, &page}, func() error {
		if page != fmt.Sprint("/", n) {
			return fmt.Errorf("row %d has the page %q", n, page)
		}
		times[n]++
		if _, ours := b.batches[id.String()]; ours {
			found[id.String()] = append(found[id.String()], n)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(b.batches, found); diff != "" {
		t.Errorf("batches (-posted +loaded):\n%s", diff)
	}
	for _, n := range b.sure {
		if times[n] != 1 {
			t.Errorf("row %d, which was accepted, is there %d times", n, times[n])
		}
		delete(times, n)
	}
	for _, n := range b.unsure {
		if times[n] > 1 {
			t.Errorf("row %d, whose outcome was not known, is there %d times", n, times[n])
		}
		delete(times, n)
	}
	for _, numbers := range b.batches {
		for _, n := range numbers {
			if times[n] != 1 {
				t.Errorf("row %d of a batch is there %d times", n, times[n])
			}
			delete(times, n)
		}
	}
	if len(times) > 0 {
		t.Errorf("rows are there that nobody posted: %v", times)
	}
}

// await looks until something is so.
func await(t *testing.T, so func() bool) {
	t.Helper()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	late := time.After(2 * stall)
	for !so() {
		select {
		case <-look.C:
		case <-late:
			t.Fatal("what is waited for does not come")
		}
	}
}
