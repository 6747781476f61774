package source

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"tallyman/schema/batch"
	"tallyman/schema/rows"
)

func TestOneIDHasOneContent(t *testing.T) {
	t.Parallel()
	r := newRig(t).topic(nil)
	s := r.open(nil)
	id, all := batch.NewID(), orders(3, "first")
	noError(t, s.AppendBatch(t.Context(), id, all))
	noError(t, s.AppendBatch(t.Context(), id, all))
	wantConflict := func(other [][]any) {
		t.Helper()
		if err := s.AppendBatch(t.Context(), id, other); !errors.Is(err, ErrIDConflict) {
			t.Errorf("the id with other rows: %v, want a conflict", err)
		}
	}
	wantConflict(orders(3, "second"))
	wantConflict(orders(2, "first"))

	r.flush(s)
	noError(t, s.Close())
	s = r.open(nil) // the answers are the same in the next opening
	noError(t, s.AppendBatch(t.Context(), id, all))
	wantConflict(orders(3, "second"))
	r.flush(s)
	r.wantTopic(all)
	if got := r.read()[0].ID; got != id {
		t.Errorf("the batch has id %s, want %s", got, id)
	}
}

// Ids of every version, appended, repeated, and repeated after the next opening.
func TestIDsOfEveryVersion(t *testing.T) {
	t.Parallel()
	r := newRig(t).topic(nil)
	s := r.open(nil)
	now := time.Now().Truncate(time.Microsecond).UTC()
	v1, v4 := uuid.Must(uuid.NewUUID()), uuid.New()
	v8 := batch.FileID(r.manifest.Dataset, "csv", batch.Digest{}, 0, "")
	v6 := uuid.MustParse("1ec9414c-232a-6b00-b3c8-9f6bdeced846")
	timed := []uuid.UUID{v1, v6, batch.NewID(), v8}
	all := orders(1, "")
	for range 2 {
		for _, id := range timed {
			noError(t, s.AppendBatch(t.Context(), id, all))
			at, err := batch.TimeOf(id)
			noError(t, errors.Join(err, s.AppendBatchAt(t.Context(), id, at, all)))
		}
		noError(t, s.AppendBatchAt(t.Context(), v4, now, all))
		noError(t, s.AppendBatchAt(t.Context(), v4, now.Add(time.Microsecond-1), all))
		if err := s.AppendBatchAt(t.Context(), v4, now.Add(time.Microsecond), all); !errors.Is(err, ErrIDConflict) {
			t.Errorf("version 4 at another time: %v, want a conflict", err)
		}
		var refusal *batch.Refusal
		if err := s.AppendBatchAt(t.Context(), v1, now.Add(time.Hour), all); !errors.As(err, &refusal) || refusal.Reason != batch.BadEnvelope {
			t.Errorf("version 1 at another time: %v, want a refusal", err)
		}
		r.flush(s)
		noError(t, s.Close())
		s = r.open(nil)
	}
	at := map[uuid.UUID]time.Time{}
	for _, b := range r.read() {
		at[b.ID] = b.Time
	}
	if len(at) != 5 || len(r.read()) != 5 || !at[v4].Equal(now) || !at[v6].Equal(time.Date(2022, 2, 22, 19, 22, 22, 0, time.UTC)) {
		t.Errorf("published: %v", at)
	}
}

func TestRefusesWhatCanNotBeABatch(t *testing.T) {
	t.Parallel()
	s := newRig(t).topic(nil).open(nil)
	var refusal *batch.Refusal
	if err := s.AppendBatch(t.Context(), uuid.New(), orders(1, "")); !errors.As(err, &refusal) {
		t.Errorf("an id of version 4: %v, want a refusal", err)
	}
	if err := s.AppendBatch(t.Context(), batch.NewID(), nil); err == nil {
		t.Error("a batch without rows is taken")
	}
	noError(t, s.Append(t.Context(), nil))
	ended, end := context.WithCancel(t.Context())
	end()
	for _, err := range []error{s.Append(ended, orders(1, "")), s.AppendBatch(ended, batch.NewID(), orders(1, ""))} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("with a context that ended: %v, want its error", err)
		}
	}
	if waiting, _ := s.publisher.Pending(); waiting != 0 {
		t.Errorf("%d batches wait, want 0", waiting)
	}
}

// rowsOf returns how many rows each batch has, sorted: batches that are cut
// from one call reach the journal in any order.
func rowsOf(all []*batch.Batch) []int {
	var counts []int
	for _, b := range all {
		counts = append(counts, b.Rows)
	}
	slices.Sort(counts)
	return counts
}

