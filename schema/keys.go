package schema

import (
	"fmt"
	"slices"
)

// Index is an index of a dataset's table. A batch that would break a unique one
// is at fault itself, and is quarantined.
type Index struct {
	Columns []string // in their order
	Unique  bool
}

// maxKey is the greatest number of columns of an index in PostgreSQL.
const maxKey = 32

// keyFaults returns what is wrong with primary key and indexes.
func (m Manifest) keyFaults() Faults {
	var fs Faults
	columns := make(map[string]Column, len(m.Columns)+1)
	for _, c := range m.Columns {
		columns[c.Name] = c
	}
	if m.BatchID {
		columns[BatchIDColumn] = Column{Name: BatchIDColumn, Type: UUID}
	}
	if m.PrimaryKey != nil {
		fs = append(fs, listFaults("table.primary_key", m.PrimaryKey, columns)...)
		for i, name := range m.PrimaryKey {
			if columns[name].Nullable {
				fs = append(fs, Fault{Path: fmt.Sprintf("table.primary_key[%d]", i), Detail: fmt.Sprintf("column %s is nullable, and a primary key has no NULL", quote(name))})
			}
		}
	}
	for i, x := range m.Indexes {
		path := fmt.Sprintf("table.indexes[%d]", i)
		fs = append(fs, listFaults(path+".columns", x.Columns, columns)...)
		same := func(y Index) bool { return slices.Equal(x.Columns, y.Columns) }
		if earlier := slices.IndexFunc(m.Indexes[:i], same); earlier >= 0 {
			fs = append(fs, Fault{Path: path, Detail: fmt.Sprintf("has the columns of table.indexes[%d]", earlier)})
		}
	}
	if m.Existing && (m.PrimaryKey != nil || len(m.Indexes) > 0 || m.Partition != nil) {
		fs = append(fs, Fault{Path: "table", Detail: "primary_key, indexes and partition are for tables that Tallyman makes, and this one is existing: leave them out"})
	}
	return fs
}

// listFaults returns what is wrong with the columns of a key or an index.
func listFaults(path string, names []string, columns map[string]Column) Faults {
	switch {
	case len(names) == 0:
		return Faults{{Path: path, Detail: "needs at least one column"}}
	case len(names) > maxKey:
		return Faults{{Path: path, Detail: fmt.Sprintf("has %d columns, at most %d are possible", len(names), maxKey)}}
	}
	var fs Faults
	for i, name := range names {
		detail := ""
		c, ok := columns[name]
		facts, _ := c.Type.Facts()
		switch {
		case !ok:
			detail = fmt.Sprintf("there is no column %s", quote(name))
		case slices.Contains(names[:i], name):
			detail = fmt.Sprintf("column %s is there already", quote(name))
		case facts.Name == JSON:
			detail = fmt.Sprintf("column %s is %s, which has no order to index it by", quote(name), c.Type)
		}
		if detail != "" {
			fs = append(fs, Fault{Path: fmt.Sprintf("%s[%d]", path, i), Detail: detail})
		}
	}
	return fs
}

// sameIndexes says that the indexes are the same, in any order.
func sameIndexes(a, b []Index) bool {
	in := func(all []Index, x Index) bool {
		return slices.ContainsFunc(all, func(y Index) bool { return x.Unique == y.Unique && slices.Equal(x.Columns, y.Columns) })
	}
	for _, x := range a {
		if !in(b, x) {
			return false
		}
	}
	return len(a) == len(b)
}
