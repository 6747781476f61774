package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"tallyman/internal/sandbox/sandboxtest"
)

// apiSite is a loader whose API is asked.
type apiSite struct {
	*incompleteSite
	url   string
	token string // that is sent; empty: none
}

func newAPISite(t *testing.T, version string, env ...string) *apiSite {
	t.Helper()
	s := newIncompleteSite(t, version)
	s.env = append(s.env, env...)
	l := s.begin()
	l.page("/livez")
	_, rest, _ := strings.Cut(l.log(), `msg="metrics and probes" address=`)
	address, _, _ := strings.Cut(rest, "\n")
	return &apiSite{incompleteSite: s, url: "http://" + address}
}

// call makes a request and returns the status and what the body says.
func (s *apiSite) call(method, path, body string, change ...func(*http.Request)) (int, map[string]any) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if s.token != "" {
		r.Header.Set("Authorization", "Bearer "+s.token)
	}
	for _, c := range change {
		c(r)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	said := map[string]any{}
	if len(text) > 0 {
		if err := json.Unmarshal(text, &said); err != nil {
			s.t.Fatalf("%s %s: %v: %s", method, path, err, text)
		}
	}
	if kind := resp.Header.Get("Content-Type"); resp.StatusCode >= 400 && (kind != "application/problem+json" || said["status"] != float64(resp.StatusCode)) {
		s.t.Errorf("%s %s: %d as %s: %s", method, path, resp.StatusCode, kind, text)
	}
	return resp.StatusCode, said
}

// The API does what the commands do: 202 for what is scheduled, 200 for what is
// there, 404 and 409 as they say.
func TestJobsOverHTTP(t *testing.T) {
	t.Parallel()
	for _, version := range sandboxtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := newAPISite(t, version)
			deploy := `{"kind": "load", "dataset": "web/visits", "options": {"parallelism": 2}}`
			want := func(status int, method, path, body string, says ...string) map[string]any {
				t.Helper()
				got, said := s.call(method, path, body)
				text, err := json.Marshal(said)
				if err != nil {
					t.Fatal(err)
				}
				if got != status {
					t.Errorf("%s %s %s: %d, want %d: %s", method, path, body, got, status, text)
				}
				for _, say := range says {
					if !strings.Contains(string(text), say) {
						t.Errorf("%s %s: %s does not say %s", method, path, text, say)
					}
				}
				return said
			}
			want(200, "GET", "/v1/jobs", "", `{"jobs":[]}`)
			done := want(202, "POST", "/v1/jobs", deploy, `"deduplicated":false`, `"status":"scheduled"`)
			key := done["job"].(map[string]any)["idempotency_key"].(string)
			want(200, "POST", "/v1/jobs", `{"dataset":"web/visits","options":{"end":"","parallelism":2.0},"kind":"load"}`, `"deduplicated":true`)
			want(409, "POST", "/v1/jobs", `{"kind": "load", "dataset": "web/visits"}`, "parallelism is 2, not 0", "body.options.parallelism")
			want(404, "POST", "/v1/jobs", `{"kind": "load", "dataset": "web/other"}`, "no dataset web/other")
			want(404, "POST", "/v1/jobs", `{"kind": "load", "dataset": "web/visits", "revision_id": 9}`, "no revision 9")
			want(400, "POST", "/v1/jobs", `{"kind": "laod", "dataset": "web/visits"}`, "unknown kind of job")
			want(400, "POST", "/v1/jobs", `{"kind": "load", "dataset": "web"}`, "namespace/name")
			want(400, "POST", "/v1/jobs", `{"kind": "load", "dataset": "web/visits", "options": {"speed": 1}}`, "unknown field")
			want(422, "POST", "/v1/jobs", `{"kind": "load", "dataset": "web/visits", "speed": 1}`, "unexpected property")
			want(400, "POST", "/v1/jobs", `{`)
			want(413, "POST", "/v1/jobs", `{"kind": "`+strings.Repeat("x", 100_000)+`"}`)
			want(200, "GET", "/v1/jobs?idempotency_key="+key, "", `"job_id":1,`)
			want(404, "GET", "/v1/jobs?idempotency_key="+strings.Repeat("0", 64), "")
			want(400, "GET", "/v1/jobs?idempotency_key=short", "")
			want(200, "GET", "/v1/jobs?dataset=web/other", "", `{"jobs":[]}`)
			s.becomes(1, "running")
			want(200, "GET", "/v1/jobs/1", "", `"options":{"end":"","parallelism":2}`, `"members":[{`)
			want(200, "GET", "/v1/jobs/1/events", "", `"type":"scheduled"`, `"type":"running"`)
			want(404, "GET", "/v1/jobs/77", "")
			want(404, "POST", "/v1/jobs/77/stop", "")
			want(409, "DELETE", "/v1/jobs/1", "")
			want(202, "POST", "/v1/jobs/1/stop", "")
			s.becomes(1, "stopped")
			want(200, "POST", "/v1/jobs/1/stop", "")
			want(409, "POST", "/v1/jobs/1/retry", "")
			want(204, "DELETE", "/v1/jobs/1", "")
			want(404, "GET", "/v1/jobs/1", "")

			want(201, "POST", "/v1/datasets/web/visits/revisions", `{"table": "visits_anew"}`, `"revision_id":2`)
			want(409, "POST", "/v1/datasets/web/visits/revisions", `{"table": "visits_anew"}`)
			want(404, "POST", "/v1/datasets/web/other/revisions", `{}`)
			want(200, "GET", "/v1/revisions?dataset=web/visits", "", `"state":"active"`, `"state":"building"`)
			want(200, "POST", "/v1/datasets/web/visits/revisions/2/activate", `{}`, `"active":2`, `"active_before":1`)
			want(409, "POST", "/v1/datasets/web/other/revisions/2/activate", `{}`, "belongs to web/visits")
			want(404, "POST", "/v1/datasets/web/visits/revisions/9/activate", `{}`)
			want(409, "DELETE", "/v1/datasets/web/visits/revisions/2", "")
			want(204, "DELETE", "/v1/datasets/web/visits/revisions/1", "")
			want(202, "POST", "/v1/jobs", `{"kind": "resync", "dataset": "web/visits"}`, `"revision_id":3`)
			want(200, "POST", "/v1/jobs", `{"kind": "resync", "dataset": "web/visits"}`, `"revision_id":3`)
		})
	}
}

