// Package admin is the listener on which a process is watched: /metrics for
// Prometheus, /livez and /readyz for whoever restarts or counts it. It shares
// nothing with the path of the data, so it answers while that waits.
package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Config is what a Server works with.
type Config struct {
	// Listen is the TCP address, host:port; port 0 takes a free one.
	Listen string
	// Gatherer is what /metrics shows.
	Gatherer prometheus.Gatherer
	// Ready returns nil, or why the process is not doing its work: the body of a 503.
	// The note is what else to know, after the "ok" of one that is ready; empty: nothing.
	Ready func() (note string, err error)
	// API answers below /v1/. Defaults to nothing.
	API http.Handler
	// Logger takes errors of single requests. Defaults to none.
	Logger *slog.Logger
}

// Server answers on one listener. Close it or run it.
type Server struct {
	listener net.Listener
	server   *http.Server
}

// Listen opens the listener, so that an address in use is told before any work starts.
func Listen(config Config) (*Server, error) {
	listener, err := net.Listen("tcp", config.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for metrics and probes: %w", err)
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	errorLog := slog.NewLogLogger(config.Logger.Handler(), slog.LevelWarn)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(config.Gatherer, promhttp.HandlerOpts{ErrorLog: errorLog}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { answer(w, "", nil) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		note, err := config.Ready()
		answer(w, note, err)
	})
	if config.API != nil {
		mux.Handle("/v1/", config.API)
	}
	return &Server{
		listener: listener,
		server: &http.Server{
			Handler: mux, ErrorLog: errorLog,
			ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
			WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		},
	}, nil
}

// answer writes what a probe asks for: 200, "ok" and the note, or 503 and the reason.
func answer(w http.ResponseWriter, note string, err error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = fmt.Fprintln(w, err) // the client may be gone; nobody else wants to know
		return
	}
	_, _ = fmt.Fprintln(w, "ok")
	if note != "" {
		_, _ = fmt.Fprintln(w, note)
	}
}

// Addr returns the address that the server listens on.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Close gives the listener up without having run.
func (s *Server) Close() error { return s.listener.Close() }

// Run answers until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.server.Close() })
	defer stop()
	if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics and probes: %w", err)
	}
	return nil
}
