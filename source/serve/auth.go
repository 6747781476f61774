package serve

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"strings"
)

// token is one that lets a client in.
type token struct {
	client string
	digest [sha256.Size]byte
}

// shortestToken is what a guess at a token is up against, in bytes.
const shortestToken = 16

// readTokens reads a file with "name token" on each line; blank lines, and
// those that begin with #, are passed over. Errors never show a token.
func readTokens(name string) ([]token, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read tokens: %w", err)
	}
	var all []token
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if len(fields) != 2 {
			return nil, fmt.Errorf("read tokens: %s:%d: want a name and a token, with a blank between them", name, number)
		}
		if len(fields[1]) < shortestToken {
			return nil, fmt.Errorf("read tokens: %s:%d: the token of %s has fewer than %d characters", name, number, fields[0], shortestToken)
		}
		all = append(all, token{client: fields[0], digest: sha256.Sum256([]byte(fields[1]))})
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("read tokens: %s has none", name)
	}
	return all, nil
}

// clientOf returns who makes a request: by token or certificate, or "" where
// nobody has to say. The error is a problem.
func (d *Daemon) clientOf(r *http.Request) (string, error) {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return "certificate " + r.TLS.VerifiedChains[0][0].Subject.String(), nil
	}
	if d.tokens == nil {
		return "", nil // the TLS handshake has asked for a certificate if one is needed
	}
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", newProblem(unauthenticated, "send Authorization: Bearer and a token").with("WWW-Authenticate", "Bearer")
	}
	// Digests are compared, so that neither time nor length says how much of a
	// guess is right; and all of them, so that nothing says which.
	digest := sha256.Sum256([]byte(strings.TrimSpace(given)))
	found := ""
	for _, t := range d.tokens.get() {
		if subtle.ConstantTimeCompare(digest[:], t.digest[:]) == 1 {
			found = "token " + t.client
		}
	}
	if found == "" {
		return "", newProblem(unauthenticated, "the token is not one of those that are let in").with("WWW-Authenticate", `Bearer error="invalid_token"`)
	}
	return found, nil
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
