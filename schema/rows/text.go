package rows

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
)

func boolText(dst, text []byte) ([]byte, error) {
	var word [len("false")]byte
	if len(text) <= len(word) {
		for i, c := range text { // ASCII only: in Unicode "falſe" folds to it too
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			word[i] = c
		}
		switch string(word[:len(text)]) {
		case "true", "t", "1":
			return appendBool(dst, true), nil
		case "false", "f", "0":
			return appendBool(dst, false), nil
		}
	}
	return dst, fmt.Errorf("%s is not a bool: want true, false, t, f, 1 or 0", quote(text))
}

func textText(dst, text []byte) ([]byte, error) { return appendText(dst, text) }

// appendText appends text that a warehouse can hold.
func appendText[T ~[]byte | ~string](dst []byte, text T) ([]byte, error) {
	if err := checkLength(len(text)); err != nil {
		return dst, err
	}
	dst = append(dst, byte(len(text)>>24), byte(len(text)>>16), byte(len(text)>>8), byte(len(text)))
	start := len(dst)
	dst = append(dst, text...)
	if !utf8.Valid(dst[start:]) {
		return dst, fmt.Errorf("%s is not valid UTF-8", quote(text))
	}
	if bytes.IndexByte(dst[start:], 0) >= 0 {
		return dst, fmt.Errorf("%s contains U+0000, which text can't hold", quote(text))
	}
	return dst, nil
}

func timeText(dst, text []byte) ([]byte, error) { return appendTimeText(dst, text, relaxed) }

func timestampText(dst, text []byte) ([]byte, error) { return appendTimestamp(dst, text, relaxed) }

func uuidText(dst, text []byte) ([]byte, error) {
	id, err := uuid.ParseBytes(text)
	// ParseBytes takes any two characters for braces.
	if err != nil || len(text) == 38 && (text[0] != '{' || text[37] != '}') {
		return dst, fmt.Errorf("%s is not a UUID", quote(text))
	}
	return appendField(dst, id[:]), nil
}

// jsonText appends JSON as it was given, after checking that it is one value.
func jsonText(dst, text []byte) ([]byte, error) {
	if err := checkJSON(text); err != nil {
		return dst, err
	}
	return jsonJSON(dst, text)
}

// checkJSON checks that text is one JSON value.
func checkJSON(text []byte) error {
	if err := checkLength(len(text)); err != nil {
		return err
	}
	if isPlain(text) {
		return nil
	}
	if err := checkDepth(text, maxDepth); err != nil {
		return err
	}
	if jsontext.Value(text).IsValid() { // without a decoder of our own
		return nil
	}
	dec := jsontext.NewDecoder(bytes.NewBuffer(text))
	if _, err := dec.ReadValue(); err != nil {
		return jsonError(err)
	}
	return fmt.Errorf("%s is not one JSON value: something follows it", quote(text))
}
