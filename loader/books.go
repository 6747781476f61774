package loader

import (
	"context"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tallyman/sink"
)

// books keeps what the warehouse knows of streams in order, and tells
// Prometheus how complete the dataset is. Every member does it: it is safe to
// do at once, and no one of them has to be alive.
type books struct {
	of       sink.Books
	revision sink.Revision
	grace    time.Duration
	now      func() time.Time

	through, announced, satisfied, missing, oldest, open, refused prometheus.Gauge
}

// newBooks makes the upkeep of streams and its metrics.
func (l *Loader) newBooks() (*books, error) {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	b := &books{
		of: l.config.Books, revision: l.config.Revision, grace: l.config.MissingGrace, now: time.Now,
		through: gauge("tallyman_complete_through_timestamp_seconds",
			"Unix time, by the sources' clocks, through which every batch announced is loaded or discarded; 0: not known; +Inf: every stream is closed and loaded."),
		announced: gauge("tallyman_announced_batches", "Batches that sources announced, by all streams that are not retired."),
		satisfied: gauge("tallyman_satisfied_batches", "Of the announced batches those that are loaded, discarded, satisfied otherwise or in quarantine."),
		missing:   gauge("tallyman_missing_batches", "Batches that sources announced, longer ago than the grace period, and that are nowhere; 0 for a revision that readers do not see."),
		oldest:    gauge("tallyman_missing_oldest_seconds", "For how long the oldest missing batch is missing; 0: none is."),
		open:      gauge("tallyman_open_streams", "Streams of sources that are not closed."),
		refused:   gauge("tallyman_streams_refused_announcements", "Announcements in the names of known streams that were not taken."),
	}
	for _, c := range []prometheus.Collector{b.through, b.announced, b.satisfied, b.missing, b.oldest, b.open, b.refused} {
		if err := l.config.Registerer.Register(c); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// keepBooks does the upkeep of streams until ctx ends.
func (l *Loader) keepBooks(ctx context.Context, b *books) {
	if b.of == nil {
		return
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if err := b.round(ctx); err != nil && ctx.Err() == nil {
			l.config.Logger.Warn("can't see what is missing; trying again", "cause", err, "pause", lookEvery)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// round advances the floors and tells how complete the dataset is.
func (b *books) round(ctx context.Context) error {
	if _, err := b.of.AdvanceFloors(ctx, b.revision); err != nil {
		return err
	}
	c, err := b.of.Completeness(ctx, b.revision, b.grace)
	if err != nil {
		return err
	}
	switch {
	case c.All:
		b.through.Set(math.Inf(1))
	case c.Through.IsZero():
		b.through.Set(0)
	default:
		b.through.Set(float64(c.Through.UnixMicro()) / 1e6)
	}
	b.announced.Set(float64(c.Announced))
	b.satisfied.Set(float64(c.Satisfied))
	if !c.Read {
		c.Missing, c.Oldest = 0, time.Time{}
	}
	b.missing.Set(float64(c.Missing))
	b.open.Set(float64(c.Open))
	b.refused.Set(float64(c.Refused))
	b.oldest.Set(0)
	if !c.Oldest.IsZero() {
		b.oldest.Set(max(0, b.now().Sub(c.Oldest).Seconds()))
	}
	return nil
}
