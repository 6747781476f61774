package schema

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
)

// document is a manifest as JSON: every key present, defaults written out; but
// for sources, which is there only if it says something: manifests were hashed
// before there were any.
type document struct {
	BatchID bool             `json:"batch_id"`
	Columns []columnDocument `json:"columns"`
	Dataset string           `json:"dataset"`
	Sources []sourceDocument `json:"sources,omitempty"`
	Table   tableDocument    `json:"table"`
	Topic   string           `json:"topic"`
}

type columnDocument struct {
	Name     string `json:"name"`
	Nullable bool   `json:"nullable"`
	Type     Type   `json:"type"`
}

type sourceDocument struct {
	Continuous bool   `json:"continuous"`
	Name       string `json:"name"`
}

// tableDocument has every key, but for those that are there only if they say
// something: manifests were hashed before there were any.
type tableDocument struct {
	Existing   bool               `json:"existing,omitempty"`
	Indexes    []indexDocument    `json:"indexes,omitempty"`
	Name       string             `json:"name"`
	Partition  *partitionDocument `json:"partition,omitempty"`
	PrimaryKey []string           `json:"primary_key,omitempty"`
	Schema     string             `json:"schema"`
}

type partitionDocument struct {
	By    string `json:"by"`
	Every Period `json:"every"`
}

type indexDocument struct {
	Columns []string `json:"columns"`
	Unique  bool     `json:"unique"`
}

// Canonical returns the canonical form: JSON by RFC 8785 (sorted keys, no
// space, shortest escapes) with every default written out, but for those of
// sources, table.existing, table.indexes, table.partition and table.primary_key.
func (m Manifest) Canonical() []byte {
	doc := document{
		BatchID: m.BatchID,
		Columns: make([]columnDocument, len(m.Columns)),
		Dataset: m.Dataset.String(),
		Table:   tableDocument{Existing: m.Existing, Name: m.Table.Name, Partition: (*partitionDocument)(m.Partition), PrimaryKey: m.PrimaryKey, Schema: m.Table.Schema},
		Topic:   m.Topic,
	}
	for i, c := range m.Columns {
		doc.Columns[i] = columnDocument{Name: c.Name, Nullable: c.Nullable, Type: c.Type}
	}
	for _, x := range m.Indexes {
		doc.Table.Indexes = append(doc.Table.Indexes, indexDocument(x))
	}
	for _, s := range m.Sources {
		doc.Sources = append(doc.Sources, sourceDocument{Continuous: s.Continuous, Name: s.Name})
	}
	text, err := json.Marshal(doc)
	if err != nil {
		panic("schema: a manifest of strings and booleans did not marshal: " + err.Error())
	}
	value := jsontext.Value(text)
	if err := value.Canonicalize(); err != nil {
		panic("schema: marshalled JSON is not canonicalizable: " + err.Error())
	}
	return value
}

// ParseCanonical reads the canonical form that Canonical wrote. Order of keys
// and white space may differ, because databases that keep JSON change both;
// everything else, such as a default left out, is an error.
func ParseCanonical(text []byte) (Manifest, error) {
	value := jsontext.Value(bytes.Clone(text))
	if err := value.Canonicalize(); err != nil {
		return Manifest{}, fmt.Errorf("parse manifest: %w", err)
	}
	var doc document
	dec := json.NewDecoder(bytes.NewReader(value))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&doc); err != nil {
		return Manifest{}, fmt.Errorf("parse manifest: %w", err)
	}
	d, err := ParseDataset(doc.Dataset)
	if err != nil {
		return Manifest{}, fmt.Errorf("parse manifest: %w", err)
	}
	m := Manifest{
		Dataset:  d,
		Topic:    doc.Topic,
		Table:    Table{Schema: doc.Table.Schema, Name: doc.Table.Name},
		Columns:  make([]Column, len(doc.Columns)),
		Existing: doc.Table.Existing,
		BatchID:  doc.BatchID,
	}
	for i, c := range doc.Columns {
		m.Columns[i] = Column{Name: c.Name, Type: c.Type, Nullable: c.Nullable}
	}
	m.PrimaryKey = doc.Table.PrimaryKey
	m.Partition = (*Partition)(doc.Table.Partition)
	for _, x := range doc.Table.Indexes {
		m.Indexes = append(m.Indexes, Index(x))
	}
	for _, s := range doc.Sources {
		m.Sources = append(m.Sources, Source{Name: s.Name, Continuous: s.Continuous})
	}
	if err := m.Validate(); err != nil {
		return Manifest{}, fmt.Errorf("parse manifest: %w", err)
	}
	if !bytes.Equal(m.Canonical(), value) {
		return Manifest{}, fmt.Errorf("parse manifest: not the canonical form: a key is missing, null or misspelt")
	}
	return m, nil
}

// Hash returns the SHA-256 of the canonical form, 64 hexadecimal digits.
func (m Manifest) Hash() string {
	sum := sha256.Sum256(m.Canonical())
	return hex.EncodeToString(sum[:])
}

// Ref returns "namespace/name@hash".
func (m Manifest) Ref() string { return Ref{Dataset: m.Dataset, Hash: m.Hash()}.String() }
