package rows

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"tallyman/schema"
)

func errType(v any, want string) error { return fmt.Errorf("a Go value of type %T, want %s", v, want) }

func boolValue(dst []byte, v any) ([]byte, error) {
	b, ok := v.(bool)
	if !ok {
		return dst, errType(v, "bool")
	}
	return appendBool(dst, b), nil
}

func textValue(dst []byte, v any) ([]byte, error) {
	s, ok := v.(string)
	if !ok {
		return dst, errType(v, "string")
	}
	return appendText(dst, s)
}

func timeValue(dst []byte, v any) ([]byte, error) {
	t, ok := v.(time.Time)
	if !ok {
		return dst, errType(v, "time.Time")
	}
	return appendTime(dst, schema.TimestampTZ, t.Unix(), t.Nanosecond()/1000)
}

// timestampValue takes the date and the time of day that t shows in its zone.
func timestampValue(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case time.Time:
		return appendTime(dst, schema.Timestamp, shown(v), v.Nanosecond()/1000)
	case string:
		return appendTimestamp(dst, v, rfc3339)
	}
	return dst, errType(v, "time.Time or string")
}

// dateValue takes the date that t shows in its zone.
func dateValue(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case time.Time:
		return appendDays(dst, shown(v))
	case string:
		return appendDate(dst, v)
	}
	return dst, errType(v, "time.Time or string")
}

// clockValue takes the time of day that t shows in its zone.
func clockValue(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case time.Time:
		hour, minute, second := v.Clock()
		return appendMicros(dst, hour*3600+minute*60+second, v.Nanosecond()/1000), nil
	case string:
		return appendClock(dst, v)
	}
	return dst, errType(v, "time.Time or string")
}

// shown returns what a clock in t's zone shows, as seconds since 1970 there.
func shown(t time.Time) int64 {
	_, offset := t.Zone()
	seconds := t.Unix()
	if seconds > endSeconds*1000 || seconds < minSeconds*1000 { // far outside of every type, and the sum might overflow
		return seconds
	}
	return seconds + int64(offset)
}

func uuidValue(dst []byte, v any) ([]byte, error) {
	id, ok := v.(uuid.UUID)
	if !ok {
		return dst, errType(v, "uuid.UUID")
	}
	return appendField(dst, id[:]), nil
}

func jsonValue(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case json.RawMessage:
		return jsonText(dst, v)
	case []byte:
		return jsonText(dst, v)
	case string:
		return jsonText(dst, []byte(v))
	default:
		return dst, errType(v, "json.RawMessage, []byte or string")
	}
}
