package serve

import (
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"tallyman/internal/bearer"
	"tallyman/schema"
	"tallyman/source"
	"tallyman/source/intake"
)

// Daemon takes rows over HTTP.
type Daemon struct {
	cfg      Config
	datasets map[schema.Dataset]*dataset
	mux      *http.ServeMux
	origins  *http.CrossOriginProtection
	tokens   *fresh[bearer.Tokens] // nil: none are needed
	limits   *limits
	memory   *semaphore.Weighted
	decoding *semaphore.Weighted
	slots    *semaphore.Weighted
	decoders decoders
	metrics  *metrics
	draining atomic.Bool
}

// dataset is one that is served.
type dataset struct {
	source  *source.Source
	decoder *intake.Decoder
	name    schema.Dataset
	hash    string // of the manifest
}

// New checks the configuration and reads the files that it names.
func New(cfg Config) (*Daemon, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("serve: %w", err)
	}
	d := &Daemon{
		cfg: cfg, datasets: map[schema.Dataset]*dataset{}, mux: http.NewServeMux(), origins: http.NewCrossOriginProtection(),
		limits: newLimits(cfg.Rate), memory: semaphore.NewWeighted(cfg.Memory),
		decoding: semaphore.NewWeighted(int64(runtime.GOMAXPROCS(0))), slots: semaphore.NewWeighted(int64(cfg.MaxRequests)),
		decoders: decoders{limit: cfg.MaxBody},
	}
	for _, s := range cfg.Sources {
		m := s.Manifest()
		if d.datasets[m.Dataset] != nil {
			return nil, fmt.Errorf("serve: two sources are of %s", m.Dataset)
		}
		decoder, err := intake.NewDecoder(m)
		if err != nil {
			return nil, fmt.Errorf("serve: %w", err)
		}
		d.datasets[m.Dataset] = &dataset{source: s, decoder: decoder, name: m.Dataset, hash: m.Hash()}
	}
	if cfg.TokenFile != "" {
		d.tokens, err = newFresh(cfg.Logger, func() (bearer.Tokens, error) { return bearer.Read(cfg.TokenFile) }, cfg.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("serve: %w", err)
		}
	}
	if d.metrics, err = newMetrics(cfg.Registerer); err != nil {
		return nil, fmt.Errorf("serve: %w", err)
	}
	for _, r := range routes() {
		d.mux.Handle(r.method+" "+r.path, d.handler(r))
	}
	return d, nil
}

// Ready returns nil, or why no rows are taken.
func (d *Daemon) Ready() error {
	if d.draining.Load() {
		return errors.New("the daemon is closing")
	}
	return nil
}

// ServeHTTP implements http.Handler.
func (d *Daemon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, pattern := d.mux.Handler(r); pattern != "" {
		d.mux.ServeHTTP(w, r)
		return
	}
	d.handler(route{path: "other", serve: lost}).ServeHTTP(w, r)
}

// lost answers where there is no route: 405 or 404, as the mux has it, or its redirect.
func lost(d *Daemon, _ http.ResponseWriter, r *http.Request) error {
	as := &headers{values: http.Header{}}
	d.mux.ServeHTTP(as, r)
	if allow := as.values.Get("Allow"); allow != "" {
		return newProblem(methodNotAllowed, "%s takes %s", r.URL.Path, allow).with("Allow", allow)
	}
	return newProblem(notFound, "see /v1/openapi.json for what there is")
}

// headers is a ResponseWriter of which only the headers are looked at.
type headers struct{ values http.Header }

// Header implements http.ResponseWriter.
func (h *headers) Header() http.Header { return h.values }

// Write implements http.ResponseWriter.
func (h *headers) Write(p []byte) (int, error) { return len(p), nil }

// WriteHeader implements http.ResponseWriter.
func (h *headers) WriteHeader(int) {}

// handler admits a request, serves it and answers with its problem, if any.
func (d *Daemon) handler(to route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := d.metrics.begin(w, to.path)
		defer seen.end()
		if err := d.admit(to, seen, r); err != nil {
			p := problemOf(err)
			if p.kind == internal {
				d.cfg.Logger.Error("request", "method", r.Method, "path", to.path, "cause", err)
			}
			p.write(seen)
		}
	})
}

// admit serves a request of somebody who is let in and has not made too many.
func (d *Daemon) admit(to route, w http.ResponseWriter, r *http.Request) error {
	if err := d.origins.Check(r); err != nil {
		return newProblem(crossOrigin, "%v", err)
	}
	address := addressOf(r.RemoteAddr)
	client, err := d.clientOf(r)
	if client == "" {
		client = address
	}
	if spent := d.limits.take(client); spent != nil {
		return spent
	}
	if err != nil {
		return err
	}
	if !d.slots.TryAcquire(1) {
		return newProblem(busy, "%d requests are being worked on", d.cfg.MaxRequests).over(int64(d.cfg.MaxRequests)).after(shortly)
	}
	defer d.slots.Release(1)
	return to.serve(d, w, r)
}
