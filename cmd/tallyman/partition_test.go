package main

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tallyman/sink/postgres"
)

const views = `dataset: ads/views
table: {primary_key: [id, day], indexes: [{columns: [day]}, {columns: [url, day], unique: true}], partition: {by: day, every: year}}
columns:
  - {name: id, type: uuid}
  - {name: day, type: date}
  - {name: url, type: text, nullable: true}
`

// What keys, indexes and partitions a table has is shown; init tells of the
// partitions that it made, and of those that it left out.
func TestPartitionedDataset(t *testing.T) {
	t.Parallel()
	s := newSite(t, "18")
	succeed(t, s.env, "init")
	succeed(t, s.env, "dataset", "apply", file(t, "views.yaml", views))
	contains(t, succeed(t, s.env, "dataset", "show", "ads/views"), `table "public"."views" over "public"."views__r1"`,
		"key id, day", "index day", "index url, day (unique)", "parts by day, one every year", "COLUMN TYPE NULLABLE")
	conn, err := pgx.Connect(t.Context(), s.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	year := time.Now().UTC().Year()
	for _, sql := range []string{
		fmt.Sprintf("DROP TABLE views__r1_%d", year+2),
		fmt.Sprintf("DROP TABLE views__r1_%d", year+3),
		fmt.Sprintf("INSERT INTO views__r1 VALUES (gen_random_uuid(), '%d-05-05', NULL, gen_random_uuid())", year+3),
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	contains(t, succeed(t, s.env, "init"), "made 0 partitions of the ledger", "made 1 partitions of datasets' tables", "left out, and loads go on without them",
		fmt.Sprintf(`ads/views "public"."views__r1_%d" %[1]d-01-01 %d-01-01 "public"."views__r1_default" has rows of that time already`, year+3, year+4))
	var report struct {
		Skipped []postgres.SkippedPartition `json:"table_partitions_skipped"`
	}
	err = json.Unmarshal([]byte(succeed(t, s.env, "init", "-o", "json")), &report)
	if err != nil || len(report.Skipped) != 1 || report.Skipped[0].From.Year() != year+3 {
		t.Errorf("%+v, %v", report, err)
	}
}
