package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// schemathesis in the environment names the program of that name, which makes
// requests from an OpenAPI document and compares the answers with it.
const schemathesis = "TALLYMAN_SCHEMATHESIS"

// The daemon answers as its OpenAPI document says, whatever is asked.
func TestServeByItsDocument(t *testing.T) {
	t.Parallel()
	tool := os.Getenv(schemathesis)
	if tool == "" {
		t.Skipf("needs schemathesis: run make test-all, or set %s to it (Python 3, PyPI)", schemathesis)
	}
	s := newPushSite(t)
	d := startServe(t, append(s.env, "TALLYMAN_ADMIN_LISTEN=off", "TALLYMAN_SERVE_MANIFESTS="+s.manifest, "TALLYMAN_SERVE_RATE=100000"))
	dir := t.TempDir()
	config := filepath.Join(dir, "schemathesis.toml")
	if err := os.WriteFile(config, []byte("[parameters]\n\"path.namespace\" = \"web\"\n\"path.name\" = \"visits\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	// That text is rows, no schema of OpenAPI can say; so what is valid by the
	// document may be refused.
	cmd := exec.CommandContext(t.Context(), tool, "--config-file", config, "run", d.url+"/v1/openapi.json",
		"--max-examples", "100", "--checks", "all", "--exclude-checks", "positive_data_acceptance", "--no-color")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	d.drain()
}
