package schema

import (
	"fmt"
	"slices"
)

// Difference is one thing in which a manifest differs from an earlier one of
// its dataset.
type Difference struct {
	// Subject is topic, table, batch_id, sources, columns or the name of a column in quotes.
	Subject string `json:"subject"`
	Change  string `json:"change"`
	// Fits says that rows by both manifests can be in one table.
	Fits bool `json:"fits"`
	// Advice is what to do about a difference that does not fit; empty if it does.
	Advice string `json:"advice,omitempty"`
}

// String returns a difference as one clause of a sentence.
func (d Difference) String() string {
	s := d.Subject + " " + d.Change
	if d.Advice != "" {
		s += ": " + d.Advice
	}
	return s
}

// Compare lists in what one manifest differs from an earlier one of the same
// dataset. Rows by both fit one table if the later one only adds nullable
// columns; where they stand among the others, and which sources are expected,
// does not matter.
func Compare(earlier, later Manifest) []Difference {
	var all []Difference
	misfit := func(subject, advice, format string, args ...any) {
		all = append(all, Difference{Subject: subject, Change: fmt.Sprintf(format, args...), Advice: advice})
	}
	if earlier.Topic != later.Topic {
		misfit("topic", "keep the topic", "%s instead of %s", later.Topic, earlier.Topic)
	}
	if earlier.Table != later.Table {
		misfit("table", "keep the table", "%q.%q instead of %q.%q",
			later.Table.Schema, later.Table.Name, earlier.Table.Schema, earlier.Table.Name)
	}
	if earlier.Existing != later.Existing {
		misfit("table.existing", "keep it as it was", "%t instead of %t", later.Existing, earlier.Existing)
	}
	if earlier.BatchID != later.BatchID {
		misfit("batch_id", "keep it as it was", "%t instead of %t", later.BatchID, earlier.BatchID)
	}
	if !slices.Equal(earlier.PrimaryKey, later.PrimaryKey) {
		misfit("table.primary_key", "keep it as it was, or make a dataset of another name", "%q instead of %q", later.PrimaryKey, earlier.PrimaryKey)
	}
	if !sameIndexes(earlier.Indexes, later.Indexes) {
		misfit("table.indexes", "keep them as they were; an index may be made in the warehouse at any time, without the manifest", "are others")
	}
	if !samePartition(earlier.Partition, later.Partition) {
		misfit("table.partition", "keep it as it was, or make a dataset of another name", "%s instead of %s", later.Partition, earlier.Partition)
	}
	if !sameSources(earlier.Sources, later.Sources) {
		all = append(all, Difference{Subject: "sources", Change: "are others", Fits: true})
	}
	all = append(all, compareColumns(earlier, later)...)
	return all
}

func compareColumns(earlier, later Manifest) []Difference {
	var all []Difference
	add := func(c Column, change, advice string) {
		all = append(all, Difference{Subject: fmt.Sprintf("column %q", c.Name), Change: change, Advice: advice, Fits: advice == ""})
	}
	old := make(map[string]Column, len(earlier.Columns))
	for _, c := range earlier.Columns {
		old[c.Name] = c
	}
	kept := 0
	for _, c := range later.Columns {
		before, had := old[c.Name]
		same := before
		same.Nullable = c.Nullable
		delete(old, c.Name)
		if had {
			kept++
		}
		switch {
		case !had && c.Nullable:
			add(c, fmt.Sprintf("is new: %s, nullable", c.Type), "")
		case !had:
			add(c, fmt.Sprintf("is new: %s, required", c.Type), "make it nullable, since the rows that are there have no value for it")
		case same != c:
			add(c, fmt.Sprintf("is %s instead of %s", c.Type, before.Type), "keep its type, and add a nullable column of another name")
		case before.Nullable != c.Nullable:
			add(c, fmt.Sprintf("has nullable %t instead of %t", c.Nullable, before.Nullable), "keep it as it was")
		}
	}
	for _, c := range earlier.Columns {
		if _, gone := old[c.Name]; gone {
			add(c, "is gone", "keep it; a column that gets another name is one that is gone and one that is new")
		}
	}
	if len(all) == 0 && kept == len(later.Columns) && !sameOrder(earlier.Columns, later.Columns) {
		all = append(all, Difference{Subject: "columns", Change: "are in another order", Fits: true})
	}
	return all
}

// sameOrder says that the columns, which are the same, come in the same order.
func sameOrder(a, b []Column) bool {
	for i := range a {
		if a[i].Name != b[i].Name {
			return false
		}
	}
	return true
}

// Fit says that none of the differences keeps two manifests from one table.
func Fit(differences []Difference) bool {
	for _, d := range differences {
		if !d.Fits {
			return false
		}
	}
	return true
}

// Added returns the columns that a later manifest has and an earlier one has not.
func Added(earlier, later Manifest) []Column {
	old := make(map[string]bool, len(earlier.Columns))
	for _, c := range earlier.Columns {
		old[c.Name] = true
	}
	var added []Column
	for _, c := range later.Columns {
		if !old[c.Name] {
			added = append(added, c)
		}
	}
	return added
}
