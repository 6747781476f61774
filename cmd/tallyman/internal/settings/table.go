package settings

// Table returns every setting, in the order of a reference.
func Table() []Setting {
	var all []Setting
	for _, part := range [][]Setting{kafkaTable(), kafkaSecurityTable(), warehouseTable(), loaderTable(), serveTable(), replayTable(), restTable()} {
		all = append(all, part...)
	}
	return all
}

func kafkaTable() []Setting {
	return []Setting{
		{Key: "kafka.brokers", Unit: "host:port, comma-separated", Standard: []string{"KAFKA_BROKERS"},
			Doc:  "Brokers to ask for the rest of the cluster.",
			bind: func(c *Config) any { return &c.KafkaBrokers }},
		{Key: "kafka.cluster", Default: "default", Unit: "name",
			Doc:  "What positions call this cluster. Keep it when brokers move; change it for another cluster.",
			bind: func(c *Config) any { return &c.KafkaCluster }},
		{Key: "kafka.client_id", Default: "tallyman", Unit: "name",
			Doc:  "How the brokers' logs and quotas know this program.",
			bind: func(c *Config) any { return &c.KafkaClientID }},
		{Key: "kafka.compression", Default: "zstd", Unit: "zstd, gzip, lz4, snappy or none",
			Doc:  "How batches are compressed on their way through Kafka. zstd makes the smallest messages; snappy costs sources the least.",
			bind: func(c *Config) any { return &c.KafkaCompression }},
	}
}

func kafkaSecurityTable() []Setting {
	return []Setting{
		{Key: "kafka.tls.enabled", Default: "false", Unit: "true or false",
			Doc:  "Whether connections to the brokers are encrypted. Their certificates are always checked.",
			bind: func(c *Config) any { return &c.KafkaTLSEnabled }},
		{Key: "kafka.tls.ca_file", Unit: "PEM file",
			Doc:  "The authorities that may have signed the brokers' certificates. Empty: the system's.",
			bind: func(c *Config) any { return &c.KafkaTLSCAFile }},
		{Key: "kafka.tls.cert_file", Unit: "PEM file",
			Doc:  "This client's certificate, for brokers that ask for one.",
			bind: func(c *Config) any { return &c.KafkaTLSCertFile }},
		{Key: "kafka.tls.key_file", Unit: "PEM file",
			Doc:  "The key of kafka.tls.cert_file.",
			bind: func(c *Config) any { return &c.KafkaTLSKeyFile }},
		{Key: "kafka.tls.server_name", Unit: "host name",
			Doc:  "What the brokers' certificates must be for. Empty: the host name of each connection.",
			bind: func(c *Config) any { return &c.KafkaTLSServerName }},
		{Key: "kafka.sasl.mechanism", Unit: "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
			Doc:  "How this program says who it is. Empty: it doesn't.",
			bind: func(c *Config) any { return &c.KafkaSASLMechanism }},
		{Key: "kafka.sasl.user", Unit: "name",
			Doc:  "The user's name.",
			bind: func(c *Config) any { return &c.KafkaSASLUser }},
		{Key: "kafka.sasl.user_file", Unit: "file",
			Doc:  "A file with the user's name, read for each connection.",
			bind: func(c *Config) any { return &c.KafkaSASLUserFile }},
		{Key: "kafka.sasl.password", Unit: "text", Secret: true,
			Doc:  "The user's password; in the environment rather than in a file that others can read.",
			bind: func(c *Config) any { return &c.KafkaSASLPassword }},
		{Key: "kafka.sasl.password_file", Unit: "file",
			Doc:  "A file with the user's password, read for each connection.",
			bind: func(c *Config) any { return &c.KafkaSASLPasswordFile }},
	}
}

func warehouseTable() []Setting {
	return []Setting{
		{Key: "warehouse.url", Unit: "postgres://… or key=value", Standard: []string{"DATABASE_URL"},
			Doc:  "The PostgreSQL to load into. What it leaves out comes from PGHOST, PGUSER, PGPASSWORD and so on.",
			bind: func(c *Config) any { return &c.WarehouseURL }},
		{Key: "warehouse.target", Default: "default", Unit: "name",
			Doc:  "What sources call this warehouse. It must equal the name stored in it, so that a clone isn't loaded by mistake.",
			bind: func(c *Config) any { return &c.WarehouseTarget }},
	}
}

