package commit

import (
	"context"

	"tallyman/schema/batch"
)

// find looks in the warehouse for the manifest by which a batch is to be read,
// unless it is known. Only an answer makes the batch one without a manifest: an
// outage is waited for, and so is everything else that a person has to mend.
// What is not there now is asked for again by the next batch: it may have been
// applied in between.
func (l *lane) find(ctx context.Context, s *step) {
	pauses := newBackoff()
	for {
		err := l.look(ctx, s)
		l.mu.Lock()
		l.puzzled = err
		stale := l.stale(s)
		l.mu.Unlock()
		if err == nil || stale || ctx.Err() != nil {
			return
		}
		pause := pauses.NextBackOff()
		l.handler.config.Logger.Warn("can't look for a batch's manifest in the warehouse; waiting", "cause", err, "pause", pause)
		l.wait(ctx, []*step{s}, pause)
	}
}

// look asks once for the manifest that a step lacks and, if there is one,
// decodes the step by it.
func (l *lane) look(ctx context.Context, s *step) error {
	source := l.handler.config.Manifests
	if source == nil || s.dead == nil || s.dead.Reason != batch.NoManifest || s.dead.Batch == nil {
		return nil
	}
	hash := s.dead.Batch.Schema
	if l.handler.decoder.encoding(hash) == nil { // the other lane may have found it meanwhile
		m, err := source.Manifest(ctx, l.handler.config.Revision, hash)
		if err != nil || m == nil {
			return err
		}
		if err := l.handler.decoder.add(m); err != nil {
			return err
		}
		l.handler.config.Logger.Info("loading by a further manifest", "manifest", hash)
	}
	l.handler.decoder.decode(s)
	return nil
}
