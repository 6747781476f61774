package schema

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// ParseManifest reads a manifest in YAML. The error is Faults: every unknown
// or repeated key, every value of the wrong kind and everything that Validate
// refuses, each with its line.
func ParseManifest(text []byte) (Manifest, error) {
	root, err := parseDocument(text)
	if err != nil {
		return Manifest{}, Faults{{Detail: strings.TrimPrefix(err.Error(), "yaml: ")}}
	}
	r := reader{lines: map[string]int{"": root.Line}, broken: map[string]bool{}}
	m := Manifest{BatchID: true, Table: Table{Schema: "public"}}
	r.mapping(root, "", keys{
		"dataset":  func(n *yaml.Node) { m.Dataset = r.dataset(n) },
		"topic":    func(n *yaml.Node) { r.string(n, "topic", &m.Topic) },
		"batch_id": func(n *yaml.Node) { r.bool(n, "batch_id", &m.BatchID) },
		"columns":  func(n *yaml.Node) { m.Columns = r.columns(n) },
		"sources":  func(n *yaml.Node) { m.Sources = r.sources(n) },
		"table": func(n *yaml.Node) {
			r.mapping(n, "table", keys{
				"schema":      func(n *yaml.Node) { r.string(n, "table.schema", &m.Table.Schema) },
				"name":        func(n *yaml.Node) { r.string(n, "table.name", &m.Table.Name) },
				"existing":    func(n *yaml.Node) { r.bool(n, "table.existing", &m.Existing) },
				"indexes":     func(n *yaml.Node) { m.Indexes = r.indexes(n) },
				"partition":   func(n *yaml.Node) { m.Partition = r.partition(n) },
				"primary_key": func(n *yaml.Node) { m.PrimaryKey = r.names(n, "table.primary_key") },
			})
		},
	})
	if m.Dataset != (Dataset{}) {
		if !r.has("topic") {
			m.Topic = m.Dataset.Namespace + "." + m.Dataset.Name
		}
		if !r.has("table.name") {
			m.Table.Name = strings.ReplaceAll(m.Dataset.Name, "-", "_")
		}
	}
	if m.Existing && !r.has("batch_id") {
		m.BatchID = false
	}
	r.check(m)
	if len(r.faults) > 0 {
		slices.SortStableFunc(r.faults, func(a, b Fault) int { return a.Line - b.Line })
		return Manifest{}, r.faults
	}
	return m, nil
}

// parseDocument returns the top node of the only document in text.
func parseDocument(text []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, errors.New("the manifest is empty")
	} else if err != nil {
		return nil, err
	}
	if err := dec.Decode(&more); err == nil {
		return nil, fmt.Errorf("line %d: a second document: one manifest a file", more.Line)
	} else if !errors.Is(err, io.EOF) {
		return nil, err
	}
	return doc.Content[0], nil
}

// keys are the known keys of a mapping, each with what reads its value.
type keys map[string]func(*yaml.Node)

// reader walks a YAML document, collecting faults and the line of every path.
type reader struct {
	lines  map[string]int
	broken map[string]bool // paths whose value is of the wrong kind
	faults Faults
}

func (r *reader) has(path string) bool {
	_, ok := r.lines[path]
	return ok
}

// wrong says that the value at path is of the wrong kind.
func (r *reader) wrong(n *yaml.Node, path, want string) {
	r.broken[path] = true
	r.fault(n, path, "is %s, want %s", describe(n), want)
}

func (r *reader) fault(n *yaml.Node, path, format string, args ...any) {
	r.faults = append(r.faults, Fault{Line: n.Line, Path: path, Detail: fmt.Sprintf(format, args...)})
}

// mapping reads each key of n by known.
func (r *reader) mapping(n *yaml.Node, path string, known keys) {
	r.lines[path] = n.Line
	n = resolve(n)
	if n.Kind != yaml.MappingNode {
		r.wrong(n, path, "a mapping with the keys "+known.String())
		return
	}
	seen := make(map[string]int, len(known))
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		read, ok := known[key.Value]
		if key.Kind != yaml.ScalarNode || !ok {
			r.fault(key, path, "unknown key %s: known are %s", quote(key.Value), known)
			continue
		}
		if line, again := seen[key.Value]; again {
			r.fault(key, path, "key %s is already in line %d", quote(key.Value), line)
			continue
		}
		seen[key.Value] = key.Line
		read(value)
	}
}

// String lists the keys for a message.
func (k keys) String() string { return strings.Join(slices.Sorted(maps.Keys(k)), ", ") }

func (r *reader) string(n *yaml.Node, path string, into *string) {
	r.lines[path] = n.Line
	n = resolve(n)
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		r.wrong(n, path, "a string (put it in quotes if it is meant to be one)")
		return
	}
	*into = n.Value
}

