package rows

import (
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/google/uuid"
)

func errType(v any, want string) error { return fmt.Errorf("a Go value of type %T, want %s", v, want) }

func boolValue(dst []byte, v any) ([]byte, error) {
	b, ok := v.(bool)
	if !ok {
		return dst, errType(v, "bool")
	}
	return appendBool(dst, b), nil
}

func int64Value(dst []byte, v any) ([]byte, error) {
	var n int64
	switch v := v.(type) {
	case int64:
		n = v
	case int:
		n = int64(v)
	case int32:
		n = int64(v)
	case int16:
		n = int64(v)
	case int8:
		n = int64(v)
	case uint32:
		n = int64(v)
	case uint16:
		n = int64(v)
	case uint8:
		n = int64(v)
	case uint64:
		if v > math.MaxInt64 {
			return dst, fmt.Errorf("%d does not fit int64", v)
		}
		n = int64(v)
	case uint:
		if uint64(v) > math.MaxInt64 {
			return dst, fmt.Errorf("%d does not fit int64", v)
		}
		n = int64(v)
	default:
		return dst, errType(v, "int64 or another integer")
	}
	return appendInt64(dst, n), nil
}

func float64Value(dst []byte, v any) ([]byte, error) {
	f, ok := v.(float64)
	if !ok {
		return dst, errType(v, "float64")
	}
	return appendFloat64(dst, f), nil
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
	return appendTime(dst, t.Unix(), t.Nanosecond()/1000)
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
