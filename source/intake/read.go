package intake

import (
	"bytes"
	"context"
	"errors"
	"io"

	"tallyman/schema/rows"
)

// Records is shown a file's records in their order. What it is given is good
// until the next call, and its errors end the reading.
type Records interface {
	// Header is given the names of a CSV file's columns, before any row.
	Header(names []string) error
	// Fields is given a row of CSV, with as many fields as the header has.
	Fields(line int64, fields []rows.Field) error
	// Object is given a line of NDJSON, without its newline. Nobody has looked
	// what is in it, but that it is not blank.
	Object(line int64, object []byte) error
}

// Layout is how a stream is to be read.
type Layout struct {
	Format Format
	// Null is the text of a CSV field that, without quotes, means NULL.
	Null string
}

// Read shows the records of a stream to whoever only looks at them. It reads
// what a push of the stream would read, compressed or not, and refuses what a
// push would refuse, but for what only a manifest can tell.
func Read(ctx context.Context, stream io.Reader, l Layout, to Records) error {
	plain, err := uncompressed(&watched{ctx: ctx, in: stream, passed: func(int64) {}})
	if err != nil {
		return err
	}
	defer func() { _ = plain.Close() }()
	split := newSplitter(plain, l.Format)
	if err := split.byteOrderMark(); err != nil {
		return err
	}
	each := func(c chunk) error { return objects(c, to) }
	if l.Format == CSV {
		record, err := split.first()
		if err != nil {
			return err
		}
		names, err := fieldNames(record)
		if err != nil {
			return err
		}
		if err := to.Header(names); err != nil {
			return err
		}
		reader := newRowReader(inOrder(len(names)), l.Null)
		each = func(c chunk) error { return reader.show(c, to) }
	}
	for {
		c, err := split.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := each(c); err != nil {
			return err
		}
	}
}

// inOrder is the header of a file whose columns are in the manifest's order.
func inOrder(width int) *header {
	h := &header{width: width}
	for i := range width {
		h.columns = append(h.columns, i)
	}
	return h
}

// show shows the rows of a chunk of CSV.
func (r *rowReader) show(c chunk, to Records) error {
	in := recordReader{data: c.data, line: c.line}
	for !in.ended() {
		line := in.line
		if err := r.read(&in); err != nil {
			return err
		}
		if err := to.Fields(line, r.fields); err != nil {
			return err
		}
	}
	return nil
}

// objects shows the lines of a chunk of NDJSON.
func objects(c chunk, to Records) error {
	line := c.line
	for object := range bytes.Lines(c.data) {
		object = bytes.TrimSuffix(object, []byte{'\n'})
		if len(bytes.Trim(object, " \t\r")) == 0 {
			return &RowError{Line: line, Detail: "a blank line"}
		}
		if err := to.Object(line, object); err != nil {
			return err
		}
		line++
	}
	return nil
}
