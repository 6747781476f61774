package schema

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Type is the logical type of a column, spelled as in a manifest: one of the
// names below, decimal with its digits as in "decimal(12,2)", or an array of
// one of these as in "int64[]". There is one spelling of each.
type Type string

// The types that a column can have. Decimal is the name only: a column's type
// says how many digits, as MakeDecimal does.
const (
	Bool        Type = "bool"
	Int16       Type = "int16"
	Int32       Type = "int32"
	Int64       Type = "int64"
	Float32     Type = "float32"
	Float64     Type = "float64"
	Decimal     Type = "decimal"
	Text        Type = "text"
	Bytes       Type = "bytes"
	Date        Type = "date"
	Time        Type = "time"
	Timestamp   Type = "timestamp"
	TimestampTZ Type = "timestamptz"
	UUID        Type = "uuid"
	JSON        Type = "json"
)

// Variable is the Size of a type whose values differ in length.
const Variable = -1

// MaxPrecision is the greatest number of digits of a decimal, PostgreSQL's for
// a numeric that declares them.
const MaxPrecision = 1000

// Facts is what everybody may know of a type; how it is encoded and what a
// warehouse calls it are rows in tables of packages rows and ddl.
type Facts struct {
	// Name is the type without digits and brackets. Packages look it up.
	Name Type
	// Size is the length in bytes of every value in a native row, or Variable.
	// Of an array it is Variable, and ElementSize is that of its elements.
	Size, ElementSize int
	// Precision and Scale are the digits of a decimal, and how many of them
	// follow the point; 0 for other types.
	Precision, Scale int
	// Array says that values are lists of the type, whose elements may be null.
	Array bool
}

// types is the one list of types: a new one is a row here, in the table of
// encoders of package rows and in each dialect of package ddl, whose tests
// compare their tables with this one.
var types = map[Type]Facts{
	Bool:        {Size: 1},
	Int16:       {Size: 2},
	Int32:       {Size: 4},
	Int64:       {Size: 8},
	Float32:     {Size: 4},
	Float64:     {Size: 8},
	Decimal:     {Size: Variable},
	Text:        {Size: Variable},
	Bytes:       {Size: Variable},
	Date:        {Size: 4},
	Time:        {Size: 8},
	Timestamp:   {Size: 8},
	TimestampTZ: {Size: 8},
	UUID:        {Size: 16},
	JSON:        {Size: Variable},
}

// MakeDecimal returns the decimal of that many digits, scale of them after the
// point.
func MakeDecimal(precision, scale int) Type {
	return Type(fmt.Sprintf("%s(%d,%d)", Decimal, precision, scale))
}

// ArrayOf returns the array of a type.
func ArrayOf(t Type) Type { return t + "[]" }

// Facts returns what is known of t; false if there is no such type.
func (t Type) Facts() (Facts, bool) {
	f, fault := t.facts()
	return f, fault == ""
}

// facts returns what is known of t, or what is wrong with it.
func (t Type) facts() (Facts, string) {
	element, isArray := strings.CutSuffix(string(t), "[]")
	name, digits, hasDigits := strings.Cut(element, "(")
	f, known := types[Type(name)]
	switch isDecimal := Type(name) == Decimal; {
	case !known || hasDigits && !isDecimal:
		return Facts{}, fmt.Sprintf("unknown type %s: one of %s", quote(string(t)), typeNames())
	case isDecimal:
		var ok bool
		if f.Precision, f.Scale, ok = parseDigits(digits); !ok || string(MakeDecimal(f.Precision, f.Scale)) != element {
			return Facts{}, fmt.Sprintf("%s is not a decimal with its digits: want decimal(P,S) with P from 1 to %d digits in all and S from 0 to P "+
				"after the point, as in decimal(12,2), without blanks, and in quotes if it is inside braces", quote(string(t)), MaxPrecision)
		}
	}
	f.Name = Type(name)
	if f.Array = isArray; f.Array {
		f.Size, f.ElementSize = Variable, f.Size
	}
	return f, ""
}

// parseDigits reads "P,S)".
func parseDigits(s string) (precision, scale int, ok bool) {
	p, rest, _ := strings.Cut(s, ",")
	precision, err := strconv.Atoi(p)
	if err != nil {
		return 0, 0, false
	}
	scale, err = strconv.Atoi(strings.TrimSuffix(rest, ")"))
	return precision, scale, err == nil && 1 <= precision && precision <= MaxPrecision && 0 <= scale && scale <= precision
}

// Types returns the name of every type, sorted, with Decimal for all decimals
// and without arrays.
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
		if t == Decimal {
			t += "(P,S)"
		}
		names = append(names, string(t))
	}
	return strings.Join(names, ", ") + ", or an array of one as in int64[]"
}
