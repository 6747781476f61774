package infer

import (
	"bytes"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"tallyman/schema"
)

// kind is the form in which a file has a value.
type kind uint8

const (
	field  kind = 1 << iota // of CSV
	str                     // of JSON, and so the following
	number                  //
	truth                   // true or false
	nested                  // an array or an object
)

// value is a value that is not NULL.
type value struct {
	kind kind
	text []byte // a field's or a string's text; of the other kinds what the file has
	raw  []byte // of JSON, what the file has
}

// candidate is a type that a column may have, for values of one spelling.
type candidate struct {
	typ   schema.Type
	kinds kind
	// looks reports whether the type gives the text back as it is, if it takes
	// it; nil: always.
	looks func(text []byte) bool
	// fits reports whether all the values of the column, taken together, speak
	// for the candidate; nil: they do.
	fits func(c *column) bool
	// spelling names a way to write a value that people know as more than what
	// the type is; empty: the type says it all.
	spelling string
}

// isFree reports whether the candidate takes whatever is of its kinds.
func (c *candidate) isFree() bool { return c.looks == nil }

// candidates returns what a column may be, from narrow to wide. The first one
// that takes all values is the column's.
func candidates() []*candidate {
	all := []*candidate{
		{typ: schema.Bool, kinds: field | truth, looks: isTruth},
		{typ: schema.Bool, kinds: field, looks: isLetter, fits: bothLetters},
		{typ: schema.Int64, kinds: field | number, looks: isInteger},
		{typ: schema.Decimal, kinds: field | number, looks: isPlainDecimal},
		{typ: schema.Float64, kinds: field | number, looks: isExactFloat},
		{typ: schema.UUID, kinds: field | str, looks: lowerUUID.Match},
		{typ: schema.UUID, kinds: field | str, looks: upperUUID.Match, spelling: "UUIDs in upper case, which the warehouse shows in lower case"},
		{typ: schema.Date, kinds: field | str, looks: hasForm("0000-00-00")},
		{typ: schema.Time, kinds: field | str, looks: hasForm("00:00:00")},
		{typ: schema.Timestamp, kinds: field | str, looks: hasForm("0000-00-00?00:00:00")},
		{typ: schema.TimestampTZ, kinds: field | str, looks: hasForm("0000-00-00?00:00:00")},
		{typ: schema.ArrayOf(schema.Bool), kinds: nested, looks: isArray, fits: hasElements},
		{typ: schema.ArrayOf(schema.Int64), kinds: nested, looks: isArray, fits: hasElements},
		{typ: schema.ArrayOf(schema.Text), kinds: nested, looks: isArray, fits: hasElements},
		{typ: schema.JSON, kinds: field | nested, looks: isNested},
	}
	for _, n := range notations() {
		kinds := field | str
		if n.fieldOnly {
			kinds = field
		}
		all = append(all, &candidate{typ: schema.Text, kinds: kinds, looks: n.matches, spelling: n.name})
	}
	return append(all,
		&candidate{typ: schema.Text, kinds: field | str},
		&candidate{typ: schema.JSON, kinds: str | number | truth | nested, spelling: "values of several kinds"},
	)
}

var (
	lowerUUID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	upperUUID = regexp.MustCompile(`^[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}$`)
)

func isTruth(text []byte) bool {
	return bytes.EqualFold(text, []byte("true")) || bytes.EqualFold(text, []byte("false"))
}

// isLetter reports whether text is a truth value as databases export it.
func isLetter(text []byte) bool {
	return len(text) == 1 && bytes.IndexByte([]byte("tfTF"), text[0]) >= 0
}

// bothLetters tells truth values from a column that happens to say F for
// everybody: both letters occur, in the same case.
func bothLetters(c *column) bool {
	if c.varied || len(c.distinct) != 2 {
		return false
	}
	both := c.distinct[0] + c.distinct[1]
	return both == "tf" || both == "ft" || both == "TF" || both == "FT"
}

// exactDigits is how many decimal digits float64 always gives back, and
// exactExponent an exponent at which it surely still does.
const (
	exactDigits   = 15
	exactExponent = 280
)

// isExactFloat reports whether float64 has the very number that is written.
func isExactFloat(text []byte) bool {
	switch string(text) {
	case "NaN", "Infinity", "-Infinity":
		return true
	}
	mantissa := bytes.TrimPrefix(text, []byte{'-'})
	if i := bytes.IndexAny(mantissa, "eE"); i >= 0 {
		exponent, err := strconv.Atoi(string(mantissa[i+1:]))
		if err != nil || exponent < -exactExponent || exponent > exactExponent {
			return false
		}
		mantissa = mantissa[:i]
	}
	whole, part, pointed := bytes.Cut(mantissa, []byte{'.'})
	if !isDigits(whole) || !isDigits(part) || len(whole)+len(part) == 0 || pointed && len(part) == 0 || len(whole) > 1 && whole[0] == '0' {
		return false
	}
	if len(whole)+len(part) <= exactDigits {
		return true
	}
	digits := bytes.TrimLeft(slices.Concat(whole, part), "0")
	return len(digits) <= exactDigits
}

// isInteger reports whether text is a whole number without a zero or a plus
// sign in front, as only numbers are written.
func isInteger(text []byte) bool {
	digits := bytes.TrimPrefix(text, []byte{'-'})
	return isDigits(digits) && len(digits) > 0 && (digits[0] != '0' || len(text) == 1)
}

