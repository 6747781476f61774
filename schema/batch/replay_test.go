package batch_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"tallyman/schema"
	"tallyman/schema/batch"
)

func aReplay() *batch.Replay {
	at := time.Date(2024, 11, 3, 6, 40, 45, 250000, time.UTC)
	return &batch.Replay{
		ID: uuid.MustParse("8f14e45f-ceea-467f-a0e6-1c8a6f3d2b11"), Target: "default",
		Dataset: schema.Dataset{Namespace: "ads", Name: "conversions"}, Source: "attribution-1",
		Incarnation: uuid.MustParse("5d0a1c52-7e0b-4c35-9a43-3f4c1b1f6b0e"),
		Ranges:      []batch.Range{{First: 42, Last: 43}, {First: 50, Last: 50}}, RequestedBy: "jo",
		At: at, Expires: at.Add(24 * time.Hour),
	}
}

const replayValue = `{"id":"8f14e45f-ceea-467f-a0e6-1c8a6f3d2b11","target":"default","dataset":"ads/conversions","source":"attribution-1",` +
	`"incarnation":"5d0a1c52-7e0b-4c35-9a43-3f4c1b1f6b0e","ranges":[{"first":42,"last":43},{"first":50,"last":50}],"requested_by":"jo",` +
	`"at":"2024-11-03T06:40:45.00025Z","expires":"2024-11-04T06:40:45.00025Z"}`

// The format is frozen.
func TestReplay(t *testing.T) {
	t.Parallel()
	r := aReplay()
	value, err := r.Value()
	if err != nil || string(value) != replayValue {
		t.Fatalf("%s, %v\nwant %s", value, err, replayValue)
	}
	if key := string(r.Key()); key != "replay/default/ads/conversions/5d0a1c52-7e0b-4c35-9a43-3f4c1b1f6b0e" {
		t.Errorf("key %s", key)
	}
	if kind := batch.KindOf(r.Headers()); kind != batch.IsReplay {
		t.Errorf("of kind %d", kind)
	}
	again, err := batch.ParseReplay([]byte(strings.Replace(replayValue, "{", `{"later":[1],`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, again); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
}

func TestReplayContradicts(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*batch.Replay){
		"no id":            func(r *batch.Replay) { r.ID = uuid.Nil },
		"no target":        func(r *batch.Replay) { r.Target = "" },
		"no source":        func(r *batch.Replay) { r.Source = "" },
		"no incarnation":   func(r *batch.Replay) { r.Incarnation = uuid.Nil },
		"nothing":          func(r *batch.Replay) { r.Ranges = nil },
		"number 0":         func(r *batch.Replay) { r.Ranges[0].First = 0 },
		"upside down":      func(r *batch.Replay) { r.Ranges[0].First = 44 },
		"overlap":          func(r *batch.Replay) { r.Ranges[1].First = 43 },
		"beyond numbers":   func(r *batch.Replay) { r.Ranges[1].Last = math.MaxInt64 + 1 },
		"expired":          func(r *batch.Replay) { r.Expires = r.At },
		"no time":          func(r *batch.Replay) { r.Expires = r.At.AddDate(9000, 0, 0) },
		"more than a list": func(r *batch.Replay) { r.Ranges = make([]batch.Range, batch.MaxReceiptRanges+1) },
	} {
		r := aReplay()
		change(r)
		if _, err := r.Value(); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// Whatever the value says: no panic, and what is read is written and read as
// the same.
func FuzzParseReplay(f *testing.F) {
	f.Add([]byte(replayValue))
	f.Add([]byte(`{"ranges":[{"first":1,"last":18446744073709551615}]}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		r, err := batch.ParseReplay(value)
		if err != nil {
			return
		}
		written, err := r.Value()
		if err != nil {
			t.Fatalf("%+v is read but not written: %v", r, err)
		}
		again, err := batch.ParseReplay(written)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, again); diff != "" {
			t.Error(diff)
		}
	})
}
