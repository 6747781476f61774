package settings

import (
	"fmt"
	"net"
	"net/url"
	"time"
)

func serveTable() []Setting {
	return []Setting{
		{Key: "serve.listen", Default: "127.0.0.1:8480", Unit: "host:port",
			Doc:  "Where rows are taken over HTTP. Port 0 takes a free one.",
			bind: func(c *Config) any { return &c.ServeListen }},
		{Key: "serve.manifests", Unit: "files or directories, comma-separated",
			Doc:  "The manifests of the datasets that are served; of a directory, every .yaml and .yml in it.",
			bind: func(c *Config) any { return &c.ServeManifests }},
		{Key: "serve.token_file", Unit: "file",
			Doc:  "A name and a bearer token on each line; a client needs one of the tokens.",
			bind: func(c *Config) any { return &c.ServeTokenFile }},
		{Key: "serve.tls_cert", Unit: "PEM file",
			Doc:  "The certificate of the daemon, with those that lead to its authority. Empty: plain HTTP.",
			bind: func(c *Config) any { return &c.ServeTLSCert }},
		{Key: "serve.tls_key", Unit: "PEM file",
			Doc:  "The certificate's key.",
			bind: func(c *Config) any { return &c.ServeTLSKey }},
		{Key: "serve.client_ca", Unit: "PEM file",
			Doc:  "Authorities whose certificates let a client in; with serve.token_file, either is enough.",
			bind: func(c *Config) any { return &c.ServeClientCA }},
		{Key: "serve.max_body", Default: "16MiB", Unit: "size",
			Doc:  "The largest body of a request, as it comes and decompressed.",
			bind: func(c *Config) any { return &c.ServeMaxBody }},
		{Key: "serve.max_rows", Default: "100000", Unit: "count",
			Doc:  "Rows that a request may have.",
			bind: func(c *Config) any { return &c.ServeMaxRows }},
		{Key: "serve.max_requests", Default: "512", Unit: "count",
			Doc:  "Requests that are worked on at the same time.",
			bind: func(c *Config) any { return &c.ServeMaxRequests }},
		{Key: "serve.memory", Default: "256MiB", Unit: "size",
			Doc:  "Bytes of bodies and rows that all requests hold together; at least five times serve.max_body.",
			bind: func(c *Config) any { return &c.ServeMemory }},
		{Key: "serve.rate", Default: "5000", Unit: "count",
			Doc:  "Requests that a client may make in a second; clients are told by token, certificate or address.",
			bind: func(c *Config) any { return &c.ServeRate }},
		{Key: "serve.read_timeout", Default: "30s", Unit: "duration",
			Doc:  "How long a request may take to come in.",
			bind: func(c *Config) any { return &c.ServeReadTimeout }},
		{Key: "serve.announce_interval", Default: "5s", Unit: "duration",
			Doc:  "How often loaders are told how many batches there are, so that one that never comes is missed.",
			bind: func(c *Config) any { return &c.ServeAnnounceInterval }},
	}
}

// replayTable is what a daemon does with the receipts of warehouses.
func replayTable() []Setting {
	return []Setting{
		{Key: "serve.targets", Unit: "names, comma-separated",
			Doc:  "All warehouses (warehouse.target) that receive the datasets: what each has confirmed is trimmed from the journal. Empty: nothing is trimmed, and the journal grows.",
			bind: func(c *Config) any { return &c.ServeTargets }},
		{Key: "serve.retention", Default: "72h", Unit: "duration",
			Doc:  "How long batches stay in the journal at least: longer than the age of the oldest backup that you would restore a warehouse from.",
			bind: func(c *Config) any { return &c.ServeRetention }},
		{Key: "serve.replay_batches", Default: "500", Unit: "count",
			Doc:  "Batches that are published again in a second, of each dataset, where a warehouse misses them.",
			bind: func(c *Config) any { return &c.ServeReplayBatches }},
		{Key: "serve.replay_bytes", Default: "16MiB", Unit: "size",
			Doc:  "Bytes of rows that are published again in a second, of each dataset.",
			bind: func(c *Config) any { return &c.ServeReplayBytes }},
		{Key: "serve.replay_grace", Default: "30s", Unit: "duration",
			Doc:  "How long after its publishing a batch is not published again, and the first of the growing pauses between tries; at most 10m.",
			bind: func(c *Config) any { return &c.ServeReplayGrace }},
		{Key: "serve.replay_tries", Default: "5", Unit: "count",
			Doc:  "How often a batch that stays missing is published again before there is an alarm; after that, as often as the warehouse says that it misses it, with pauses of up to 10m.",
			bind: func(c *Config) any { return &c.ServeReplayTries }},
	}
}

// serveFaults are of who can reach the daemon, and what others can see of it.
func (c *Config) serveFaults() Faults {
	var faults Faults
	if len(c.ServeManifests) == 0 {
		faults = append(faults, "no manifests: set serve.manifests or --serve-manifests to the files that tallyman dataset apply was given")
	}
	if (c.ServeTLSCert == "") != (c.ServeTLSKey == "") {
		faults = append(faults, "serve.tls_cert and serve.tls_key: both are needed, or neither")
	}
	if c.ServeClientCA != "" && c.ServeTLSCert == "" {
		faults = append(faults, "serve.client_ca: clients show certificates in TLS only; set serve.tls_cert and serve.tls_key")
	}
	if c.ServeReplayGrace > 10*time.Minute {
		faults = append(faults, fmt.Sprintf("serve.replay_grace: %v is too long; at most 10m", c.ServeReplayGrace))
	}
	if err := checkAddress(c.ServeListen, 0); err != nil {
		return append(faults, fmt.Sprintf("serve.listen: %v", err))
	}
	host, _, _ := net.SplitHostPort(c.ServeListen)
	if isLocal(host) {
		return faults
	}
	if c.ServeTLSCert == "" && !c.AllowPlaintext {
		faults = append(faults, fmt.Sprintf("serve.listen: %s can be reached from other machines, and rows and tokens would come unencrypted; set serve.tls_cert and serve.tls_key, or allow_plaintext: true if the network may see them", c.ServeListen))
	}
	if c.ServeTokenFile == "" && c.ServeClientCA == "" {
		faults = append(faults, fmt.Sprintf("serve.listen: %s can be reached from other machines, and nobody is asked who they are; set serve.token_file or serve.client_ca", c.ServeListen))
	}
	return faults
}

// CheckURL checks the URL of a daemon that rows are handed to: that it is one,
// and that nothing goes unencrypted to another machine unless that was allowed.
// The error is Faults.
func (c *Config) CheckURL(name, text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "":
		return Faults{fmt.Sprintf("%s: %q is not the URL of a daemon, such as https://ingest.example.com", name, text)}
	case u.User != nil:
		return Faults{fmt.Sprintf("%s: a daemon takes a token, not the user and password of a URL: see --token-file", name)}
	case u.Scheme == "http" && !isLocal(u.Hostname()) && !c.AllowPlaintext:
		return Faults{fmt.Sprintf("%s: %s is another machine, and http would send rows and token unencrypted; use https, or set allow_plaintext: true if the network may see them", name, u.Hostname())}
	}
	return nil
}
