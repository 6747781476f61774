package sandbox

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
)

// KafkaListener is one more way to connect to a broker, beside the plain one.
type KafkaListener struct {
	// Name tells listeners apart: capital letters.
	Name string
	// KeyStore is a PEM file of the broker's key and certificate. Defaults to no TLS.
	KeyStore string
	// ClientCA is a PEM file of the authorities of client certificates, which
	// are then required. Defaults to asking for none.
	ClientCA string
	// Users are names and passwords for SASL: PLAIN, SCRAM-SHA-256 and
	// SCRAM-SHA-512. Defaults to no SASL.
	Users map[string]string
}

// openListener is a listener with its port.
type openListener struct {
	KafkaListener
	Port int
}

// ListenerAddr returns the address of a listener, host:port; it panics if there is none of that name.
func (k *Kafka) ListenerAddr(name string) string {
	i := slices.IndexFunc(k.listeners, func(l openListener) bool { return l.Name == name })
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(k.listeners[i].Port))
}

// Protocol is Kafka's name for how the listener is secured.
func (l openListener) Protocol() string {
	return map[bool]string{true: "SASL_"}[l.Users != nil] + map[bool]string{true: "SSL", false: "PLAINTEXT"}[l.KeyStore != ""]
}

// Properties returns the listener's own lines of the configuration.
func (l openListener) Properties() string {
	var text strings.Builder
	set := func(key, value string) {
		fmt.Fprintf(&text, "listener.name.%s.%s=%s\n", strings.ToLower(l.Name), key, value)
	}
	if l.KeyStore != "" {
		set("ssl.keystore.type", "PEM")
		set("ssl.keystore.location", l.KeyStore)
	}
	if l.ClientCA != "" {
		set("ssl.truststore.type", "PEM")
		set("ssl.truststore.location", l.ClientCA)
		set("ssl.client.auth", "required")
	}
	if l.Users == nil {
		return text.String()
	}
	set("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512")
	users := ""
	for _, name := range slices.Sorted(maps.Keys(l.Users)) {
		users += fmt.Sprintf(` user_%s="%s"`, name, l.Users[name])
	}
	set("plain.sasl.jaas.config", "org.apache.kafka.common.security.plain.PlainLoginModule required"+users+";")
	for _, mechanism := range []string{"scram-sha-256", "scram-sha-512"} {
		set(mechanism+".sasl.jaas.config", "org.apache.kafka.common.security.scram.ScramLoginModule required;")
	}
	return text.String()
}

// scram returns the arguments of the format command that store the users.
func (k *Kafka) scram() []string {
	var args []string
	for _, l := range k.listeners {
		for _, name := range slices.Sorted(maps.Keys(l.Users)) {
			for _, mechanism := range []string{"SCRAM-SHA-256", "SCRAM-SHA-512"} {
				args = append(args, "--add-scram", fmt.Sprintf("%s=[name=%s,password=%s]", mechanism, name, l.Users[name]))
			}
		}
	}
	return args
}
