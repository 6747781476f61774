package intake

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"tallyman/schema"
	"tallyman/schema/batch"
)

// vectors are the machine-readable half of FORMAT.md: files, and the batches
// that they are. Another program computed them; a change of a single one of
// them would load files again that are loaded already.
type vectors struct {
	Chunks []chunkVector  `json:"chunks"`
	Native []nativeVector `json:"native"`
}

type chunkVector struct {
	Name    string `json:"name"`
	Format  Format `json:"format"`
	Label   string `json:"label"`
	Content []struct {
		Text  string `json:"text"`
		Times int    `json:"times"`
	} `json:"content"`
	SHA256 string      `json:"sha256"`
	Chunks []wantChunk `json:"chunks"`
}

type wantChunk struct {
	Line   int64  `json:"line"`
	Rows   int    `json:"rows"`
	Bytes  int    `json:"bytes"`
	SHA256 string `json:"sha256"`
	ID     string `json:"id"`
}

type nativeVector struct {
	Manifest string `json:"manifest"` // empty: orders
	Format   Format `json:"format"`
	Content  string `json:"content"`
	ID       string `json:"id"`
	Rows     int    `json:"rows"`
	ValueHex string `json:"value_hex"`
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
	if len(v.Chunks) < 20 || len(v.Native) != 4 {
		t.Fatalf("%d and %d vectors", len(v.Chunks), len(v.Native))
	}
	return v
}

// file returns the vector's content.
func (v *chunkVector) file(t testing.TB) string {
	t.Helper()
	var text strings.Builder
	for _, part := range v.Content {
		text.WriteString(strings.Repeat(part.Text, part.Times))
	}
	if sum := sha256.Sum256([]byte(text.String())); hex.EncodeToString(sum[:]) != v.SHA256 {
		t.Fatalf("%s: the content is another one", v.Name)
	}
	return text.String()
}

// split cuts an input as run does; the header, if there is one, comes first.
func split(in io.Reader, format Format) (head []byte, chunks []chunk, err error) {
	s := newSplitter(in, format)
	if err := s.byteOrderMark(); err != nil {
		return nil, nil, err
	}
	if format == CSV {
		if head, err = s.first(); err != nil {
			return nil, nil, err
		}
	}
	for {
		c, err := s.next()
		if errors.Is(err, io.EOF) {
			return head, chunks, nil
		}
		if err != nil {
			return head, chunks, err
		}
		chunks = append(chunks, c)
	}
}

// The rule of chunks and the ids of their batches are frozen, however the input
// comes in.
func TestChunkVectors(t *testing.T) {
	t.Parallel()
	for _, v := range readVectors(t).Chunks {
		text := v.file(t)
		for how, in := range map[string]io.Reader{
			"at once": strings.NewReader(text), "with the end": iotest.DataErrReader(strings.NewReader(text)),
			"in halves": iotest.HalfReader(strings.NewReader(text)), "byte by byte": iotest.OneByteReader(strings.NewReader(text)),
		} {
			_, chunks, err := split(in, v.Format)
			if err != nil {
				t.Fatalf("%s, %s: %v", v.Name, how, err)
			}
			got := []wantChunk{}
			for _, c := range chunks {
				sum := sha256.Sum256(c.data)
				id := batch.FileID(schema.Dataset{Namespace: "ads", Name: "clicks"}, string(v.Format), sha256.Sum256([]byte(text)), c.number, v.Label)
				got = append(got, wantChunk{Line: c.line, Rows: c.rows, Bytes: len(c.data), SHA256: hex.EncodeToString(sum[:]), ID: id.String()})
			}
			if diff := cmp.Diff(v.Chunks, got); diff != "" {
				t.Errorf("%s, %s:\n%s", v.Name, how, diff)
			}
		}
	}
}

const orders = `
dataset: shop/orders
topic: orders
columns:
  - {name: order_id, type: uuid}
  - {name: at, type: timestamptz}
  - {name: amount, type: int64}
  - {name: price, type: float64}
  - {name: paid, type: bool}
  - {name: note, type: text, nullable: true}
  - {name: doc, type: json, nullable: true}
`

func manifest(t testing.TB, text string) schema.Manifest {
	t.Helper()
	m, err := schema.ParseManifest([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// What is published of a file is frozen, too: the same ids with other bytes
// would be refused as a conflict.
func TestNativeVectors(t *testing.T) {
	t.Parallel()
	for _, v := range readVectors(t).Native {
		if v.Manifest == "" {
			v.Manifest = orders
		}
		got, _, err := encodeText(t, manifest(t, v.Manifest), "", v.Format, v.Content)
		if err != nil {
			t.Fatalf("%s: %v", v.Format, err)
		}
		want, err := hex.DecodeString(v.ValueHex)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 1 || got[0].ID.String() != v.ID || got[0].Rows != v.Rows || !bytes.Equal(got[0].Value, want) {
			t.Errorf("%s: %d batches, the first %s with %d rows:\n%x, want %s with %d:\n%x", v.Format, len(got), got[0].ID, got[0].Rows, got[0].Value, v.ID, v.Rows, want)
		}
	}
}

// encodeText reads a text into a journal and returns the batches there, by
// number of chunk.
func encodeText(t testing.TB, m schema.Manifest, null string, format Format, text string) ([]*batch.Batch, totals, error) {
	t.Helper()
	e := newEncoding(t, m, format, sha256.Sum256([]byte(text)))
	e.null = null
	total, err := e.run(context.Background(), strings.NewReader(text))
	found := map[string]*batch.Batch{}
	for r, err := range e.journal.All() {
		if err != nil {
			t.Fatal(err)
		}
		found[r.Batch.ID.String()] = r.Batch
	}
	if err != nil {
		return nil, total, err
	}
	var all []*batch.Batch
	for n := range uint64(len(found)) {
		b := found[batch.FileID(m.Dataset, string(format), e.content, n, "").String()]
		if b == nil {
			t.Fatalf("chunk %d is not in the journal", n)
		}
		all = append(all, b)
	}
	return all, total, nil
}
