package rows

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
)

func bytesValue(dst []byte, v any) ([]byte, error) {
	b, ok := v.([]byte)
	if !ok {
		return dst, errType(v, "[]byte")
	}
	if err := checkLength(len(b)); err != nil {
		return dst, err
	}
	return appendField(dst, b), nil
}

// bytesText reads \x and hexadecimal digits, as PostgreSQL writes bytes.
func bytesText(dst, text []byte) ([]byte, error) {
	digits, ok := bytes.CutPrefix(text, []byte(`\x`))
	if !ok {
		return dst, fmt.Errorf(`%s does not begin with \x and hexadecimal digits`, quote(text))
	}
	if err := checkLength(len(digits) / 2); err != nil {
		return dst, err
	}
	b := make([]byte, len(digits)/2)
	if _, err := hex.Decode(b, digits); err != nil {
		return dst, fmt.Errorf(`%s is not \x and pairs of hexadecimal digits`, quote(text))
	}
	return appendField(dst, b), nil
}

// bytesJSON reads a string of base64 (RFC 4648, section 4): padded, without
// line breaks, the bits that count for nothing zero.
func bytesJSON(dst, raw []byte) ([]byte, error) {
	text, err := unquoteFor(raw, "base64")
	if err != nil {
		return dst, err
	}
	b, err := base64.StdEncoding.Strict().AppendDecode(nil, text)
	if err != nil || bytes.ContainsAny(text, "\r\n") { // the decoder passes over line breaks
		return dst, fmt.Errorf("%s is not base64 with its padding, without line breaks", quote(text))
	}
	if err := checkLength(len(b)); err != nil {
		return dst, err
	}
	return appendField(dst, b), nil
}