func TestCutsAtMaxRows(t *testing.T) {
	t.Parallel()
	r := newRig(t).topic(nil)
	s := r.open(func(c *Config) { c.MaxRows = 10 })
	noError(t, s.Append(t.Context(), orders(25, "")))
	r.flush(s)
	if diff := cmp.Diff([]int{5, 10, 10}, rowsOf(r.read())); diff != "" {
		t.Errorf("rows of the batches (-want +got):\n%s", diff)
	}
}

func TestCutsAtMaxBytes(t *testing.T) {
	t.Parallel()
	r := newRig(t).topic(nil)
	const most = 1000
	s := r.open(func(c *Config) { c.MaxBytes = most })
	// Two rows of 400 bytes fit; one of 2000 is a batch of its own.
	all := append(orders(5, strings.Repeat("x", 400)), order(6, strings.Repeat("x", 2*most)))
	noError(t, s.Append(t.Context(), all))
	r.flush(s)
	got := r.read()
	if diff := cmp.Diff([]int{1, 1, 2, 2}, rowsOf(got)); diff != "" {
		t.Errorf("rows of the batches (-want +got):\n%s", diff)
	}
	for _, b := range got {
		if b.Rows > 1 && len(b.Value) > most {
			t.Errorf("a batch of %d rows has %d bytes, want %d at most", b.Rows, len(b.Value), most)
		}
	}
}

// expectCompany makes the source wait for a second call, as after a batch that
// two calls shared.
func expectCompany(s *Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.company = 2
}

func TestLingerBoundsTheWaitForCompany(t *testing.T) {
	t.Parallel()
	r := newRig(t).topic(nil)
	const linger = 100 * time.Millisecond
	s := r.open(func(c *Config) { c.Linger = linger })
	expectCompany(s)
	began := time.Now()
	noError(t, s.Append(r.context(), orders(1, "")))
	if took := time.Since(began); took < linger {
		t.Errorf("append took %v, want that it waits %v for company", took, linger)
	}
	r.flush(s)
	r.wantTopic(orders(1, ""))
}

func TestCallsShareABatch(t *testing.T) {
	t.Parallel()
	r := newRig(t).topic(nil)
	s := r.open(func(c *Config) { c.Linger = time.Hour })
	expectCompany(s)
	var group errgroup.Group
	for range 2 {
		group.Go(func() error { return s.Append(r.context(), orders(1, "")) })
	}
	noError(t, group.Wait())
	r.flush(s)
	r.wantTopic([][]any{order(0, ""), order(0, "")})
}

func TestFlushAndCloseCutWhatIsOpen(t *testing.T) {
	t.Parallel()
	r := newRig(t).topic(nil)
	s := r.open(func(c *Config) { c.Linger, c.CloseTimeout = time.Hour, limit })
	for n, end := range []func() error{func() error { return s.Flush(r.context()) }, s.Close} {
		expectCompany(s)
		joined, err := placed(s, orders(n+1, ""))
		noError(t, err)
		noError(t, end())
		noError(t, joined[0].batch.wait(r.context()))
	}
	r.wantTopic(orders(1, ""), orders(2, ""))
}

func TestTooLargeForTheTopic(t *testing.T) {
	t.Parallel()
	r := newRig(t).topic(map[string]string{"max.message.bytes": "10000"})
	s := r.open(nil)
	half := strings.Repeat("x", 5000)
	for name, err := range map[string]error{
		"a row":           s.Append(t.Context(), orders(1, half+half)),
		"a row behind":    s.Append(t.Context(), append(orders(3, half), order(4, half+half))),
		"a row, by id":    s.AppendBatch(t.Context(), batch.NewID(), orders(1, half+half)),
		"a batch, by id":  s.AppendBatch(t.Context(), batch.NewID(), orders(2, half)),
		"many small rows": s.AppendBatch(t.Context(), batch.NewID(), orders(1000, "")),
	} {
		if !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s over the topic's limit: %v, want that it is too large", name, err)
		}
	}
	noError(t, s.Append(t.Context(), orders(1, half)))
	r.flush(s)
	r.wantTopic(orders(1, half))
}

func TestCompactedTopicIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t).topic(map[string]string{"cleanup.policy": "compact,delete"})
	if _, err := r.tryOpen(nil); err == nil || !strings.Contains(err.Error(), "cleanup.policy") {
		t.Errorf("open with a compacted topic: %v, want that it names the policy", err)
	}
	noError(t, r.broker.DeleteTopic(r.manifest.Topic))
	r.topic(nil).open(nil) // the refusal left nothing behind
}

