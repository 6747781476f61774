// Package settings is how tallyman is configured: one table of every setting,
// from which the files, the environment and the flags are read and from which a
// reference can be printed.
//
// A value comes from, later ones first: a flag, TALLYMAN_… in the environment,
// a standard name such as DATABASE_URL, tallyman.yaml, the default.
package settings

import (
	"log/slog"
	"strings"
	"time"
)

// Config holds the values of all settings. Table says what each means.
type Config struct {
	KafkaBrokers     []string
	KafkaCluster     string
	KafkaClientID    string
	KafkaCompression string

	KafkaTLSEnabled    bool
	KafkaTLSCAFile     string
	KafkaTLSCertFile   string
	KafkaTLSKeyFile    string
	KafkaTLSServerName string

	KafkaSASLMechanism    string
	KafkaSASLUser         string
	KafkaSASLUserFile     string
	KafkaSASLPassword     string
	KafkaSASLPasswordFile string

	WarehouseURL    string
	WarehouseTarget string

	LoaderMember             string
	LoaderCommitters         int
	LoaderReadAhead          Bytes
	LoaderGroupBytes         Bytes
	LoaderSessionTimeout     time.Duration
	LoaderClockSkew          time.Duration
	LoaderBreakerWindow      int
	LoaderForeignKeyGrace    time.Duration
	LoaderMissingGrace       time.Duration
	LoaderReceiptInterval    time.Duration
	LoaderProbeInterval      time.Duration
	LoaderQuarantineMaxBytes Bytes

	SourceName string
	SourceDir  string

	ServeListen           string
	ServeManifests        []string
	ServeTokenFile        string
	ServeTLSCert          string
	ServeTLSKey           string
	ServeClientCA         string
	ServeMaxBody          Bytes
	ServeMaxRows          int
	ServeMaxRequests      int
	ServeMemory           Bytes
	ServeRate             int
	ServeReadTimeout      time.Duration
	ServeAnnounceInterval time.Duration
	ServeTargets          []string
	ServeRetention        time.Duration
	ServeReplayBatches    int
	ServeReplayBytes      Bytes
	ServeReplayGrace      time.Duration
	ServeReplayTries      int

	AdminListen    string
	AdminTokenFile string

	LogLevel  slog.Level
	LogFormat string

	AllowPlaintext bool

	// URLFromFlag says that the command line holds WarehouseURL.
	URLFromFlag bool
	// WarehouseFromPG says that PG* variables describe the warehouse, so that an
	// empty WarehouseURL is an answer too.
	WarehouseFromPG bool
}

// Bytes is a size in bytes, written with a unit: 64MiB, 512KiB, 100B.
type Bytes int64

// Setting is one row of the table.
type Setting struct {
	Key     string // in tallyman.yaml, with dots for nesting
	Default string // as one would write it; empty: none
	Unit    string // how a value is written
	Doc     string // one sentence
	// Standard are names in the environment that other programs use for the
	// same thing; TALLYMAN_… comes before them.
	Standard []string
	// Secret settings have no flag: every process of a machine can read the
	// command lines of all others.
	Secret bool

	bind func(*Config) any // where the value goes
}

// Env returns the setting's own name in the environment: TALLYMAN_KAFKA_BROKERS.
func (s Setting) Env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(s.Key, ".", "_"))
}

// Flag returns the setting's name on the command line, without dashes in front.
func (s Setting) Flag() string {
	return strings.NewReplacer(".", "-", "_", "-").Replace(s.Key)
}

// Group returns the first part of the key: "kafka".
func (s Setting) Group() string {
	group, _, _ := strings.Cut(s.Key, ".")
	return group
}

const envPrefix = "TALLYMAN_"
