package kafkaconn_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"tallyman/internal/kafkaconn"
	"tallyman/internal/sandbox"
	"tallyman/internal/sandbox/sandboxtest"
)

// secured is a broker with a listener for each way to secure one.
type secured struct {
	kafka              *sandbox.Kafka
	authority, another *sandboxtest.Authority
	client             sandboxtest.Certificate
	stranger           sandboxtest.Certificate // signed by the other authority
	old                sandboxtest.Certificate // of a client, expired
}

func newSecured(t *testing.T) *secured {
	t.Helper()
	s := &secured{authority: sandboxtest.NewAuthority(t), another: sandboxtest.NewAuthority(t)}
	later := time.Now().Add(time.Hour)
	store := s.authority.Issue(t, later, "localhost", "127.0.0.1").Both
	expired := s.authority.Issue(t, time.Now().Add(-time.Hour), "localhost", "127.0.0.1").Both
	s.client, s.stranger = s.authority.Issue(t, later), s.another.Issue(t, later)
	s.old = s.authority.Issue(t, time.Now().Add(-time.Hour))
	s.kafka = sandboxtest.Kafka(t,
		sandbox.KafkaListener{Name: "TLS", KeyStore: store},
		sandbox.KafkaListener{Name: "EXPIRED", KeyStore: expired},
		sandbox.KafkaListener{Name: "MUTUAL", KeyStore: store, ClientCA: s.authority.File},
		sandbox.KafkaListener{Name: "SASL", KeyStore: store, Users: map[string]string{"loader": "right-password"}},
	)
	return s
}

// config is how to connect to a listener as one should.
func (s *secured) config(listener string) kafkaconn.Config {
	c := kafkaconn.Config{Brokers: []string{s.kafka.ListenerAddr(listener)}, TLS: &kafkaconn.TLS{CAFile: s.authority.File}}
	switch listener {
	case "MUTUAL":
		c.TLS.CertFile, c.TLS.KeyFile = s.client.Cert, s.client.Key
	case "SASL":
		c.SASL = &kafkaconn.SASL{Mechanism: kafkaconn.ScramSHA512, User: "loader", Password: "right-password"}
	}
	return c
}

// join joins a consumer group, which connects by another way than the transport.
func join(t *testing.T, c kafkaconn.Config) error {
	t.Helper()
	group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: t.Name(), Brokers: c.Brokers, Topics: []string{"any"}, Dialer: connect(t, c).Dialer(), Timeout: 5 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = group.Close() }()
	for {
		_, err = group.Next(t.Context())
		switch { // a new broker's first answers
		case errors.Is(err, kafka.GroupLoadInProgress), errors.Is(err, kafka.GroupCoordinatorNotAvailable), errors.Is(err, kafka.NotCoordinatorForGroup):
		default:
			return err
		}
	}
}

func TestSecuredConnections(t *testing.T) {
	t.Parallel()
	s := newSecured(t)
	if err := connect(t, kafkaconn.Config{Brokers: []string{s.kafka.Addr()}}).CreateTopic(t.Context(), kafkaconn.NewTopic{Name: "any"}); err != nil {
		t.Fatal(err)
	}
	for _, listener := range []string{"TLS", "MUTUAL", "SASL"} {
		for _, mechanism := range kafkaconn.Mechanisms() {
			c := s.config(listener)
			if c.SASL != nil {
				c.SASL.Mechanism = mechanism
			} else if mechanism != kafkaconn.Plain {
				continue
			}
			if err := connect(t, c).APICheck(t.Context()); err != nil {
				t.Errorf("%s %s: %v", listener, mechanism, err)
			}
			if err := join(t, c); err != nil {
				t.Errorf("%s %s: join a group: %v", listener, mechanism, err)
			}
		}
	}
	t.Run("refused", func(t *testing.T) { testRefused(t, s) })
	t.Run("rotated", func(t *testing.T) { testRotated(t, s) })
}

