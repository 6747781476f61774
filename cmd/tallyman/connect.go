package main

import (
	"context"
	"fmt"
	"os"

	"tallyman/cmd/tallyman/internal/settings"
	"tallyman/internal/kafkaconn"
	"tallyman/sink/postgres"
)

// kafka prepares the connection to the brokers. Nothing is dialled yet.
func (p *program) kafka(cfg settings.Config) (*kafkaconn.Conn, error) {
	conn, err := kafkaconn.New(kafkaConfig(cfg))
	if err != nil {
		return nil, settings.Faults{err.Error()} // a file that a setting names, say
	}
	return conn, nil
}

// kafkaConfig says which cluster it is, and how to connect to it.
func kafkaConfig(cfg settings.Config) kafkaconn.Config {
	c := kafkaconn.Config{Brokers: cfg.KafkaBrokers, Cluster: cfg.KafkaCluster, ClientID: cfg.KafkaClientID, Compression: cfg.KafkaCompression}
	if cfg.KafkaTLSEnabled {
		c.TLS = &kafkaconn.TLS{CAFile: cfg.KafkaTLSCAFile, CertFile: cfg.KafkaTLSCertFile, KeyFile: cfg.KafkaTLSKeyFile, ServerName: cfg.KafkaTLSServerName}
	}
	if cfg.KafkaSASLMechanism != "" {
		c.SASL = &kafkaconn.SASL{
			Mechanism: cfg.KafkaSASLMechanism, User: cfg.KafkaSASLUser, UserFile: cfg.KafkaSASLUserFile,
			Password: cfg.KafkaSASLPassword, PasswordFile: cfg.KafkaSASLPasswordFile,
		}
	}
	return c
}

// warehouse prepares the connection to the warehouse. Nothing is dialled yet.
func (p *program) warehouse(ctx context.Context, cfg settings.Config) (*postgres.Warehouse, error) {
	return postgres.Open(ctx, postgres.Config{
		URL:                cfg.WarehouseURL,
		Target:             cfg.WarehouseTarget,
		Member:             member(cfg),
		QuarantineMaxBytes: int64(cfg.LoaderQuarantineMaxBytes),
		Logger:             p.logger(cfg),
	})
}

// checkTarget refuses a warehouse that is not the configured one: a clone, say.
func checkTarget(ctx context.Context, w *postgres.Warehouse, want string) error {
	name, err := w.Target(ctx)
	if err != nil {
		return err
	}
	if name != want {
		return fmt.Errorf("the warehouse calls itself %q, but warehouse.target is %q: "+
			"set it to the former, or run tallyman init --rename-target if this is a copy with a life of its own", name, want)
	}
	return nil
}

// member returns this process's name in lists of sessions.
func member(cfg settings.Config) string {
	if cfg.LoaderMember != "" {
		return cfg.LoaderMember
	}
	host, err := os.Hostname()
	if err != nil {
		host = "tallyman"
	}
	return fmt.Sprintf("%s-%d", host, os.Getpid())
}
