package batch_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"tallyman/schema"
	"tallyman/schema/batch"
)

func aReceipt() *batch.Receipt {
	return &batch.Receipt{
		Target: "default", Dataset: schema.Dataset{Namespace: "ads", Name: "conversions"}, Source: "attribution-1",
		Incarnation: uuid.MustParse("5d0a1c52-7e0b-4c35-9a43-3f4c1b1f6b0e"), Through: 40, Considered: 50, Announced: 60,
		Missing: []batch.Range{{First: 42, Last: 43}, {First: 50, Last: 50}}, At: time.Date(2024, 11, 3, 6, 40, 45, 250000, time.UTC),
	}
}

const receiptValue = `{"target":"default","dataset":"ads/conversions","source":"attribution-1","incarnation":"5d0a1c52-7e0b-4c35-9a43-3f4c1b1f6b0e",` +
	`"through":40,"considered":50,"announced":60,"missing":[{"first":42,"last":43},{"first":50,"last":50}],"closed":false,"at":"2024-11-03T06:40:45.00025Z"}`

// The format is frozen.
func TestReceipt(t *testing.T) {
	t.Parallel()
	r := aReceipt()
	value, err := r.Value()
	if err != nil || string(value) != receiptValue {
		t.Fatalf("%s, %v\nwant %s", value, err, receiptValue)
	}
	if key := string(r.Key()); key != "default/ads/conversions/5d0a1c52-7e0b-4c35-9a43-3f4c1b1f6b0e" {
		t.Errorf("key %s", key)
	}
	if kind := batch.KindOf(r.Headers()); kind != batch.IsReceipt {
		t.Errorf("of kind %d", kind)
	}
	again, err := batch.ParseReceipt([]byte(strings.Replace(receiptValue, "{", `{"later":[1],`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, again); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
	for n, want := range map[uint64]bool{1: true, 40: true, 41: true, 42: false, 43: false, 44: true, 49: true, 50: false, 51: false, 60: false} {
		if got := r.Covers(n); got != want {
			t.Errorf("covers %d: %v", n, got)
		}
	}
}

func TestReceiptContradicts(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*batch.Receipt){
		"no target":            func(r *batch.Receipt) { r.Target = "" },
		"no source":            func(r *batch.Receipt) { r.Source = "" },
		"no incarnation":       func(r *batch.Receipt) { r.Incarnation = uuid.Nil },
		"through > considered": func(r *batch.Receipt) { r.Through, r.Missing = 51, nil },
		"considered>announced": func(r *batch.Receipt) { r.Considered = 61 },
		"hole below through":   func(r *batch.Receipt) { r.Missing[0].First = 40 },
		"hole upside down":     func(r *batch.Receipt) { r.Missing[0].First = 44 },
		"holes overlap":        func(r *batch.Receipt) { r.Missing[1].First = 43 },
		"hole not considered":  func(r *batch.Receipt) { r.Missing[1].Last = 51 },
		"no time":              func(r *batch.Receipt) { r.At = r.At.AddDate(9000, 0, 0) },
		"too many": func(r *batch.Receipt) {
			r.Considered, r.Announced = 1e6, 1e6
			for n := uint64(100); len(r.Missing) <= batch.MaxReceiptRanges; n += 2 {
				r.Missing = append(r.Missing, batch.Range{First: n, Last: n})
			}
		},
	} {
		r := aReceipt()
		change(r)
		if _, err := r.Value(); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// Whatever the value says: no panic, and what is read is written and read as
// the same.
func FuzzParseReceipt(f *testing.F) {
	f.Add([]byte(receiptValue))
	f.Add([]byte(`{"through":18446744073709551615}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		r, err := batch.ParseReceipt(value)
		if err != nil {
			return
		}
		written, err := r.Value()
		if err != nil {
			t.Fatalf("%+v is read but not written: %v", r, err)
		}
		again, err := batch.ParseReceipt(written)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, again, cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
	})
}
