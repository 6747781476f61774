package loader

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tallyman/sink"
)

// ledgerBooks answers with what it is told to.
type ledgerBooks struct {
	sink.Books
	told  sink.Completeness
	grace time.Duration
	moved int
	err   error
}

// AdvanceFloors implements sink.Books.
func (l *ledgerBooks) AdvanceFloors(context.Context, sink.Revision) (int64, error) {
	l.moved++
	return 1, l.err
}

// Completeness implements sink.Books.
func (l *ledgerBooks) Completeness(_ context.Context, _ sink.Revision, grace time.Duration) (sink.Completeness, error) {
	l.grace = grace
	return l.told, l.err
}

func TestBooksTellHowCompleteTheDatasetIs(t *testing.T) {
	t.Parallel()
	of := &ledgerBooks{}
	l := &Loader{config: Config{Books: of, MissingGrace: time.Minute, Registerer: prometheus.NewRegistry()}}
	b, err := l.newBooks()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_700_000_100, 0)
	b.now = func() time.Time { return now }
	for _, tt := range []struct {
		told                     sink.Completeness
		through, missing, oldest float64
	}{
		{sink.Completeness{}, 0, 0, 0},
		{sink.Completeness{Read: true, Through: time.Unix(1_700_000_000, 5e8), Open: 2, Announced: 9, Satisfied: 6, Missing: 3, Oldest: now.Add(-90 * time.Second), Refused: 4}, 1_700_000_000.5, 3, 90},
		{sink.Completeness{All: true}, math.Inf(1), 0, 0},
		// One that is built lacks what it has not read yet, which nobody misses.
		{sink.Completeness{Announced: 9, Satisfied: 6, Missing: 3, Oldest: now.Add(-90 * time.Second)}, 0, 0, 0},
	} {
		of.told = tt.told
		if err := b.round(t.Context()); err != nil {
			t.Fatal(err)
		}
		for gauge, want := range map[prometheus.Gauge]float64{
			b.through: tt.through, b.announced: float64(tt.told.Announced), b.satisfied: float64(tt.told.Satisfied), b.missing: tt.missing, b.oldest: tt.oldest, b.open: float64(tt.told.Open), b.refused: float64(tt.told.Refused),
		} {
			if got := testutil.ToFloat64(gauge); got != want {
				t.Errorf("of %+v: %s is %v, want %v", tt.told, gauge.Desc(), got, want)
			}
		}
	}
	if of.moved != 4 || of.grace != time.Minute {
		t.Errorf("floors advanced %d times, grace %v", of.moved, of.grace)
	}
	if of.err = errors.New("away"); !errors.Is(b.round(t.Context()), of.err) {
		t.Error("no error of an outage")
	}
}
