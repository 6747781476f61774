package settings_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"tallyman/cmd/tallyman/internal/settings"
)

// load reads a file with the given text, if any, and the environment.
func load(t *testing.T, text string, env ...string) (settings.Config, error) {
	t.Helper()
	in := settings.Input{Env: env}
	if text != "" {
		in.File = filepath.Join(t.TempDir(), "tallyman.yaml")
		if err := os.WriteFile(in.File, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return settings.Load(in)
}

func TestDefaultsAreComplete(t *testing.T) {
	t.Parallel()
	cfg, err := load(t, "")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.LoaderSessionTimeout != 6*time.Second || cfg.LoaderReadAhead != 24<<20 || cfg.LoaderCommitters != 2 ||
		cfg.LogLevel != slog.LevelInfo || cfg.AllowPlaintext || cfg.WarehouseTarget != "default" {
		t.Errorf("defaults: %+v", cfg)
	}
}

func TestTableIsWellFormed(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, s := range settings.Table() {
		for _, name := range []string{s.Key, s.Env(), s.Flag()} {
			if seen[name] {
				t.Errorf("%s: the name %s is used twice", s.Key, name)
			}
			seen[name] = true
		}
		if s.Unit == "" || !strings.HasSuffix(s.Doc, ".") {
			t.Errorf("%s: unit %q, doc %q", s.Key, s.Unit, s.Doc)
		}
	}
}

func TestLaterLayersWin(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "t.yaml")
	text := "kafka:\n  brokers: [a:1, b:2]\n  cluster: file\n  client_id: file\nloader:\n  committers: 3\nallow_plaintext: true\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.String("kafka-cluster", "unused", "")
	flags.String("loader-group-bytes", "", "")
	if err := flags.Parse([]string{"--kafka-cluster=flag"}); err != nil {
		t.Fatal(err)
	}
	cfg, err := settings.Load(settings.Input{File: file, Flags: flags, Env: []string{
		"KAFKA_BROKERS=c:3, d:4", "DATABASE_URL=postgres://std", "TALLYMAN_WAREHOUSE_URL=postgres://own",
		"TALLYMAN_KAFKA_CLUSTER=env", "TALLYMAN_KAFKA_CLIENT_ID=env", "TALLYMAN_PORT=tcp://10.0.0.1:80",
	}})
	if err != nil {
		t.Fatal(err)
	}
	got := []any{cfg.KafkaBrokers, cfg.KafkaCluster, cfg.KafkaClientID, cfg.LoaderCommitters, cfg.WarehouseURL, cfg.AllowPlaintext, cfg.LoaderGroupBytes}
	want := []any{[]string{"c:3", "d:4"}, "flag", "env", 3, "postgres://own", true, settings.Bytes(4 << 20)}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text, env string
		want            []string // one for each line
	}{
		{name: "unknown key", text: "kafka:\n  cluster: x\n  broker: [a:1]\n", want: []string{"tallyman.yaml:3: unknown key kafka.broker (did you mean kafka.brokers?)"}},
		{name: "unknown group", text: "\nkafak:\n  brokers: [a:1]\n", want: []string{"tallyman.yaml:2: unknown key kafak"}},
		{name: "every fault has a line", text: "loader:\n  committers: 0\n  read_ahead: 0MiB\n  session_timeout: 6\n", want: []string{
			`tallyman.yaml:2: loader.committers: "0" is not a whole number above zero`,
			`tallyman.yaml:3: loader.read_ahead: "0MiB" is not a size above zero`,
			`tallyman.yaml:4: loader.session_timeout: "6" is not a duration above zero`}},
		{name: "overflow", text: "loader: {group_bytes: 9999999999TiB, committers: 99999999999}\n", want: []string{"committers", "group_bytes"}},
		{name: "NUL", text: "warehouse:\n  url: \"postgres://a\\0b\"\n", want: []string{"tallyman.yaml:2: warehouse.url contains a NUL character"}},
		{name: "NUL in a list", text: "kafka:\n  brokers: [\"a\\0:1\"]\n", want: []string{"tallyman.yaml:2: kafka.brokers contains a NUL character"}},
		{name: "no value", text: "kafka:\n  brokers:\n", want: []string{"tallyman.yaml:2: kafka.brokers has no value"}},
		{name: "list for one value", text: "kafka:\n  cluster: [a, b]\n", want: []string{"tallyman.yaml:2: kafka.cluster: expected one value, not a list"}},
		{name: "value for a group", text: "kafka: localhost:9092\n", want: []string{"tallyman.yaml:1: kafka is a group of settings"}},
		{name: "dotted", text: "kafka.brokers: a:1\n", want: []string{"tallyman.yaml:1: unknown key \"kafka.brokers\" (nest keys"}},
		{name: "twice", text: "log:\n  level: info\n  level: warn\n", want: []string{"already defined at line 2"}},
		{name: "not a mapping", text: "- a\n", want: []string{"tallyman.yaml:1: expected keys and values"}},
		{name: "not YAML", text: "kafka: [\n", want: []string{"tallyman.yaml: yaml: line "}},
		{name: "environment", env: "TALLYMAN_LOG_LEVEL=loud", want: []string{`TALLYMAN_LOG_LEVEL: log.level: "loud" is none of debug, info, warn, error`}},
		{name: "bool", env: "TALLYMAN_ALLOW_PLAINTEXT=yes", want: []string{`TALLYMAN_ALLOW_PLAINTEXT: allow_plaintext: "yes" is neither true nor false`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := load(t, tt.text, tt.env)
			checkFaults(t, err, tt.want)
		})
	}
}

