package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tallyman/cmd/tallyman/internal/settings"
	"tallyman/internal/kafkaconn"
	"tallyman/sink"
	"tallyman/sink/postgres"
	"tallyman/source/journal"
	"tallyman/source/publish"
	"tallyman/source/replay"
)

// replaying is a replay under way.
type replaying struct {
	p        *program
	cfg      settings.Config
	w        *postgres.Warehouse
	task     replayTask
	journals []*opened
}

func (x *replaying) close() {
	for _, j := range x.journals {
		j.close()
	}
}

// A person waits for it, and the loaders take more than this.
const (
	replayBatches = 5000     // a second
	replayBytes   = 64 << 20 // a second
	requestLife   = 24 * time.Hour
)

// apply has the missing batches published, and waits until they are loaded.
func (x *replaying) apply(ctx context.Context, missing []sink.Missing, report *replayReport) error {
	report.Left, report.Faults = report.Missing, []string{}
	if x.task.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, x.task.timeout, errReplayTimeout)
		defer cancel()
	}
	conn, err := x.p.kafka(x.cfg)
	if err != nil {
		return err
	}
	defer conn.Close()
	// What no journal here has is nothing to wait for.
	wanted := missing
	if x.journals != nil {
		wanted, err = x.send(ctx, conn, missing, report)
	} else {
		var target string
		if target, err = x.w.Target(ctx); err == nil {
			err = requestReplay(ctx, conn, target, missing)
		}
	}
	if err == nil {
		err = x.follow(ctx, wanted)
	}
	if err != nil && !errors.Is(context.Cause(ctx), errReplayTimeout) {
		return err
	}
	left, err := x.left(context.WithoutCancel(ctx), missing)
	if err != nil {
		return err
	}
	report.Left = []replayPart{}
	for _, m := range left {
		part, err := x.part(m)
		if err != nil {
			return err
		}
		report.Left = append(report.Left, part)
	}
	return x.verdict(report)
}

var errReplayTimeout = errors.New("the time is over")

// verdict is nil if nothing is left to do.
func (x *replaying) verdict(r *replayReport) error {
	text := ""
	for _, m := range r.Left {
		text += fmt.Sprintf("\nbatches %s of source %s, stream %s: %s", span(m.First, m.Last), printable(m.Source), m.Incarnation, m.From)
	}
	for _, fault := range r.Faults {
		text += "\n" + fault
	}
	if text == "" {
		return nil
	}
	return &foundError{text: fmt.Sprintf("%s: not all is loaded:%s", r.Dataset, text)}
}

// send publishes what the journals have of the missing batches, and returns of
// which ranges that was something.
func (x *replaying) send(ctx context.Context, conn *kafkaconn.Conn, missing []sink.Missing, report *replayReport) ([]sink.Missing, error) {
	to, err := publish.NewSender(publish.Config{
		Brokers: conn.Brokers(), Transport: conn.Transport(), Compression: conn.Compression(), Logger: x.p.logger(x.cfg),
	})
	if err != nil {
		return nil, err
	}
	progress := newProgress(x.p.stderr)
	defer progress.end()
	bar := progress.add("published", int64(report.Batches))
	var wanted []sink.Missing
	var done int64
	for _, j := range x.journals {
		sender := replay.NewSender(j, to, replay.Limits{Batches: replayBatches, Bytes: replayBytes})
		for _, m := range missing {
			s := journal.Stream{Incarnation: m.Incarnation, Dataset: m.Dataset}
			err = sender.Send(ctx, s, []journal.Range{{First: m.First, Last: m.Last}}, func(o replay.Outcome) {
				switch o.State {
				case replay.Absent:
					return
				case replay.Sent:
					report.Sent++
					part := m
					part.First, part.Last = o.Range.First, o.Range.Last
					wanted = append(wanted, part)
				default:
					report.Faults = append(report.Faults, fmt.Sprintf("batch %d of stream %s in %s: %s: %v", o.Range.First, m.Incarnation, j.dir, o.State, o.Err))
				}
				done++
				bar.set(done)
			})
			if err != nil {
				return wanted, errors.Join(err, to.Close())
			}
		}
	}
	return wanted, to.Close()
}

// follow waits until nothing of the ranges is missing. An outage of the
// warehouse is waited for, too.
func (x *replaying) follow(ctx context.Context, ranges []sink.Missing) error {
	progress := newProgress(x.p.stderr)
	defer progress.end()
	all := batches(ranges)
	bar := progress.add("loaded", int64(all))
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		left, err := x.left(ctx, ranges)
		switch {
		case err == nil && len(left) == 0:
			bar.set(int64(all))
			return nil
		case err == nil:
			bar.set(int64(all - batches(left)))
		case ctx.Err() == nil && sink.ClassOf(err) != sink.Retryable:
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func batches(ranges []sink.Missing) (n uint64) {
	for _, m := range ranges {
		n += m.Last - m.First + 1
	}
	return n
}

// left returns what is still missing of ranges.
func (x *replaying) left(ctx context.Context, ranges []sink.Missing) ([]sink.Missing, error) {
	now, err := x.w.Missing(ctx, x.task.dataset, 0)
	if err != nil {
		return nil, err
	}
	return sink.Overlap(ranges, now), nil
}
