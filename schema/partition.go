package schema

import (
	"fmt"
	"slices"
)

// Period is the length of a partition, by the calendar and in UTC.
type Period string

// The periods by which a table can be partitioned.
const (
	Day   Period = "day"
	Month Period = "month"
	Year  Period = "year"
)

// Partition says that a dataset's table is partitioned by ranges of a column.
// Rows of a time that has no partition of its own are in one for the rest.
type Partition struct {
	By    string // a required column of dates or timestamps
	Every Period
}

// maxPartitioned bounds the name of a partitioned table, in bytes: its
// partitions have the suffix of a revision and a day beside it.
const maxPartitioned = 46

// partitionFaults returns what is wrong with how the table is partitioned.
func (m Manifest) partitionFaults() Faults {
	p := m.Partition
	if p == nil {
		return nil
	}
	var fs Faults
	add := func(path, format string, args ...any) {
		fs = append(fs, Fault{Path: path, Detail: fmt.Sprintf(format, args...)})
	}
	at := slices.IndexFunc(m.Columns, func(c Column) bool { return c.Name == p.By })
	switch {
	case p.By == "":
		add("table.partition.by", "is required: a column of dates or timestamps")
	case at < 0:
		add("table.partition.by", "there is no column %s", quote(p.By))
	case !slices.Contains([]Type{Date, Timestamp, TimestampTZ}, m.Columns[at].Type):
		add("table.partition.by", "column %s is %s: name one that is %s, %s or %s", quote(p.By), m.Columns[at].Type, Date, Timestamp, TimestampTZ)
	case m.Columns[at].Nullable:
		add("table.partition.by", "column %s is nullable: make it required, or partition by another", quote(p.By))
	}
	switch p.Every {
	case Day, Month, Year:
	case "":
		add("table.partition.every", "is required: %s, %s or %s", Day, Month, Year)
	default:
		add("table.partition.every", "is %s, want %s, %s or %s", quote(string(p.Every)), Day, Month, Year)
	}
	if n := len(m.Table.Name); n > maxPartitioned && n <= maxTable {
		add("table.name", "the name %s has %d bytes, at most %d are possible for a table with partitions, whose names are longer",
			quote(m.Table.Name), n, maxPartitioned)
	}
	if m.Existing || at < 0 {
		return fs
	}
	const advice = "must contain the column %s, by which the table is partitioned, because each partition keeps its keys to itself: add it, or leave partition out"
	if len(m.PrimaryKey) > 0 && !slices.Contains(m.PrimaryKey, p.By) {
		add("table.primary_key", advice, quote(p.By))
	}
	for i, x := range m.Indexes {
		if x.Unique && len(x.Columns) > 0 && !slices.Contains(x.Columns, p.By) {
			add(fmt.Sprintf("table.indexes[%d].columns", i), advice, quote(p.By))
		}
	}
	return fs
}

// String says how a table is partitioned, for a message.
func (p *Partition) String() string {
	if p == nil {
		return "none"
	}
	return fmt.Sprintf("by %s every %s", quote(p.By), p.Every)
}

// samePartition says that tables are partitioned alike.
func samePartition(a, b *Partition) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
