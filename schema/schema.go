// Package schema is what both ends of Tallyman sign: the name of a dataset,
// the types a column may have, and the manifest that binds them to a topic
// and a table. It imports nothing else of this module, so a source, a loader
// and a warehouse that agree on a manifest's hash agree on every byte of a row.
package schema

// BatchIDColumn is the name of the lineage column that ends every table which
// Tallyman creates: the unique id of the batch that a row came with.
// A manifest can't use it for a column of its own.
const BatchIDColumn = "_batch_id"

// Dataset names a logical stream of rows with one schema.
type Dataset struct {
	Namespace string
	Name      string
}

// String returns the canonical form, "namespace/name".
func (d Dataset) String() string { return d.Namespace + "/" + d.Name }

// Type is the logical type of a column, spelled as in a manifest.
type Type string

// The types that a column can have.
const (
	Bool        Type = "bool"
	Int64       Type = "int64"
	Float64     Type = "float64"
	Text        Type = "text"
	TimestampTZ Type = "timestamptz"
	UUID        Type = "uuid"
	JSON        Type = "json"
)

// Column is one column of a dataset. A column is required unless it is nullable.
type Column struct {
	Name     string
	Type     Type
	Nullable bool
}

// Table names a table (or the view that stands for it) in a warehouse.
type Table struct {
	Schema string
	Name   string
}

// Manifest describes a dataset: its columns, the topic that carries it and the
// table that readers see. It is immutable; its canonical form has a hash, and
// "namespace/name@hash" names it exactly.
type Manifest struct {
	Dataset Dataset
	Topic   string
	Table   Table
	Columns []Column
	// BatchID says that the table ends with the column _batch_id, and that
	// every native row therefore ends with the batch's unique id.
	BatchID bool
}
