package serve

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"

	"tallyman/internal/bearer"
)

// clientOf returns who makes a request: by token or certificate, or "" where
// nobody has to say. The error is a problem.
func (d *Daemon) clientOf(r *http.Request) (string, error) {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return "certificate " + r.TLS.VerifiedChains[0][0].Subject.String(), nil
	}
	if d.tokens == nil {
		return "", nil // the TLS handshake has asked for a certificate if one is needed
	}
	given, ok := bearer.Given(r)
	if !ok {
		return "", newProblem(unauthenticated, "send Authorization: Bearer and a token").with("WWW-Authenticate", "Bearer")
	}
	client, ok := d.tokens.get().Client(given)
	if !ok {
		return "", newProblem(unauthenticated, "the token is not one of those that are let in").with("WWW-Authenticate", `Bearer error="invalid_token"`)
	}
	return "token " + client, nil
}

// tlsConfig returns how TLS is spoken; nil: not at all.
func (d *Daemon) tlsConfig() (*tls.Config, error) {
	cfg := d.cfg
	if cfg.CertFile == "" {
		return nil, nil
	}
	own, err := newFresh(cfg.Logger, func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
		return &pair, err
	}, cfg.CertFile, cfg.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read the certificate: %w", err)
	}
	base := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own.get(), nil },
	}
	if cfg.ClientCA == "" {
		return base, nil
	}
	authorities, err := newFresh(cfg.Logger, func() (*tls.Config, error) {
		with := base.Clone()
		with.ClientAuth = tls.RequireAndVerifyClientCert
		if cfg.TokenFile != "" {
			with.ClientAuth = tls.VerifyClientCertIfGiven // a token does as well
		}
		var err error
		with.ClientCAs, err = readAuthorities(cfg.ClientCA)
		return with, err
	}, cfg.ClientCA)
	if err != nil {
		return nil, err
	}
	outer := base.Clone()
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return authorities.get(), nil }
	return outer, nil
}

// readAuthorities reads a file of certificates.
func readAuthorities(name string) (*x509.CertPool, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read the clients' authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("read the clients' authorities: %s has no certificate in PEM", name)
	}
	return pool, nil
}
