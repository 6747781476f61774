package rows

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"

	"tallyman/schema"
)

// integers makes the encoders of int16, int32 and int64.
func integers(f schema.Facts) encoders {
	bits := 8 * f.Size
	appendInt := appendInt64
	switch bits {
	case 32:
		appendInt = func(dst []byte, n int64) []byte { return appendInt32(dst, int32(n)) }
	case 16:
		appendInt = func(dst []byte, n int64) []byte { return appendInt16(dst, int16(n)) }
	}
	text := func(dst, text []byte) ([]byte, error) {
		n, err := strconv.ParseInt(string(text), 10, bits)
		if errors.Is(err, strconv.ErrRange) {
			return dst, fmt.Errorf("%s does not fit %s", quote(text), f.Name)
		}
		if err != nil {
			return dst, fmt.Errorf("%s is not a whole decimal number", quote(text))
		}
		return appendInt(dst, n), nil
	}
	return encoders{
		text: text,
		value: func(dst []byte, v any) ([]byte, error) {
			n, ok := signed(v)
			if !ok {
				if u, ok := unsignedInteger(v); ok {
					return dst, fmt.Errorf("%d does not fit %s", u, f.Name)
				}
				return dst, errType(v, string(f.Name)+" or another integer")
			}
			if n>>(bits-1) != 0 && n>>(bits-1) != -1 {
				return dst, fmt.Errorf("%d does not fit %s", n, f.Name)
			}
			return appendInt(dst, n), nil
		},
		json: func(dst, raw []byte) ([]byte, error) {
			if !isNumber(raw) || bytes.ContainsAny(raw, ".eE") {
				return dst, errKind(raw, "a number without point and exponent")
			}
			return text(dst, raw)
		},
	}
}

// signed returns any of Go's integers that fits an int64.
func signed(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case int:
		return int64(v), true
	case int32:
		return int64(v), true
	case int16:
		return int64(v), true
	case int8:
		return int64(v), true
	default:
		u, ok := unsignedInteger(v)
		return int64(u), ok && u <= math.MaxInt64
	}
}

// unsignedInteger returns any of Go's unsigned integers.
func unsignedInteger(v any) (uint64, bool) {
	switch v := v.(type) {
	case uint64:
		return v, true
	case uint:
		return uint64(v), true
	case uint32:
		return uint64(v), true
	case uint16:
		return uint64(v), true
	case uint8:
		return uint64(v), true
	}
	return 0, false
}

// floats makes the encoders of float32 and float64.
func floats(f schema.Facts) encoders {
	bits := 8 * f.Size
	appendFloat := appendFloat64
	if bits == 32 {
		appendFloat = func(dst []byte, f float64) []byte { return appendFloat32(dst, float32(f)) }
	}
	number := func(dst, text []byte) ([]byte, error) {
		n, err := parseFloat(text, f.Name, bits)
		if err != nil {
			return dst, err
		}
		return appendFloat(dst, n), nil
	}
	return encoders{
		value: func(dst []byte, v any) ([]byte, error) {
			switch v := v.(type) {
			case float64:
				if bits == 32 && float64(float32(v)) != v && v == v {
					return dst, fmt.Errorf("%v is not a float32: convert it, if it may lose digits", v)
				}
				return appendFloat(dst, v), nil
			case float32:
				if bits == 32 {
					return appendFloat32(dst, v), nil
				}
				return appendFloat64(dst, float64(v)), nil
			}
			return dst, errType(v, string(f.Name))
		},
		text: func(dst, text []byte) ([]byte, error) {
			if n, ok := special(string(text)); ok {
				return appendFloat(dst, n), nil
			}
			if !isDecimal(text) {
				return dst, fmt.Errorf("%s is not a decimal number, NaN, Infinity or -Infinity", quote(text))
			}
			return number(dst, text)
		},
		json: func(dst, raw []byte) ([]byte, error) {
			if isNumber(raw) {
				return number(dst, raw)
			}
			if isString(raw) {
				word, err := unquote(raw)
				if err != nil {
					return dst, err
				}
				if n, ok := special(string(word)); ok {
					return appendFloat(dst, n), nil
				}
			}
			return dst, errKind(raw, `a number, "NaN", "Infinity" or "-Infinity"`)
		},
	}
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

// parseFloat returns the float nearest to a decimal number. One beyond the
// largest is an error, and so is one that would become zero but is not.
func parseFloat(text []byte, name schema.Type, bits int) (float64, error) {
	n, err := strconv.ParseFloat(string(text), bits)
	if err != nil {
		return 0, fmt.Errorf("%s does not fit %s", quote(text), name)
	}
	if n == 0 {
		if mantissa, _, _ := cutExponent(text); bytes.ContainsAny(mantissa, "123456789") {
			return 0, fmt.Errorf("%s is too small for %s: it would become 0", quote(text), name)
		}
	}
	return n, nil
}

// isDecimal reports whether text is [+-]digits[.digits][e[+-]digits] with a
// digit before or after the point, so no hexadecimal, underscore or word.
func isDecimal(text []byte) bool {
	mantissa, exponent, found := cutExponent(text)
	if found && (!allDigits(unsigned(exponent)) || len(unsigned(exponent)) == 0) {
		return false
	}
	whole, part, _ := bytes.Cut(unsigned(mantissa), []byte("."))
	return len(whole)+len(part) > 0 && allDigits(whole) && allDigits(part)
}

// cutExponent cuts a number before and after its e.
func cutExponent(text []byte) (mantissa, exponent []byte, found bool) {
	for i, c := range text { // numbers are short
		if c == 'e' || c == 'E' {
			return text[:i], text[i+1:], true
		}
	}
	return text, nil, false
}

func allDigits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// unsigned cuts a number's sign off.
func unsigned(text []byte) []byte {
	if len(text) > 0 && (text[0] == '+' || text[0] == '-') {
		return text[1:]
	}
	return text
}
