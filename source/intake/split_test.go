package intake

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// An error of the input is the splitter's, whatever was read before it; that a
// compressed file is cut off is such an error.
func TestSplitterPassesErrorsOn(t *testing.T) {
	t.Parallel()
	for _, want := range []error{io.ErrUnexpectedEOF, errors.New("a disk that fails")} {
		in := io.MultiReader(strings.NewReader("n,t\n1,a\n2,b\n3"), iotest.ErrReader(want))
		if _, _, err := split(in, CSV); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
}

// endless is lines without an end, in small reads as a decompressor gives them.
type endless struct{ line []byte }

func (e endless) Read(p []byte) (int, error) { return copy(p[:min(len(p), 4<<10)], e.line), nil }

// A quote that is never closed is noticed, where it begins, long before memory
// or patience is used up.
func TestUnclosedQuote(t *testing.T) {
	t.Parallel()
	in := io.MultiReader(strings.NewReader("n,t\n1,a\n2,\"b\n"), endless{append(bytes.Repeat([]byte{'x'}, 4<<10-1), '\n')})
	_, chunks, err := split(in, CSV)
	var at *RowError
	if !errors.As(err, &at) || at.Line != 3 || !strings.Contains(at.Detail, "quote") || len(chunks) != 0 {
		t.Errorf("%d chunks, %v", len(chunks), err)
	}
}

// When more of a record comes, what came before is not looked at again.
func TestScanGoesOn(t *testing.T) {
	t.Parallel()
	record := []byte("1,\"a\nb\"\"\n\"\n2,c\n")
	s := scan{format: CSV}
	for n := range 11 {
		if end := s.end(record[:n]); end != 0 || s.at != n {
			t.Errorf("%q ends at %d, looked at %d", record[:n], end, s.at)
		}
	}
	if end := s.end(record); end != 11 {
		t.Errorf("it ends at %d", end)
	}
}
