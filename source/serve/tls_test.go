package serve

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue makes a certificate for a name; without an authority it is one itself.
func (a *authority) issue(t *testing.T, name string) (*authority, tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fatal(t, err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	fatal(t, err)
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, IsCA: a == nil,
	}
	parent, signer := template, key
	if a != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	fatal(t, err)
	cert, err := x509.ParseCertificate(der)
	fatal(t, err)
	return &authority{cert, key}, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: cert}
}

// files writes a certificate and its key as PEM.
func files(t *testing.T, c tls.Certificate) (cert, key string) {
	t.Helper()
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	fatal(t, err)
	fatal(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}), 0o600))
	fatal(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	return cert, key
}

// trust makes the client believe an authority and show certificates.
func (r *rig) trust(a *authority, shown ...tls.Certificate) {
	r.client.CloseIdleConnections()
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	r.client = &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: shown}, ForceAttemptHTTP2: true,
	}}
}

// A certificate of the clients' authority lets a client in; where tokens are
// taken too, a token does as well.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	var none *authority
	ours, root := none.issue(t, "ours")
	_, server := ours.issue(t, "daemon")
	_, client := ours.issue(t, "shop")
	stranger, _ := none.issue(t, "stranger")
	_, foreign := stranger.issue(t, "shop")
	cert, key := files(t, server)
	ca, _ := files(t, root)
	for _, tokens := range []string{"", tokenFile(t, "shop first-secret-of-shop\n")} {
		r := newRig(t, func(s *setup) { s.CertFile, s.KeyFile, s.ClientCA, s.TokenFile = cert, key, ca, tokens })
		r.trust(ours, client)
		accepted[acceptedRows](r, post("/rows", `{"n":1}`))
		for _, shown := range [][]tls.Certificate{{foreign}, nil} {
			r.trust(ours, shown...)
			got, err := r.try(post("/rows", `{"n":2}`))
			switch {
			case err == nil && tokens != "":
				r.refused(got, unauthenticated)
			case err == nil:
				t.Errorf("a client with certificates %d is answered %d", len(shown), got.status)
			}
		}
		if tokens != "" {
			accepted[acceptedRows](r, post("/rows", `{"n":3}`, "Authorization", "Bearer first-secret-of-shop"))
		}
		if got, want := len(r.rows()), map[bool]int{true: 1, false: 2}[tokens == ""]; got != want {
			t.Errorf("%d rows were taken, want %d", got, want)
		}
	}
}

// A certificate that was renewed is shown to the next client, without a restart.
func TestCertificateIsReadAgain(t *testing.T) {
	t.Parallel()
	var none *authority
	first, old := none.issue(t, "first")
	second, renewed := none.issue(t, "second")
	cert, key := files(t, old)
	r := newRig(t, func(s *setup) { s.CertFile, s.KeyFile = cert, key })
	r.trust(first)
	accepted[acceptedRows](r, post("/rows", `{"n":1}`))
	newCert, newKey := files(t, renewed)
	fatal(t, os.Rename(newCert, cert))
	fatal(t, os.Rename(newKey, key))
	r.trust(second)
	r.await(func() bool {
		got, err := r.try(post("/rows", `{"n":2}`))
		return err == nil && got.status == http.StatusAccepted
	})
}
