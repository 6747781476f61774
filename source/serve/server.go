package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Listener is an open listener of a daemon. Run it or close it.
type Listener struct {
	daemon   *Daemon
	listener net.Listener
	server   *http.Server
}

// maxHeader bounds the headers of a request, in bytes.
const maxHeader = 16 << 10

// Listen opens the listener, so that an address in use is told before any work starts.
func (d *Daemon) Listen() (*Listener, error) {
	secure, err := d.tlsConfig()
	if err != nil {
		return nil, fmt.Errorf("serve: %w", err)
	}
	listener, err := net.Listen("tcp", d.cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("serve: %w", err)
	}
	return &Listener{daemon: d, listener: listener, server: &http.Server{
		Handler: d, TLSConfig: secure, MaxHeaderBytes: maxHeader,
		ReadHeaderTimeout: min(5*time.Second, d.cfg.ReadTimeout), ReadTimeout: d.cfg.ReadTimeout,
		WriteTimeout: d.cfg.ReadTimeout + d.cfg.AnswerTimeout + patience, IdleTimeout: 2 * time.Minute,
		// What single clients do wrong is theirs to see.
		ErrorLog: slog.NewLogLogger(d.cfg.Logger.Handler(), slog.LevelDebug),
	}}, nil
}

// URL returns where the daemon answers.
func (l *Listener) URL() string {
	if l.server.TLSConfig != nil {
		return "https://" + l.listener.Addr().String()
	}
	return "http://" + l.listener.Addr().String()
}

// Close gives the listener up without having run.
func (l *Listener) Close() error { return l.listener.Close() }

// Run answers until ctx ends. Then it takes no new connections and returns once
// the requests under way are answered, or after Config.DrainTimeout.
func (l *Listener) Run(ctx context.Context) error {
	served := make(chan error, 1)
	go func() {
		if l.server.TLSConfig != nil {
			served <- l.server.ServeTLS(l.listener, "", "") // the configuration has the certificate
			return
		}
		served <- l.server.Serve(l.listener)
	}()
	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	l.daemon.draining.Store(true)
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.daemon.cfg.DrainTimeout)
	defer cancel()
	err := l.server.Shutdown(limit)
	if errors.Is(err, context.DeadlineExceeded) {
		l.daemon.cfg.Logger.Warn("requests under way were cut off; their clients don't know the outcome")
		err = l.server.Close()
	}
	if ended := <-served; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}