func loaderTable() []Setting {
	return []Setting{
		{Key: "loader.member", Unit: "name",
			Doc:  "This loader's name in the warehouse's and the brokers' lists of sessions. Empty: host name and process id.",
			bind: func(c *Config) any { return &c.LoaderMember }},
		{Key: "loader.committers", Default: "2", Unit: "count",
			Doc:  "Connections that commit at the same time, for each dataset; each takes a share of the partitions.",
			bind: func(c *Config) any { return &c.LoaderCommitters }},
		{Key: "loader.read_ahead", Default: "24MiB", Unit: "size",
			Doc:  "Bytes read from Kafka and not yet committed, over all datasets of the process.",
			bind: func(c *Config) any { return &c.LoaderReadAhead }},
		{Key: "loader.group_bytes", Default: "4MiB", Unit: "size",
			Doc:  "Bytes of rows that one transaction loads at most; a single larger batch goes alone.",
			bind: func(c *Config) any { return &c.LoaderGroupBytes }},
		{Key: "loader.session_timeout", Default: "6s", Unit: "duration",
			Doc:  "How long the brokers wait for a silent loader before its partitions go to another. A mistake costs a rebalance, never a duplicate.",
			bind: func(c *Config) any { return &c.LoaderSessionTimeout }},
		{Key: "loader.clock_skew", Default: "1h", Unit: "duration",
			Doc:  "How far ahead of this machine's clock a batch's time may be.",
			bind: func(c *Config) any { return &c.LoaderClockSkew }},
		{Key: "loader.breaker_window", Default: "100", Unit: "count",
			Doc:  "Over how many of the newest batches the share of refused ones is taken; if most would be refused, nothing moves any more.",
			bind: func(c *Config) any { return &c.LoaderBreakerWindow }},
		{Key: "loader.foreign_key_grace", Default: "30s", Unit: "duration",
			Doc:  "How long a batch waits whose rows refer to one that the warehouse doesn't have, before it is quarantined.",
			bind: func(c *Config) any { return &c.LoaderForeignKeyGrace }},
		{Key: "loader.missing_grace", Default: "1m", Unit: "duration",
			Doc:  "How long after its source announced it a batch that is nowhere counts as missing.",
			bind: func(c *Config) any { return &c.LoaderMissingGrace }},
		{Key: "loader.receipt_interval", Default: "5s", Unit: "duration",
			Doc:  "How often sources are told what of their batches is loaded and what is missing, if that has changed.",
			bind: func(c *Config) any { return &c.LoaderReceiptInterval }},
		{Key: "loader.probe_interval", Default: "1m", Unit: "duration",
			Doc:  "How often a dataset whose loading stopped tries again, in case the cause was mended.",
			bind: func(c *Config) any { return &c.LoaderProbeInterval }},
		{Key: "loader.quarantine_max_bytes", Default: "1GiB", Unit: "size",
			Doc:  "How large a dataset's quarantine may get before its loading stops.",
			bind: func(c *Config) any { return &c.LoaderQuarantineMaxBytes }},
	}
}

func restTable() []Setting {
	return []Setting{
		{Key: "source.name", Unit: "name",
			Doc:  "The producer's name in the envelope of what it publishes. Empty: the host name.",
			bind: func(c *Config) any { return &c.SourceName }},
		{Key: "source.dir", Unit: "directory",
			Doc:  "Where sources keep their journals. Empty: tallyman in XDG_STATE_HOME, else in ~/.local/state.",
			bind: func(c *Config) any { return &c.SourceDir }},
		{Key: "admin.listen", Default: "127.0.0.1:9187", Unit: "host:port",
			Doc:  "Where /metrics, /livez and /readyz answer, and of loaders the API of jobs. Port 0 takes a free one; off answers nowhere.",
			bind: func(c *Config) any { return &c.AdminListen }},
		{Key: "admin.token_file", Unit: "file",
			Doc:  "Whose tokens let requests to the API of jobs in, below /v1 on admin.listen: a name and a token on each line. Empty: only requests from this machine may change anything.",
			bind: func(c *Config) any { return &c.AdminTokenFile }},
		{Key: "log.level", Default: "info", Unit: "debug, info, warn or error",
			Doc:  "The least severe line that is logged.",
			bind: func(c *Config) any { return &c.LogLevel }},
		{Key: "log.format", Default: "text", Unit: "text or json",
			Doc:  "How lines are logged, to standard error.",
			bind: func(c *Config) any { return &c.LogFormat }},
		{Key: "allow_plaintext", Default: "false", Unit: "true or false",
			Doc:  "Whether data and passwords may cross a network unencrypted, to hosts other than this one.",
			bind: func(c *Config) any { return &c.AllowPlaintext }},
	}
}
