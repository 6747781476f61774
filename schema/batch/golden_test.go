package batch_test

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"tallyman/schema"
	"tallyman/schema/batch"
)

// vectors are the machine-readable half of FORMAT.md: messages and what they
// mean, for producers in any language to check themselves against.
type vectors struct {
	Messages []vector     `json:"messages"`
	FileIDs  []fileVector `json:"file_ids"`
}

type vector struct {
	Name     string      `json:"name"`
	Key      string      `json:"key"`
	Headers  [][2]string `json:"headers"`
	ValueHex string      `json:"value_hex"`
	Preamble string      `json:"digest_preamble"`
	Digest   string      `json:"digest"`
	Content  string      `json:"content_digest"`
}

type fileVector struct {
	Dataset, Format, SHA256, Label, ID string
	Chunk                              uint64
}

func readVectors(t testing.TB) vectors {
	t.Helper()
	text, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Messages) < 3 || len(v.FileIDs) < 3 {
		t.Fatalf("%d messages and %d file ids", len(v.Messages), len(v.FileIDs))
	}
	return v
}

// The format is frozen: these bytes were computed by another program.
func TestVectors(t *testing.T) {
	t.Parallel()
	for _, v := range readVectors(t).Messages {
		value, err := hex.DecodeString(v.ValueHex)
		if err != nil {
			t.Fatal(err)
		}
		var headers []batch.Header
		for _, h := range v.Headers {
			headers = append(headers, batch.Header{Key: h[0], Value: []byte(h[1])})
		}
		b, err := batch.Parse([]byte(v.Key), value, headers)
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		if b.Digest.String() != v.Digest || b.Content().String() != v.Content {
			t.Errorf("%s: digests are %s and %s, want %s and %s", v.Name, b.Digest, b.Content(), v.Digest, v.Content)
		}
		if diff := cmp.Diff(headers, b.Headers()); diff != "" {
			t.Errorf("%s: headers written are others than read:\n%s", v.Name, diff)
		}
	}
}

func TestFileIDVectors(t *testing.T) {
	t.Parallel()
	for _, v := range readVectors(t).FileIDs {
		d, err := schema.ParseDataset(v.Dataset)
		if err != nil {
			t.Fatal(err)
		}
		sum, err := hex.DecodeString(v.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		if id := batch.FileID(d, v.Format, batch.Digest(sum), v.Chunk, v.Label); id != uuid.MustParse(v.ID) {
			t.Errorf("chunk %d of %s is %s, want %s", v.Chunk, v.SHA256[:8], id, v.ID)
		}
	}
}

// What FORMAT.md shows is the first vector.
func TestFormatShowsTheFirstVector(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	v := readVectors(t).Messages[0]
	shown := []string{v.Key, v.Digest, v.Content, strconv.Quote(v.Preamble)}
	for _, h := range v.Headers {
		shown = append(shown, h[0]+": "+h[1])
	}
	for _, s := range shown {
		if !strings.Contains(string(text), s) {
			t.Errorf("FORMAT.md does not show %s", s)
		}
	}
}
