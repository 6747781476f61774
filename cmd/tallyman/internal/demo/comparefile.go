package demo

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/klauspost/compress/zstd"

	"tallyman/schema"
)

// ndjson is the format that PostgreSQL does not read.
const ndjson = "ndjson"

// The comparison's statements. Two rows are the same if PostgreSQL writes all
// their columns alike; each may be there more than once. %[1]s is the table,
// %[2]s its columns.
const (
	fileTableSQL = `CREATE TEMPORARY TABLE file AS SELECT %[2]s FROM %[1]s WITH NO DATA`

	copyCSVSQL = `COPY file (%s) FROM STDIN (FORMAT csv, HEADER, NULL %s)`

	copyTextSQL = `COPY file FROM STDIN`

	compareFileSQL = `
WITH file AS (SELECT ROW(%[2]s)::text AS content, count(*) AS n FROM file GROUP BY content),
     loaded AS (SELECT ROW(%[2]s)::text AS content, count(*) AS n FROM %[1]s GROUP BY content)
SELECT coalesce(sum(file.n), 0)::bigint,
       coalesce(sum(loaded.n), 0)::bigint,
       coalesce(sum(greatest(file.n - coalesce(loaded.n, 0), 0)), 0)::bigint,
       coalesce(sum(greatest(loaded.n - file.n, 0)) FILTER (WHERE file.n IS NOT NULL), 0)::bigint,
       coalesce(sum(loaded.n) FILTER (WHERE file.n IS NULL), 0)::bigint,
       (SELECT count(DISTINCT _batch_id) FROM %[1]s)
FROM file FULL JOIN loaded USING (content)`
)

// compareFile compares a file with the table, and counts the table's batches. A
// row that was altered counts as lost, too. CSV is read by PostgreSQL itself,
// which knows an empty field from an empty text; NDJSON by encoding/json.
func compareFile(ctx context.Context, conn *pgx.Conn, f File, m schema.Manifest) (rows Count, batches int64, err error) {
	plain, err := openPlain(f.Path)
	if err != nil {
		return rows, 0, err
	}
	defer func() { _ = plain.Close() }()
	table := pgx.Identifier{m.Table.Schema, m.Table.Name}.Sanitize()
	names := make([]string, len(m.Columns))
	for i, c := range m.Columns {
		names[i] = pgx.Identifier{c.Name}.Sanitize()
	}
	columns := strings.Join(names, ", ")
	if _, err := conn.Exec(ctx, fmt.Sprintf(fileTableSQL, table, columns)); err != nil {
		return rows, 0, fmt.Errorf("prepare the comparison: %w", err)
	}
	statement := fmt.Sprintf(copyCSVSQL, columns, quoteSQL(f.Null))
	var stream io.Reader = plain
	if f.Format == ndjson {
		read, write := io.Pipe()
		defer func() { _ = read.Close() }()
		go func() { _ = write.CloseWithError(jsonToCopy(write, plain, m.Columns)) }()
		statement, stream = copyTextSQL, read
	}
	if _, err := conn.PgConn().CopyFrom(ctx, stream, statement); err != nil {
		return rows, 0, fmt.Errorf("read for the comparison: %w", err)
	}
	err = conn.QueryRow(ctx, fmt.Sprintf(compareFileSQL, table, columns)).
		Scan(&rows.Sent, &rows.Loaded, &rows.Lost, &rows.Doubled, &rows.Altered, &batches)
	if err != nil {
		return rows, 0, fmt.Errorf("compare: %w", err)
	}
	return rows, batches, nil
}

func quoteSQL(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// jsonToCopy writes lines of JSON as lines of PostgreSQL's text COPY.
func jsonToCopy(w io.Writer, r io.Reader, columns []schema.Column) error {
	out := bufio.NewWriter(w)
	for in := bufio.NewReader(r); ; {
		line, err := in.ReadBytes('\n')
		if len(line) == 0 && errors.Is(err, io.EOF) {
			return out.Flush()
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		var object map[string]json.RawMessage
		if err := json.Unmarshal(line, &object); err != nil {
			return err
		}
		for i, c := range columns {
			if i > 0 {
				_ = out.WriteByte('\t') // bufio keeps the error for Flush
			}
			field, err := copyField(object[c.Name], c.Type)
			if err != nil {
				return err
			}
			_, _ = out.WriteString(field)
		}
		_ = out.WriteByte('\n')
	}
}

// copyField returns a value of JSON as a field of a text COPY.
func copyField(raw json.RawMessage, t schema.Type) (string, error) {
	if raw == nil || string(raw) == "null" {
		return `\N`, nil
	}
	if f, _ := t.Facts(); f.Array {
		text, err := arrayLiteral(raw)
		return escapeCopy(text), err
	}
	if raw[0] == '"' && t != schema.JSON {
		var text string
		err := json.Unmarshal(raw, &text)
		return escapeCopy(text), err
	}
	return escapeCopy(string(raw)), nil
}

// arrayLiteral returns an array of JSON as PostgreSQL reads one.
func arrayLiteral(raw json.RawMessage) (string, error) {
	var elements []json.RawMessage
	if err := json.Unmarshal(raw, &elements); err != nil {
		return "", err
	}
	texts := make([]string, len(elements))
	for i, e := range elements {
		switch texts[i] = string(e); {
		case string(e) == "null":
			texts[i] = "NULL"
		case e[0] == '"':
			var text string
			if err := json.Unmarshal(e, &text); err != nil {
				return "", err
			}
			texts[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
		}
	}
	return "{" + strings.Join(texts, ",") + "}", nil
}

// openPlain opens a file and undoes its compression and its byte order mark.
func openPlain(path string) (io.ReadCloser, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	raw := bufio.NewReader(file)
	magic, _ := raw.Peek(4) // a shorter file is not compressed
	var plain io.Reader = raw
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		plain, err = gzip.NewReader(raw)
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		var z *zstd.Decoder
		if z, err = zstd.NewReader(raw); err == nil {
			plain = z.IOReadCloser()
		}
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	text := bufio.NewReader(plain)
	if mark, _ := text.Peek(3); string(mark) == "\ufeff" {
		_, _ = text.Discard(3)
	}
	return struct {
		io.Reader
		io.Closer
	}{text, file}, nil
}
