package kafkaconn

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
)

// TLS says how to encrypt connections and whom to trust. Its files are read
// again for every connection, so a renewed certificate needs no restart; an
// error of one names the setting of the program, such as kafka.tls.ca_file.
type TLS struct {
	// CAFile is a PEM file of the authorities that may have signed the brokers'
	// certificates. Defaults to the system's.
	CAFile string
	// CertFile is a PEM file with this client's certificate, and those between
	// it and its authority, for brokers that ask for one. Defaults to none.
	CertFile string
	// KeyFile is the PEM file of the certificate's key. Required with CertFile.
	KeyFile string
	// ServerName is what the brokers' certificates must be for. Defaults to the
	// host name of each connection.
	ServerName string
}

// The SASL mechanisms, by the names that Kafka gives them.
const (
	Plain       = "PLAIN"
	ScramSHA256 = "SCRAM-SHA-256"
	ScramSHA512 = "SCRAM-SHA-512"
)

// Mechanisms returns the SASL mechanisms that there are.
func Mechanisms() []string { return []string{Plain, ScramSHA256, ScramSHA512} }

// SASL says who this client is. Its files are read again for every connection,
// without a line break at their end, so new credentials need no restart.
// Without TLS the mechanism PLAIN sends the password as it is.
type SASL struct {
	// Mechanism is one of Mechanisms. Required.
	Mechanism string
	// User is the user's name. Either it or UserFile is required.
	User string
	// UserFile is a file that holds the user's name.
	UserFile string
	// Password is the user's password. Either it or PasswordFile is required.
	Password string
	// PasswordFile is a file that holds the password.
	PasswordFile string
}

// String leaves the password out.
func (s SASL) String() string { return s.Mechanism + " as " + s.User + s.UserFile }

// GoString leaves the password out.
func (s SASL) GoString() string { return "SASL(" + s.String() + ")" }

// check reads everything once, so that faults are told at the start.
func (t *TLS) check() error {
	if t == nil {
		return nil
	}
	_, err := t.config("broker")
	return err
}

// config reads the files for a connection to host.
func (t *TLS) config(host string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if c.ServerName == "" {
		c.ServerName = host
	}
	var faults []error
	if t.CAFile != "" {
		text, err := os.ReadFile(t.CAFile)
		c.RootCAs = x509.NewCertPool()
		switch {
		case err != nil:
			faults = append(faults, fmt.Errorf("kafka.tls.ca_file: %w", err))
		case !c.RootCAs.AppendCertsFromPEM(text):
			faults = append(faults, fmt.Errorf("kafka.tls.ca_file: %s holds no certificate in PEM", t.CAFile))
		}
	}
	switch {
	case t.CertFile == "" && t.KeyFile == "":
	case t.CertFile == "":
		faults = append(faults, errors.New("kafka.tls.key_file is set without kafka.tls.cert_file"))
	case t.KeyFile == "":
		faults = append(faults, errors.New("kafka.tls.cert_file is set without kafka.tls.key_file"))
	default:
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			faults = append(faults, fmt.Errorf("kafka.tls.cert_file and kafka.tls.key_file: %w", err))
		}
		// Sent whatever authorities the broker names: it has the better error.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	return c, errors.Join(faults...)
}

// check reads everything once, so that faults are told at the start.
func (s *SASL) check() error {
	if s == nil {
		return nil
	}
	_, err := s.mechanism()
	return err
}

// mechanism reads the files and returns what kafka-go authenticates with.
func (s *SASL) mechanism() (sasl.Mechanism, error) {
	user, userErr := credential("user", s.User, s.UserFile)
	password, passwordErr := credential("password", s.Password, s.PasswordFile)
	if err := errors.Join(userErr, passwordErr); err != nil {
		return nil, err
	}
	switch s.Mechanism {
	case Plain:
		return plain.Mechanism{Username: user, Password: password}, nil
	case ScramSHA256, ScramSHA512:
		algorithm := map[string]scram.Algorithm{ScramSHA256: scram.SHA256, ScramSHA512: scram.SHA512}[s.Mechanism]
		m, err := scram.Mechanism(algorithm, user, password)
		if err != nil { // its text may hold what was refused
			return nil, errors.New("kafka.sasl: user or password holds a character that SCRAM forbids")
		}
		return m, nil
	default:
		return nil, fmt.Errorf("kafka.sasl.mechanism: %q is none of %s", s.Mechanism, strings.Join(Mechanisms(), ", "))
	}
}

// credential returns the value, or what is in the file.
func credential(name, value, file string) (string, error) {
	switch {
	case value != "" && file != "":
		return "", fmt.Errorf("kafka.sasl.%s and kafka.sasl.%[1]s_file are both set", name)
	case file != "":
		text, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("kafka.sasl.%s_file: %w", name, err)
		}
		if value = strings.TrimRight(string(text), "\r\n"); value == "" {
			return "", fmt.Errorf("kafka.sasl.%s_file: %s is empty", name, file)
		}
	case value == "":
		return "", fmt.Errorf("kafka.sasl.%s or kafka.sasl.%[1]s_file is needed with kafka.sasl.mechanism", name)
	}
	if strings.ContainsRune(value, 0) {
		return "", fmt.Errorf("kafka.sasl.%s contains a NUL character", name)
	}
	return value, nil
}

// fresh is a mechanism that reads its credentials for every connection.
type fresh struct{ sasl *SASL }

// Name implements sasl.Mechanism.
func (f fresh) Name() string { return f.sasl.Mechanism }

// Start implements sasl.Mechanism.
func (f fresh) Start(ctx context.Context) (sasl.StateMachine, []byte, error) {
	m, err := f.sasl.mechanism()
	if err != nil {
		broker := "Kafka"
		if at := sasl.MetadataFromContext(ctx); at != nil {
			broker = fmt.Sprintf("Kafka broker %s:%d", at.Host, at.Port)
		}
		return nil, nil, &SecurityError{Broker: broker, Advice: "its credentials can't be read", Err: err}
	}
	return m.Start(ctx)
}
