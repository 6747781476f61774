package commit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"

	"tallyman/schema/batch"
	"tallyman/sink"
)

// attempt is the life of one list of steps, from its first submission until it
// is committed, cut in two, or dropped.
type attempt struct {
	steps   []*step
	backoff *backoff.ExponentialBackOff
	graced  time.Time // when a missing foreign key was first met; zero: never
	suspect bool      // rows among these, perhaps, were refused before
}

// newAttempt starts an attempt. Its pauses grow from 50 ms to 5 s, with
// jitter, so that loaders do not come back from an outage in step.
func newAttempt(steps []*step) *attempt {
	return &attempt{steps: steps, backoff: newBackoff()}
}

func newBackoff() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = 50*time.Millisecond, 5*time.Second
	return b
}

// submit commits the steps, in parts if need be. It returns when all of them
// are committed or dropped, or when ctx ends.
func (l *lane) submit(ctx context.Context, steps []*step) { l.try(ctx, newAttempt(steps)) }

func (l *lane) try(ctx context.Context, a *attempt) {
	for ctx.Err() == nil {
		g, known := l.group(a.steps)
		if len(g.Advances) == 0 {
			return // every session ended
		}
		began := time.Now()
		res, err := l.committer.Commit(ctx, g)
		if err == nil {
			l.committed(g, res, time.Since(began))
			l.passed(known)
			if loadedBefore(res) {
				l.readAgain(true)
			}
			return
		}
		if ctx.Err() != nil {
			return
		}
		if known > 0 && sink.ClassOf(err) == sink.Retryable {
			// What answers next may be an older copy of the warehouse, which knows less.
			l.fenced(g, err)
			return
		}
		if l.failed(ctx, a, g, err) {
			return
		}
	}
}

// failed decides what follows a failed transaction; it returns true when the
// attempt is over because its parts were submitted or dropped.
func (l *lane) failed(ctx context.Context, a *attempt, g *sink.Group, err error) bool {
	class := sink.ClassOf(err)
	l.handler.metrics.errors.WithLabelValues(class.String()).Inc()
	switch class {
	case sink.Fenced:
		l.fenced(g, err)
		return true
	case sink.TooSlow:
		if len(a.steps) > 1 {
			l.halves(ctx, a)
			return true
		}
		l.again(ctx, a, err)
	case sink.BadData:
		switch {
		case len(g.Elements)+len(g.Dead) > 1:
			a.suspect = true
			l.halves(ctx, a)
			return true
		case len(g.Elements) == 1:
			l.refused(ctx, a, g, err)
		default: // there are no rows in it that could be at fault
			l.halt(ctx, a, "quarantine_refused", err)
		}
	case sink.Retryable:
		l.again(ctx, a, err)
	default:
		reason := stopReason(err)
		if reason == string(sink.QuarantineFull) && len(a.steps) > 1 {
			l.halves(ctx, a) // up to the one that does not fit any more
			return true
		}
		l.halt(ctx, a, reason, err)
	}
	return false
}

// halves submits the two halves of the steps, the left one first. Each moves
// the positions to its own end.
func (l *lane) halves(ctx context.Context, a *attempt) {
	middle := len(a.steps) / 2
	for _, steps := range [][]*step{a.steps[:middle], a.steps[middle:]} {
		half := newAttempt(steps)
		half.suspect = a.suspect
		l.try(ctx, half)
	}
}

// group builds the transaction for the steps whose sessions go on. It returns
// too how many known batches it passes.
func (l *lane) group(steps []*step) (*sink.Group, int) {
	g := &sink.Group{Revision: l.handler.config.Revision}
	g.Admit = func(res sink.Result) error { return l.handler.breaker.admit(g, res) }
	newest, known := l.gather(g, steps)
	for number, s := range newest {
		g.Advances[number].Anchor = &sink.Anchor{
			Offset: s.record.Offset, Timestamp: s.record.Timestamp, SHA256: s.record.Fingerprint(),
		}
	}
	return g, known
}

// gather puts the steps whose sessions go on into the group. It returns the
// newest data record of each advance that has one whole, by the advance's index,
// and how many of the steps are known batches.
func (l *lane) gather(g *sink.Group, steps []*step) (newest map[int]*step, known int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	index := map[int32]int{}
	newest = map[int]*step{}
	for _, s := range steps {
		if l.stale(s) {
			continue
		}
		number := s.partition()
		p := l.parts[number]
		if s.record.Next <= p.position.Next {
			continue
		}
		i, ok := index[number]
		if !ok {
			i = len(g.Advances)
			index[number] = i
			g.Advances = append(g.Advances, sink.Advance{
				Partition: p.position.Partition, Era: p.position.Era, From: p.position.Next,
			})
		}
		g.Advances[i].To = s.record.Next
		g.Advances[i].LogStart = s.record.LogStart
		if !s.record.Skip && s.record.Refused == nil && !s.bare {
			newest[i] = s
		}
		switch {
		case s.known:
			known++
		case s.element != nil:
			g.Elements = append(g.Elements, *s.element)
		case s.dead != nil:
			g.Dead = append(g.Dead, *s.dead)
		case s.told != nil:
			g.Announcements = append(g.Announcements, *s.told)
		}
	}
	return newest, known
}

