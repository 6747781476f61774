package postgres

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"tallyman/schema"
	"tallyman/schema/ddl"
	"tallyman/sink"
)

// manifests returns the manifests that the group's rows are by, each once.
func manifests(g *sink.Group) []*schema.Manifest {
	var all []*schema.Manifest
	for i := range g.Elements {
		if m := g.ManifestOf(i); !slices.Contains(all, m) {
			all = append(all, m)
		}
	}
	return all
}

// queueColumns locks the table against ALTER and compares its columns with the
// manifests of the group, in the transaction that is about to copy. Partitions
// are not locked: their columns change with the table's only, and one that
// someone else keeps for himself does not matter unless a row goes there.
func (t *transaction) queueColumns(b *pgx.Batch) {
	table := t.group.Revision.Physical
	b.Queue("LOCK TABLE ONLY " + ddl.PostgresName(table) + " IN ROW EXCLUSIVE MODE")
	t.shape = &shape{}
	t.shape.queue(b, table)
}

// copyRows copies the tuples of every element that loads, in one COPY for each
// list of columns.
func (t *transaction) copyRows(ctx context.Context) error {
	loads := map[*schema.Manifest][]int{}
	for _, i := range t.plan.loads {
		m := t.group.ManifestOf(i)
		loads[m] = append(loads[m], i)
	}
	for _, m := range manifests(t.group) {
		if len(loads[m]) == 0 {
			continue
		}
		if err := t.copyBy(ctx, m, loads[m]); err != nil {
			return err
		}
	}
	return nil
}

// copyBy copies the elements of one manifest.
func (t *transaction) copyBy(ctx context.Context, m *schema.Manifest, loads []int) error {
	var names []string
	var jsonb []int
	for i, c := range filled(m) {
		names = append(names, pgx.Identifier{c.Name}.Sanitize())
		if c.Type == schema.JSON && t.shape.columns[c.Name].oid == oidJSONB {
			jsonb = append(jsonb, i)
		}
	}
	statement := fmt.Sprintf("COPY %s (%s) FROM STDIN (FORMAT binary)",
		ddl.PostgresName(t.group.Revision.Physical), strings.Join(names, ", "))
	stream := &tuples{parts: make([][]byte, 0, len(loads)+2)}
	stream.parts = append(stream.parts, []byte(copyHeader))
	var want int64
	for _, i := range loads {
		e := &t.group.Elements[i]
		part := e.Tuples
		if jsonb != nil {
			part = asJSONB(part, jsonb, e.Batch.Rows)
		}
		stream.parts = append(stream.parts, part)
		want += int64(e.Batch.Rows)
	}
	stream.parts = append(stream.parts, []byte(copyTrailer))
	tag, err := t.conn.PgConn().CopyFrom(ctx, stream, statement)
	if err != nil {
		return t.rowFault(ctx, "copy", inCopy, err)
	}
	if tag.RowsAffected() != want {
		return &sink.Error{Class: sink.Misconfigured, Reason: reasonFewerRowsCopied, Err: fmt.Errorf(
			"copy: the table %s took %d of %d rows; a trigger or a rule holds the others back",
			ddl.PostgresName(t.group.Revision.Physical), tag.RowsAffected(), want)}
	}
	return nil
}

// jsonbVersion is the byte that comes before the text of a jsonb value in its
// binary form (jsonb_recv in PostgreSQL's jsonb.c).
const jsonbVersion = 1

// asJSONB returns walked tuples with the fields of those numbers, which hold the
// text of JSON, in the binary form of jsonb.
func asJSONB(tuples []byte, fields []int, rows int) []byte {
	out := make([]byte, 0, len(tuples)+rows*len(fields))
	for len(tuples) > 0 {
		n := int(binary.BigEndian.Uint16(tuples))
		out, tuples = append(out, tuples[:2]...), tuples[2:]
		for i := range n {
			length := int32(binary.BigEndian.Uint32(tuples))
			end := 4 + max(0, int(length))
			if length >= 0 && slices.Contains(fields, i) {
				out = binary.BigEndian.AppendUint32(out, uint32(length)+1)
				out = append(out, jsonbVersion)
				out = append(out, tuples[4:end]...)
			} else {
				out = append(out, tuples[:end]...)
			}
			tuples = tuples[end:]
		}
	}
	return out
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