// Without tokens a request may change things only if it comes from this machine and
// is meant for it; with tokens, only with one of them.
func TestWhoMayChangeJobs(t *testing.T) {
	t.Parallel()
	s := newAPISite(t, "18")
	elsewhere := func(r *http.Request) { r.Host = "internal.example:9187" }
	if status, _ := s.call("POST", "/v1/jobs", `{"kind": "load", "dataset": "web/visits"}`, elsewhere); status != http.StatusForbidden {
		t.Errorf("meant for another host: %d", status)
	}
	page := func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/v1/jobs", strings.NewReader(`{"kind": "load", "dataset": "web/visits"}`))
	if err != nil {
		t.Fatal(err)
	}
	page(r)
	resp, err := http.DefaultClient.Do(r)
	if err != nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("from another site's page: %v, %v", resp, err)
	}
	_ = resp.Body.Close()
	if status, _ := s.call("GET", "/v1/jobs", "", elsewhere); status != http.StatusOK {
		t.Errorf("looking: %d", status)
	}
	guarded := newAPISite(t, "18", "TALLYMAN_ADMIN_TOKEN_FILE="+file(t, "tokens", "ops correct-horse-battery\n"))
	for token, want := range map[string]int{"": 401, "wrong-horse-battery": 401, "correct-horse-battery": 202} {
		guarded.token = token
		if status, _ := guarded.call("POST", "/v1/jobs", `{"kind": "load", "dataset": "web/visits"}`); status != want {
			t.Errorf("token %q: %d, want %d", token, status, want)
		}
	}
	guarded.token = ""
	if status, _ := guarded.call("GET", "/v1/jobs", ""); status != http.StatusUnauthorized {
		t.Errorf("looking without a token: %d", status)
	}
}

// The API answers as its OpenAPI document says, whatever is asked.
func TestJobsByTheirDocument(t *testing.T) {
	t.Parallel()
	tool := os.Getenv(schemathesis)
	if tool == "" {
		t.Skipf("needs schemathesis: run make test-all, or set %s to it (Python 3, PyPI)", schemathesis)
	}
	s := newAPISite(t, "18")
	cmd := exec.CommandContext(t.Context(), tool, "run", s.url+"/v1/openapi.json",
		"--max-examples", "50", "--checks", "all", "--exclude-checks", "positive_data_acceptance", "--no-color")
	cmd.Dir = t.TempDir()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if status, said := s.call("GET", "/v1/jobs", ""); status != http.StatusOK {
		t.Error(fmt.Sprint(said))
	}
}
