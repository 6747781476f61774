package consume

import (
	"encoding/binary"
	"fmt"
	"io"
)

// eager is how much memory is taken on the word of a length field alone; for
// more, memory grows as the bytes really arrive.
const eager = 4 << 20

// errFrame is the error for an answer whose structure is broken.
type errFrame struct{ detail string }

func (e *errFrame) Error() string { return "broken answer: " + e.detail }

// frame reads the fields of one answer. It reads no byte beyond the answer,
// and after its first error returns zeros.
type frame struct {
	r    io.Reader
	left int64
	err  error
	tmp  [8]byte
}

// newFrame reads the length and the correlation id that start an answer.
func newFrame(r io.Reader, correlation int32) *frame {
	f := &frame{r: r, left: 4}
	size := f.int32()
	if f.err == nil && size < 4 {
		f.fail("answer of %d bytes", size)
	}
	if f.err != nil {
		return f
	}
	f.left = int64(size)
	if id := f.int32(); f.err == nil && id != correlation {
		f.fail("answer to request %d, expected %d", id, correlation)
	}
	return f
}

func (f *frame) fail(format string, args ...any) {
	if f.err == nil {
		f.err = &errFrame{detail: fmt.Sprintf(format, args...)}
	}
}

// fill reads exactly len(b) bytes.
func (f *frame) fill(b []byte) bool {
	if f.err != nil {
		return false
	}
	if int64(len(b)) > f.left {
		f.fail("%d bytes where %d are left", len(b), f.left)
		return false
	}
	n, err := io.ReadFull(f.r, b)
	f.left -= int64(n)
	if err != nil {
		f.err = err
		return false
	}
	return true
}

// take reads n bytes into memory of their own.
func (f *frame) take(n int64) []byte {
	if f.err != nil {
		return nil
	}
	if n < 0 || n > f.left {
		f.fail("%d bytes where %d are left", n, f.left)
		return nil
	}
	b := make([]byte, min(n, eager))
	for have := 0; ; {
		if !f.fill(b[have:]) {
			return nil
		}
		if int64(len(b)) == n {
			return b
		}
		// Never more than n: what is kept of an answer is charged by its length.
		have = len(b)
		grown := make([]byte, min(n, 2*int64(have)))
		copy(grown, b)
		b = grown
	}
}

// copyTo writes the next n bytes to w.
func (f *frame) copyTo(w io.Writer, n int64) {
	if f.err != nil {
		return
	}
	if n < 0 || n > f.left {
		f.fail("%d bytes where %d are left", n, f.left)
		return
	}
	c, err := io.CopyN(w, f.r, n)
	f.left -= c
	if err != nil {
		f.err = err
	}
}

// skip discards the next n bytes.
func (f *frame) skip(n int64) { f.copyTo(io.Discard, n) }

func (f *frame) int16() int16 {
	if !f.fill(f.tmp[:2]) {
		return 0
	}
	return int16(binary.BigEndian.Uint16(f.tmp[:2]))
}

func (f *frame) int32() int32 {
	if !f.fill(f.tmp[:4]) {
		return 0
	}
	return int32(binary.BigEndian.Uint32(f.tmp[:4]))
}

func (f *frame) int64() int64 {
	if !f.fill(f.tmp[:8]) {
		return 0
	}
	return int64(binary.BigEndian.Uint64(f.tmp[:8]))
}

func (f *frame) string() string {
	n := f.int16()
	if f.err != nil || n < 0 {
		return ""
	}
	return string(f.take(int64(n)))
}

// count reads the length of an array whose elements take at least size bytes
// each; a null array has none.
func (f *frame) count(size int64) int {
	n := int64(f.int32())
	if n > f.left/size {
		f.fail("%d elements in %d bytes", n, f.left)
		return 0
	}
	return int(max(n, 0))
}
