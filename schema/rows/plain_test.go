package rows

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// What most values look like is plain, so that it is not slow.
func TestIsPlain(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`{}`, `[]`, `{ }`, `[ ]`, `""`, `0`, `-0`, `-1.5e+10`, `1E5`, `true`, `false`, `null`,
		`{"country": "DE", "device": "ios", "keyword": "%08x", "bid": 17, "tags": ["a", "b"], "more": {"x": [1, 2.5, null]}}`,
		"\"\x7f\"", strings.Repeat("[", 8) + strings.Repeat("]", 8),
	} {
		if !isPlain([]byte(text)) {
			t.Errorf("%s is not plain", text)
		}
	}
}

// FuzzIsPlain: what is plain is one JSON value, as the general reader sees it.
func FuzzIsPlain(f *testing.F) {
	for _, text := range []string{
		"", " ", `{`, `}`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{"a":1 "b":2}`, `{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `{1:2}`, `{"a":1}}`, `{"a":1}{`,
		`[1,]`, `[,1]`, `[1 2]`, `[1]]`, `["a]`, `"a`, `"a"b`, `"\n"`, "\"\n\"", "\"\x00\"", `"é"`, "\"\xff\"", `01`, `-`, `-a`, `1.`, `.5`, `1e`, `1e+`, `+1`, `0x1`,
		`tru`, `truee`, `nul`, `NaN`, `Infinity`, ` 1`, `1 `, "1\n", `{"a": {"b": [{"c": 1.5e-3}, true]}}`, `{"a" : 1 , "b" : [ 1 , 2 ] }`,
		strings.Repeat("[", 2000) + strings.Repeat("]", 2000), `{"a":0,"b":1,"c":2,"d":3,"e":4,"f":5,"g":6,"h":7,"i":8}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if !isPlain(text) {
			return
		}
		if !jsontext.Value(text).IsValid() || checkDepth(text, maxDepth) != nil || hasEscapedNUL(text) {
			t.Errorf("%q is plain, but not valid", text)
		}
	})
}