// No limit can be set to nothing, which one reader would take for none.
func TestLimitsArePositive(t *testing.T) {
	t.Parallel()
	limits := 0
	for _, s := range settings.Table() {
		zero := map[string]string{"count": "0", "size": "0B", "duration": "0s"}[s.Unit]
		if zero == "" {
			continue
		}
		limits++
		below := "-1" + zero[1:]
		for _, value := range []string{zero, below, "none"} {
			_, err := load(t, "", s.Env()+"="+value)
			checkFaults(t, err, []string{s.Env() + ": " + s.Key + ": " + `"` + value + `" is not a`})
		}
	}
	if limits < 9 {
		t.Errorf("%d limits in the table: are their units spelled otherwise?", limits)
	}
}

// checkFaults compares err, line by line, with parts that the lines must hold.
func checkFaults(t *testing.T, err error, want []string) {
	t.Helper()
	var lines []string
	if err != nil {
		lines = strings.Split(err.Error(), "\n")
	}
	if len(lines) != len(want) {
		t.Fatalf("got %d lines, want %d: %v", len(lines), len(want), err)
	}
	for i, part := range want {
		if !strings.Contains(lines[i], part) {
			t.Errorf("line %d: %q doesn't hold %q", i+1, lines[i], part)
		}
	}
}

func TestGivenFileMustExist(t *testing.T) {
	t.Parallel()
	_, err := settings.Load(settings.Input{File: filepath.Join(t.TempDir(), "none.yaml")})
	checkFaults(t, err, []string{"none.yaml: no such file"})
}

