package rows

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/big"
	"strconv"

	"tallyman/schema"
)

// decimal is the type of numbers of at most precision decimal digits, scale of
// them after the point. It has no NaN and no infinities.
type decimal struct{ precision, scale int }

// decimals makes the encoders of a decimal.
func decimals(f schema.Facts) encoders {
	d := decimal{f.Precision, f.Scale}
	return encoders{value: d.value, text: d.append, json: d.json, fault: d.fault}
}

func (d decimal) value(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case string:
		return d.append(dst, []byte(v))
	case json.Number:
		return d.append(dst, []byte(v))
	case *big.Int:
		// Its digits take quadratic time, so none are made of what can't fit.
		if v == nil || v.BitLen() > 4*schema.MaxPrecision {
			return dst, fmt.Errorf("a *big.Int that is nil or far too large for %s", d)
		}
		return d.append(dst, v.Append(nil, 10))
	}
	if n, ok := signed(v); ok {
		return d.append(dst, strconv.AppendInt(nil, n, 10))
	}
	if u, ok := unsignedInteger(v); ok {
		return d.append(dst, strconv.AppendUint(nil, u, 10))
	}
	return dst, errType(v, "a string, json.Number, *big.Int or an integer, which are exact")
}

func (d decimal) json(dst, raw []byte) ([]byte, error) {
	if isString(raw) {
		text, err := unquote(raw)
		if err != nil {
			return dst, err
		}
		return d.append(dst, text)
	}
	if !isNumber(raw) {
		return dst, errKind(raw, "a number, or a string with one")
	}
	return d.append(dst, raw)
}

// String returns the type as a manifest spells it.
func (d decimal) String() string { return string(schema.MakeDecimal(d.precision, d.scale)) }

// PostgreSQL's numeric on the wire: the number of digits, the weight of the
// first, the sign, the digits after the point that are shown, all of 16 bits;
// then digits of base 10,000 as 16 bits each. The first counts 10,000 to the
// power of the weight. numeric_send in src/backend/utils/adt/numeric.c.
const (
	numericHead     = 8
	numericNegative = 0x4000
	numericMaxScale = 0x3fff
)

// append appends the decimal that is exactly the number of text. Of all the
// encodings it is the one that PostgreSQL sends: no zeros around the digits,
// no negative zero, the type's scale.
func (d decimal) append(dst, text []byte) ([]byte, error) {
	if !isDecimal(text) {
		return dst, fmt.Errorf("%s is not a decimal number", quote(text))
	}
	mantissa, exponent, _ := cutExponent(text)
	whole, part, _ := bytes.Cut(unsigned(mantissa), []byte("."))
	var room [64]byte
	digits := append(append(room[:0], whole...), part...)
	low := parseExponent(exponent) - len(part) // the last digit counts 10 to that power
	for len(digits) > 0 && digits[len(digits)-1] == '0' {
		digits = digits[:len(digits)-1]
		low++
	}
	digits = bytes.TrimLeft(digits, "0")
	top := len(digits) + low // of digits before the point; negative: of zeros after it
	switch {
	case len(digits) == 0:
		top, low = 0, 0
	case -low > d.scale:
		return dst, fmt.Errorf("%s does not fit %s: it has more than %d digits after the point", quote(text), d, d.scale)
	case top > d.precision-d.scale:
		return dst, fmt.Errorf("%s does not fit %s: it has more than %d digits before the point", quote(text), d, d.precision-d.scale)
	}
	weight, count := 0, 0
	var sign uint16
	if len(digits) > 0 {
		weight = floorDiv(top-1, 4)
		count = weight - floorDiv(low, 4) + 1
		if mantissa[0] == '-' {
			sign = numericNegative
		}
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(numericHead+2*count))
	for _, n := range []uint16{uint16(count), uint16(int16(weight)), sign, uint16(d.scale)} {
		dst = binary.BigEndian.AppendUint16(dst, n)
	}
	at := top - 4*(weight+1) // in digits, of the first of the group of four
	for range count {
		var group uint16
		for range 4 {
			group *= 10
			if at >= 0 && at < len(digits) {
				group += uint16(digits[at] - '0')
			}
			at++
		}
		dst = binary.BigEndian.AppendUint16(dst, group)
	}
	return dst, nil
}

// parseExponent reads [+-]digits; what is beyond any use becomes merely large.
func parseExponent(text []byte) int {
	const large = 1 << 40
	n := 0
	for _, c := range unsigned(text) {
		n = min(n*10+int(c-'0'), large)
	}
	if len(text) > 0 && text[0] == '-' {
		return -n
	}
	return n
}

// floorDiv divides toward negative infinity.
func floorDiv(a, b int) int {
	if a < 0 {
		return -((-a + b - 1) / b)
	}
	return a / b
}

// fault checks a native numeric: that it is one, and that PostgreSQL need not
// round or cut it, which it does without a word.
func (d decimal) fault(field []byte) string {
	if len(field) < numericHead {
		return fmt.Sprintf("%d bytes, a decimal has at least %d", len(field), numericHead)
	}
	count := int(binary.BigEndian.Uint16(field))
	weight := int(int16(binary.BigEndian.Uint16(field[2:])))
	sign, scale := binary.BigEndian.Uint16(field[4:]), int(binary.BigEndian.Uint16(field[6:]))
	digits := field[numericHead:]
	switch {
	case len(digits) != 2*count:
		return fmt.Sprintf("%d bytes, want %d for %d digits of base 10,000", len(field), numericHead+2*count, count)
	case sign != 0 && sign != numericNegative:
		return fmt.Sprintf("a sign of %#04x: a decimal is positive or negative, no NaN or infinity", sign)
	case scale > numericMaxScale:
		return fmt.Sprintf("a scale of %d, at most %d is possible", scale, numericMaxScale)
	}
	for power := 4 * weight; len(digits) > 0; power -= 4 { // of ten, by the group's last digit
		group := binary.BigEndian.Uint16(digits)
		digits = digits[2:]
		if group > 9999 {
			return fmt.Sprintf("the digit %d of base 10,000", group)
		}
		if group == 0 {
			continue
		}
		if power+len(strconv.Itoa(int(group))) > d.precision-d.scale {
			return fmt.Sprintf("a number that does not fit %s: it has more than %d digits before the point", d, d.precision-d.scale)
		}
		low := power
		for ; group%10 == 0; group /= 10 {
			low++
		}
		if shown := min(scale, d.scale); -low > shown {
			return fmt.Sprintf("a number that does not fit %s: it has more than %d digits after the point", d, shown)
		}
	}
	return ""
}
