package intake

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"

	"tallyman/schema/batch"
	"tallyman/source/journal"
)

// Remote is a daemon that takes batches over HTTP, as package serve does.
type Remote struct {
	// URL is where it answers, without a path. Required.
	URL string
	// Token is sent as bearer token. Defaults to none.
	Token string
	// Timeout bounds one request. Defaults to 1 minute.
	Timeout time.Duration
}

// remote is a Remote at work.
type remote struct {
	Remote
	base   *url.URL // of the dataset
	client *http.Client
}

func newRemote(r Remote, dataset string) (*remote, error) {
	base, err := url.Parse(r.URL)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" {
		return nil, fmt.Errorf("%q is no URL of a daemon, such as https://ingest.example.com", r.URL)
	}
	if r.Timeout == 0 {
		r.Timeout = time.Minute
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = senders
	return &remote{Remote: r, base: base.JoinPath("v1", "datasets", dataset), client: &http.Client{
		Timeout: r.Timeout, Transport: transport,
		// A token is for the daemon that was named.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// refusal is an answer that says no.
type refusal struct {
	status int
	text   string
	wait   time.Duration // before it is worth to ask again; 0: it doesn't say
}

// Error returns what the daemon said.
func (r *refusal) Error() string { return fmt.Sprintf("the daemon says %d: %s", r.status, r.text) }

// final says that asking again would be answered in the same way.
func (r *refusal) final() bool {
	return r.status < 500 && r.status != http.StatusTooManyRequests && r.status != http.StatusRequestTimeout
}

// answerLimit bounds what is read of an answer, in bytes.
const answerLimit = 64 << 10

// do makes one request. An answer other than want is a *refusal.
func (r *remote) do(request *http.Request, want int) ([]byte, error) {
	if r.Token != "" {
		request.Header.Set("Authorization", "Bearer "+r.Token)
	}
	response, err := r.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, answerLimit))
	if response.StatusCode == want {
		return body, err
	}
	refused := &refusal{status: response.StatusCode, text: http.StatusText(response.StatusCode)}
	var problem struct{ Title, Detail string }
	if json.Unmarshal(body, &problem) == nil && problem.Title != "" {
		refused.text = problem.Title + ": " + problem.Detail
	}
	if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil && seconds > 0 {
		refused.wait = time.Duration(seconds) * time.Second
	}
	return nil, refused
}

// topic asks the daemon what it takes.
func (r *remote) topic(ctx context.Context, hash string) topic {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.base.String(), nil)
	if err != nil {
		return topic{err: err}
	}
	body, err := r.do(request, http.StatusOK)
	var refused *refusal
	if errors.As(err, &refused) && refused.final() {
		return topic{err: err}
	}
	if err != nil {
		return topic{err: err, away: true}
	}
	var served struct {
		Manifest string `json:"manifest_hash"`
		Batch    int    `json:"max_batch_bytes"`
		Body     int    `json:"max_body_bytes"`
	}
	if err := json.Unmarshal(body, &served); err != nil || served.Batch <= 0 || served.Body <= 0 {
		return topic{err: fmt.Errorf("what answers at %s is no daemon of this program's", r.URL)}
	}
	if served.Manifest != hash {
		return topic{err: fmt.Errorf("the daemon serves the dataset by manifest %s, not by %s: give both the same file", served.Manifest, hash)}
	}
	return topic{limit: min(served.Batch, served.Body) + envelopeBytes}
}

// post hands over one batch. It tries again for as long as that may help.
func (r *remote) post(ctx context.Context, b *batch.Batch, trouble func(error)) error {
	wait := &backoff.ExponentialBackOff{InitialInterval: firstRetry, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: longestRetry}
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.base.JoinPath("batches").String(), bytes.NewReader(b.Value))
		if err != nil {
			return struct{}{}, backoff.Permanent(err)
		}
		request.Header.Set("Content-Type", batch.Native)
		request.Header.Set("Idempotency-Key", b.ID.String())
		request.Header.Set("Tallyman-Manifest", b.Schema)
		_, err = r.do(request, http.StatusAccepted)
		var refused *refusal
		switch {
		case err == nil:
			return struct{}{}, nil
		case errors.As(err, &refused) && refused.final():
			return struct{}{}, backoff.Permanent(fmt.Errorf("batch %s: %w", b.ID, err))
		}
		trouble(err)
		if refused != nil && refused.wait > 0 {
			return struct{}{}, &backoff.RetryAfterError{Duration: refused.wait}
		}
		return struct{}{}, err
	}, backoff.WithBackOff(wait), backoff.WithMaxElapsedTime(0))
	return err
}

// senders is how many batches are handed over at the same time.
const senders = 4

// deliver hands the journal's batches to the daemon: those that it has not
// confirmed, or all once more.
func (p *push) deliver(ctx context.Context, j *journal.Journal, report *Report) error {
	keys := j.Unpublished()
	if report.Again {
		keys = allKeys(j)
	}
	var done, warned atomic.Int64
	done.Store(report.Published)
	tell := p.progress(Publishing, report.Batches)
	trouble := func(err error) {
		if warned.Add(1) == 1 {
			p.cfg.Logger.Warn("a batch was not taken; trying again", "url", p.cfg.To.URL, "cause", err)
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(senders)
	for key, err := range keys {
		if err != nil || ctx.Err() != nil {
			group.Go(func() error { return errors.Join(err, ctx.Err()) })
			break
		}
		group.Go(func() error {
			record, err := j.Get(key)
			if err != nil {
				return err
			}
			if err := p.remote.post(ctx, record.Batch, trouble); err != nil {
				return err
			}
			if err := j.MarkPublished(key); err != nil {
				return err
			}
			done.Add(1)
			return nil
		})
		tell(done.Load())
	}
	err := group.Wait()
	report.Published = done.Load()
	tell(report.Published)
	return err
}

// allKeys returns the keys of everything in a journal.
func allKeys(j *journal.Journal) iter.Seq2[journal.Key, error] {
	return func(yield func(journal.Key, error) bool) {
		for record, err := range j.All() {
			if err != nil {
				yield(journal.Key{}, err)
				return
			}
			if !yield(record.Key, nil) {
				return
			}
		}
	}
}

// peer is who the batches go to.
func (in *Intake) peer() string {
	if in.remote != nil {
		return "the daemon at " + in.cfg.To.URL
	}
	return "Kafka"
}