// What can't connect says at once why, and what to change.
func testRefused(t *testing.T, s *secured) {
	for name, tc := range map[string]struct {
		listener string
		change   func(c *kafkaconn.Config)
		says     []string
		guess    bool // a broker that shuts down looks the same
	}{
		"wrong CA": {listener: "TLS", change: func(c *kafkaconn.Config) { c.TLS.CAFile = s.another.File },
			says: []string{"not signed by an authority in kafka.tls.ca_file (" + s.another.File, "unknown authority"}},
		"no CA": {listener: "TLS", change: func(c *kafkaconn.Config) { c.TLS.CAFile = "" }, says: []string{"set kafka.tls.ca_file"}},
		"wrong host": {listener: "TLS", change: func(c *kafkaconn.Config) { c.TLS.ServerName = "kafka.example" },
			says: []string{"another host", "kafka.tls.server_name", "kafka.example", "localhost"}},
		"expired":               {listener: "EXPIRED", says: []string{"not valid at this time", "renew the broker's certificate"}},
		"no client certificate": {listener: "MUTUAL", change: func(c *kafkaconn.Config) { c.TLS.CertFile, c.TLS.KeyFile = "", "" }, says: []string{"set kafka.tls.cert_file and kafka.tls.key_file"}},
		"a stranger's certificate": {listener: "MUTUAL", change: func(c *kafkaconn.Config) { c.TLS.CertFile, c.TLS.KeyFile = s.stranger.Cert, s.stranger.Key },
			says: []string{"refused this client's certificate", s.stranger.Cert}},
		"an expired client certificate": {listener: "MUTUAL", change: func(c *kafkaconn.Config) { c.TLS.CertFile, c.TLS.KeyFile = s.old.Cert, s.old.Key },
			says: []string{"refused this client's certificate", s.old.Cert}},
		"wrong password": {listener: "SASL", change: func(c *kafkaconn.Config) { c.SASL.Password = "wrong-password" }, says: []string{"the user or the password is wrong (kafka.sasl.user"}},
		"wrong password, PLAIN": {listener: "SASL", change: func(c *kafkaconn.Config) { c.SASL.Mechanism, c.SASL.Password = kafkaconn.Plain, "wrong-password" },
			says: []string{"the user or the password is wrong"}},
		"unknown user":     {listener: "SASL", change: func(c *kafkaconn.Config) { c.SASL.User = "nobody" }, says: []string{"the user or the password is wrong"}},
		"no SASL":          {listener: "SASL", change: func(c *kafkaconn.Config) { c.SASL = nil }, says: []string{"set kafka.sasl.mechanism"}, guess: true},
		"SASL not offered": {listener: "TLS", change: func(c *kafkaconn.Config) { c.SASL = s.config("SASL").SASL }, says: []string{"kafka.sasl.mechanism"}},
		"no TLS":           {listener: "TLS", change: func(c *kafkaconn.Config) { c.TLS = nil }, says: []string{"set kafka.tls.enabled to true"}},
		"TLS to a plain listener": {listener: "TLS", change: func(c *kafkaconn.Config) { c.Brokers = []string{s.kafka.Addr()} },
			says: []string{"kafka.tls.enabled"}, guess: true},
	} {
		t.Run(name, func(t *testing.T) {
			c := s.config(tc.listener)
			if tc.change != nil {
				tc.change(&c)
			}
			begun := time.Now()
			err := connect(t, c).APICheck(t.Context())
			var refused *kafkaconn.SecurityError
			if err == nil || errors.As(err, &refused) == tc.guess {
				t.Fatalf("a refusal, or not: %v", err)
			}
			_, asked := connect(t, c).TopicConfig(t.Context(), "any") // goes by what the transport knows of the brokers
			if asked == nil || errors.As(asked, &refused) == tc.guess {
				t.Errorf("asked for a topic: %v", asked)
			}
			for _, part := range append(tc.says, c.Brokers[0]) {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%v: doesn't say %s", err, part)
				}
			}
			if took := time.Since(begun); took > 10*time.Second {
				t.Errorf("took %v", took)
			}
			if err := join(t, c); err == nil {
				t.Error("joined a group nevertheless")
			} else if strings.Contains(err.Error(), "-password") {
				t.Errorf("the password is in %v", err)
			}
		})
	}
}

// Files that are replaced count for the next connection.
func testRotated(t *testing.T, s *secured) {
	password := filepath.Join(t.TempDir(), "password")
	put := func(text string) {
		if err := os.WriteFile(password, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := s.config("SASL")
	c.SASL.Password, c.SASL.PasswordFile = "", password
	c.MetadataTTL = 200 * time.Millisecond // an error of kafka-go's is kept for as long
	put("old-password\n")
	conn := connect(t, c)
	if err := conn.APICheck(t.Context()); err == nil {
		t.Fatal("the old password works")
	}
	put("right-password\n")
	if err := conn.APICheck(t.Context()); err != nil {
		t.Errorf("with the new password: %v", err)
	}
}
