package schema_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tallyman/schema"
)

func TestParseSources(t *testing.T) {
	t.Parallel()
	const text = "dataset: a/b\ncolumns: [{name: id, type: int64}]\n"
	m, err := schema.ParseManifest([]byte(text + "sources:\n- {name: eu-west, continuous: true}\n- {name: \"Nachts; 2\"}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]schema.Source{{Name: "eu-west", Continuous: true}, {Name: "Nachts; 2"}}, m.Sources); diff != "" {
		t.Error(diff)
	}
	const canonical = `"dataset":"a/b","sources":[{"continuous":true,"name":"eu-west"},{"continuous":false,"name":"Nachts; 2"}],"table"`
	if got := string(m.Canonical()); !strings.Contains(got, canonical) {
		t.Errorf("canonical form changed: %s", got)
	}
	again, err := schema.ParseCanonical(m.Canonical())
	if diff := cmp.Diff(m, again); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	// What says nothing leaves the canonical form, and so the hash, as it was.
	plain, err := schema.ParseManifest([]byte(text))
	if err != nil || strings.Contains(string(plain.Canonical()), "sources") {
		t.Errorf("%s, %v", plain.Canonical(), err)
	}
	if none, err := schema.ParseManifest([]byte(text + "sources: []\n")); err != nil || none.Hash() != plain.Hash() {
		t.Errorf("%s, %v", none.Canonical(), err)
	}

	if got := schema.Compare(plain, m); !schema.Fit(got) || len(got) != 1 || got[0].Subject != "sources" {
		t.Errorf("%+v", got)
	}
	turned := m
	turned.Sources = []schema.Source{m.Sources[1], m.Sources[0]}
	if got := schema.Compare(m, turned); len(got) != 0 {
		t.Errorf("in another order: %+v", got)
	}
}

func TestParseSourcesFaults(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"sources: yes":                                        `line 3: sources: is "yes", want a list of {name, continuous}`,
		"sources: [{continuous: true}]":                       "line 3: sources[0].name: is required",
		"sources: [{name: a}, {name: a}]":                     `line 3: sources[1].name: source "a" is already sources[0]`,
		"sources: [{name: \"a\\n\"}]":                         `line 3: sources[0].name: the name "a\n" is not UTF-8 without control characters`,
		"sources: [{name: " + strings.Repeat("a", 256) + "}]": "has 256 bytes, at most 255 are possible",
		"sources: [{name: a, continuous: 1}]":                 `line 3: sources[0].continuous: is "1", want true or false`,
		"sources: [{name: a, always: true}]":                  `line 3: sources[0]: unknown key "always": known are continuous, name`,
	} {
		_, err := schema.ParseManifest([]byte("dataset: a/b\ncolumns: [{name: id, type: int64}]\n" + text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v\nwant %s", text, err, want)
		}
	}
}
