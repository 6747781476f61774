package infer

import (
	"bytes"
	"errors"
	"hash/maphash"
	"slices"

	"tallyman/schema"
	"tallyman/schema/rows"
	"tallyman/source/intake"
)

// column is what was seen of one column.
type column struct {
	name     string
	alive    []*candidate // that took every value, from narrow to wide
	values   int64        // that are not NULL
	distinct []string     // the first two different values
	varied   bool         // there are more
	whole    int          // the most digits before a decimal's point
	part     int          // and after it
	repeats  repeats
	broke    *broke
	word     string       // the first text that programs write for what is missing
	words    int64        // how often it came
	without  []*candidate // that took every other value
}

// broke is the first value that left a column nothing but text.
type broke struct {
	was  string // what it had been until then
	line int64
	text string
}

func newColumn(name string, all []*candidate) *column {
	return &column{name: name, alive: slices.Clone(all)}
}

// add takes in a value; the error says that no type holds it.
func (c *column) add(j *judge, line int64, v value) error {
	c.set(j, v)
	before := c.alive[0]
	widest := c.alive[len(c.alive)-1]
	c.alive = slices.DeleteFunc(c.alive, func(candidate *candidate) bool { return !j.takes(candidate, v) })
	if len(c.alive) == 0 {
		return c.refused(j, line, widest, v)
	}
	if c.values > 0 && c.alive[0].isFree() && !before.isFree() && before.fits == nil {
		c.broke = &broke{was: c.describe(before), line: line, text: string(v.text[:min(len(v.text), maxShown)])}
	}
	c.values++
	c.remember(v.text)
	if whole, part, ok := digitsOf(v.text); ok {
		c.whole, c.part = max(c.whole, whole), max(c.part, part)
	}
	return nil
}

// set takes in a value for what the column would be without a word for NULL.
func (c *column) set(j *judge, v value) {
	switch {
	case c.word == "" && v.kind == field && isNullWord(v.text):
		c.word, c.words, c.without = string(v.text), 1, slices.Clone(c.alive)
	case c.word == "":
	case c.word == string(v.text):
		c.words++
	default:
		c.without = slices.DeleteFunc(c.without, func(candidate *candidate) bool { return !j.takes(candidate, v) })
	}
}

// isNullWord reports whether programs write the text for a value that is missing.
func isNullWord(text []byte) bool {
	switch string(text) {
	case "NA", "N/A", "NULL", "null", "nan", "None", `\N`, "-", "?", ".":
		return true
	}
	return false
}

// maxShown bounds a value in a comment, in bytes.
const maxShown = 40

// refused is the error for a value that no candidate takes.
func (c *column) refused(j *judge, line int64, widest *candidate, v value) error {
	detail := "no type takes the value"
	for _, t := range []schema.Type{widest.typ, schema.Text} {
		var e *rows.Error
		if errors.As(j.refusal(t, v), &e) {
			detail = e.Detail
		}
	}
	return &intake.RowError{Line: line, Column: c.name, Detail: detail}
}

// remember keeps the first two different values.
func (c *column) remember(text []byte) {
	if c.varied || len(text) > maxShown {
		c.varied = true
		return
	}
	for _, d := range c.distinct {
		if d == string(text) {
			return
		}
	}
	if c.varied = len(c.distinct) == 2; !c.varied {
		c.distinct = append(c.distinct, string(text))
	}
}

// choice returns the narrowest candidate that the values speak for; text if
// there are none.
func (c *column) choice() *candidate {
	if c.values == 0 {
		return &candidate{typ: schema.Text}
	}
	return narrowest(c, c.alive)
}

func narrowest(c *column, alive []*candidate) *candidate {
	for _, candidate := range alive {
		if candidate.fits == nil || candidate.fits(c) {
			return candidate
		}
	}
	return alive[len(alive)-1]
}

// spare is how many more digits than were seen a decimal has room for before
// its point, if it then is of a usual size.
const spare = 4

// typeOf returns the column's type if it is the candidate's. A decimal has the
// digits after the point that were seen.
func (c *column) typeOf(candidate *candidate) schema.Type {
	if candidate.typ != schema.Decimal {
		return candidate.typ
	}
	precision := c.whole + c.part
	for _, usual := range []int{18, 38} {
		if precision+spare <= usual {
			return schema.MakeDecimal(usual, c.part)
		}
	}
	return schema.MakeDecimal(precision, c.part)
}

// describe says what values the candidate takes.
func (c *column) describe(candidate *candidate) string {
	if candidate.spelling != "" {
		return candidate.spelling
	}
	return string(c.typeOf(candidate))
}

// repeats sees whether a column's values repeat. It may take two values for
// the same that are not, once in 2^64, and never two for different that are the
// same: "never" is exact, and once in a while somebody is not told of a key.
type repeats struct {
	seen map[uint64]struct{}
	over bool // one repeated, or there was no memory left
}

// hashes is how many hashes all columns together keep: 2 million take some 80 MB.
const hashes = 2_000_000

// memory is what is left for hashes.
type memory struct {
	seed maphash.Seed
	left int
}

func (r *repeats) add(m *memory, text []byte) {
	if r.over {
		return
	}
	sum := maphash.Bytes(m.seed, text)
	if _, again := r.seen[sum]; again || m.left == 0 {
		m.left += len(r.seen)
		r.seen, r.over = nil, true
		return
	}
	if r.seen == nil {
		r.seen = map[uint64]struct{}{}
	}
	r.seen[sum] = struct{}{}
	m.left--
}

// never reports whether no value came twice.
func (r *repeats) never() bool { return !r.over }

// isNull reports whether a raw value of JSON is null.
func isNull(raw []byte) bool { return bytes.Equal(raw, []byte("null")) }
