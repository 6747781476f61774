package infer

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"tallyman/schema"
)

// maxColumns is how many columns a manifest may have, and maxTable how long a
// table's name may be, in bytes.
const (
	maxColumns = 1599
	maxTable   = 50
)

// defaults returns a manifest without columns, as its YAML reads that says
// nothing but the dataset.
func defaults(d schema.Dataset) schema.Manifest {
	return schema.Manifest{
		Dataset: d, Topic: d.Namespace + "." + d.Name, BatchID: true,
		Table: schema.Table{Schema: "public", Name: strings.ReplaceAll(d.Name, "-", "_")},
	}
}

// nameFault returns why no column can have the name, or "".
func nameFault(name string) string {
	m := defaults(schema.Dataset{Namespace: "n", Name: "n"})
	m.Columns = []schema.Column{{Name: name, Type: schema.Text}}
	if err := m.Validate(); err != nil {
		_, detail, _ := strings.Cut(err.Error(), ": ")
		return detail
	}
	return ""
}

// DatasetOf returns a dataset that a file's name suggests: files/ and the name
// without what a dataset's name can't have.
func DatasetOf(file string) schema.Dataset {
	base := file[strings.LastIndexAny(file, `/\`)+1:]
	stem, _, _ := strings.Cut(base, ".")
	name := strings.Trim(notInNames.ReplaceAllString(strings.ToLower(stem), "_"), "_-")
	name = strings.TrimRight(name[:min(len(name), maxTable)], "_-")
	if name == "" {
		name = "rows"
	}
	return schema.Dataset{Namespace: "files", Name: name}
}

var notInNames = regexp.MustCompile(`[^a-z0-9_-]+`)

// YAML returns the manifest as text, with what a person has to decide as
// comments. from is the file's name.
func (r *Result) YAML(from string) []byte {
	var b bytes.Buffer
	how := "all of them"
	if r.Sampled {
		how = "the first of more; a later row may need a wider type, so look at the types before you apply this"
	}
	fmt.Fprintf(&b, "# From %s: %s, %s.\n", commented(from), plural(r.Rows, "row"), how)
	b.WriteString("# Where a value must never be missing, take away nullable: true.\n")
	if slices.ContainsFunc(r.columns, func(c *column) bool { return c.choice().typ == schema.Decimal }) {
		b.WriteString("# A decimal refuses more digits after the point than were seen here; float64 takes any, and rounds.\n")
	}
	fmt.Fprintf(&b, "dataset: %s\ncolumns:\n", scalar(r.Manifest.Dataset.String()))
	for i, c := range r.columns {
		fmt.Fprintf(&b, "  - {name: %s, type: %s, nullable: true}", scalar(c.name), scalar(string(r.Manifest.Columns[i].Type)))
		if notes := c.notes(r.Rows); notes != nil {
			b.WriteString("  # " + strings.Join(notes, "; "))
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// notes returns the comments on a column.
func (c *column) notes(all int64) []string {
	if c.values == 0 {
		return []string{"always empty, so the type is a guess"}
	}
	var notes []string
	chosen := c.choice()
	isKey := chosen.typ == schema.Int64 || chosen.typ == schema.Text || chosen.typ == schema.UUID
	switch {
	case c.values == all && all > 1 && isKey && c.repeats.never():
		notes = append(notes, "never empty, unique: a key?")
	case c.values == all:
		notes = append(notes, "never empty")
	}
	if chosen.spelling != "" {
		notes = append(notes, chosen.spelling)
	}
	if chosen.typ == schema.Int64 && c.isZeroOne() {
		notes = append(notes, "only 0 and 1: bool would do")
	}
	if chosen.isFree() && chosen.typ == schema.Text {
		notes = append(notes, c.why()...)
	}
	return notes
}

// why says what made the column no narrower type.
func (c *column) why() []string {
	if c.word != "" && c.words < c.values {
		if narrow := narrowest(c, c.without); !narrow.isFree() {
			return []string{fmt.Sprintf("%s if %s is NULL, as --null %[2]s says", c.describe(narrow), shellWord(c.word))}
		}
	}
	if c.broke != nil {
		return []string{fmt.Sprintf("%s but for line %d, %s", c.broke.was, c.broke.line, strconv.Quote(c.broke.text))}
	}
	return nil
}

func (c *column) isZeroOne() bool {
	return !c.varied && slices.Contains(c.distinct, "0") && slices.Contains(c.distinct, "1")
}

func shellWord(text string) string {
	if strings.Trim(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz/.-") == "" {
		return text
	}
	return "'" + text + "'"
}

var plainScalar = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_/-]*$`)

// scalar returns a text as YAML has it. Quotes and escapes of Go are those of
// YAML's double quotes.
func scalar(text string) string {
	words := []string{"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
	if plainScalar.MatchString(text) && !slices.Contains(words, strings.ToLower(text)) {
		return text
	}
	return strconv.Quote(text)
}

// commented returns a text that can stand in a comment.
func commented(text string) string {
	quoted := strconv.Quote(text)
	if quoted == `"`+text+`"` {
		return text
	}
	return quoted
}

func plural(n int64, what string) string {
	if n != 1 {
		what += "s"
	}
	return strconv.FormatInt(n, 10) + " " + what
}
