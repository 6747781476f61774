package rows

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
)

// unquote returns the text of a valid JSON string, which it shares if nothing
// in it is escaped.
func unquote(raw []byte) ([]byte, error) {
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1], nil
	}
	return jsontext.AppendUnquote(nil, raw)
}

// unquoteFor returns the text of a value that has to be a string with something.
func unquoteFor(raw []byte, what string) ([]byte, error) {
	if !isString(raw) {
		return nil, errKind(raw, "a string with "+what)
	}
	return unquote(raw)
}

func errKind(raw []byte, want string) error {
	return fmt.Errorf("the JSON value %s, want %s", quote(raw), want)
}

func isString(raw []byte) bool { return raw[0] == '"' }

func isNumber(raw []byte) bool { return raw[0] == '-' || '0' <= raw[0] && raw[0] <= '9' }

func boolJSON(dst, raw []byte) ([]byte, error) {
	if raw[0] != 't' && raw[0] != 'f' {
		return dst, errKind(raw, "true or false")
	}
	return appendBool(dst, raw[0] == 't'), nil
}

func textJSON(dst, raw []byte) ([]byte, error) {
	if !isString(raw) {
		return dst, errKind(raw, "a string")
	}
	text, err := unquote(raw)
	if err != nil {
		return dst, err
	}
	return appendText(dst, text)
}

func timeJSON(dst, raw []byte) ([]byte, error) {
	text, err := unquoteFor(raw, "a time")
	if err != nil {
		return dst, err
	}
	return appendTimeText(dst, text, rfc3339)
}

func timestampJSON(dst, raw []byte) ([]byte, error) {
	text, err := unquoteFor(raw, "a timestamp")
	if err != nil {
		return dst, err
	}
	return appendTimestamp(dst, text, rfc3339)
}

func dateJSON(dst, raw []byte) ([]byte, error) {
	text, err := unquoteFor(raw, "a date")
	if err != nil {
		return dst, err
	}
	return appendDate(dst, text)
}

func clockJSON(dst, raw []byte) ([]byte, error) {
	text, err := unquoteFor(raw, "a time of day")
	if err != nil {
		return dst, err
	}
	return appendClock(dst, text)
}

func uuidJSON(dst, raw []byte) ([]byte, error) {
	text, err := unquoteFor(raw, "a UUID")
	if err != nil {
		return dst, err
	}
	return uuidText(dst, text)
}

// jsonJSON appends valid JSON as it is spelled, unless warehouses choke on it.
func jsonJSON(dst, raw []byte) ([]byte, error) {
	if err := checkLength(len(raw)); err != nil {
		return dst, err
	}
	if hasEscapedNUL(raw) {
		return dst, errors.New(`the JSON contains \u0000, which text can't hold`)
	}
	return appendField(dst, raw), nil
}

// maxDepth bounds the nesting of a JSON value, in arrays and objects. With its
// default stack PostgreSQL goes 14,000 levels deep; readers in other languages
// give up near 1,000.
const maxDepth = 1_000

// checkDepth refuses text that nests deeper than limit. It is right for valid
// JSON, and harmless for what is not.
func checkDepth(text []byte, limit int) error {
	if bytes.Count(text, []byte("["))+bytes.Count(text, []byte("{")) <= limit {
		return nil
	}
	depth, inString := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case inString:
			switch c {
			case '\\':
				i++
			case '"':
				inString = false
			}
		case c == '"':
			inString = true
		case c == '[' || c == '{':
			if depth++; depth > limit {
				return fmt.Errorf("the JSON nests deeper than %d levels", maxDepth)
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return nil
}

// hasEscapedNUL reports whether valid JSON has the escape \u0000 somewhere.
func hasEscapedNUL(raw []byte) bool {
	escape := []byte(`\u0000`)
	for {
		i := bytes.Index(raw, escape)
		if i < 0 {
			return false
		}
		// An odd number of backslashes before it make it a backslash and "u0000".
		before := 0
		for i-before > 0 && raw[i-before-1] == '\\' {
			before++
		}
		if before%2 == 0 {
			return true
		}
		raw = raw[i+len(escape):]
	}
}
