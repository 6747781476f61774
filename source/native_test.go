package source

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"tallyman/schema/batch"
	"tallyman/schema/rows"
)

// tuples encodes rows as native tuples.
func tuples(t *testing.T, s *Source, id uuid.UUID, all [][]any) []byte {
	t.Helper()
	var e encoded
	noError(t, s.encode(&e, id, all))
	return e.value
}

// Calls that share a batch are told the same batch, and each its own rows; the
// tuples get that batch's id.
func TestNativeRowsShareABatch(t *testing.T) {
	t.Parallel()
	r := newRig(t).topic(nil)
	s := r.open(func(c *Config) { c.Linger = time.Hour })
	s.company = 2
	told := make(chan []Accepted, 2)
	for n := range 2 {
		go func() {
			got, err := s.AppendNative(r.context(), tuples(t, s, uuid.Nil, orders(n+1, "")))
			noError(t, err)
			told <- got
		}()
	}
	a, b := <-told, <-told
	if len(a) != 1 || len(b) != 1 || a[0].Rows+b[0].Rows != 3 || a[0].Sequence != 1 {
		t.Fatalf("told %+v and %+v", a, b)
	}
	b[0].Rows = a[0].Rows
	if diff := cmp.Diff(a, b); diff != "" {
		t.Errorf("two calls of one batch were told different ones:\n%s", diff)
	}
	r.flush(s)
	for _, got := range r.read() {
		noError(t, s.codec.Walk(got.Value, 3, a[0].ID))
	}
}

// A batch that comes again is answered as the first time, after a restart too.
func TestNativeBatchIsAnsweredAsTheFirstTime(t *testing.T) {
	t.Parallel()
	r := newRig(t).topic(nil)
	s := r.open(nil)
	id := batch.NewID()
	at, err := batch.TimeOf(id)
	noError(t, err)
	first, err := s.AppendBatchNative(t.Context(), id, at, tuples(t, s, id, orders(3, "")))
	noError(t, err)
	noError(t, s.Close())
	s = r.open(nil)
	again, err := s.AppendBatchNative(t.Context(), id, at, tuples(t, s, id, orders(3, "")))
	noError(t, err)
	if diff := cmp.Diff(first, again); diff != "" || first.Rows != 3 || first.ID != id || first.Sequence != 1 {
		t.Errorf("answered %+v, then (-first +again)\n%s", first, diff)
	}
	if _, err := s.AppendBatchNative(t.Context(), id, at, tuples(t, s, id, orders(2, ""))); !errors.Is(err, ErrIDConflict) {
		t.Errorf("other rows under the id are answered %v", err)
	}
}

// Tuples that don't walk, or name another batch, are refused with their row.
func TestNativeRowsAreWalked(t *testing.T) {
	t.Parallel()
	r := newRig(t).topic(nil)
	s := r.open(nil)
	id := batch.NewID()
	at, err := batch.TimeOf(id)
	noError(t, err)
	good := tuples(t, s, id, orders(2, ""))
	for name, value := range map[string][]byte{
		"cut short": good[:len(good)-1], "one byte": good[:1], "another's id": tuples(t, s, uuid.Nil, orders(2, "")), "no rows": nil,
	} {
		if _, err := s.AppendBatchNative(t.Context(), id, at, value); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	var bad *rows.Error
	if _, err := s.AppendNative(t.Context(), good); !errors.As(err, &bad) || bad.Row != 1 || bad.Column != "_batch_id" {
		t.Errorf("tuples with an id that was not asked for are answered %v", err)
	}
	r.flush(s)
	r.wantTopic()
}
