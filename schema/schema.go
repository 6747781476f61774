// Package schema is what both ends of Tallyman sign: the name of a dataset,
// the types a column may have, and the manifest that binds them to a topic
// and a table. It imports nothing else of this module, so a source, a loader
// and a warehouse that agree on a manifest's hash agree on every byte of a row.
package schema

import (
	"fmt"
	"regexp"
	"strings"
)

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
	// PrimaryKey lists the columns of the table's primary key; nil: none.
	PrimaryKey []string
	// Indexes are the table's indexes beside its primary key.
	Indexes []Index
	// Partition says how the table is partitioned; nil: it is not.
	Partition *Partition
	// Sources are the producers that the dataset is expected to get batches from;
	// nil: whichever there are.
	Sources []Source
	// Existing says that the table was not made by Tallyman and is used as it is:
	// without a view, and without _batch_id.
	Existing bool
	// BatchID says that the table ends with the column _batch_id, and that
	// every native row therefore ends with the batch's unique id.
	BatchID bool
}

// Ref names a dataset, and one manifest of it where Hash is set.
type Ref struct {
	Dataset Dataset
	Hash    string // 64 lower-case hexadecimal digits; empty: not said
}

// String returns "namespace/name", followed by "@hash" where there is one.
func (r Ref) String() string {
	if r.Hash == "" {
		return r.Dataset.String()
	}
	return r.Dataset.String() + "@" + r.Hash
}

// maxDatasetPart bounds each half of a dataset's name, in bytes, so that the
// default topic always fits Kafka's 249.
const maxDatasetPart = 100

var (
	datasetPart = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*$`)
	hashPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// ParseDataset reads "namespace/name".
func ParseDataset(s string) (Dataset, error) {
	namespace, name, found := strings.Cut(s, "/")
	for _, part := range []string{namespace, name} {
		if !found || len(part) > maxDatasetPart || !datasetPart.MatchString(part) {
			return Dataset{}, fmt.Errorf("dataset %s is not namespace/name: each part is a lower-case letter or digit, "+
				"then lower-case letters, digits, _ or - (at most %d)", quote(s), maxDatasetPart)
		}
	}
	return Dataset{Namespace: namespace, Name: name}, nil
}

// ParseRef reads "namespace/name" or "namespace/name@hash".
func ParseRef(s string) (Ref, error) {
	name, hash, found := strings.Cut(s, "@")
	d, err := ParseDataset(name)
	if err != nil {
		return Ref{}, err
	}
	if found && !hashPattern.MatchString(hash) {
		return Ref{}, fmt.Errorf("manifest hash %s of dataset %s is not 64 lower-case hexadecimal digits", quote(hash), d)
	}
	return Ref{Dataset: d, Hash: hash}, nil
}

// quote returns s in double quotes with everything unprintable escaped, cut to
// a length that fits a log line.
func quote(s string) string {
	const limit = 80
	if len(s) > limit {
		return fmt.Sprintf("%q…", s[:limit])
	}
	return fmt.Sprintf("%q", s)
}
