package serve

import (
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden file")

// The document is a file, so that a change of the interface is seen in review.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	got := r.do(ask{method: http.MethodGet, path: "/v1/openapi.json"})
	var served any
	fatal(t, json.Unmarshal(got.body, &served))
	text, err := json.MarshalIndent(served, "", "  ")
	fatal(t, err)
	text = append(text, '\n')
	golden := filepath.Join("testdata", "openapi.json")
	if *update {
		fatal(t, os.WriteFile(golden, text, 0o644))
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatalf("%v: go test ./source/serve -run TestOpenAPI -update writes it", err)
	}
	if diff := cmp.Diff(string(want), string(text)); diff != "" || got.status != http.StatusOK {
		t.Errorf("answered %d\n%s", got.status, diff)
	}
}

// The schemas of answers have the members of the Go types that are answered.
func TestSchemasAreTheTypes(t *testing.T) {
	t.Parallel()
	for name, v := range map[string]any{
		"AcceptedBatch": acceptedBatch{}, "AcceptedRows": acceptedRows{}, "Dataset": served{}, "Problem": problem{},
	} {
		schema := schemas()[name].(object)
		var required, all []string
		for f := range reflect.TypeOf(v).Fields() {
			member, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if member == "" {
				continue
			}
			all = append(all, member)
			if options != "omitempty" {
				required = append(required, member)
			}
		}
		var described []string
		for member := range schema["properties"].(object) {
			described = append(described, member)
		}
		slices.Sort(all)
		slices.Sort(required)
		slices.Sort(described)
		if diff := cmp.Diff(all, described); diff != "" {
			t.Errorf("members of %s (-type +schema):\n%s", name, diff)
		}
		if diff := cmp.Diff(required, schema["required"]); diff != "" {
			t.Errorf("required members of %s (-type +schema):\n%s", name, diff)
		}
	}
}
