package intake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/schema/rows"
	"tallyman/source/journal"
)

// RowError is something in a file that can't be read.
type RowError struct {
	Line   int64  // where the row begins, or the fault is; from 1
	Column string // empty: the row as a whole
	Detail string
}

// Error returns "line N, column "C": detail".
func (e *RowError) Error() string {
	if e.Column != "" {
		return fmt.Sprintf("line %d, column %q: %s", e.Line, e.Column, e.Detail)
	}
	return fmt.Sprintf("line %d: %s", e.Line, e.Detail)
}

// encoders is how many chunks are encoded at the same time: while one waits
// for the disk, another is encoded.
const encoders = 4

// encoding turns one file into batches of a journal. It may begin before it is
// known what ids these have.
type encoding struct {
	manifest schema.Manifest
	hash     string // of the manifest
	codec    *rows.Codec
	null     string
	format   Format
	label    string

	known   chan struct{} // closed once these two are
	content batch.Digest
	journal *journal.Journal
	room    int // bytes of rows that may be kept until then

	mu      sync.Mutex
	total   totals
	failure *failure // the first in the file, so far
	early   []encoded
	kept    int // bytes in early
}

// totals is what a file came to.
type totals struct {
	rows, batches int64
	bytes         int64 // uncompressed
	largest       int   // bytes of rows in the largest batch
	largestLine   int64 // where that begins
}

// failure is an error and the chunk that it is about.
type failure struct {
	number uint64
	err    error
}

// run reads all of r. Of several faults in it, the first one is the error.
func (e *encoding) run(ctx context.Context, r io.Reader) (totals, error) {
	counted := &counter{in: r}
	split := newSplitter(counted, e.format)
	split.used = make(chan []byte, encoders+1) // as many chunks as there are at a time
	head, err := e.begin(split)
	if err != nil {
		return totals{}, err
	}
	group, ctx := errgroup.WithContext(ctx)
	chunks := make(chan chunk)
	group.Go(func() error {
		defer close(chunks)
		return e.cut(ctx, split, chunks)
	})
	for range encoders {
		group.Go(func() error {
			w := &encoder{encoding: e}
			if head != nil {
				w.reader = newRowReader(head, e.null)
			}
			for c := range chunks {
				// Chunks come in order, so all before a failure are done, too:
				// the first failure in the file is always found.
				if !e.failedBefore(c.number) {
					e.note(c.number, w.encode(ctx, c))
				}
				split.used <- c.data
			}
			return w.finish(ctx)
		})
	}
	if err := group.Wait(); err != nil {
		return totals{}, err
	}
	if e.failure != nil {
		return totals{}, e.failure.err
	}
	e.total.bytes = counted.n
	return e.total, nil
}

// begin passes what comes before the rows.
func (e *encoding) begin(s *splitter) (*header, error) {
	if err := s.byteOrderMark(); err != nil || e.format != CSV {
		return nil, err
	}
	record, err := s.first()
	if err != nil {
		return nil, err
	}
	return parseHeader(record, e.manifest)
}

// cut hands out the chunks, up to the end or a failure.
func (e *encoding) cut(ctx context.Context, s *splitter, chunks chan<- chunk) error {
	for !e.failedBefore(s.number) {
		c, err := s.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			e.note(s.number, err)
			return nil
		}
		select {
		case chunks <- c:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// failedBefore says whether a chunk before that number failed.
func (e *encoding) failedBefore(number uint64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.failure != nil && e.failure.number < number
}

// note keeps the failure that comes first in the file.
func (e *encoding) note(number uint64, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil && (e.failure == nil || number < e.failure.number) {
		e.failure = &failure{number: number, err: err}
	}
}

// encoder encodes one chunk after another.
type encoder struct {
	*encoding
	reader  *rowReader // nil: not CSV
	records recordReader
	value   []byte
}

// encode makes a chunk's rows, and its batch once ids are known.
func (w *encoder) encode(ctx context.Context, c chunk) error {
	id := uuid.Nil
	known := w.isKnown()
	if known {
		w.catchUp()
		id = w.id(c.number)
	}
	rows := w.csv
	if w.reader == nil {
		rows = w.ndjson
	}
	n, err := rows(c, id)
	if err != nil {
		return err
	}
	made := encoded{number: c.number, line: c.line, rows: n, value: w.value}
	switch {
	case known:
		return w.append(made, id)
	case w.keep(made):
		w.value = make([]byte, 0, len(w.value)+len(w.value)/8)
		return nil
	}
	if err := w.await(ctx); err != nil {
		return err
	}
	w.catchUp()
	return w.appendEarly(made)
}

// append puts a chunk's batch into the journal.
func (e *encoding) append(made encoded, id uuid.UUID) error {
	t, err := batch.TimeOf(id)
	if err != nil {
		return err
	}
	_, err = e.journal.Append(e.manifest.Topic, &batch.Batch{
		ID: id, Time: t, Dataset: e.manifest.Dataset, Schema: e.hash,
		ContentType: batch.Native, Rows: made.rows, Value: made.value,
	})
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.total.rows += int64(made.rows)
	e.total.batches++
	if size := len(made.value); size > e.total.largest || size == e.total.largest && made.line < e.total.largestLine {
		e.total.largest, e.total.largestLine = size, made.line
	}
	return nil
}

// ndjson encodes a chunk of NDJSON and returns its rows.
func (w *encoder) ndjson(c chunk, id uuid.UUID) (n int, err error) {
	w.value, n, err = w.codec.AppendNDJSON(w.value[:0], id, c.data)
	var e *rows.Error
	if errors.As(err, &e) {
		return 0, &RowError{Line: c.line + int64(max(e.Row, 1)) - 1, Column: e.Column, Detail: e.Detail}
	}
	return n, err
}

// counter counts the bytes that were read.
type counter struct {
	in io.Reader
	n  int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	c.n += int64(n)
	return n, err
}
