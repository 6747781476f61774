package batch_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"

	"tallyman/schema"
	"tallyman/schema/batch"
)

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b := batches().Draw(t, "batch")
		got, err := batch.Parse(b.Key(), b.Value, b.Headers())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(b, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

// batches generates sealed batches of every shape.
func batches() *rapid.Generator[*batch.Batch] {
	part := rapid.StringMatching(`[a-z0-9][a-z0-9_-]{0,10}`)
	return rapid.Custom(func(t *rapid.T) *batch.Batch {
		d := schema.Dataset{Namespace: part.Draw(t, "namespace"), Name: part.Draw(t, "name")}
		b := &batch.Batch{
			ID:          uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id")),
			Source:      rapid.StringMatching(`[ -~é]{1,40}`).Draw(t, "source"),
			Dataset:     d,
			ContentType: rapid.SampledFrom([]string{batch.Native, batch.NDJSON}).Draw(t, "type"),
			Rows:        rapid.IntRange(1, batch.MaxRows).Draw(t, "rows"),
			Value:       rapid.SliceOfN(rapid.Byte(), 1, 100).Draw(t, "value"),
		}
		b.ID[6] = b.ID[6]&0x0f | rapid.SampledFrom([]byte{1 << 4, 4 << 4, 6 << 4, 7 << 4, 8 << 4}).Draw(t, "version")
		b.ID[8] = b.ID[8]&0x3f | 0x80
		var err error
		if b.ID.Version() == 4 {
			b.Time, err = batch.TimeWith(b.ID, time.UnixMicro(rapid.Int64Range(-12219292800_000000, 253402300799_999999).Draw(t, "time")))
		} else {
			b.Time, err = batch.TimeOf(b.ID)
		}
		if err != nil {
			t.Fatal(err)
		}
		if rapid.Bool().Draw(t, "stream") {
			b.Incarnation = uuid.New()
			b.Sequence = rapid.Uint64Range(1, 1<<63-1).Draw(t, "sequence")
		}
		if rapid.Bool().Draw(t, "schema") {
			b.Schema = rapid.StringMatching(`[0-9a-f]{64}`).Draw(t, "hash")
		}
		b.Seal()
		return b
	})
}

func TestNewIDIsNow(t *testing.T) {
	t.Parallel()
	before := time.Now().Truncate(time.Millisecond)
	got, err := batch.TimeOf(batch.NewID())
	if err != nil {
		t.Fatal(err)
	}
	if got.Before(before) || got.After(time.Now().Add(time.Second)) {
		t.Errorf("a new id's time is %s, now is %s", got, before)
	}
}
