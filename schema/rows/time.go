package rows

import (
	"fmt"
	"time"

	"tallyman/schema"
)

// PostgreSQL's range of timestamp and timestamptz, as seconds since 1970: from
// 4714-11-24 BC (Julian day 0) up to, but without, the year 294277. A date ends
// with the year 5874897.
const (
	minSeconds = -210866803200
	endSeconds = 9224318016000
	epoch2000  = 946684800 // 2000-01-01T00:00:00Z, where timestamptz counts from
	day        = 24 * 60 * 60
	endDate    = 2145031949*day + epoch2000
)

// appendTime appends the instant that lies micros after seconds since 1970.
func appendTime(dst []byte, typ schema.Type, seconds int64, micros int) ([]byte, error) {
	if seconds < minSeconds || seconds >= endSeconds {
		return dst, fmt.Errorf("the time %d s from 1970 is outside of %s: 4714 BC to 294276", seconds, typ)
	}
	return appendInt64(dst, (seconds-epoch2000)*1_000_000+int64(micros)), nil
}

// appendDays appends the date of the second since 1970.
func appendDays(dst []byte, seconds int64) ([]byte, error) {
	if seconds < minSeconds || seconds >= endDate {
		return dst, fmt.Errorf("the time %d s from 1970 is outside of date: 4714 BC to 5874897", seconds)
	}
	return appendInt32(dst, int32(floorDiv(int(seconds-epoch2000), day))), nil
}

// appendMicros appends the time of day that lies micros after the second of the day.
func appendMicros(dst []byte, second, micros int) []byte {
	return appendInt64(dst, int64(second)*1_000_000+int64(micros))
}

// timeStyle says which spellings of a time are read.
type timeStyle bool

const (
	rfc3339 timeStyle = false
	relaxed timeStyle = true // also a blank for T, and a zone of hours alone
)

// appendTimeText reads YYYY-MM-DDTHH:MM:SS[.f…](Z|±HH:MM). Nothing is
// normalised: a day, an hour or a second that is not there is an error, and so
// is a fraction finer than a microsecond.
func appendTimeText[T ~[]byte | ~string](dst []byte, s T, style timeStyle) ([]byte, error) {
	fail := func(why string) ([]byte, error) {
		if why == malformed {
			why = "want YYYY-MM-DDTHH:MM:SS, perhaps a fraction, and Z or ±HH:MM"
		}
		return dst, fmt.Errorf("%s is not a time: %s", quote(s), why)
	}
	seconds, micros, n, why := readTimestamp(s, style)
	if why != "" {
		return fail(why)
	}
	offset, ok := zone(s[n:], style)
	if !ok {
		if len(s) == n {
			return fail("the zone is missing: want Z or ±HH:MM")
		}
		return fail("the zone is not Z or ±HH:MM")
	}
	return appendTime(dst, schema.TimestampTZ, seconds-int64(offset), micros)
}

// appendTimestamp reads YYYY-MM-DDTHH:MM:SS[.f…], as strictly as appendTimeText.
func appendTimestamp[T ~[]byte | ~string](dst []byte, s T, style timeStyle) ([]byte, error) {
	seconds, micros, n, why := readTimestamp(s, style)
	switch {
	case why == malformed:
		why = "want YYYY-MM-DDTHH:MM:SS and perhaps a fraction"
	case why == "" && n < len(s):
		why = "something follows it; it has no zone"
	}
	if why != "" {
		return dst, fmt.Errorf("%s is not a timestamp: %s", quote(s), why)
	}
	return appendTime(dst, schema.Timestamp, seconds, micros)
}

// appendDate reads YYYY-MM-DD.
func appendDate[T ~[]byte | ~string](dst []byte, s T) ([]byte, error) {
	seconds, why := readDay(s)
	if why == malformed {
		why = "want YYYY-MM-DD"
	}
	if why != "" {
		return dst, fmt.Errorf("%s is not a date: %s", quote(s), why)
	}
	return appendDays(dst, seconds)
}

// appendClock reads HH:MM:SS[.f…].
func appendClock[T ~[]byte | ~string](dst []byte, s T) ([]byte, error) {
	second, micros, n, why := readClock(s)
	switch {
	case why == malformed:
		why = "want HH:MM:SS and perhaps a fraction"
	case why == "" && n < len(s):
		why = "something follows it; it has no zone"
	}
	if why != "" {
		return dst, fmt.Errorf("%s is not a time of day: %s", quote(s), why)
	}
	return appendMicros(dst, second, micros), nil
}