func (r *reader) bool(n *yaml.Node, path string, into *bool) {
	r.lines[path] = n.Line
	n = resolve(n)
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" || n.Decode(into) != nil {
		r.wrong(n, path, "true or false")
	}
}

func (r *reader) dataset(n *yaml.Node) Dataset {
	var s string
	r.string(n, "dataset", &s)
	if r.broken["dataset"] {
		return Dataset{}
	}
	d, err := ParseDataset(s)
	if err != nil {
		r.broken["dataset"] = true
		r.fault(n, "dataset", "%v", err)
	}
	return d
}

func (r *reader) columns(n *yaml.Node) []Column {
	r.lines["columns"] = n.Line
	n = resolve(n)
	if n.Kind != yaml.SequenceNode {
		r.wrong(n, "columns", "a list of {name, type, nullable}")
		return nil
	}
	columns := make([]Column, len(n.Content))
	for i, item := range n.Content {
		path := fmt.Sprintf("columns[%d]", i)
		c := &columns[i]
		r.mapping(item, path, keys{
			"name":     func(n *yaml.Node) { r.string(n, path+".name", &c.Name) },
			"nullable": func(n *yaml.Node) { r.bool(n, path+".nullable", &c.Nullable) },
			"type": func(n *yaml.Node) {
				var t string
				r.string(n, path+".type", &t)
				c.Type = Type(t)
			},
		})
	}
	return columns
}

func (r *reader) sources(n *yaml.Node) []Source {
	r.lines["sources"] = n.Line
	n = resolve(n)
	if n.Kind != yaml.SequenceNode {
		r.wrong(n, "sources", "a list of {name, continuous}")
		return nil
	}
	if len(n.Content) == 0 {
		return nil // as if it were not said
	}
	sources := make([]Source, len(n.Content))
	for i, item := range n.Content {
		path := fmt.Sprintf("sources[%d]", i)
		s := &sources[i]
		r.mapping(item, path, keys{
			"name":       func(n *yaml.Node) { r.string(n, path+".name", &s.Name) },
			"continuous": func(n *yaml.Node) { r.bool(n, path+".continuous", &s.Continuous) },
		})
	}
	return sources
}

func (r *reader) indexes(n *yaml.Node) []Index {
	r.lines["table.indexes"] = n.Line
	n = resolve(n)
	if n.Kind != yaml.SequenceNode {
		r.wrong(n, "table.indexes", "a list of {columns, unique}")
		return nil
	}
	if len(n.Content) == 0 {
		return nil // as if it were not said
	}
	indexes := make([]Index, len(n.Content))
	for i, item := range n.Content {
		path := fmt.Sprintf("table.indexes[%d]", i)
		x := &indexes[i]
		r.mapping(item, path, keys{
			"columns": func(n *yaml.Node) { x.Columns = r.names(n, path+".columns") },
			"unique":  func(n *yaml.Node) { r.bool(n, path+".unique", &x.Unique) },
		})
	}
	return indexes
}

func (r *reader) partition(n *yaml.Node) *Partition {
	p := &Partition{}
	r.mapping(n, "table.partition", keys{
		"by": func(n *yaml.Node) { r.string(n, "table.partition.by", &p.By) },
		"every": func(n *yaml.Node) {
			var every string
			r.string(n, "table.partition.every", &every)
			p.Every = Period(every)
		},
	})
	return p
}

// names reads a list of columns' names.
func (r *reader) names(n *yaml.Node, path string) []string {
	r.lines[path] = n.Line
	n = resolve(n)
	if n.Kind != yaml.SequenceNode {
		r.wrong(n, path, "a list of columns")
		return nil
	}
	names := make([]string, len(n.Content))
	for i, item := range n.Content {
		r.string(item, fmt.Sprintf("%s[%d]", path, i), &names[i])
	}
	return names
}

// check adds what Validate finds, at the line of its path or of the nearest
// thing around it, unless that could not even be read.
func (r *reader) check(m Manifest) {
	for _, f := range m.faults() {
		switch {
		case r.broken[f.Path] || r.broken[parent(f.Path)]:
			continue
		case f.Path == "dataset" && !r.has("dataset"):
			f.Detail = "is required: namespace/name"
		case m.Dataset == (Dataset{}) && (f.Path == "topic" || f.Path == "table.name") && !r.has(f.Path):
			continue // would have been derived from the dataset, which is at fault
		}
		near := f.Path
		for !r.has(near) {
			near = parent(near)
		}
		f.Line = r.lines[near]
		r.faults = append(r.faults, f)
	}
}

// parent returns the path of what holds the thing at path.
func parent(path string) string { return path[:max(strings.LastIndexByte(path, '.'), 0)] }

// resolve follows an alias to its anchor.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// describe names what a node is, for a message.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	default:
		if n.ShortTag() == "!!null" {
			return "empty"
		}
		return quote(n.Value)
	}
}
