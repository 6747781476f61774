package intake

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"

	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/schema/rows"
)

// native returns the tuples of pairs, as the application would hand them over.
func native(t *testing.T, m schema.Manifest, id uuid.UUID, values [][]any) []byte {
	t.Helper()
	codec, err := rows.NewCodec(m)
	if err != nil {
		t.Fatal(err)
	}
	var value []byte
	for _, row := range values {
		if value, err = codec.Append(value, id, row); err != nil {
			t.Fatal(err)
		}
	}
	return value
}

func TestCSV(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		text, null string
		want       [][]any // n and t
	}{
		"plain":                    {text: "n,t\n1,a\n2,b\n", want: [][]any{{1, "a"}, {2, "b"}}},
		"header in another order":  {text: "t,n\na,1\n", want: [][]any{{1, "a"}}},
		"header in quotes":         {text: "\"t\",\"n\"\na,1\n", want: [][]any{{1, "a"}}},
		"nullable column left out": {text: "n\n1\n2\n", want: [][]any{{1, nil}, {2, nil}}},
		"byte order mark":          {text: "\ufeffn,t\n1,a\n", want: [][]any{{1, "a"}}},
		"byte order mark and quotes": {
			text: "\ufeff\"n\",\"t\"\n1,a\n", want: [][]any{{1, "a"}},
		},
		"CRLF":                         {text: "n,t\r\n1,a\r\n2,\r\n", want: [][]any{{1, "a"}, {2, nil}}},
		"LF and CRLF":                  {text: "n,t\r\n1,a\n2,b\r\n", want: [][]any{{1, "a"}, {2, "b"}}},
		"no newline at the end":        {text: "n,t\n1,a\n2,b", want: [][]any{{1, "a"}, {2, "b"}}},
		"no newline after an empty":    {text: "n,t\n1,", want: [][]any{{1, nil}}},
		"header alone":                 {text: "n,t\n"},
		"header alone, no newline":     {text: "n,t"},
		"empty and empty text":         {text: "n,t\n1,\n2,\"\"\n", want: [][]any{{1, nil}, {2, ""}}},
		"quotes in quotes":             {text: "n,t\n1,\"\"\"\"\n2,\"a \"\"b\"\" c\"\n", want: [][]any{{1, `"`}, {2, `a "b" c`}}},
		"comma and newlines in quotes": {text: "n,t\n1,\"a,b\nc\r\nd\n\"\n2,e\n", want: [][]any{{1, "a,b\nc\r\nd\n"}, {2, "e"}}},
		"number in quotes":             {text: "n,t\n\"1\",a\n", want: [][]any{{1, "a"}}},
		"blanks belong to the field":   {text: "n,t\n1, a \n", want: [][]any{{1, " a "}}},
		"tab, backslash, semicolon":    {text: "n,t\n1,\t\\N;\\.'\n", want: [][]any{{1, "\t\\N;\\.'"}}},
		"other NULL":                   {text: "n,t\n1,\\N\n2,\n3,\"\\N\"\n", null: `\N`, want: [][]any{{1, nil}, {2, ""}, {3, `\N`}}},
		"beyond ASCII":                 {text: "n,t\n1,Größe 😀 \u2028\n", want: [][]any{{1, "Größe 😀 \u2028"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := manifest(t, pairs)
			got, total, err := encodeText(t, m, tc.null, CSV, tc.text)
			if err != nil {
				t.Fatal(err)
			}
			var value []byte
			if len(got) > 0 {
				value = got[0].Value
			}
			if total.rows != int64(len(tc.want)) || total.bytes != int64(len(tc.text)) {
				t.Errorf("%+v", total)
			}
			id := batch.FileID(m.Dataset, "csv", sha256.Sum256([]byte(tc.text)), 0, "")
			if want := native(t, m, id, tc.want); !bytes.Equal(value, want) {
				t.Errorf("%x, want %x", value, want)
			}
		})
	}
}

