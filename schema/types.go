package schema

import (
	"slices"
	"strings"
)

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

// Variable is the Size of a type whose values differ in length.
const Variable = -1

// Facts is what everybody may know of a type; how it is encoded and what a
// warehouse calls it are rows in tables of packages rows and ddl.
type Facts struct {
	// Size is the length in bytes of every value in a native row, or Variable.
	Size int
}

// types is the one list of types: a new one is a row here, in the table of
// encoders of package rows and in each dialect of package ddl, whose tests
// compare their tables with this one.
var types = map[Type]Facts{
	Bool:        {Size: 1},
	Int64:       {Size: 8},
	Float64:     {Size: 8},
	Text:        {Size: Variable},
	TimestampTZ: {Size: 8},
	UUID:        {Size: 16},
	JSON:        {Size: Variable},
}

// Facts returns what is known of t; false if there is no such type.
func (t Type) Facts() (Facts, bool) {
	f, ok := types[t]
	return f, ok
}

// Types returns every type, sorted by name.
func Types() []Type {
	all := make([]Type, 0, len(types))
	for t := range types {
		all = append(all, t)
	}
	slices.Sort(all)
	return all
}

// typeNames returns the names of all types for a message.
func typeNames() string {
	var names []string
	for _, t := range Types() {
		names = append(names, string(t))
	}
	return strings.Join(names, ", ")
}
