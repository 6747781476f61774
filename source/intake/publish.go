package intake

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"tallyman/internal/kafkaconn"
	"tallyman/source/journal"
	"tallyman/source/publish"
)

// topic is what is known about the dataset's topic.
type topic struct {
	limit int   // the largest message, in bytes
	err   error // why it can't take batches
	away  bool  // err is an outage: it may be over later
}

// askLimit is how long Kafka has to answer before a file is read without it.
const askLimit = 5 * time.Second

// topic asks for the topic.
func (in *Intake) topic(ctx context.Context) topic {
	ctx, cancel := context.WithTimeoutCause(ctx, askLimit, fmt.Errorf("no answer from %s in %v", in.peer(), askLimit))
	defer cancel()
	if in.remote != nil {
		return in.remote.topic(ctx, in.hash)
	}
	name := in.cfg.Manifest.Topic
	config, err := in.cfg.Conn.TopicConfig(ctx, name)
	switch {
	case errors.Is(err, kafkaconn.ErrNoTopic):
		return topic{err: fmt.Errorf("there is no topic %s: make it with tallyman dataset apply MANIFEST", name)}
	case err != nil:
		var refused *kafkaconn.SecurityError // stays until somebody mends it
		return topic{err: err, away: !errors.As(err, &refused)}
	case strings.Contains(config.CleanupPolicy, "compact"):
		return topic{err: fmt.Errorf("topic %s is compacted, which drops batches: set its cleanup.policy to delete, or name another topic in the manifest", name)}
	case config.MaxMessageBytes <= 0:
		return topic{err: fmt.Errorf("topic %s does not tell its max.message.bytes", name)}
	}
	return topic{limit: config.MaxMessageBytes}
}

const (
	firstRetry   = 100 * time.Millisecond
	longestRetry = 5 * time.Second
)

// await asks again until the topic is known. It says so, once.
func (p *push) await(ctx context.Context) error {
	if !p.topic.away {
		return p.topic.err
	}
	p.cfg.Logger.Warn("the file is read; waiting for "+p.peer()+", with nothing published yet", "topic", p.cfg.Manifest.Topic, "cause", p.topic.err)
	wait := &backoff.ExponentialBackOff{InitialInterval: firstRetry, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: longestRetry}
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		p.topic = p.Intake.topic(ctx)
		if p.topic.err != nil && !p.topic.away {
			return struct{}{}, backoff.Permanent(p.topic.err)
		}
		return struct{}{}, p.topic.err
	}, backoff.WithBackOff(wait), backoff.WithMaxElapsedTime(0))
	return err
}

// publish brings everything in the journal to Kafka.
func (p *push) publish(ctx context.Context, done *state, report *Report) (err error) {
	if err := p.await(ctx); err != nil {
		return err
	}
	j, err := p.openJournal(done.Source, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	stats, err := j.Stats()
	if err != nil {
		return err
	}
	if int64(stats.Batches) != done.Batches {
		return fmt.Errorf("the journal in %s has %d batches, not the file's %d: remove that directory and push again", p.dir, stats.Batches, done.Batches)
	}
	report.Again = stats.Batches > 0 && stats.Unpublished == 0
	if p.remote != nil {
		if !report.Again {
			report.Published = int64(stats.Batches - stats.Unpublished)
		}
		err = p.remains(ctx, report, p.deliver(ctx, j, report))
	} else {
		err = p.send(ctx, j, report)
	}
	if err != nil || p.cfg.Published == nil {
		return err
	}
	for r, err := range j.All() {
		if err != nil {
			return err
		}
		p.cfg.Published(r.Batch)
	}
	return nil
}

// send publishes the journal's batches and how many there are.
func (p *push) send(ctx context.Context, j *journal.Journal, report *Report) (err error) {
	conn := p.cfg.Conn
	pub, err := publish.New(publish.Config{
		Journal: j, Brokers: conn.Brokers(), Transport: conn.Transport(), MaxMessageBytes: p.topic.limit,
		Compression: conn.Compression(), Logger: p.cfg.Logger,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pub.Close()) }()
	if report.Again {
		n, err := pub.Republish(ctx)
		report.Published = int64(n)
		return p.remains(ctx, report, errors.Join(err, p.finish(ctx, j, pub)))
	}
	err = p.follow(ctx, pub, report)
	if err == nil || errors.Is(err, publish.ErrSetAside) { // those are missed then, and should be
		err = errors.Join(err, p.finish(ctx, j, pub))
	}
	return errors.Join(p.remains(ctx, report, err), asides(j, err))
}

// finish announces how many batches the file has, so that one that gets lost on
// its way is missed, and that there are no more.
func (p *push) finish(ctx context.Context, j *journal.Journal, pub *publish.Publisher) error {
	finals, err := j.Finals(true)
	if err != nil {
		return err
	}
	for i := range finals {
		if finals[i].Topic == "" {
			finals[i].Topic = p.cfg.Manifest.Topic
		}
	}
	return pub.Announce(ctx, finals...)
}

// progressEvery is how often it is looked how many batches are published.
const progressEvery = 100 * time.Millisecond

// follow publishes what was not yet published and tells how far it came.
func (p *push) follow(ctx context.Context, pub *publish.Publisher, report *Report) error {
	if err := pub.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- pub.Wait(ctx) }()
	look := time.NewTicker(progressEvery)
	defer look.Stop()
	tell := p.progress(Publishing, report.Batches)
	for {
		var err error
		over := false
		select {
		case err = <-ended:
			over = true
		case <-look.C:
		}
		waiting, aside := pub.Pending()
		report.Published = report.Batches - int64(waiting) - int64(aside)
		tell(report.Published)
		if over {
			return err
		}
	}
}

// remains says what an unfinished push has left.
func (p *push) remains(ctx context.Context, report *Report, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("interrupted: %w", context.Cause(ctx))
	}
	return fmt.Errorf("%d of %d batches are published, the rest is kept in %s; push the same file again to go on: %w",
		report.Published, report.Batches, p.dir, err)
}

// asides names the batches that the broker refuses, if that is the error.
func asides(j *journal.Journal, err error) error {
	if !errors.Is(err, publish.ErrSetAside) {
		return nil
	}
	stats, err := j.Stats()
	if err != nil {
		return err
	}
	var lines []error
	for _, a := range stats.Aside {
		lines = append(lines, fmt.Errorf("batch %s: %s", a.Key, a.Reason))
	}
	return errors.Join(lines...)
}
