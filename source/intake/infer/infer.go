package infer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"tallyman/schema"
	"tallyman/schema/rows"
	"tallyman/source/intake"
)

// Config says what is read and what the manifest is for.
type Config struct {
	// Dataset is the dataset that the manifest describes. Required.
	Dataset schema.Dataset
	// Layout is how the stream is to be read. Required.
	Layout intake.Layout
	// Sample is how many rows are looked at. Defaults to all.
	Sample int64
}

// Result is what was found.
type Result struct {
	Manifest schema.Manifest
	// Rows is how many rows were looked at.
	Rows int64
	// Sampled says that there were more.
	Sampled bool

	columns []*column
}

// errEnough ends the reading of a sample.
var errEnough = errors.New("the sample is complete")

// Infer reads a stream and finds the manifest's columns. Of a row that can't be
// read, and of a value that no type holds, the error is *intake.RowError: a
// push of the stream would be refused for it, too.
func Infer(ctx context.Context, stream io.Reader, c Config) (*Result, error) {
	j, err := newJudge()
	if err != nil {
		return nil, err
	}
	s := &survey{
		judge: j, sample: c.Sample, byName: map[string]*column{},
		memory: memory{seed: maphash.MakeSeed(), left: hashes},
		json:   jsontext.NewDecoder(new(bytes.Buffer)),
	}
	err = intake.Read(ctx, stream, c.Layout, s)
	sampled := errors.Is(err, errEnough)
	switch {
	case err != nil && !sampled:
		return nil, err
	case s.rows == 0 && c.Layout.Format == intake.CSV:
		return nil, errors.New("there is a header and not one row, so nothing tells the types")
	case s.rows == 0:
		return nil, errors.New("the file is empty, so nothing tells columns and types")
	case len(s.columns) == 0:
		return nil, errors.New("no row has a key, so there are no columns")
	}
	r := &Result{Rows: s.rows, Sampled: sampled, columns: s.columns}
	r.Manifest = s.manifest(c.Dataset)
	if err := r.Manifest.Validate(); err != nil {
		return nil, fmt.Errorf("the file makes no manifest: %w", err)
	}
	return r, nil
}

// survey looks at every row; it is intake's Records.
type survey struct {
	judge   *judge
	sample  int64
	rows    int64
	columns []*column
	byName  map[string]*column
	memory  memory
	json    *jsontext.Decoder
}

// Header implements intake.Records.
func (s *survey) Header(names []string) error {
	if err := checkSeparator(names); err != nil {
		return err
	}
	if len(names) > maxColumns {
		return &intake.RowError{Line: 1, Detail: fmt.Sprintf("header: %d columns, and a table has room for %d", len(names), maxColumns)}
	}
	var faults []string
	for i, name := range names {
		switch fault := nameFault(name); {
		case name == "":
			faults = append(faults, fmt.Sprintf("column %d has no name", i+1))
		case s.byName[name] != nil:
			faults = append(faults, fmt.Sprintf("column %q comes more than once", name))
		case fault != "":
			faults = append(faults, fmt.Sprintf("column %d: %s", i+1, fault))
		}
		s.addColumn(name)
	}
	if faults != nil {
		const most = 10
		if more := len(faults) - most; more > 0 {
			faults = append(faults[:most], fmt.Sprintf("and %d more", more))
		}
		return &intake.RowError{Line: 1, Detail: "header: " + strings.Join(faults, "; ") +
			". A push finds columns by the header, so the file has to be changed"}
	}
	return nil
}

// checkSeparator refuses a header that is separated by something else than commas.
func checkSeparator(names []string) error {
	if first := names[0]; strings.HasPrefix(first, "\xff\xfe") || strings.HasPrefix(first, "\xfe\xff") {
		return &intake.RowError{Line: 1, Detail: "the file is UTF-16, and only UTF-8 is read: iconv -f UTF-16 -t UTF-8 converts it"}
	}
	if len(names) > 1 {
		return nil
	}
	for _, separator := range []string{";", "\t", "|"} {
		if strings.Contains(names[0], separator) {
			return &intake.RowError{Line: 1, Detail: fmt.Sprintf(
				"header: one column, as it seems separated by %q; fields have to be separated by commas", separator)}
		}
	}
	return nil
}

func (s *survey) addColumn(name string) *column {
	c := newColumn(name, s.judge.all)
	s.columns = append(s.columns, c)
	s.byName[name] = c
	return c
}

