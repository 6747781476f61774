package loader

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tallyman/schema/batch"
	"tallyman/sink"
)

const (
	redriveAtOnce = 100         // batches that one look at quarantine takes
	redriveAgain  = time.Minute // after one that is still refused, and after a failure
)

// upkeep loads what waits in quarantine for a manifest that was applied since.
//
// It is done here and not by who applies the manifest: a loader that has not
// heard of it yet may still quarantine its batches after that, and an apply
// may be interrupted. Any number of members may do it at once, at any time,
// since each batch is claimed by its id like every other.
type upkeep struct {
	redriver sink.Redriver
	revision sink.Revision
	judge    sink.Judge
	refused  map[sink.KeptKey]time.Time // what still had no manifest when it was tried
	redriven *prometheus.CounterVec
}

// newUpkeep makes the upkeep and its metric.
func (l *Loader) newUpkeep() (*upkeep, error) {
	u := &upkeep{
		redriver: l.config.Redriver, revision: l.config.Revision, judge: l.handler.Judge,
		refused: map[sink.KeptKey]time.Time{},
		redriven: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tallyman_loader_redriven_total",
			Help: "Batches tried again that waited in quarantine for a manifest, by outcome: loaded, duplicate or refused.",
		}, []string{"outcome"}),
	}
	return u, l.config.Registerer.Register(u.redriven)
}

// keepUp does the upkeep until ctx ends.
func (l *Loader) keepUp(ctx context.Context, u *upkeep) {
	if u.redriver == nil {
		return
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		switch n, err := u.round(ctx); {
		case ctx.Err() != nil:
			return
		case err != nil:
			l.config.Logger.Warn("can't load what waited in quarantine for a manifest; trying again", "cause", err, "pause", redriveAgain)
			timer.Reset(redriveAgain)
		case n > 0:
			l.config.Logger.Info("tried batches again that waited in quarantine for a manifest", "batches", n)
			timer.Reset(0)
		default:
			timer.Reset(lookEvery)
		}
	}
}

// round tries what there is to try and returns how many that was.
func (u *upkeep) round(ctx context.Context) (tried int, err error) {
	keys, err := u.redriver.Redrivable(ctx, u.revision, redriveAtOnce+len(u.refused))
	if err != nil {
		return 0, err
	}
	for _, key := range keys {
		if time.Since(u.refused[key]) < redriveAgain {
			continue
		}
		delete(u.refused, key)
		res, err := u.redriver.Redrive(ctx, u.revision, key, "", u.judge)
		if closed := (*sink.ClosedError)(nil); errors.As(err, &closed) {
			continue // another member was quicker
		}
		if err != nil {
			return tried, err
		}
		tried++
		outcome := "loaded"
		switch {
		case res.Refusal != nil:
			outcome = "refused"
			if res.Refusal.Reason == batch.NoManifest {
				u.refused[key] = time.Now()
			}
		case res.Outcome == sink.Duplicate:
			outcome = "duplicate"
		}
		u.redriven.WithLabelValues(outcome).Inc()
	}
	return tried, nil
}
