package schema

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// Fault is one thing that is wrong with a manifest.
type Fault struct {
	Line   int    // in the YAML document, from 1; 0: not read from YAML
	Path   string // as in "columns[0].type"; empty: the document as a whole
	Detail string
}

// Faults is every fault of a manifest, in the order of the document.
type Faults []Fault

// Error returns one line for each fault.
func (fs Faults) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		var b strings.Builder
		if f.Line > 0 {
			fmt.Fprintf(&b, "line %d: ", f.Line)
		}
		if f.Path != "" {
			b.WriteString(f.Path + ": ")
		}
		b.WriteString(f.Detail)
		lines[i] = b.String()
	}
	return strings.Join(lines, "\n")
}

// Limits in bytes. PostgreSQL cuts names at 63 without a word, so a table's
// name leaves room for the suffix of its revisions.
const (
	maxTable   = 50
	maxName    = 63
	maxTopic   = 249
	maxColumns = 1599 // PostgreSQL's 1600, one of them for _batch_id
)

var topicPattern = regexp.MustCompile(`^[a-zA-Z0-9._-]+$`)

// systemColumns are the names that PostgreSQL keeps for itself in every table.
var systemColumns = map[string]bool{"tableoid": true, "xmin": true, "cmin": true, "xmax": true, "cmax": true, "ctid": true}

// Validate checks the whole manifest; the error is Faults, without lines.
func (m Manifest) Validate() error {
	fs := m.faults()
	if len(fs) > 0 {
		return fs
	}
	return nil
}

func (m Manifest) faults() Faults {
	var fs Faults
	add := func(path, format string, args ...any) {
		fs = append(fs, Fault{Path: path, Detail: fmt.Sprintf(format, args...)})
	}
	if _, err := ParseDataset(m.Dataset.String()); err != nil {
		add("dataset", "%v", err)
	}
	if detail := topicFault(m.Topic); detail != "" {
		add("topic", "%s", detail)
	}
	if detail := nameFault(m.Table.Schema, maxName); detail != "" {
		add("table.schema", "%s", detail)
	} else if m.Table.Schema == "tallyman" || m.Table.Schema == "information_schema" || strings.HasPrefix(m.Table.Schema, "pg_") {
		add("table.schema", "schema %s is reserved", quote(m.Table.Schema))
	}
	longest := maxTable
	if m.Existing {
		longest = maxName
	}
	if detail := nameFault(m.Table.Name, longest); detail != "" {
		add("table.name", "%s", detail)
	}
	if m.Existing && m.BatchID {
		add("batch_id", "must be false: a table that was there before has no column %s", BatchIDColumn)
	}
	switch {
	case len(m.Columns) == 0:
		add("columns", "a dataset needs at least one column")
	case len(m.Columns) > maxColumns:
		add("columns", "%d columns, at most %d are possible", len(m.Columns), maxColumns)
	}
	first := make(map[string]int, len(m.Columns))
	for i, c := range m.Columns {
		path := fmt.Sprintf("columns[%d]", i)
		if detail := nameFault(c.Name, maxName); detail != "" {
			add(path+".name", "%s", detail)
		} else if c.Name == BatchIDColumn || systemColumns[c.Name] {
			add(path+".name", "the name %s is reserved", quote(c.Name))
		} else if earlier, seen := first[c.Name]; seen {
			add(path+".name", "column %s is already columns[%d]", quote(c.Name), earlier)
		} else {
			first[c.Name] = i
		}
		if c.Type == "" {
			add(path+".type", "is required: one of %s", typeNames())
		} else if _, fault := c.Type.facts(); fault != "" {
			add(path+".type", "%s", fault)
		}
	}
	return slices.Concat(fs, m.keyFaults(), m.partitionFaults(), m.sourceFaults())
}

// topicFault returns what is wrong with a topic's name by Kafka's rules, or "".
func topicFault(topic string) string {
	switch {
	case !topicPattern.MatchString(topic) || len(topic) > maxTopic || topic == "." || topic == "..":
		return fmt.Sprintf("topic %s is not 1 to %d of the letters a-z, A-Z, digits, '.', '_' and '-'", quote(topic), maxTopic)
	case strings.HasPrefix(topic, "tallyman.") || strings.HasPrefix(topic, "__"):
		return fmt.Sprintf("topic %s is reserved: names that begin with \"tallyman.\" or \"__\" are not for datasets", quote(topic))
	}
	return ""
}

// nameFault returns what is wrong with a warehouse's name for something, or "".
func nameFault(name string, limit int) string {
	switch {
	case name == "":
		return "is required"
	case !utf8.ValidString(name):
		return fmt.Sprintf("the name %s is not valid UTF-8", quote(name))
	case strings.ContainsRune(name, 0):
		return fmt.Sprintf("the name %s contains a NUL", quote(name))
	case len(name) > limit:
		return fmt.Sprintf("the name %s has %d bytes, at most %d are possible", quote(name), len(name), limit)
	}
	return ""
}
