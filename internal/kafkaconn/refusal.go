package kafkaconn

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
)

// SecurityError is a connection that was refused, by either side, for what one
// says of itself to the other. Waiting does not mend it; somebody has to change
// a setting, a file or the broker.
type SecurityError struct {
	// Broker says whose connection: "Kafka broker host:port".
	Broker string
	// Advice says what is wrong, and which setting to look at.
	Advice string
	// Err is what TLS, SASL or the broker said.
	Err error
}

// Error implements error.
func (e *SecurityError) Error() string { return fmt.Sprintf("%s: %s: %v", e.Broker, e.Advice, e.Err) }

// Unwrap returns what TLS, SASL or the broker said.
func (e *SecurityError) Unwrap() error { return e.Err }

// dialer makes every connection, for the transport and for the consumer group.
// It does TLS itself: both then have the same errors, and files are read anew.
type dialer struct {
	net  net.Dialer
	tls  *TLS // nil: none
	sasl *SASL
}

// dial connects to a broker, TLS handshake included.
func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	raw, err := d.net.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	conn := &watched{Conn: raw, dialer: d, address: address, since: time.Now()}
	if d.tls == nil {
		return conn, nil
	}
	ctx, cancel := context.WithTimeout(ctx, d.net.Timeout)
	defer cancel()
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	config, err := d.tls.config(host)
	if err != nil {
		_ = raw.Close()
		return nil, d.refusal(address, "its TLS files can't be read", err)
	}
	secured := tls.Client(raw, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("Kafka broker %s: no end of the TLS handshake in %v: %w", address, d.net.Timeout, err)
		}
		return nil, d.explainTLS(address, err)
	}
	conn.Conn = secured
	return conn, nil
}

func (d *dialer) refusal(address, advice string, err error) error {
	return &SecurityError{Broker: "Kafka broker " + address, Advice: advice, Err: err}
}

// closed is a guess at why a broker closed a connection. It may just as well be
// shutting down, so it is waited for. It is no io.EOF, in the place of which
// kafka-go would put an error of its own.
func (d *dialer) closed(address, advice string) error {
	return fmt.Errorf("Kafka broker %s closed the connection %s", address, advice)
}

// explainTLS says what to change after a failed handshake.
func (d *dialer) explainTLS(address string, err error) error {
	var (
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
		remote    *net.OpError
	)
	switch {
	case errors.As(err, &authority):
		trusted := "the system's authorities; set kafka.tls.ca_file to the one that did"
		if d.tls.CAFile != "" {
			trusted = "an authority in kafka.tls.ca_file (" + d.tls.CAFile + ")"
		}
		return d.refusal(address, "its certificate is not signed by "+trusted, err)
	case errors.As(err, &name):
		return d.refusal(address, "its certificate is for another host; connect by a name that it is for, or set kafka.tls.server_name to one", err)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return d.refusal(address, "its certificate is not valid at this time; renew the broker's certificate, or set this machine's clock right", err)
	case errors.As(err, &record):
		return d.refusal(address, "it does not speak TLS on this port; use the port of its TLS listener, or set kafka.tls.enabled to false", err)
	case errors.As(err, &remote) && remote.Op == "remote error":
		return d.refusal(address, d.ownCertificate(), err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return d.closed(address, "during the TLS handshake; does it speak TLS on this port (kafka.tls.enabled)?")
	default:
		return d.refusal(address, "no TLS connection", err)
	}
}

// ownCertificate says what to do about a broker that breaks TLS off.
func (d *dialer) ownCertificate() string {
	if d.tls.CertFile == "" {
		return "it refused the connection; if it asks clients for a certificate, set kafka.tls.cert_file and kafka.tls.key_file"
	}
	return "it refused this client's certificate; renew kafka.tls.cert_file (" + d.tls.CertFile + ") or have the broker trust its authority"
}

// newborn is how young a connection is whose end is the broker's answer to how
// it was made, and not one of the ends that connections have.
const newborn = 5 * time.Second

// watched is a connection whose early end is explained.
type watched struct {
	net.Conn
	dialer  *dialer
	address string
	since   time.Time
	answers bool // something was read
}

// alertRecord begins a TLS alert, which a broker answers to what is not TLS.
// As the length of an answer of Kafka's it would be 336 MiB.
const alertRecord = "\x15\x03"

// Read implements net.Conn.
func (w *watched) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	d := w.dialer
	if !w.answers && n > 0 {
		w.answers = true
		if d.tls == nil && strings.HasPrefix(string(b[:n]), alertRecord) {
			return 0, d.refusal(w.address, "it speaks TLS on this port; set kafka.tls.enabled to true, or use the port of a plain listener", errors.New("a TLS alert"))
		}
	}
	var remote *net.OpError
	switch {
	case err == nil:
	case d.tls != nil && errors.As(err, &remote) && remote.Op == "remote error":
		err = d.refusal(w.address, d.ownCertificate(), err)
	case errors.Is(err, io.EOF) && n == 0 && time.Since(w.since) < newborn:
		advice := "at once; if its listener wants a user and a password, set kafka.sasl.mechanism"
		if d.sasl != nil {
			advice = "at once; are the user and the password right (kafka.sasl.user, kafka.sasl.password, or their files)?"
		} else if d.tls == nil {
			advice += "; if it speaks TLS, kafka.tls.enabled"
		}
		err = d.closed(w.address, advice)
	}
	return n, err
}

// explain says what to change about an answer to SASL, which is kafka-go's error.
func (c *Conn) explain(err error) error {
	s := c.config.SASL
	var already *SecurityError
	if s == nil || errors.As(err, &already) {
		return err
	}
	var advice string
	switch {
	case errors.Is(err, kafka.SASLAuthenticationFailed):
		advice = "the user or the password is wrong (kafka.sasl.user, kafka.sasl.password, or their files), or the user has no credentials for " + s.Mechanism
	case errors.Is(err, kafka.UnsupportedSASLMechanism):
		advice = "its listener does not offer " + s.Mechanism + "; set kafka.sasl.mechanism to one that it does"
	case errors.Is(err, kafka.IllegalSASLState):
		advice = "its listener does not take SASL; unset kafka.sasl.mechanism, or use the port of one that does"
	default:
		return err
	}
	return &SecurityError{Broker: fmt.Sprintf("Kafka (%s)", c.addr), Advice: advice, Err: err}
}
