package postgres

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"

	"tallyman/schema"
	"tallyman/schema/ddl"
	"tallyman/sink"
)

const selectColumns = `
SELECT attname, atttypid, format_type(atttypid, atttypmod), atttypmod, attgenerated <> '' OR attidentity = 'a'
FROM pg_catalog.pg_attribute
WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped`

// queueColumns locks the table against ALTER and compares its columns with the
// manifest, in the transaction that is about to copy.
func (t *transaction) queueColumns(b *pgx.Batch) {
	name := ddl.PostgresName(t.group.Revision.Physical)
	b.Queue("LOCK TABLE " + name + " IN ROW EXCLUSIVE MODE")
	b.Queue(selectColumns, name).Query(func(rows pgx.Rows) error {
		have := map[string]column{}
		var (
			attribute string
			c         column
		)
		_, err := pgx.ForEachRow(rows, []any{&attribute, &c.oid, &c.text, &c.modifier, &c.computed}, func() error {
			have[attribute] = c
			return nil
		})
		if err != nil {
			return err
		}
		return checkColumns(t.group.Revision, have)
	})
}

// column is a column of the table as the catalog has it.
type column struct {
	oid      uint32
	text     string // the type as PostgreSQL writes it
	modifier int32  // of the type, such as a length; -1: none
	computed bool   // generated, or an identity that takes no value
}

// wanted are the columns that a COPY of the revision fills, in order.
func wanted(m schema.Manifest) []schema.Column {
	columns := append([]schema.Column(nil), m.Columns...)
	if m.BatchID {
		columns = append(columns, schema.Column{Name: schema.BatchIDColumn, Type: schema.UUID})
	}
	return columns
}

func checkColumns(r sink.Revision, have map[string]column) error {
	var faults []string
	for _, w := range wanted(r.Manifest) {
		c, ok := have[w.Name]
		want, _ := ddl.Postgres(w.Type)
		switch {
		case !ok:
			faults = append(faults, fmt.Sprintf("column %q is missing", w.Name))
		case c.oid != want.OID || c.modifier != -1:
			faults = append(faults, fmt.Sprintf("column %q is %s, the manifest needs %s", w.Name, c.text, want.Name))
		case c.computed:
			faults = append(faults, fmt.Sprintf("column %q is generated and takes no value", w.Name))
		}
	}
	if faults == nil {
		return nil
	}
	return &sink.Error{Class: sink.Misconfigured, Reason: reasonColumnMismatch, Err: fmt.Errorf(
		"table %s does not fit manifest %s: %s", ddl.PostgresName(r.Physical), r.Manifest.Hash(), strings.Join(faults, "; "))}
}

// copyRows copies the tuples of every element that loads, in one COPY.
func (t *transaction) copyRows(ctx context.Context) error {
	if len(t.plan.loads) == 0 {
		return nil
	}
	var names []string
	for _, c := range wanted(t.group.Revision.Manifest) {
		names = append(names, pgx.Identifier{c.Name}.Sanitize())
	}
	statement := fmt.Sprintf("COPY %s (%s) FROM STDIN (FORMAT binary)",
		ddl.PostgresName(t.group.Revision.Physical), strings.Join(names, ", "))
	stream := &tuples{parts: make([][]byte, 0, len(t.plan.loads)+2)}
	stream.parts = append(stream.parts, []byte(copyHeader))
	var want int64
	for _, i := range t.plan.loads {
		e := &t.group.Elements[i]
		stream.parts = append(stream.parts, e.Tuples)
		want += int64(e.Batch.Rows)
	}
	stream.parts = append(stream.parts, []byte(copyTrailer))
	tag, err := t.conn.PgConn().CopyFrom(ctx, stream, statement)
	if err != nil {
		return classify("copy", inCopy, t.target, err)
	}
	if tag.RowsAffected() != want {
		return &sink.Error{Class: sink.Misconfigured, Reason: reasonFewerRowsCopied, Err: fmt.Errorf(
			"copy: the table %s took %d of %d rows; a trigger or a rule holds the others back",
			ddl.PostgresName(t.group.Revision.Physical), tag.RowsAffected(), want)}
	}
	return nil
}

// The frame of PostgreSQL's binary COPY format: a signature, no flags, no
// header extension; and the end, a tuple of -1 fields.
// https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4
const (
	copyHeader  = "PGCOPY\n\xff\r\n\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00"
	copyTrailer = "\xff\xff"
)

// tuples reads one part after another without joining them.
type tuples struct{ parts [][]byte }

// Read implements io.Reader.
func (t *tuples) Read(b []byte) (int, error) {
	n := 0
	for n < len(b) {
		if len(t.parts) == 0 {
			if n == 0 {
				return 0, io.EOF
			}
			break
		}
		c := copy(b[n:], t.parts[0])
		n += c
		if t.parts[0] = t.parts[0][c:]; len(t.parts[0]) == 0 {
			t.parts = t.parts[1:]
		}
	}
	return n, nil
}
