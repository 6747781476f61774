package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A daemon takes rows, answers its probes, publishes what it took, and ends at
// SIGTERM within ten seconds.
func TestServe(t *testing.T) {
	t.Parallel()
	s := newPushSite(t)
	d := startServe(t, append(s.env, "TALLYMAN_ADMIN_LISTEN=127.0.0.1:0"), "--serve-manifests", filepath.Dir(s.manifest))
	ndjson := http.Header{"Content-Type": {"application/x-ndjson"}}
	status, body := request(t, http.MethodPost, d.url+"/v1/datasets/web/visits/batches", visitsNDJSON, ndjson)
	if status != http.StatusAccepted || !strings.Contains(body, `"rows":2`) {
		t.Errorf("answered %d %s", status, body)
	}
	if got := d.get("/readyz"); got != "ok\n" {
		t.Errorf("/readyz says %q", got)
	}
	metrics := d.get("/metrics")
	for _, series := range []string{
		`tallyman_http_requests_total{path="/v1/datasets/{namespace}/{name}/batches",status="202"} 1`, "tallyman_http_rows_total 2",
	} {
		if !strings.Contains(metrics, series+"\n") {
			t.Errorf("%s is not in\n%s", series, metrics)
		}
	}
	d.drain()
	s.expect(1, 1)
}

// Wrong settings are told one by one, before anything is opened.
func TestServeRefusesWrongSettings(t *testing.T) {
	t.Parallel()
	s := newPushSite(t)
	args := func(more ...string) []string { return append([]string{"source", "serve"}, more...) }
	with := func(more ...string) []string {
		return args(append([]string{"--serve-manifests", s.manifest}, more...)...)
	}
	fail(t, exitUsage, s.env, args(), "no manifests")
	fail(t, exitUsage, s.env, with("--serve-listen", "0.0.0.0:0"), "serve.listen", "unencrypted", "allow_plaintext", "nobody is asked")
	fail(t, exitUsage, s.env, with("--serve-listen", ":0", "--allow-plaintext", "true"), "nobody is asked who they are")
	fail(t, exitUsage, s.env, with("--serve-listen", "here"), "host:port")
	fail(t, exitUsage, s.env, with("--serve-tls-cert", "tls.crt"), "serve.tls_key")
	fail(t, exitUsage, s.env, with("--serve-client-ca", "ca.crt"), "TLS only")
	fail(t, exitFailed, s.env, args("--serve-manifests", filepath.Join(s.dir, "none.yaml")), "none.yaml")
	fail(t, exitFailed, s.env, args("--serve-manifests", s.dir), "no manifest in")
	fail(t, exitFailed, s.env, args("--serve-manifests", s.manifest+","+filepath.Dir(s.manifest)), "both manifests of web/visits")
	fail(t, exitFailed, s.env, with("--serve-token-file", s.file("tokens", "one\n")), "tokens:1")
	fail(t, exitFailed, s.env, with("--serve-max-body", "1GiB"), "no room")
}

// What is pushed to a daemon has the ids that it has when it is pushed to
// Kafka, and a push that was interrupted goes on where it was.
func TestPushToADaemon(t *testing.T) {
	t.Parallel()
	s := newPushSite(t)
	tokens := s.file("tokens", "shop a-secret-of-the-shop\n")
	env := append(s.env, "TALLYMAN_ADMIN_LISTEN=off", "TALLYMAN_SERVE_TOKEN_FILE="+tokens, "TALLYMAN_SERVE_MANIFESTS="+s.manifest)
	d := startServe(t, env)
	long := s.file("long.csv", "n\n"+strings.Repeat("1\n", 5500))
	client := []string{"HOME=" + t.TempDir()} // knows no Kafka
	to := func(more ...string) []string { return append(s.args(long, "--to", d.url), more...) }

	fail(t, exitFailed, client, to(), "401", "bearer token")
	contains(t, succeed(t, client, to("--token-file", tokens)...), "long.csv: 5500 rows in 6 batches taken by "+d.url)
	contains(t, succeed(t, client, to("--token-file", tokens)...), "handed over before, and once more under the same ids to "+d.url)
	d.drain()
	s.expect(6, 6)
	contains(t, succeed(t, s.env, s.args(long)...), "long.csv: 5500 rows in 6 batches published")
	s.expect(12, 6)

	// Another manifest of the dataset, and a dataset that is not served.
	d = startServe(t, env)
	other := file(t, "other.yaml", strings.Replace(visits, "nullable: true", "nullable: false", 1))
	ndjson := s.file("a.ndjson", `{"n":1,"page":""}`)
	fail(t, exitFailed, client, []string{"push", "web/visits", "--manifest", other, ndjson, "--to", d.url, "--token-file", tokens}, "serves the dataset by manifest", "give both the same file")
	strange := file(t, "strange.yaml", strings.Replace(visits, "web/visits", "web/others", 1))
	fail(t, exitFailed, client, []string{"push", "web/others", "--manifest", strange, ndjson, "--to", d.url, "--token-file", tokens}, "404", "web/others")
	fail(t, exitUsage, client, append(s.args(ndjson), "--to", "http://ingest.example.com"), "--to", "unencrypted")
	fail(t, exitUsage, client, append(s.args(ndjson), "--to", "ingest.example.com"), "not the URL")
}