func TestNeed(t *testing.T) {
	t.Parallel()
	both := settings.Kafka | settings.Warehouse
	const local = "postgres://u:secret@127.0.0.1/d"
	for _, tt := range []struct {
		name string
		need settings.Need
		env  []string
		want []string
	}{
		{name: "nothing", need: 0},
		{name: "nothing set", need: both, want: []string{"no brokers", "no warehouse"}},
		{name: "local", need: both, env: []string{"KAFKA_BROKERS=localhost:9092,[::1]:9092", "DATABASE_URL=" + local}},
		{name: "socket", need: settings.Warehouse, env: []string{"DATABASE_URL=host=/run/postgresql dbname=d"}},
		{name: "PG variables", need: settings.Warehouse, env: []string{"PGHOST=localhost"}},
		{name: "remote, disable", need: settings.Warehouse, env: []string{"DATABASE_URL=postgres://u@db.example/d?sslmode=disable"}, want: []string{"warehouse.url: db.example is another machine"}},
		{name: "remote, prefer", need: settings.Warehouse, env: []string{"DATABASE_URL=postgres://u@db.example/d?sslmode=prefer"}, want: []string{"db.example"}},
		{name: "remote, by default", need: settings.Warehouse, env: []string{"DATABASE_URL=postgres://u@db.example/d"}, want: []string{"db.example"}},
		{name: "one of two remote", need: settings.Warehouse, env: []string{"DATABASE_URL=postgres://localhost,10.0.0.9/d?sslmode=disable"}, want: []string{"10.0.0.9"}},
		{name: "remote, require", need: settings.Warehouse, env: []string{"DATABASE_URL=postgres://u@db.example/d?sslmode=require"}},
		{name: "remote, allowed", need: both, env: []string{"DATABASE_URL=postgres://u@db.example/d?sslmode=disable", "KAFKA_BROKERS=k.example:9092", "TALLYMAN_ALLOW_PLAINTEXT=true"}},
		{name: "remote broker", need: settings.Kafka, env: []string{"KAFKA_BROKERS=127.0.0.1:1,k.example:9092"}, want: []string{"kafka.brokers: k.example:9092 is another machine"}},
		{name: "remote broker, TLS", need: settings.Kafka, env: []string{"KAFKA_BROKERS=k.example:9092", "TALLYMAN_KAFKA_TLS_ENABLED=true"}},
		{name: "remote broker, SASL alone", need: settings.Kafka, env: []string{"KAFKA_BROKERS=k.example:9092", "TALLYMAN_KAFKA_SASL_MECHANISM=PLAIN"}, want: []string{"k.example:9092 is another machine"}},
		{name: "a line for each", need: both, env: []string{"KAFKA_BROKERS=a.example:1,b.example:2", "DATABASE_URL=postgres://db.example/d?sslmode=allow"}, want: []string{"a.example:1", "b.example:2", "db.example"}},
		{name: "remote, verify-full", need: settings.Warehouse, env: []string{"DATABASE_URL=postgres://u@db.example/d?sslmode=verify-full"}},
		{name: "TLS set and not enabled", need: settings.Kafka, env: []string{"KAFKA_BROKERS=localhost:1", "TALLYMAN_KAFKA_TLS_CA_FILE=ca.pem", "TALLYMAN_KAFKA_TLS_SERVER_NAME=k"},
			want: []string{"kafka.tls.ca_file is set, but kafka.tls.enabled: true is not", "kafka.tls.server_name is set"}},
		{name: "SASL set without mechanism", need: settings.Kafka, env: []string{"KAFKA_BROKERS=localhost:1", "TALLYMAN_KAFKA_SASL_USER=u", "TALLYMAN_KAFKA_SASL_PASSWORD=secret"},
			want: []string{"kafka.sasl.user is set, but kafka.sasl.mechanism is not", "kafka.sasl.password is set"}},
		{name: "no port", need: settings.Kafka, env: []string{"KAFKA_BROKERS=localhost"}, want: []string{`kafka.brokers: "localhost" is not host:port`}},
		{name: "broken URL", need: settings.Warehouse, env: []string{"DATABASE_URL=postgres://u:secret@h:port/d"}, want: []string{"warehouse.url: "}},
		{name: "admin", need: settings.Admin, env: []string{"TALLYMAN_ADMIN_LISTEN=9187"}, want: []string{`admin.listen: "9187" is not host:port`}},
		{name: "admin off", need: settings.Admin, env: []string{"TALLYMAN_ADMIN_LISTEN=off"}},
		{name: "log format", env: []string{"TALLYMAN_LOG_FORMAT=xml"}, want: []string{`log.format: "xml"`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg, err := load(t, "", tt.env...)
			if err != nil {
				t.Fatal(err)
			}
			err = cfg.Need(tt.need)
			checkFaults(t, err, tt.want)
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the password is in the message: %v", err)
			}
		})
	}
}