func isDigits(text []byte) bool {
	for _, c := range text {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// digitsOf returns the digits of a number before and after its point; false:
// it is not one as decimals are written back, with an exponent, zeros or a plus
// sign in front, or a minus before nothing but zeros.
func digitsOf(text []byte) (whole, part int, ok bool) {
	w, p, pointed := bytes.Cut(bytes.TrimPrefix(text, []byte{'-'}), []byte{'.'})
	switch {
	case !isDigits(w) || !isDigits(p) || len(w)+len(p) == 0 || pointed && len(p) == 0 || len(w) > 1 && w[0] == '0':
		return 0, 0, false
	case text[0] == '-' && len(bytes.Trim(w, "0"))+len(bytes.Trim(p, "0")) == 0:
		return 0, 0, false
	case len(w) == 1 && w[0] == '0':
		return 0, len(p), true
	}
	return len(w), len(p), true
}

func isPlainDecimal(text []byte) bool {
	whole, part, ok := digitsOf(text)
	return ok && whole <= maxDigits && part <= maxDigits
}

// maxDigits is how many digits a decimal may have here on either side of its point.
const maxDigits = schema.MaxPrecision / 2

// hasForm returns what reports whether a text begins as the form does: a digit
// for each 0, anything for a ?.
func hasForm(form string) func([]byte) bool {
	return func(text []byte) bool {
		if len(text) < len(form) {
			return false
		}
		for i := range len(form) {
			c := text[i]
			switch {
			case form[i] == '0' && (c < '0' || c > '9'):
				return false
			case form[i] != '0' && form[i] != '?' && c != form[i]:
				return false
			}
		}
		return true
	}
}

func isArray(text []byte) bool { return text[0] == '[' }

// hasElements tells arrays from a column that has only empty ones, which could
// be of anything.
func hasElements(c *column) bool {
	return c.varied || slices.ContainsFunc(c.distinct, func(text string) bool { return strings.Trim(text, "[]nul, \t") != "" })
}

func isNested(text []byte) bool {
	return len(text) > 0 && (text[0] == '{' || text[0] == '[')
}

// notation is a spelling that people know as more than text, and that no type
// holds as it is written.
type notation struct {
	name    string
	pattern *regexp.Regexp // nil: the layouts decide
	layouts []string       // of package time
	// fieldOnly says that it is no wonder in a string of JSON, which has numbers.
	fieldOnly bool
}

func (n notation) matches(text []byte) bool {
	if n.pattern != nil {
		return n.pattern.Match(text)
	}
	if len(text) < 4 || len(text) > 40 {
		return false
	}
	for _, layout := range n.layouts {
		if _, err := time.Parse(layout, string(text)); err == nil {
			return true
		}
	}
	return false
}

// notations returns the known ones. Where a column fits two, the first is told,
// so that the doubtful one comes before those which settle the doubt.
func notations() []notation {
	return []notation{
		{name: "times as YYYY-MM-DD HH:MM, not all with seconds", layouts: []string{"2006-01-02 15:04:05", "2006-01-02T15:04:05", "2006-01-02 15:04", "2006-01-02T15:04"}},
		{name: "times as YYYY/MM/DD HH:MM", layouts: []string{"2006/01/02 15:04:05", "2006/01/02 15:04"}},
		{name: "times of day, not all with seconds", layouts: []string{"15:04:05", "15:04"}},
		{name: "dates as DD.MM.YYYY", layouts: []string{"2.1.2006"}},
		{name: "dates as YYYY/MM/DD", layouts: []string{"2006/1/2"}},
		{name: "dates as DD/MM/YYYY or MM/DD/YYYY, which these values leave open", pattern: regexp.MustCompile(`^(0?[1-9]|1[0-2])/(0?[1-9]|1[0-2])/[0-9]{4}$`)},
		{name: "dates as MM/DD/YYYY", layouts: []string{"1/2/2006"}},
		{name: "dates as DD/MM/YYYY", layouts: []string{"2/1/2006"}},
		{name: "dates with the month's name", layouts: []string{"2 Jan 2006", "02-Jan-2006", "2-Jan-06", "Jan 2, 2006", "Jan 2 2006", "January 2, 2006", "2 January 2006"}},
		{name: "times as in mail and HTTP", layouts: []string{time.RFC1123, time.RFC1123Z}},
		{name: "numbers that no type holds exactly", fieldOnly: true, pattern: regexp.MustCompile(`^-?((0|[1-9][0-9]*)(\.[0-9]+)?|\.[0-9]+)([eE][+-]?[0-9]+)?$`)},
		{name: "digits with a zero or a plus sign in front", pattern: regexp.MustCompile(`^\+?[0-9][0-9 ]*$`)},
		{name: "numbers with commas between thousands", pattern: regexp.MustCompile(`^-?[0-9]{1,3}(,[0-9]{3})*(\.[0-9]+)?$`)},
		{name: "numbers with a decimal comma", pattern: regexp.MustCompile(`^-?([0-9]+|[0-9]{1,3}(\.[0-9]{3})+)(,[0-9]+)?$`)},
		{name: "UUIDs in several spellings", pattern: regexp.MustCompile(`^(urn:uuid:)?\{?[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}\}?$`)},
	}
}