// A push that hands over more than the daemon takes in a second goes on when
// the daemon says.
func TestPushToADaemonThatIsBusy(t *testing.T) {
	t.Parallel()
	s := newPushSite(t)
	d := startServe(t, append(s.env, "TALLYMAN_ADMIN_LISTEN=off", "TALLYMAN_SERVE_MANIFESTS="+s.manifest, "TALLYMAN_SERVE_RATE=3"))
	r := invoke(t, s.env, append(s.args(s.file("long.csv", "n\n"+strings.Repeat("1\n", 5500))), "--to", d.url)...)
	if r.status != exitDone {
		t.Errorf("ended with %d", r.status)
	}
	contains(t, r.stdout, "long.csv: 5500 rows in 6 batches taken by")
	contains(t, r.stderr, "a batch was not taken; trying again", "429")
	d.drain()
	s.expect(6, 6)
}

// A push waits for a daemon that is away, goes on when it is killed in the
// middle and comes back, and its batches are published once each.
func TestPushToADaemonThatIsKilled(t *testing.T) {
	t.Parallel()
	s := newPushSite(t)
	env := append(s.env, "TALLYMAN_ADMIN_LISTEN=off", "TALLYMAN_SERVE_MANIFESTS="+s.manifest)
	d := startServe(t, env)
	address := strings.TrimPrefix(d.url, "http://")
	d.kill()
	var text bytes.Buffer
	text.WriteString("n\n")
	for i := range 300_000 {
		fmt.Fprintln(&text, i)
	}
	long := s.file("long.csv", text.String())
	r := s.interrupted("waiting for the daemon at http://"+address, func(func()) {}, append(s.args(long), "--to", "http://"+address))
	if r.status != exitFailed {
		t.Errorf("%d\n%s%s", r.status, r.stdout, r.stderr)
	}
	contains(t, r.stderr, "interrupted", "push the file again")
	done := make(chan result, 1)
	go func() { done <- invoke(t, s.env, append(s.args(long), "--to", "http://"+address)...) }()
	published := func() int64 { return s.broker.Cluster().PartitionInfo("web.visits", 0).HighWatermark }
	for range 4 {
		d = startServe(t, env, "--serve-listen", address)
		before := published()
		await(t, func() bool { return published() > before+10 })
		d.kill()
	}
	d = startServe(t, env, "--serve-listen", address)
	if r := <-done; r.status != exitDone {
		t.Errorf("the push ended with %d\n%s", r.status, r.stderr)
	} else {
		contains(t, r.stdout, "long.csv: 300000 rows in 300 batches taken by")
	}
	d.drain()
	ids := map[string]bool{}
	for _, id := range s.published() {
		ids[id] = true
	}
	if len(ids) != 300 {
		t.Errorf("%d batches are published", len(ids))
	}
}

// A token is not shown in the message about its file.
func TestPushTokenFile(t *testing.T) {
	t.Parallel()
	s := newPushSite(t)
	for _, text := range []string{"", "a b c\n"} {
		token := s.file("token", text)
		fail(t, exitFailed, s.env, append(s.args(s.file("a.csv", visitsCSV)), "--to", "http://127.0.0.1:1", "--token-file", token), "read the token", token)
	}
	if err := os.Remove(filepath.Join(s.dir, "token")); err != nil {
		t.Fatal(err)
	}
	fail(t, exitFailed, s.env, append(s.args(s.file("a.csv", visitsCSV)), "--to", "http://127.0.0.1:1", "--token-file", filepath.Join(s.dir, "token")), "read the token")
}
