package loader

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tallyman/sink"
)

const (
	lookEvery   = 5 * time.Second     // how often the warehouse is asked how it is
	extendEvery = time.Hour           // how often partitions ahead are made
	soon        = 31 * 24 * time.Hour // before an end a person hears of it
	remind      = time.Hour           // and again
)

// room is what the warehouse has room for: the times that the ledger takes, and
// those for which the dataset's table has partitions. Every member keeps it.
type room struct {
	extended, complained time.Time // when it was last tried; when a person last heard of an end

	horizon, end, table prometheus.Gauge
}

// newRoom makes the metrics of the warehouse's partitions.
func (l *Loader) newRoom() (*room, error) {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	r := &room{
		horizon: gauge("tallyman_ledger_horizon_timestamp_seconds",
			"Unix time before which the ledger has forgotten batches and takes none any more; 0: it has not."),
		end: gauge("tallyman_ledger_end_timestamp_seconds",
			"Unix time at which the ledger's newest partition ends; batches from then on are not taken. Loaders make partitions two years ahead."),
	}
	all := []prometheus.Collector{r.horizon, r.end}
	if l.config.Revision.Manifest.Partition != nil {
		r.table = gauge("tallyman_table_end_timestamp_seconds",
			"Unix time at which the partitions of the dataset's table end; rows from then on go to the one for the rest until tallyman init has run again.")
		all = append(all, r.table)
	}
	for _, c := range all {
		if err := l.config.Registerer.Register(c); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// watch keeps the gauges of the warehouse and of its partitions true, and
// complains a month before an end is reached.
func (l *Loader) watch(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		err := l.look(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			l.config.Logger.Debug("can't look at the warehouse's partitions", "cause", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// look asks the warehouse for its partitions, and has it make those that are due.
// No answer in time is an error too.
func (l *Loader) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookEvery)
	defer cancel()
	w, err := l.config.Warehouse.Window(ctx)
	l.answers.Store(err == nil)
	if err != nil {
		return err
	}
	if e := l.config.Extender; e != nil && time.Since(l.room.extended) > extendEvery {
		l.room.extended = time.Now()
		n, err := e.ExtendLedger(ctx)
		if err != nil {
			l.config.Logger.Warn("can't make the ledger's partitions ahead; trying again", "cause", err, "pause", extendEvery)
		} else if n > 0 {
			l.config.Logger.Info("made partitions of the ledger ahead", "partitions", n)
		}
		if n > 0 {
			if w, err = l.config.Warehouse.Window(ctx); err != nil {
				return err
			}
		}
	}
	return l.tell(ctx, w)
}

// tell sets the gauges, and complains of an end that is near.
func (l *Loader) tell(ctx context.Context, w sink.Window) error {
	r := l.room
	r.end.Set(float64(w.End.Unix()))
	r.horizon.Set(0)
	if !w.Horizon.IsZero() {
		r.horizon.Set(float64(w.Horizon.Unix()))
	}
	ends := map[string]time.Time{"the ledger's partitions end soon: run tallyman init": w.End}
	if r.table != nil && l.config.Extender != nil {
		end, err := l.config.Extender.TableEnd(ctx, l.config.Revision)
		if err != nil {
			return err
		}
		r.table.Set(max(0, float64(end.Unix())))
		ends["the partitions of the dataset's table end soon: run tallyman init"] = end
	}
	if time.Since(r.complained) < remind {
		return nil
	}
	for complaint, end := range ends {
		if time.Until(end) < soon {
			r.complained = time.Now()
			l.config.Logger.Error(complaint, "end", end)
		}
	}
	return nil
}
