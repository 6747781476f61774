package batch_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"tallyman/schema"
	"tallyman/schema/batch"
)

// vectors are the machine-readable half of FORMAT.md: messages and what they
// mean, for producers in any language to check themselves against.
type vectors struct {
	Messages []vector     `json:"messages"`
	IDs      []idVector   `json:"ids"`
	FileIDs  []fileVector `json:"file_ids"`
	// Announcements have no value.
	Announcements []vector `json:"announcements"`
}

// idVector is a spelling of an id with the time that comes with it, and what
// they mean: an id and its batch time, or the reason for which they are refused.
type idVector struct {
	Name   string       `json:"name"`
	CeID   string       `json:"ce_id"`
	CeTime *string      `json:"ce_time"` // nil: there is none
	ID     uuid.UUID    `json:"id"`
	Time   time.Time    `json:"batch_time"`
	Reason batch.Reason `json:"reason"`
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
	if len(v.Messages) < 6 || len(v.IDs) < 80 || len(v.FileIDs) < 3 || len(v.Announcements) < 3 {
		t.Fatalf("%d messages, %d ids and %d file ids", len(v.Messages), len(v.IDs), len(v.FileIDs))
	}
	return v
}

func (v *vector) headers() (headers []batch.Header) {
	for _, h := range v.Headers {
		headers = append(headers, batch.Header{Key: h[0], Value: []byte(h[1])})
	}
	return headers
}

// parseVector reads the batch in a vector's message.
func parseVector(t *testing.T, v vector) *batch.Batch {
	t.Helper()
	value, err := hex.DecodeString(v.ValueHex)
	if err != nil {
		t.Fatal(err)
	}
	b, err := batch.Parse([]byte(v.Key), value, v.headers())
	if err != nil {
		t.Fatalf("%s: %v", v.Name, err)
	}
	return b
}

// The format is frozen: these bytes were computed by another program.
func TestVectors(t *testing.T) {
	t.Parallel()
	for _, v := range readVectors(t).Messages {
		b := parseVector(t, v)
		if b.Digest.String() != v.Digest || b.Content().String() != v.Content {
			t.Errorf("%s: digests are %s and %s, want %s and %s", v.Name, b.Digest, b.Content(), v.Digest, v.Content)
		}
		if diff := cmp.Diff(v.headers(), b.Headers()); diff != "" {
			t.Errorf("%s: headers written are others than read:\n%s", v.Name, diff)
		}
		restored, err := batch.Restore(b.Key(), b.Value, v.headers())
		if diff := cmp.Diff(b, restored); diff != "" || err != nil {
			t.Errorf("%s: %v; restored it is another than parsed:\n%s", v.Name, err, diff)
		}
	}
}

// Ids of every version, however they are spelled, with times on both sides of
// every boundary.
func TestIDVectors(t *testing.T) {
	t.Parallel()
	for _, v := range readVectors(t).IDs {
		b := &batch.Batch{
			ID: v.ID, Source: "s", Dataset: schema.Dataset{Namespace: "n", Name: "n"},
			ContentType: batch.NDJSON, Rows: 1, Value: []byte("{}"),
		}
		b.Seal()
		headers := slices.DeleteFunc(b.Headers(), func(h batch.Header) bool { return h.Key == "ce_id" || h.Key == "ce_time" })
		headers = append(headers, batch.Header{Key: "ce_id", Value: []byte(v.CeID)})
		if v.CeTime != nil {
			headers = append(headers, batch.Header{Key: "ce_time", Value: []byte(*v.CeTime)})
		}
		got, err := batch.Parse(nil, b.Value, headers)
		var r *batch.Refusal
		switch {
		case v.Reason != "":
			if !errors.As(err, &r) || r.Reason != v.Reason {
				t.Errorf("%s: %v, want %s", v.Name, err, v.Reason)
			}
		case err != nil:
			t.Errorf("%s: %v", v.Name, err)
		case got.ID != v.ID || !got.Time.Equal(v.Time) || got.Time.Location() != time.UTC:
			t.Errorf("%s: id %s at %s, want %s at %s", v.Name, got.ID, got.Time, v.ID, v.Time)
		}
		id, err := batch.ParseID(v.CeID)
		if refused := v.Reason == batch.BadID || v.Reason == batch.NoID; refused != (err != nil) || v.Reason == "" && id != v.ID {
			t.Errorf("%s: the id alone is %s, %v", v.Name, id, err)
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