// Each fault is told with the line where its row begins, or where a fault that
// is no row's is, and with the column if one is at fault.
func TestRefusedText(t *testing.T) {
	t.Parallel()
	many := strings.Repeat("1,a\n", 2500)
	for name, tc := range map[string]struct {
		format     Format
		text, null string
		line       int64
		column     string
		says       string
	}{
		"nothing at all":         {text: "", line: 1, says: "empty"},
		"byte order mark alone":  {text: "\ufeff", line: 1, says: "empty"},
		"unknown column":         {text: "n,t,x\n1,a,b\n", line: 1, says: `column "x" is not one of the manifest's`},
		"other case":             {text: "N,t\n1,a\n", line: 1, says: `column "N" is not one of the manifest's; column "n" is missing`},
		"blank in a name":        {text: "n, t\n1,a\n", line: 1, says: `column " t" is not one`},
		"required column left":   {text: "t\na\n", line: 1, says: `column "n" is missing`},
		"column twice":           {text: "n,t,n\n1,a,2\n", line: 1, says: `column "n" comes more than once`},
		"semicolons":             {text: "n;t\n1;a\n", line: 1, says: `column "n;t"`},
		"empty header":           {text: "\n1,a\n", line: 1, says: `column "" is not one`},
		"too many fields":        {text: "n,t\n1,a\n2,b,c\n", line: 3, says: "more fields than the header's 2"},
		"too few fields":         {text: "n,t\n1,a\n2\n", line: 3, says: "1 fields, the header has 2"},
		"blank line":             {text: "n,t\n1,a\n\n2,b\n", line: 3, says: "a blank line"},
		"blank line at the end":  {text: "n,t\n1,a\n\r\n", line: 3, says: "a blank line"},
		"quote in a field":       {text: "n,t\n1,a\"b\n", line: 2, says: "a quote inside a field"},
		"text after a quote":     {text: "n,t\n1,\"a\"b\n", line: 2, says: "between a closing quote and the next comma"},
		"quote not closed":       {text: "n,t\n1,a\n2,\"b\n3,c\n", line: 3, says: "a quote that is not closed"},
		"quote in the header":    {text: "n,\"t\n1,a\n", line: 1, says: "a quote that is not closed"},
		"carriage return alone":  {text: "n,t\n1,a\r2,b\n", line: 2, says: "carriage return"},
		"NULL where required":    {text: "n,t\n1,a\n,b\n", line: 3, column: "n", says: `NULL in a required column ("" without quotes is NULL)`},
		"other NULL":             {text: "n,t\n1,a\n-,b\n", null: "-", line: 3, column: "n", says: `("-" without quotes is NULL)`},
		"empty text is no int":   {text: "n,t\n\"\",a\n", line: 2, column: "n"},
		"no integer":             {text: "n,t\n1,a\n2.5,b\n", line: 3, column: "n", says: "2.5"},
		"integer over its range": {text: "n,t\n9223372036854775808,b\n", line: 2, column: "n"},
		"no UTF-8":               {text: "n,t\n1,\xff\n", line: 2, column: "t"},
		"NUL":                    {text: "n,t\n1,a\x00b\n", line: 2, column: "t"},
		"after newlines in quotes": {
			text: "n,t\n1,\"a\nb\nc\"\n2,\"d\n\"\nx,e\n", line: 7, column: "n", says: `"x"`,
		},
		"fault inside a row of several lines": {text: "n,t\n1,a\n\"2\n\",b\n", line: 3, column: "n"},
		"the first of many": {
			text: "n,t\n" + many + "x,a\n" + many + "y,a\n", line: 2502, column: "n", says: `"x"`,
		},
		"JSON: blank line":      {format: NDJSON, text: "{\"n\":1}\n\n", line: 2, says: "blank line"},
		"JSON: unknown column":  {format: NDJSON, text: "{\"n\":1}\n{\"n\":1,\"x\":2}\n", line: 2, says: `x`},
		"JSON: column twice":    {format: NDJSON, text: "{\"n\":1,\"n\":2}\n", line: 1, says: `n`},
		"JSON: missing":         {format: NDJSON, text: "{\"n\":1}\n{\"t\":\"a\"}\n", line: 2, column: "n", says: "required"},
		"JSON: kind":            {format: NDJSON, text: "{\"n\":1}\n{\"n\":\"1\"}\n", line: 2, column: "n"},
		"JSON: two objects":     {format: NDJSON, text: "{\"n\":1}{\"n\":2}\n", line: 1, says: "one JSON object a line"},
		"JSON: an array":        {format: NDJSON, text: "[{\"n\":1}]\n", line: 1},
		"JSON: over two lines":  {format: NDJSON, text: "{\"n\":1,\n\"t\":\"a\"}\n", line: 1},
		"JSON: in a late chunk": {format: NDJSON, text: strings.Repeat("{\"n\":1}\n", 2100) + "{\"n\":1e2}\n", line: 2101, column: "n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			format := tc.format
			if format == "" {
				format = CSV
			}
			_, _, err := encodeText(t, manifest(t, pairs), tc.null, format, tc.text)
			var at *RowError
			if !errors.As(err, &at) {
				t.Fatal(err)
			}
			if at.Line != tc.line || at.Column != tc.column || !strings.Contains(at.Detail, tc.says) {
				t.Errorf("%v", err)
			}
			where := fmt.Sprintf("line %d", tc.line)
			if tc.column != "" {
				where += fmt.Sprintf(", column %q", tc.column)
			}
			if !strings.HasPrefix(err.Error(), where+": ") {
				t.Errorf("%q does not begin with %q", err, where)
			}
		})
	}
}

// Of several failures the first in the file is kept, whichever comes first in time.
func TestFirstFailureIsKept(t *testing.T) {
	t.Parallel()
	e := &encoding{}
	for _, number := range []uint64{5, 2, 3} {
		e.note(number, &RowError{Line: int64(number)})
	}
	e.note(1, nil)
	var at *RowError
	if !errors.As(e.failure.err, &at) || at.Line != 2 || e.failedBefore(2) || !e.failedBefore(3) {
		t.Errorf("%+v", e.failure)
	}
}
