package ddl

import (
	"fmt"
	"time"

	"tallyman/schema"
)

// Part is a partition of a dataset's table: the rows whose time is in [From, To).
type Part struct {
	Table    schema.Table
	From, To time.Time // UTC
}

// Parts returns the partitions of a table, by time: of the period that now is
// in, of so many behind it and so many ahead of it.
func Parts(every schema.Period, physical schema.Table, now time.Time, behind, ahead int) []Part {
	now = now.UTC()
	suffix := "2006_01_02"
	start := func(n int) time.Time { return time.Date(now.Year(), now.Month(), now.Day()+n, 0, 0, 0, 0, time.UTC) }
	switch every {
	case schema.Month:
		suffix = "2006_01"
		start = func(n int) time.Time {
			return time.Date(now.Year(), now.Month()+time.Month(n), 1, 0, 0, 0, 0, time.UTC)
		}
	case schema.Year:
		suffix = "2006"
		start = func(n int) time.Time { return time.Date(now.Year()+n, time.January, 1, 0, 0, 0, 0, time.UTC) }
	}
	var parts []Part
	for n := -behind; n <= ahead; n++ {
		p := Part{Table: physical, From: start(n), To: start(n + 1)}
		p.Table.Name += "_" + p.From.Format(suffix)
		parts = append(parts, p)
	}
	return parts
}

// Rest returns the partition of a table that takes the times of which there is
// no partition.
func Rest(physical schema.Table) schema.Table {
	return schema.Table{Schema: physical.Schema, Name: physical.Name + "_default"}
}

// PostgresParts returns the statements that create partitions with a table that
// nobody uses yet, and the one for the rest.
func PostgresParts(m schema.Manifest, physical schema.Table, parts []Part) []string {
	rest := Rest(physical)
	statements := []string{
		fmt.Sprintf("CREATE TABLE %s PARTITION OF %s DEFAULT", PostgresName(rest), PostgresName(physical)),
		comment("TABLE", rest, fmt.Sprintf("Rows of dataset %s whose time is in no other partition.", m.Dataset)),
	}
	for _, p := range parts {
		statements = append(statements, fmt.Sprintf("CREATE TABLE %s PARTITION OF %s %s", PostgresName(p.Table), PostgresName(physical), bounds(m, p)))
	}
	return statements
}

// PostgresAttach returns the statements that add a partition to a table which is
// loaded: it is made beside the table and then attached, since created as a
// partition it would wait for everybody.
func PostgresAttach(m schema.Manifest, physical schema.Table, p Part) []string {
	return []string{
		fmt.Sprintf("CREATE TABLE %s (LIKE %s INCLUDING ALL)", PostgresName(p.Table), PostgresName(physical)),
		fmt.Sprintf("ALTER TABLE %s ATTACH PARTITION %s %s", PostgresName(physical), PostgresName(p.Table), bounds(m, p)),
	}
}

// bounds are a partition's, in the type of the manifest's column.
func bounds(m schema.Manifest, p Part) string {
	layout := time.DateOnly
	for _, c := range m.Columns {
		switch {
		case c.Name != m.Partition.By:
		case c.Type == schema.Timestamp:
			layout = time.DateTime
		case c.Type == schema.TimestampTZ:
			layout = time.DateTime + "+00"
		}
	}
	return fmt.Sprintf("FOR VALUES FROM (%s) TO (%s)", literal(p.From.Format(layout)), literal(p.To.Format(layout)))
}

// partitionBy is the end of the statement that creates a table.
func partitionBy(m schema.Manifest) string {
	if m.Partition == nil {
		return ""
	}
	return fmt.Sprintf(" PARTITION BY RANGE (%s)", quote(m.Partition.By))
}