func TestMissingTopicIsWaitedFor(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := r.open(nil)
	noError(t, s.Append(t.Context(), orders(3, "")))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("flush without a topic: %v, want that it waits", err)
	}
	r.topic(nil)
	r.flush(s)
	r.wantTopic(orders(3, ""))
}

// What is accepted while the broker is away outlives the source, under the
// same ids and numbers.
func TestOutlivesABrokerThatIsAway(t *testing.T) {
	t.Parallel()
	r := newRig(t).topic(nil)
	var ids []string
	add := func(s *Source, n int) {
		t.Helper()
		for range n {
			id := batch.NewID()
			noError(t, s.AppendBatch(t.Context(), id, orders(2, "")))
			ids = append(ids, id.String())
		}
	}
	bounded := func(what string, f func()) {
		t.Helper()
		began := time.Now()
		f()
		// Each request under way is waited for, and fails at once.
		if took := time.Since(began); took > 2*askTimeout {
			t.Errorf("%s took %v without a broker", what, took)
		}
	}
	s := r.open(nil)
	add(s, 1)
	r.flush(s)
	noError(t, r.broker.Stop())
	add(s, 5)
	bounded("close", func() { noError(t, s.Close()) })
	bounded("open", func() { s = r.open(nil) })
	add(s, 3)
	bounded("close", func() { noError(t, s.Close()) })

	noError(t, r.broker.Start(t.Context()))
	s = r.open(nil)
	add(s, 1)
	r.flush(s)
	var got []string
	streams := map[uuid.UUID]int{}
	for _, b := range r.read() {
		got = append(got, b.ID.String())
		streams[b.Incarnation]++
	}
	slices.Sort(ids)
	slices.Sort(got)
	if diff := cmp.Diff(ids, got); diff != "" {
		t.Errorf("ids in the topic (-want +got):\n%s", diff)
	}
	if len(streams) != 3 {
		t.Errorf("the topic has %d streams, want one for each opening that accepted batches: 3", len(streams))
	}
}

func TestOneSourceHoldsTheDirectory(t *testing.T) {
	t.Parallel()
	r := newRig(t).topic(nil)
	s := r.open(nil)
	if _, err := r.tryOpen(nil); !errors.Is(err, ErrInUse) {
		t.Errorf("a second open: %v, want that the directory is in use", err)
	}
	noError(t, s.Append(t.Context(), orders(1, ""))) // the first is none the worse
	noError(t, s.Close())
	r.open(nil)
}

func TestAppendAfterClose(t *testing.T) {
	t.Parallel()
	s := newRig(t).topic(nil).open(nil)
	noError(t, s.Close())
	noError(t, s.Close())
	for _, err := range []error{s.Append(t.Context(), orders(1, "")), s.AppendBatch(t.Context(), batch.NewID(), orders(1, ""))} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("after close: %v, want that it is closed", err)
		}
	}
}

// A row that can't be encoded refuses its own call whole, and nothing of the
// call that shares the batch.
func TestBadRowRefusesItsCall(t *testing.T) {
	t.Parallel()
	r := newRig(t).topic(nil)
	s := r.open(func(c *Config) { c.Linger = time.Hour })
	expectCompany(s)
	if _, err := placed(s, orders(2, "good")); err != nil {
		t.Fatal(err)
	}
	bad := append(orders(2, "bad"), []any{uuid.UUID{}, "12 euros", nil})
	want := rows.Error{Row: 3, Column: "amount"}
	for _, err := range []error{s.Append(t.Context(), bad), s.AppendBatch(t.Context(), batch.NewID(), bad)} {
		var got *rows.Error
		if !errors.As(err, &got) || got.Row != want.Row || got.Column != want.Column {
			t.Errorf("a text as amount: %v, want row %d, column %s", err, want.Row, want.Column)
		}
	}
	noError(t, s.Append(t.Context(), orders(1, "also good"))) // the company
	noError(t, s.AppendBatch(t.Context(), batch.NewID(), orders(1, "last")))
	r.flush(s)
	r.wantTopic(append(orders(2, "good"), orders(1, "also good")...), orders(1, "last"))
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for name, change := range map[string]func(*Config){
		"no directory":   func(c *Config) { c.Dir = "" },
		"no name":        func(c *Config) { c.Name = "" },
		"no brokers":     func(c *Config) { c.Kafka.Brokers = nil },
		"no columns":     func(c *Config) { c.Manifest.Columns = nil },
		"negative limit": func(c *Config) { c.MaxRows = -1 },
	} {
		if _, err := r.tryOpen(change); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if entries, err := os.ReadDir(r.dir); err != nil || len(entries) != 0 {
		t.Errorf("the directory has %d entries, %v, want none", len(entries), err)
	}
}
