package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

func (r verifyReport) print(p *program) error {
	var head strings.Builder
	fmt.Fprintf(&head, "%s, revision %d, table %s: %d batches with %d rows in the ledger, %d rows in the table\n",
		r.Dataset, r.Revision, r.Table, r.Batches, r.Rows, r.TableRows)
	if r.Digest != nil {
		fmt.Fprintf(&head, "the values of %d batches were compared with what was published, those of %d were not\n", r.Digest.Compared, r.Digest.NotCompared)
	}
	for _, text := range r.Unchecked {
		fmt.Fprintf(&head, "can't be checked: %s\n", text)
	}
	if r.Digest != nil && r.Digest.NotCompared > 0 {
		fmt.Fprintf(&head, "not compared: %s\n", listIDs(r.Digest.Examples, r.Digest.NotCompared))
	}
	if _, err := fmt.Fprint(p.stdout, head.String()); err != nil {
		return err
	}
	if err := r.Streams.print(p); err != nil {
		return err
	}
	if r.wrong() == "" {
		_, err := fmt.Fprintln(p.stdout, "everything agrees")
		return err
	}
	if r.Total == 0 {
		return nil
	}
	fmt.Fprintln(p.stdout)
	var rows [][]string
	for _, f := range r.Findings {
		id, at := "none", "-"
		if f.Batch != nil {
			id = f.Batch.String()
		}
		if f.Time != nil {
			at = f.Time.Format(time.RFC3339)
		}
		rows = append(rows, []string{string(f.Kind), id, at, strconv.FormatInt(f.Want, 10), strconv.FormatInt(f.Have, 10)})
	}
	if err := printTable(p.stdout, []string{"FINDING", "BATCH", "TIME", "LEDGER ROWS", "TABLE ROWS"}, rows); err != nil {
		return err
	}
	more := ""
	if int64(len(r.Findings)) < r.Total {
		more = "; --limit 0 lists all"
	}
	_, err := fmt.Fprintf(p.stdout, "\n%d of %d findings%s\n", len(r.Findings), r.Total, more)
	return err
}

// listIDs lists some ids of a number.
func listIDs(ids []uuid.UUID, of int64) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = id.String()
	}
	text := strings.Join(texts, ", ")
	if int64(len(ids)) < of {
		text += " and others"
	}
	return text
}
