package demo

import (
	"context"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5"
)

// Count is what the comparison found about rows, or about batches.
type Count struct {
	Sent    int64 // in the generator's file
	Loaded  int64 // in the table, every copy counted
	Lost    int64 // sent and not in the table
	Doubled int64 // further copies of what is in the table already
	Altered int64 // in the table with other content than sent, or never sent
}

// Sound says that the table holds exactly what was sent.
func (c Count) Sound() bool { return c.Lost == 0 && c.Doubled == 0 && c.Altered == 0 }

// The comparison's statements. They know the table's columns and nothing of the
// loader: not its ledger, not its positions. %[1]s is the table.
const (
	sentTableSQL = `
CREATE TEMPORARY TABLE sent (
	batch       uuid,
	event_id    uuid,
	occurred_at timestamptz,
	server      text,
	campaign    bigint,
	converted   boolean,
	revenue     double precision,
	attributes  text
)`

	copySentSQL = `COPY sent FROM STDIN`

	analyzeSQL = `ANALYZE sent; ANALYZE %[1]s`

	totalsSQL = `
SELECT (SELECT count(*) FROM sent), count(*), count(*) - count(DISTINCT event_id)
FROM %[1]s`

	rowsSQL = `
SELECT count(*) FILTER (WHERE loaded.here IS NULL),
       count(*) FILTER (WHERE loaded.here AND (sent.event_id IS NULL
           OR (loaded._batch_id, loaded.occurred_at, loaded.server, loaded.campaign,
               loaded.converted, loaded.revenue, loaded.attributes::text)
              IS DISTINCT FROM
              (sent.batch, sent.occurred_at, sent.server, sent.campaign,
               sent.converted, sent.revenue, sent.attributes)))
FROM sent
FULL JOIN (SELECT true AS here, * FROM %[1]s) loaded USING (event_id)`

	batchesSQL = `
WITH sent AS (SELECT batch, count(*) AS n FROM sent GROUP BY batch),
     loaded AS (SELECT _batch_id AS batch, count(*) AS n FROM %[1]s GROUP BY batch)
SELECT count(sent.n), count(loaded.n),
       count(*) FILTER (WHERE loaded.n IS NULL),
       count(*) FILTER (WHERE loaded.n > sent.n),
       count(*) FILTER (WHERE loaded.n < sent.n OR sent.n IS NULL)
FROM sent FULL JOIN loaded USING (batch)`
)

// compare compares the generator's file with the table, by plain SQL. A batch
// counts as doubled if the table has more rows of it than were sent, as altered
// if fewer, or if nobody sent it.
func compare(ctx context.Context, conn *pgx.Conn, file, table string) (rows, batches Count, err error) {
	sent, err := os.Open(file)
	if err != nil {
		return rows, batches, fmt.Errorf("open the generator's file: %w", err)
	}
	defer func() { _ = sent.Close() }()
	if _, err := conn.Exec(ctx, sentTableSQL); err != nil {
		return rows, batches, fmt.Errorf("prepare the comparison: %w", err)
	}
	if _, err := conn.PgConn().CopyFrom(ctx, sent, copySentSQL); err != nil {
		return rows, batches, fmt.Errorf("copy %s into the warehouse: %w", file, err)
	}
	if _, err := conn.PgConn().Exec(ctx, fmt.Sprintf(analyzeSQL, table)).ReadAll(); err != nil {
		return rows, batches, fmt.Errorf("analyze: %w", err)
	}
	if err := conn.QueryRow(ctx, fmt.Sprintf(totalsSQL, table)).Scan(&rows.Sent, &rows.Loaded, &rows.Doubled); err != nil {
		return rows, batches, fmt.Errorf("count rows: %w", err)
	}
	if err := conn.QueryRow(ctx, fmt.Sprintf(rowsSQL, table)).Scan(&rows.Lost, &rows.Altered); err != nil {
		return rows, batches, fmt.Errorf("compare rows: %w", err)
	}
	err = conn.QueryRow(ctx, fmt.Sprintf(batchesSQL, table)).Scan(&batches.Sent, &batches.Loaded, &batches.Lost, &batches.Doubled, &batches.Altered)
	if err != nil {
		return rows, batches, fmt.Errorf("compare batches: %w", err)
	}
	return rows, batches, nil
}
