package replay

import (
	"context"
	"time"
)

const (
	// The pauses between announcements grow from Config.Grace up to these.
	longestAgain  = 10 * time.Minute
	heldAgain     = time.Hour // for a stream of which batches are held, whatever receipts say
	announceLimit = 10 * time.Second
	// announceRate bounds how many ends are announced in a second.
	announceRate = 10
)

// announce says again how streams of earlier openings ended, where a target is
// not known to have heard it. An announcement can be lost with its topic, a
// stream can be unknown to a warehouse that was restored from a backup, and the
// receipt of before then is still there to be read: so what could be needed is
// announced now and then in any case, soon at first. A warehouse that took a step
// back of a minute is told within a few, one that went back a day within the hour.
func (r *Replayer) announce(ctx context.Context) {
	for ctx.Err() == nil {
		e := r.unheard(time.Now())
		if e == nil {
			return
		}
		bounded, cancel := context.WithTimeout(ctx, announceLimit)
		err := r.cfg.Publisher.Announce(bounded, *e.end)
		cancel()
		if err != nil && ctx.Err() == nil {
			r.cfg.Logger.Debug("the end of a stream is not announced again yet", "cause", err)
		}
		if err == nil {
			r.metrics.announced.Inc()
		}
		pause(ctx, time.Second/announceRate)
	}
}

// unheard returns a stream whose end is to be announced now; nil: there is none.
func (r *Replayer) unheard(now time.Time) *entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.book.streams {
		if e.end == nil || e.again.After(now) {
			continue
		}
		shown := r.book.shown(e, r.cfg.Retention)
		if shown != e.shown {
			e.shown, e.pause = shown, 0
		}
		fresh, longest := shown && e.pause == 0, longestAgain
		if shown {
			longest = heldAgain
		}
		e.pause = min(max(2*e.pause, r.cfg.Grace), longest)
		e.again = now.Add(e.pause)
		if !shown || !fresh && r.holds(e) {
			return e
		}
	}
	return nil
}

// holds says whether batches of a stream that ended can still be sent.
func (r *Replayer) holds(e *entry) bool {
	gone, err := r.cfg.Journal.Trimmed(e.stream)
	return err == nil && gone.Batches() < e.end.Announcement.Sequence
}
