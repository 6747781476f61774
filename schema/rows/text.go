package rows

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
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

func int64Text(dst, text []byte) ([]byte, error) {
	n, err := strconv.ParseInt(string(text), 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		return dst, fmt.Errorf("%s does not fit int64", quote(text))
	}
	if err != nil {
		return dst, fmt.Errorf("%s is not a whole decimal number", quote(text))
	}
	return appendInt64(dst, n), nil
}

func float64Text(dst, text []byte) ([]byte, error) {
	if f, ok := special(string(text)); ok {
		return appendFloat64(dst, f), nil
	}
	if !isDecimal(text) {
		return dst, fmt.Errorf("%s is not a decimal number, NaN, Infinity or -Infinity", quote(text))
	}
	return appendDecimal(dst, text)
}

// special returns the value of the three words for what has no digits.
func special(word string) (float64, bool) {
	switch word {
	case "NaN":
		return math.NaN(), true
	case "Infinity":
		return math.Inf(1), true
	case "-Infinity":
		return math.Inf(-1), true
	}
	return 0, false
}

// isDecimal reports whether text is [+-]digits[.digits][e[+-]digits] with a
// digit before or after the point, so no hexadecimal, underscore or word.
func isDecimal(text []byte) bool {
	mantissa, exponent, found := text, []byte("0"), false
	if i := bytes.IndexAny(text, "eE"); i >= 0 {
		mantissa, exponent, found = text[:i], text[i+1:], true
	}
	whole, part, _ := bytes.Cut(unsigned(mantissa), []byte("."))
	if found {
		exponent = unsigned(exponent)
	}
	allDigits := func(b []byte) bool {
		for _, c := range b {
			if c < '0' || c > '9' {
				return false
			}
		}
		return true
	}
	return len(whole)+len(part) > 0 && allDigits(whole) && allDigits(part) && len(exponent) > 0 && allDigits(exponent)
}

func unsigned(text []byte) []byte {
	if len(text) > 0 && (text[0] == '+' || text[0] == '-') {
		return text[1:]
	}
	return text
}

// appendDecimal appends the float64 nearest to a decimal number. One beyond
// the largest is an error, and so is one that would become zero but is not.
func appendDecimal(dst, text []byte) ([]byte, error) {
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		return dst, fmt.Errorf("%s does not fit float64", quote(text))
	}
	if f == 0 {
		mantissa := text
		if i := bytes.IndexAny(text, "eE"); i >= 0 {
			mantissa = text[:i]
		}
		if bytes.ContainsAny(mantissa, "123456789") {
			return dst, fmt.Errorf("%s is too small for float64: it would become 0", quote(text))
		}
	}
	return appendFloat64(dst, f), nil
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
	if err := checkLength(len(text)); err != nil {
		return dst, err
	}
	if err := checkDepth(text, maxDepth); err != nil {
		return dst, err
	}
	if jsontext.Value(text).IsValid() { // without a decoder of our own
		return jsonJSON(dst, text)
	}
	dec := jsontext.NewDecoder(bytes.NewBuffer(text))
	if _, err := dec.ReadValue(); err != nil {
		return dst, jsonError(err)
	}
	return dst, fmt.Errorf("%s is not one JSON value: something follows it", quote(text))
}
