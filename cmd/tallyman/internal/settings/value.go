package settings

import (
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"
)

// assign parses text into what target points to. Every limit must be positive:
// a zero would mean "none" to one reader and "nothing" to another.
func assign(target any, text string, isList bool) error {
	if _, takesList := target.(*[]string); isList && !takesList {
		return fmt.Errorf("expected one value, not a list")
	}
	switch t := target.(type) {
	case *string:
		*t = text
	case *[]string:
		*t = nil
		for e := range strings.SplitSeq(text, ",") {
			if e = strings.TrimSpace(e); e != "" {
				*t = append(*t, e)
			}
		}
	case *int:
		n, err := strconv.Atoi(text)
		if err != nil || n <= 0 || n > math.MaxInt32 {
			return fmt.Errorf("%q is not a whole number above zero", text)
		}
		*t = n
	case *Bytes:
		n, err := parseBytes(text)
		if err != nil {
			return err
		}
		*t = n
	case *time.Duration:
		d, err := time.ParseDuration(text)
		if err != nil || d <= 0 {
			return fmt.Errorf("%q is not a duration above zero, such as 6s or 1h", text)
		}
		*t = d
	case *bool:
		switch text {
		case "true", "false":
			*t = text == "true"
		default:
			return fmt.Errorf("%q is neither true nor false", text)
		}
	case *slog.Level:
		return assignLevel(t, text)
	default:
		return fmt.Errorf("a setting of type %T can't be read", target)
	}
	return nil
}

func assignLevel(t *slog.Level, text string) error {
	switch text {
	case "debug", "info", "warn", "error":
		return t.UnmarshalText([]byte(text))
	default:
		return fmt.Errorf("%q is none of debug, info, warn, error", text)
	}
}

func parseBytes(text string) (Bytes, error) {
	units := []struct {
		name string
		size int64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"B", 1}}
	for _, u := range units {
		number, ok := strings.CutSuffix(text, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		if err != nil || n <= 0 || n > math.MaxInt64/u.size {
			break
		}
		return Bytes(n * u.size), nil
	}
	return 0, fmt.Errorf("%q is not a size above zero, such as 64MiB", text)
}
