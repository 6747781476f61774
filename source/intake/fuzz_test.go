package intake

import (
	"bytes"
	stdcsv "encoding/csv"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"tallyman/schema/rows"
)

// seeds are files of up to so many bytes with whatever the two formats treat in
// their own way.
func seeds(f *testing.F, limit int) {
	for _, s := range []string{
		"", "\n", "n,t\n1,a\n", "n,t\r\n1,a\r\n", "\ufeffn,t\n1,\"a\nb\"\"\"\n", "n,t\n1,a\"b\n2,\"c\"d\n", "n,t\n\"", "n\r1", "n,t\n,\n\"\",\"\"",
		"{\"n\":1}\n{\"n\":2}", "{\"t\":\"\\\"\"}\n\n",
	} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	for _, v := range readVectors(f).Chunks {
		if text := v.file(f); len(text) <= limit {
			f.Add([]byte(text), v.Format == CSV)
		}
	}
}

// FuzzSplit: the header and the chunks put together are the input without its
// byte order mark; a chunk keeps the limits unless it is one row; each begins
// on the line that it says; and how the input comes in makes no difference.
func FuzzSplit(f *testing.F) {
	seeds(f, 1<<20)
	f.Fuzz(func(t *testing.T, data []byte, csv bool) {
		format := NDJSON
		if csv {
			format = CSV
		}
		head, chunks, err := split(bytes.NewReader(data), format)
		if err != nil {
			t.Fatal(err)
		}
		joined, line := head, int64(1+bytes.Count(head, []byte{'\n'}))
		for i, c := range chunks {
			if c.number != uint64(i) || c.line != line || c.rows < 1 || c.rows > maxChunkRows || len(c.data) == 0 {
				t.Errorf("chunk %d says that it is %d, of %d rows on line %d instead of %d", i, c.number, c.rows, c.line, line)
			}
			if len(c.data) > maxChunkBytes && c.rows > 1 {
				t.Errorf("chunk %d has %d bytes in %d rows", i, len(c.data), c.rows)
			}
			joined = append(joined, c.data...)
			line += int64(bytes.Count(c.data, []byte{'\n'}))
		}
		if !bytes.Equal(joined, bytes.TrimPrefix(data, []byte("\ufeff"))) {
			t.Error("bytes are lost, added or moved")
		}
		_, again, err := split(iotest.HalfReader(bytes.NewReader(data)), format)
		same := slices.EqualFunc(chunks, again, func(a, b chunk) bool {
			return a.number == b.number && a.line == b.line && a.rows == b.rows && bytes.Equal(a.data, b.data)
		})
		if err != nil || !same {
			t.Errorf("read in halves there are %d chunks, not %d: %v", len(again), len(chunks), err)
		}
	})
}

// readCSV reads all records of some bytes, of whatever width; a field without
// quotes is marked as Null.
func readCSV(data []byte) (records [][]rows.Field, err error) {
	r := recordReader{data: data, line: 1}
	for !r.ended() {
		var record []rows.Field
		r.scratch = nil // kept by the fields before
		for more := true; more; {
			var field rows.Field
			if more, err = r.field(&field); err != nil {
				return records, err
			}
			record = append(record, field)
		}
		records = append(records, record)
	}
	return records, nil
}

// plain returns the texts of records.
func plain(records [][]rows.Field) (all [][]string) {
	for _, record := range records {
		var texts []string
		for _, field := range record {
			texts = append(texts, string(field.Value))
		}
		all = append(all, texts)
	}
	return all
}

// FuzzCSV: reading never panics, and its errors name a line of the input. What
// is read is what the standard library reads where that has the same idea of
// CSV. Cut into chunks first, the input has the same records. Written again,
// all in quotes, it reads as the same texts.
func FuzzCSV(f *testing.F) {
	seeds(f, 8<<10)
	f.Fuzz(func(t *testing.T, data []byte, _ bool) {
		records, err := readCSV(data)
		if err != nil {
			var at *RowError
			if !errors.As(err, &at) || at.Line < 1 || at.Line > int64(1+bytes.Count(data, []byte{'\n'})) {
				t.Errorf("%v", err)
			}
			return
		}
		want := plain(records)
		// The standard library drops blank lines, and carriage returns in quotes.
		if !bytes.Contains(data, []byte{'\r'}) && !bytes.HasPrefix(data, []byte{'\n'}) && !bytes.Contains(data, []byte("\n\n")) {
			r := stdcsv.NewReader(bytes.NewReader(data))
			r.FieldsPerRecord = -1
			std, err := r.ReadAll()
			if err != nil || !slices.EqualFunc(std, want, slices.Equal) {
				t.Errorf("%q, the standard library reads %q, %v", want, std, err)
			}
		}
		var pieces [][]string
		s := newSplitter(bytes.NewReader(data), CSV)
		for {
			c, err := s.next()
			if err != nil {
				break
			}
			part, err := readCSV(c.data)
			if err != nil || len(part) != c.rows {
				t.Fatalf("chunk %d of %d rows has %d: %v", c.number, c.rows, len(part), err)
			}
			pieces = append(pieces, plain(part)...)
		}
		if !slices.EqualFunc(pieces, want, slices.Equal) {
			t.Errorf("in chunks it is %q, not %q", pieces, want)
		}
		var quoted strings.Builder
		for _, record := range want {
			for i, text := range record {
				quoted.WriteString(strings.Repeat(",", min(i, 1)))
				fmt.Fprintf(&quoted, `"%s"`, strings.ReplaceAll(text, `"`, `""`))
			}
			quoted.WriteString("\n")
		}
		again, err := readCSV([]byte(quoted.String()))
		if err != nil || !slices.EqualFunc(plain(again), want, slices.Equal) {
			t.Errorf("%q, written again and read %q, %v", want, plain(again), err)
		}
	})
}

// FuzzRows: of whatever file, the codec makes as many whole tuples as a chunk of
// CSV has rows, or the error names a line of the chunk and, if a column, one of
// the manifest's.
func FuzzRows(f *testing.F) {
	seeds(f, 8<<10)
	m := manifest(f, pairs)
	codec, err := rows.NewCodec(m)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte, csv bool) {
		e := &encoder{encoding: &encoding{manifest: m, codec: codec, format: NDJSON}}
		encode := e.ndjson
		if csv {
			e.format, encode = CSV, e.csv
		}
		head, chunks, err := split(bytes.NewReader(data), e.format)
		if err != nil {
			t.Fatal(err)
		}
		if csv {
			h, err := parseHeader(head, m)
			if err != nil {
				return
			}
			e.reader = newRowReader(h, e.null)
		}
		for _, c := range chunks {
			n, err := encode(c, [16]byte{1})
			var at *RowError
			switch {
			case err == nil:
				if err := codec.Walk(e.value, c.rows, [16]byte{1}); err != nil || n != c.rows {
					t.Errorf("chunk %d of %d rows made %d: %v", c.number, c.rows, n, err)
				}
			case !errors.As(err, &at):
				t.Errorf("%v names no line", err)
			case at.Column != "" && at.Column != "n" && at.Column != "t" || at.Line < c.line || at.Line > c.line+int64(bytes.Count(c.data, []byte{'\n'})):
				t.Errorf("chunk from line %d: %v", c.line, err)
			}
		}
	})
}
