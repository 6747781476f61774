package loader

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tallyman/schema"
	"tallyman/sink"
)

// ledgerRoom is a warehouse whose ledger and table end, until it is extended.
type ledgerRoom struct {
	memory
	window   sink.Window
	table    time.Time
	extended int
	err      error
}

// Window implements Warehouse.
func (l *ledgerRoom) Window(context.Context) (sink.Window, error) { return l.window, nil }

// ExtendLedger implements sink.Extender.
func (l *ledgerRoom) ExtendLedger(context.Context) (int, error) {
	l.extended++
	if l.err == nil {
		l.window.End = l.window.End.AddDate(2, 0, 0)
	}
	return 24, l.err
}

// TableEnd implements sink.Extender.
func (l *ledgerRoom) TableEnd(context.Context, sink.Revision) (time.Time, error) { return l.table, nil }

func TestRoomIsMadeAndTold(t *testing.T) {
	t.Parallel()
	of := &ledgerRoom{window: sink.Window{Horizon: time.Unix(1_600_000_000, 0), End: time.Unix(1_700_000_000, 0).UTC()}, table: time.Unix(1_800_000_000, 0)}
	var log bytes.Buffer
	l := &Loader{config: Config{Warehouse: of, Extender: of, Logger: slog.New(slog.NewTextHandler(&log, nil)), Registerer: prometheus.NewRegistry(),
		Revision: sink.Revision{Manifest: schema.Manifest{Partition: &schema.Partition{}}}}}
	var err error
	if l.room, err = l.newRoom(); err != nil {
		t.Fatal(err)
	}
	of.err = errors.New("not now")
	for range 2 { // once an hour is enough
		if err := l.look(t.Context()); err != nil || of.extended != 1 {
			t.Errorf("extended %d times, %v", of.extended, err)
		}
	}
	l.room.extended, of.err = time.Time{}, nil
	if err := l.look(t.Context()); err != nil || of.extended != 2 {
		t.Errorf("extended %d times, %v", of.extended, err)
	}
	for gauge, want := range map[prometheus.Gauge]float64{
		l.room.horizon: 1_600_000_000, l.room.table: 1_800_000_000,
		l.room.end: float64(time.Unix(1_700_000_000, 0).UTC().AddDate(2, 0, 0).Unix()),
	} {
		if got := testutil.ToFloat64(gauge); got != want {
			t.Errorf("%s is %v, want %v", gauge.Desc(), got, want)
		}
	}
	if n := strings.Count(log.String(), "ledger's partitions end soon"); n != 1 {
		t.Errorf("complained %d times", n)
	}
	if !l.answers.Load() {
		t.Error("the warehouse is away")
	}
}

func TestRoomOfATableWithoutPartitions(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	l := &Loader{config: Config{Registerer: registry}}
	if _, err := l.newRoom(); err != nil {
		t.Fatal(err)
	}
	if n, err := testutil.GatherAndCount(registry, "tallyman_table_end_timestamp_seconds"); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}
