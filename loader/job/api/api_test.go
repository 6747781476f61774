package api_test

import (
	"encoding/json"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tallyman/loader/job/api"
)

var update = flag.Bool("update", false, "write the golden file")

// The document is a file, so that a change of the interface is seen in review.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	api.Handler(api.Config{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, api.Document, nil))
	var served any
	if err := json.Unmarshal(w.Body.Bytes(), &served); err != nil {
		t.Fatalf("%v: %.200s", err, w.Body)
	}
	text, err := json.MarshalIndent(served, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, '\n')
	golden := filepath.Join("testdata", "openapi.json")
	if *update {
		if err := os.WriteFile(golden, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatalf("%v: go test ./loader/job/api -run TestOpenAPI -update writes it", err)
	}
	if diff := cmp.Diff(string(want), string(text)); diff != "" {
		t.Error(diff)
	}
	if version := served.(map[string]any)["openapi"]; version != "3.1.0" {
		t.Errorf("version %v", version)
	}
}