// committed notes a group that is durable.
func (l *lane) committed(g *sink.Group, res sink.Result, took time.Duration) {
	l.note("", nil)
	l.advanced(g.Advances)
	l.handler.breaker.record(tally(g, res))
	l.handler.metrics.committed(g, res, took)
	for _, a := range g.Advances {
		l.handler.config.Committed(a.Partition.Number, a.To)
	}
	for _, r := range res.Refused {
		a := &g.Announcements[r.Index]
		l.handler.refused(r.Why, "source", a.Source, "incarnation", a.Incarnation, "sequence", a.Sequence, "at", a.At)
	}
	for i := range g.Dead {
		l.tell(&g.Dead[i].Message, g.Dead[i].Reason, g.Dead[i].Detail)
	}
	for i, outcome := range res.Outcomes {
		if e := &g.Elements[i]; outcome.Refused() != "" {
			l.tell(&e.Message, outcome.Refused(), refusedElement(outcome, e))
		}
	}
}

// tell logs a message that went to quarantine.
func (l *lane) tell(m *sink.Message, reason batch.Reason, detail string) {
	l.handler.config.Logger.Warn("batch quarantined", "reason", reason, "detail", detail,
		"topic", m.Partition.Topic, "partition", m.Partition.Number, "offset", m.Offset)
}

// fenced drops the group's partitions until their positions were read again.
func (l *lane) fenced(g *sink.Group, err error) {
	numbers := make([]int32, 0, len(g.Advances))
	fenced := map[int32]bool{}
	for _, a := range g.Advances {
		numbers = append(numbers, a.Partition.Number)
		fenced[a.Partition.Number] = true
	}
	l.handler.config.Logger.Info("positions moved elsewhere; reading them again", "partitions", numbers, "cause", err)
	l.drop(func(p int32) bool { return fenced[p] })
	l.handler.config.Reset(numbers)
}

// refused buries the one batch of a group once it alone repeats that the
// warehouse refuses it, unless it may still get what it refers to. A first
// refusal may be a misread outage: it is tried once more before it counts.
func (l *lane) refused(ctx context.Context, a *attempt, g *sink.Group, err error) {
	var e *sink.Error
	errors.As(err, &e)
	if e.Grace {
		now := l.handler.config.Now()
		if a.graced.IsZero() {
			a.graced = now
		}
		if now.Sub(a.graced) < l.handler.config.Grace {
			l.again(ctx, a, err)
			return
		}
	}
	if !a.suspect {
		a.suspect = true
		return
	}
	reason := e.Reason
	if reason == "" {
		reason = batch.Rejected
	}
	one := &g.Elements[0]
	for _, s := range a.steps {
		if s.element != nil && s.record.Partition == one.Partition && s.record.Offset == one.Offset {
			s.bury(reason, err.Error())
		}
	}
}

// again waits before the attempt is submitted once more.
func (l *lane) again(ctx context.Context, a *attempt, err error) {
	pause := a.backoff.NextBackOff()
	l.note("", err)
	l.handler.config.Logger.Warn("the warehouse does not take the group; waiting", "cause", err, "pause", pause)
	l.wait(ctx, a.steps, pause)
}

// halt keeps everything where it is for one probe interval: the load is stopped
// until a person mends the cause, and goes on by itself afterwards.
func (l *lane) halt(ctx context.Context, a *attempt, reason string, err error) {
	l.note(reason, fmt.Errorf("%s is stopped (%s): %w", l.handler.config.Revision.Manifest.Dataset, reason, err))
	l.handler.config.Logger.Error("load stopped; nothing is lost, it goes on when the cause is mended",
		"reason", reason, "cause", err, "next_probe", l.handler.config.Probe)
	l.wait(ctx, a.steps, l.handler.config.Probe)
	for _, s := range a.steps {
		if s.dead != nil { // what refused it, a clock or a constraint, may have been mended too
			l.handler.decoder.decode(s)
			_ = l.look(ctx, s) // it was asked for before; the next probe asks again
		}
	}
}

// note keeps why the group in flight does not commit, for probes and people.
// The reason is that of a stop; empty: it is none.
func (l *lane) note(reason string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trouble = err
	l.stop(reason)
}

// stop has the metric name the reason of a stop until there is none any more,
// also while it is probed. The caller holds mu.
func (l *lane) stop(reason string) {
	if l.stopped == reason {
		return
	}
	gauge := l.handler.metrics.stopped
	if l.stopped != "" {
		gauge.WithLabelValues(l.stopped).Dec()
	}
	if reason != "" {
		gauge.WithLabelValues(reason).Inc()
	}
	l.stopped = reason
}

// wait sleeps; it ends early with ctx or with the sessions of all the steps.
func (l *lane) wait(ctx context.Context, steps []*step, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		l.mu.Lock()
		changed, live := l.changed, false
		for _, s := range steps {
			live = live || !l.stale(s)
		}
		l.mu.Unlock()
		if !live {
			return
		}
		select {
		case <-timer.C:
			return
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// stopReason returns the short name under which a stop is counted.
func stopReason(err error) string {
	var e *sink.Error
	if errors.As(err, &e) && e.Reason != "" {
		return string(e.Reason)
	}
	return "unlisted_error"
}