// malformed is what is wrong with a time that does not have the form at all,
// which each type says in its own words.
const malformed = "malformed"

// readTimestamp reads the n bytes of date and time of day that s begins with, as
// seconds since 1970 and microseconds; or says what is wrong.
func readTimestamp[T ~[]byte | ~string](s T, style timeStyle) (seconds int64, micros, n int, why string) {
	if len(s) < len("2006-01-02T15:04:05") {
		return 0, 0, 0, malformed
	}
	if t := s[10]; t != 'T' && t != 't' && (t != ' ' || style != relaxed) {
		return 0, 0, 0, malformed
	}
	seconds, why = readDay(s[:10])
	if why != "" {
		return 0, 0, 0, why
	}
	second, micros, n, why := readClock(s[11:])
	return seconds + int64(second), micros, n + 11, why
}

// readDay reads YYYY-MM-DD as seconds since 1970, or says what is wrong.
func readDay[T ~[]byte | ~string](s T) (seconds int64, why string) {
	if len(s) != len("2006-01-02") || s[4] != '-' || s[7] != '-' {
		return 0, malformed
	}
	year, ok := digits(s[0:4])
	month, ok1 := digits(s[5:7])
	dayOfMonth, ok2 := digits(s[8:10])
	switch {
	case !ok || !ok1 || !ok2:
		return 0, malformed
	case year == 0:
		return 0, "calendars disagree on the year 0"
	case month < 1 || month > 12 || dayOfMonth < 1 || dayOfMonth > daysIn(year, month):
		return 0, "there is no such day"
	}
	return time.Date(year, time.Month(month), dayOfMonth, 0, 0, 0, 0, time.UTC).Unix(), ""
}

// readClock reads the n bytes HH:MM:SS[.f…] that s begins with, as the second of
// the day and microseconds; or says what is wrong.
func readClock[T ~[]byte | ~string](s T) (second, micros, n int, why string) {
	if len(s) < len("15:04:05") || s[2] != ':' || s[5] != ':' {
		return 0, 0, 0, malformed
	}
	hour, ok := digits(s[0:2])
	minute, ok1 := digits(s[3:5])
	second, ok2 := digits(s[6:8])
	switch {
	case !ok || !ok1 || !ok2:
		return 0, 0, 0, malformed
	case second == 60:
		return 0, 0, 0, "leap seconds can't be stored"
	case hour > 23 || minute > 59 || second > 59:
		return 0, 0, 0, "there is no such time of day"
	}
	micros, n = fraction(s[8:])
	if n < 0 {
		return 0, 0, 0, "the fraction is empty or finer than a microsecond"
	}
	return hour*3600 + minute*60 + second, micros, n + 8, ""
}

// fraction reads the fraction that s begins with and its length; 0 if there is
// none, -1 if it is malformed or finer than a microsecond.
func fraction[T ~[]byte | ~string](s T) (micros, n int) {
	if len(s) == 0 || s[0] != '.' {
		return 0, 0
	}
	scale := 100_000
	for n = 1; n < len(s) && '0' <= s[n] && s[n] <= '9'; n++ {
		d := int(s[n] - '0')
		if scale == 0 && d != 0 {
			return 0, -1
		}
		micros += d * scale
		scale /= 10
	}
	if n == 1 {
		return 0, -1
	}
	return micros, n
}

// zone reads a zone as seconds east of UTC.
func zone[T ~[]byte | ~string](s T, style timeStyle) (int, bool) {
	switch {
	case len(s) == 1:
		return 0, s[0] == 'Z' || s[0] == 'z'
	case len(s) == 3 && style != relaxed, len(s) != 3 && len(s) != 6, s[0] != '+' && s[0] != '-':
		return 0, false
	}
	hours, ok := digits(s[1:3])
	minutes, ok2 := 0, true
	if len(s) == 6 {
		minutes, ok2 = digits(s[4:6])
		ok2 = ok2 && s[3] == ':'
	}
	if !ok || !ok2 || hours > 23 || minutes > 59 {
		return 0, false
	}
	offset := hours*3600 + minutes*60
	if s[0] == '-' {
		offset = -offset
	}
	return offset, true
}

// digits reads a number that is all decimal digits.
func digits[T ~[]byte | ~string](s T) (int, bool) {
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, true
}

func daysIn(year, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	default:
		return 31
	}
}
