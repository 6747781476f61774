package source

import (
	"context"
	"slices"
	"time"

	"tallyman/source/journal"
	"tallyman/source/replay"
)

const (
	// quietAfter is how long nothing is appended before that is announced.
	quietAfter = 250 * time.Millisecond
	// announceLimit is how long an announcement is tried before a newer one takes its place.
	announceLimit = 10 * time.Second
)

// announcer says how far the source has numbered its batches: every few seconds,
// and soon after the last append of a burst. It works beside appends and never
// holds one up.
type announcer struct {
	source   *Source
	appended chan struct{} // holds a token when something was appended
	stop     context.CancelFunc
	ended    chan struct{}
	finals   []journal.Announced // of earlier openings, which Kafka is not known to have
}

// startAnnouncing ends the streams of earlier openings, announces this one's and
// follows the receipts of all.
func (s *Source) startAnnouncing() error {
	ended, err := s.finals(true)
	if err != nil {
		return err
	}
	if err := s.follow(ended); err != nil {
		return err
	}
	finals := slices.DeleteFunc(ended, func(a journal.Announced) bool { return a.Heard })
	ctx, cancel := context.WithCancel(context.Background())
	s.announcer = &announcer{source: s, appended: make(chan struct{}, 1), stop: cancel, ended: make(chan struct{}), finals: finals}
	go s.announcer.run(ctx)
	return nil
}

// follow follows the receipts of this stream and of those that ended.
func (s *Source) follow(ended []journal.Announced) (err error) {
	s.replayer, err = replay.Start(replay.Config{
		Journal: s.journal, Publisher: s.publisher, Conn: s.conn, Source: s.cfg.Name,
		Own:   journal.Stream{Incarnation: s.journal.Incarnation(), Dataset: s.cfg.Manifest.Dataset},
		Ended: slices.Clone(ended), Targets: s.cfg.Targets, Retention: s.cfg.Retention,
		Limits: replay.Limits{Batches: s.cfg.ReplayBatches, Bytes: s.cfg.ReplayBytes},
		Grace:  s.cfg.ReplayGrace, Tries: s.cfg.ReplayTries, Logger: s.cfg.Logger, Registerer: s.cfg.Registerer,
	})
	return err
}

// finals returns the final announcements of earlier openings.
func (s *Source) finals(all bool) ([]journal.Announced, error) {
	finals, err := s.journal.Finals(all)
	for i := range finals {
		if finals[i].Topic == "" {
			finals[i].Topic = s.cfg.Manifest.Topic
		}
	}
	return finals, err
}

// touch notes an append.
func (a *announcer) touch() {
	select {
	case a.appended <- struct{}{}:
	default:
	}
}

// close ends the announcing, an attempt under way too.
func (a *announcer) close() {
	a.stop()
	<-a.ended
}

// run announces until ctx ends.
func (a *announcer) run(ctx context.Context) {
	defer close(a.ended)
	every := a.source.cfg.AnnounceEvery
	next := time.Now()
	for {
		timer := time.NewTimer(time.Until(next))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-a.appended:
			timer.Stop()
			a.quiet(ctx, next)
		case <-timer.C:
		}
		if ctx.Err() != nil {
			return
		}
		if err := a.announce(ctx); err != nil && ctx.Err() == nil {
			a.source.cfg.Logger.Debug("announcement is not published; trying again with the next", "cause", err)
		}
		next = time.Now().Add(every)
	}
}

// quiet waits until nothing was appended for a while, or until the next
// announcement is due anyway.
func (a *announcer) quiet(ctx context.Context, due time.Time) {
	for {
		timer := time.NewTimer(min(quietAfter, time.Until(due)))
		select {
		case <-a.appended:
			timer.Stop()
			continue
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
		return
	}
}

// announce says once how earlier streams ended and how far this one is.
func (a *announcer) announce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, announceLimit)
	defer cancel()
	for len(a.finals) > 0 {
		if err := a.source.publisher.Announce(ctx, a.finals[0]); err != nil {
			return err
		}
		a.finals = a.finals[1:]
	}
	return a.source.announce(ctx, false)
}

func (s *Source) announce(ctx context.Context, final bool) error {
	said, err := s.journal.Announce(s.cfg.Manifest.Topic, s.cfg.Manifest.Dataset, final)
	if err != nil {
		return err
	}
	return s.publisher.Announce(ctx, said)
}
