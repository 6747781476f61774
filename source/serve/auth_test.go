package serve

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tallyman/internal/bearer"
)

// tokenFile writes a token file of the test's own.
func tokenFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens")
	fatal(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestTokens(t *testing.T) {
	t.Parallel()
	path := tokenFile(t, "# who may post\n\nshop first-secret-of-shop\nshop second-secret-of-shop\n")
	r := newRig(t, func(s *setup) { s.TokenFile = path })
	for _, good := range []string{"Bearer first-secret-of-shop", "bearer second-secret-of-shop"} {
		accepted[acceptedRows](r, post("/rows", `{"n":1}`, "Authorization", good))
	}
	for _, bad := range []string{"", "first-secret-of-shop", "Basic first-secret-of-shop", "Bearer", "Bearer first-secret-of-sho", "Bearer shop", "Bearer # who"} {
		for _, a := range []ask{
			post("/rows", `{"n":2}`, "Authorization", bad), post("/batches", `{"n":2}`, "Authorization", bad),
			{http.MethodGet, "/v1/openapi.json", http.Header{"Authorization": {bad}}, nil}, {http.MethodGet, "/other", http.Header{"Authorization": {bad}}, nil},
		} {
			got := r.do(a)
			r.refused(got, unauthenticated)
			if got.header.Get("WWW-Authenticate") == "" {
				t.Errorf("headers %v", got.header)
			}
		}
	}
	r.wantRows("1 NULL", "1 NULL")
}

// A token file that changes is read again; one that can't be read leaves the
// tokens as they were.
func TestTokensAreReadAgain(t *testing.T) {
	t.Parallel()
	path := tokenFile(t, "shop first-secret-of-shop\n")
	r := newRig(t, func(s *setup) { s.TokenFile = path })
	status := func(token string) int { return r.do(post("/rows", `{"n":1}`, "Authorization", "Bearer "+token)).status }
	fatal(t, os.WriteFile(path, []byte("shop another-secret-of-shop\n"), 0o600))
	r.await(func() bool { return status("another-secret-of-shop") == http.StatusAccepted })
	if got := status("first-secret-of-shop"); got != http.StatusUnauthorized {
		t.Errorf("the old token is answered %d", got)
	}
	fatal(t, os.WriteFile(path, []byte("only-one-word\n"), 0o600))
	r.daemon.tokens.mu.Lock()
	r.daemon.tokens.looked = time.Time{}
	r.daemon.tokens.mu.Unlock()
	if got := status("another-secret-of-shop"); got != http.StatusAccepted {
		t.Errorf("after a file that can't be read the token is answered %d", got)
	}
}

// A token file that can't be meant is refused, without showing a token.
func TestBadTokenFiles(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "# none\n", "first-secret-of-shop\n", "shop short\n", "shop two words-and-more\n"} {
		if got, err := bearer.Read(tokenFile(t, text)); err == nil {
			t.Errorf("%q gives %v", text, got)
		}
	}
}
