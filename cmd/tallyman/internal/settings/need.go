package settings

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Need is what a command can't work without.
type Need uint8

// The needs. They can be joined with |.
const (
	Kafka Need = 1 << iota
	Warehouse
	Admin
	Serve
)

// Need checks the settings for what a command is about to do: that they are
// there, make sense, and send nothing unencrypted to another machine unless
// that was allowed. The error is Faults.
func (c *Config) Need(what Need) error {
	var faults Faults
	if what&Kafka != 0 {
		faults = append(faults, c.kafkaFaults()...)
	}
	if what&Warehouse != 0 {
		faults = append(faults, c.warehouseFaults()...)
	}
	if what&Admin != 0 && c.AdminListen != "off" {
		if err := checkAddress(c.AdminListen, 0); err != nil {
			faults = append(faults, fmt.Sprintf("admin.listen: %v", err))
		}
	}
	if what&Serve != 0 {
		faults = append(faults, c.serveFaults()...)
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		faults = append(faults, fmt.Sprintf("log.format: %q is neither text nor json", c.LogFormat))
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}

func (c *Config) kafkaFaults() Faults {
	var faults Faults
	if len(c.KafkaBrokers) == 0 {
		faults = append(faults, "no brokers: set kafka.brokers, KAFKA_BROKERS or --kafka-brokers to host:port")
	}
	if c.KafkaCluster == "" {
		faults = append(faults, "kafka.cluster: a name is needed; positions are kept under it")
	}
	for _, broker := range c.KafkaBrokers {
		if err := checkAddress(broker, 1); err != nil {
			faults = append(faults, fmt.Sprintf("kafka.brokers: %v", err))
			continue
		}
		host, _, _ := net.SplitHostPort(broker)
		if !c.AllowPlaintext && !c.KafkaTLSEnabled && !isLocal(host) {
			faults = append(faults, fmt.Sprintf("kafka.brokers: %s is another machine and the connection is not encrypted; set kafka.tls.enabled: true, or allow_plaintext: true if the network may see the data", broker))
		}
	}
	return append(faults, c.kafkaSecurityFaults()...)
}

// kafkaSecurityFaults names what is set and would have no effect. The rest is
// checked where the files are read.
func (c *Config) kafkaSecurityFaults() Faults {
	var faults Faults
	without := func(condition, key, value string) {
		if value != "" {
			faults = append(faults, fmt.Sprintf("%s is set, but %s is not", key, condition))
		}
	}
	if !c.KafkaTLSEnabled {
		const condition = "kafka.tls.enabled: true"
		without(condition, "kafka.tls.ca_file", c.KafkaTLSCAFile)
		without(condition, "kafka.tls.cert_file", c.KafkaTLSCertFile)
		without(condition, "kafka.tls.key_file", c.KafkaTLSKeyFile)
		without(condition, "kafka.tls.server_name", c.KafkaTLSServerName)
	}
	if c.KafkaSASLMechanism == "" {
		const condition = "kafka.sasl.mechanism"
		without(condition, "kafka.sasl.user", c.KafkaSASLUser)
		without(condition, "kafka.sasl.user_file", c.KafkaSASLUserFile)
		without(condition, "kafka.sasl.password", c.KafkaSASLPassword)
		without(condition, "kafka.sasl.password_file", c.KafkaSASLPasswordFile)
	}
	return faults
}

func (c *Config) warehouseFaults() Faults {
	if c.WarehouseURL == "" && !c.WarehouseFromPG {
		return Faults{"no warehouse: set warehouse.url, DATABASE_URL, PGHOST or --warehouse-url"}
	}
	cfg, err := pgconn.ParseConfig(c.WarehouseURL)
	if err != nil {
		return Faults{fmt.Sprintf("warehouse.url: %v", err)} // pgconn leaves the password out
	}
	var faults Faults
	if c.URLFromFlag && holdsPassword(c.WarehouseURL) {
		faults = append(faults, "--warehouse-url: a password on the command line can be read by everybody on this machine; put it in DATABASE_URL, PGPASSWORD or the file that PGPASSFILE names")
	}
	if c.WarehouseTarget == "" {
		faults = append(faults, "warehouse.target: a name is needed; it must equal the one stored in the warehouse")
	}
	plain := map[string]bool{} // a host is listed once for each port and TLS mode
	if cfg.TLSConfig == nil {
		plain[cfg.Host] = true
	}
	for _, f := range cfg.Fallbacks {
		plain[f.Host] = plain[f.Host] || f.TLSConfig == nil
	}
	for _, host := range slices.Sorted(maps.Keys(plain)) {
		if plain[host] && !isLocal(host) && !c.AllowPlaintext {
			faults = append(faults, fmt.Sprintf("warehouse.url: %s is another machine and its sslmode allows an unencrypted connection; add sslmode=verify-full or require, or set allow_plaintext: true if the network may see the data", host))
		}
	}
	return faults
}

// holdsPassword says whether a connection string brings a password of its own;
// pgconn also finds one in the environment.
func holdsPassword(dsn string) bool {
	if u, err := url.Parse(dsn); err == nil && u.Scheme != "" {
		_, inUser := u.User.Password()
		return inUser || u.Query().Has("password") || u.Query().Has("sslpassword")
	}
	return strings.Contains(dsn, "password")
}

// checkAddress checks "host:port" with a port of at least lowest.
func checkAddress(address string, lowest int) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is not host:port", address)
	}
	n, err := strconv.Atoi(port)
	if err != nil || n < lowest || n > 65535 || (host == "" && lowest > 0) {
		return fmt.Errorf("%q is not host:port", address)
	}
	return nil
}

// isLocal says whether what is sent to host stays on this machine: a loopback
// address or a Unix socket.
func isLocal(host string) bool {
	if strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
