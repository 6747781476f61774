package serve

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tallyman/source"
)

// Config describes a daemon.
type Config struct {
	// Sources take the rows, one for each dataset. The daemon does not close
	// them. Required.
	Sources []*source.Source
	// Listen is the TCP address, host:port; port 0 takes a free one. Required.
	Listen string
	// CertFile and KeyFile are PEM files with which TLS is spoken, of HTTP/2 too.
	// Defaults to plain HTTP.
	CertFile, KeyFile string
	// ClientCA is a PEM file; a certificate signed by one of its authorities
	// lets a client in. Needs CertFile. Defaults to none.
	ClientCA string
	// TokenFile has a name and a token on each line; "Authorization: Bearer" and
	// one of the tokens lets a client in. Defaults to none.
	TokenFile string
	// MaxBody bounds a request's body, in bytes, both as it comes and
	// decompressed. Defaults to 16 MiB.
	MaxBody int64
	// MaxRows bounds a request's rows. Defaults to 100,000.
	MaxRows int
	// MaxRequests bounds the requests that are worked on at the same time.
	// Defaults to 512.
	MaxRequests int
	// Memory bounds the bytes of bodies and rows that all requests hold
	// together. Defaults to 256 MiB.
	Memory int64
	// Rate bounds each client's requests per second, with as many at once.
	// Defaults to 5,000.
	Rate int
	// ReadTimeout is how long a request may take to come in. Defaults to 30 s.
	ReadTimeout time.Duration
	// AnswerTimeout is how long a request waits for the disk. Defaults to 30 s.
	AnswerTimeout time.Duration
	// DrainTimeout is how long requests under way may take to end once Run's
	// context has ended. Defaults to 5 s.
	DrainTimeout time.Duration
	// Logger takes what a person should know. Defaults to slog.Default().
	Logger *slog.Logger
	// Registerer takes the metrics. Defaults to none.
	Registerer prometheus.Registerer
}

func (c Config) withDefaults() (Config, error) {
	if len(c.Sources) == 0 || c.Listen == "" {
		return c, errors.New("Sources and Listen are required")
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return c, errors.New("CertFile and KeyFile are needed both, or neither")
	}
	if c.ClientCA != "" && c.CertFile == "" {
		return c, errors.New("ClientCA needs CertFile and KeyFile: clients show certificates in TLS only")
	}
	if err := errors.Join(
		setDefault("MaxBody", &c.MaxBody, 16<<20),
		setDefault("MaxRows", &c.MaxRows, 100_000),
		setDefault("MaxRequests", &c.MaxRequests, 512),
		setDefault("Memory", &c.Memory, 256<<20),
		setDefault("Rate", &c.Rate, 5000),
		setDefault("ReadTimeout", &c.ReadTimeout, 30*time.Second),
		setDefault("AnswerTimeout", &c.AnswerTimeout, 30*time.Second),
		setDefault("DrainTimeout", &c.DrainTimeout, 5*time.Second),
	); err != nil {
		return c, err
	}
	// One request of the largest size, of which rows may be four times as large
	// as their text, must have room.
	if c.Memory < largest(c.MaxBody) {
		return c, fmt.Errorf("Memory of %d bytes has no room for one request, of a body of %d bytes and four times that in rows: it needs %d", c.Memory, c.MaxBody, largest(c.MaxBody))
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}

// expansion is how many times as large as a body its rows may be.
const expansion = 4

// largest is the most that a request may hold.
func largest(body int64) int64 { return (1 + expansion) * body }

func setDefault[T int | int64 | time.Duration](name string, field *T, value T) error {
	if *field < 0 {
		return fmt.Errorf("%s can't be negative", name)
	}
	if *field == 0 {
		*field = value
	}
	return nil
}