// begin counts a row, unless the sample has enough of them.
func (s *survey) begin() error {
	if s.sample > 0 && s.rows == s.sample {
		return errEnough
	}
	s.rows++
	return nil
}

// Fields implements intake.Records.
func (s *survey) Fields(line int64, fields []rows.Field) error {
	if err := s.begin(); err != nil {
		return err
	}
	for i, f := range fields {
		if f.Null {
			continue
		}
		if err := s.add(s.columns[i], line, value{kind: field, text: f.Value}); err != nil {
			return err
		}
	}
	return nil
}

func (s *survey) add(c *column, line int64, v value) error {
	if err := c.add(s.judge, line, v); err != nil {
		return err
	}
	c.repeats.add(&s.memory, v.text)
	return nil
}

// Object implements intake.Records.
func (s *survey) Object(line int64, object []byte) error {
	if err := s.begin(); err != nil {
		return err
	}
	s.json.Reset(bytes.NewBuffer(object))
	if kind := s.json.PeekKind(); kind != jsontext.KindBeginObject {
		if _, err := s.json.ReadValue(); err != nil {
			return invalid(line, err)
		}
		return &intake.RowError{Line: line, Detail: "want a JSON object"}
	}
	if _, err := s.json.ReadToken(); err != nil {
		return invalid(line, err)
	}
	for i := 0; s.json.PeekKind() == jsontext.KindString; i++ {
		if err := s.member(line, i); err != nil {
			return err
		}
	}
	if _, err := s.json.ReadToken(); err != nil {
		return invalid(line, err)
	}
	if rest := object[s.json.InputOffset():]; len(bytes.Trim(rest, " \t\r")) > 0 {
		return &intake.RowError{Line: line, Detail: "want one JSON object a line"}
	}
	return nil
}

// member reads the i-th key of an object, and its value.
func (s *survey) member(line int64, i int) error {
	key, err := s.json.ReadValue()
	if err != nil {
		return invalid(line, err)
	}
	c, err := s.find(line, key, i)
	if err != nil {
		return err
	}
	raw, err := s.json.ReadValue()
	if err != nil {
		return invalid(line, err)
	}
	if isNull(raw) {
		return nil
	}
	v := value{text: raw, raw: raw}
	switch raw.Kind() {
	case jsontext.KindString:
		v.kind = str
		if v.text, err = unquoted(raw); err != nil {
			return invalid(line, err)
		}
	case jsontext.KindNumber:
		v.kind = number
	case jsontext.KindTrue, jsontext.KindFalse:
		v.kind = truth
	default:
		v.kind = nested
	}
	return s.add(c, line, v)
}

// find returns the column of a key; one that was not seen before is a new one.
// Most producers keep to one order of keys.
func (s *survey) find(line int64, key []byte, i int) (*column, error) {
	name, err := unquoted(key)
	if err != nil {
		return nil, invalid(line, err)
	}
	if i < len(s.columns) && s.columns[i].name == string(name) {
		return s.columns[i], nil
	}
	if c := s.byName[string(name)]; c != nil {
		return c, nil
	}
	if fault := nameFault(string(name)); fault != "" {
		return nil, &intake.RowError{Line: line, Detail: "key: " + fault + ". A push finds columns by the keys, so the file has to be changed"}
	}
	if len(s.columns) == maxColumns {
		return nil, &intake.RowError{Line: line, Detail: fmt.Sprintf(
			"key %q would be column %d, and a table has room for %d: keys that are data belong into a nested object", name, maxColumns+1, maxColumns)}
	}
	return s.addColumn(string(name)), nil
}

// unquoted returns the text of a string of JSON.
func unquoted(raw []byte) ([]byte, error) {
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1], nil
	}
	return jsontext.AppendUnquote(nil, raw)
}

// invalid is the error for a line that is no JSON.
func invalid(line int64, err error) error {
	var syntax *jsontext.SyntacticError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
		err = errors.New("it ends too early")
	case errors.As(err, &syntax):
		err = syntax.Err
	}
	return &intake.RowError{Line: line, Detail: "invalid JSON: " + err.Error()}
}

// manifest returns what the columns make.
func (s *survey) manifest(d schema.Dataset) schema.Manifest {
	m := defaults(d)
	for _, c := range s.columns {
		m.Columns = append(m.Columns, schema.Column{Name: c.name, Type: c.typeOf(c.choice()), Nullable: true})
	}
	m.Columns = slices.Clip(m.Columns)
	return m
}
