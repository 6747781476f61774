package intake

import (
	"bytes"
	"fmt"
	"io"
)

// The frozen rule of a chunk, in rows and in bytes of the input.
const (
	maxChunkRows  = 1000
	maxChunkBytes = 256 << 10
)

// maxRecord bounds one row of the input, in bytes: what is longer is rather a
// quote that nobody closed.
const maxRecord = 64 << 20

// chunk is a run of whole records, the bytes of one batch.
type chunk struct {
	number uint64 // from 0
	line   int64  // of its first byte, from 1
	rows   int
	data   []byte // without bytes of the splitter
}

// splitter cuts an input into chunks. It accepts any bytes: what is wrong
// inside a record is found by whoever reads the record.
type splitter struct {
	in     io.Reader
	format Format
	ended  bool   // in has given its last byte
	buf    []byte // what was read and is not yet cut off
	spare  []byte // all of buf's memory
	line   int64  // of buf's first byte
	number uint64 // of the next chunk
	// used has the memory of chunks that nobody reads any more. Defaults to nil:
	// each chunk has its own.
	used chan []byte
}

func newSplitter(in io.Reader, format Format) *splitter {
	return &splitter{in: in, format: format, line: 1, spare: make([]byte, 2*maxChunkBytes)}
}

// next cuts off the next chunk; io.EOF comes after the last.
func (s *splitter) next() (chunk, error) {
	size, rows := 0, 0
	for rows < maxChunkRows {
		n, err := s.record(size)
		if err != nil {
			return chunk{}, err
		}
		if n == 0 || rows > 0 && size+n > maxChunkBytes {
			break
		}
		size += n
		rows++
	}
	if rows == 0 {
		return chunk{}, io.EOF
	}
	var memory []byte
	select {
	case memory = <-s.used:
	default:
	}
	c := chunk{number: s.number, line: s.line, rows: rows, data: append(memory[:0], s.buf[:size]...)}
	s.number++
	s.skip(size)
	return c, nil
}

// first cuts off one record, which belongs to no chunk; empty: there is none.
func (s *splitter) first() ([]byte, error) {
	n, err := s.record(0)
	if err != nil {
		return nil, err
	}
	record := bytes.Clone(s.buf[:n])
	s.skip(n)
	return record, nil
}

// byteOrderMark passes over a UTF-8 byte order mark.
func (s *splitter) byteOrderMark() error {
	for len(s.buf) < 3 && !s.ended {
		if err := s.fill(); err != nil {
			return err
		}
	}
	if bytes.HasPrefix(s.buf, []byte("\ufeff")) {
		s.skip(3)
	}
	return nil
}

func (s *splitter) skip(n int) {
	s.line += int64(bytes.Count(s.buf[:n], []byte{'\n'}))
	s.buf = s.buf[n:]
}

// record returns the size of the record that begins at buf[at], its newline
// included; 0: the input has ended.
func (s *splitter) record(at int) (int, error) {
	seen := scan{format: s.format}
	for {
		if n := seen.end(s.buf[at:]); n > 0 {
			return n, nil
		}
		if s.ended {
			return len(s.buf) - at, nil
		}
		if len(s.buf)-at > maxRecord {
			line := s.line + int64(bytes.Count(s.buf[:at], []byte{'\n'}))
			return 0, &RowError{Line: line, Detail: fmt.Sprintf("a row that begins here has more than %d MiB; is a quote not closed?", maxRecord>>20)}
		}
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
}

// fill reads more into buf: enough for a chunk, however little in gives at a time.
func (s *splitter) fill() error {
	if len(s.buf) > len(s.spare)/2 {
		s.spare = make([]byte, 2*len(s.spare))
	}
	have := copy(s.spare, s.buf)
	for enough := have + maxChunkBytes; have < enough && !s.ended; {
		n, err := s.in.Read(s.spare[have:])
		have += n
		s.buf = s.spare[:have]
		if err == io.EOF {
			s.ended = true
		} else if err != nil {
			return err
		}
	}
	return nil
}

// scan looks for the end of one record, and goes on where it was when there is
// more of the input.
type scan struct {
	format Format
	at     int // how far it looked
	quotes int // up to there
}

// end returns the size of the record that b begins with, its newline included;
// 0: it does not end there. A record of CSV ends at the first newline with an
// even number of quotes before it.
func (s *scan) end(b []byte) int {
	for {
		line := b[s.at:]
		i := bytes.IndexByte(line, '\n')
		if i >= 0 {
			line = line[:i+1]
		}
		if s.format == CSV {
			s.quotes += bytes.Count(line, []byte{'"'})
		}
		s.at += len(line)
		if i < 0 {
			return 0
		}
		if s.quotes%2 == 0 {
			return s.at
		}
	}
}
