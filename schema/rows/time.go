package rows

import (
	"fmt"
	"time"
)

// PostgreSQL's range of timestamptz, as seconds since 1970: from 4714-11-24 BC
// (Julian day 0) up to, but without, the year 294277.
const (
	minSeconds = -210866803200
	endSeconds = 9224318016000
	epoch2000  = 946684800 // 2000-01-01T00:00:00Z, where timestamptz counts from
)

// appendTime appends the instant that lies micros after seconds since 1970.
func appendTime(dst []byte, seconds int64, micros int) ([]byte, error) {
	if seconds < minSeconds || seconds >= endSeconds {
		return dst, fmt.Errorf("the time %d s from 1970 is outside of timestamptz: 4714 BC to 294276", seconds)
	}
	return appendInt64(dst, (seconds-epoch2000)*1_000_000+int64(micros)), nil
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
		return dst, fmt.Errorf("%s is not a time: %s", quote(s), why)
	}
	const form = "want YYYY-MM-DDTHH:MM:SS, perhaps a fraction, and Z or ±HH:MM"
	if len(s) < len("2006-01-02T15:04:05") {
		return fail(form)
	}
	year, ok := digits(s[0:4])
	month, ok1 := digits(s[5:7])
	day, ok2 := digits(s[8:10])
	hour, ok3 := digits(s[11:13])
	minute, ok4 := digits(s[14:16])
	second, ok5 := digits(s[17:19])
	t := s[10]
	switch {
	case !ok || !ok1 || !ok2 || !ok3 || !ok4 || !ok5, s[4] != '-', s[7] != '-', s[13] != ':', s[16] != ':':
		return fail(form)
	case t != 'T' && t != 't' && (t != ' ' || style != relaxed):
		return fail(form)
	case year == 0:
		return fail("calendars disagree on the year 0")
	case month < 1 || month > 12 || day < 1 || day > daysIn(year, month):
		return fail("there is no such day")
	case second == 60:
		return fail("leap seconds can't be stored")
	case hour > 23 || minute > 59 || second > 59:
		return fail("there is no such time of day")
	}
	micros, n := fraction(s[19:])
	if n < 0 {
		return fail("the fraction is empty or finer than a microsecond")
	}
	offset, ok := zone(s[19+n:], style)
	if !ok {
		if len(s) == 19+n {
			return fail("the zone is missing: want Z or ±HH:MM")
		}
		return fail("the zone is not Z or ±HH:MM")
	}
	seconds := time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC).Unix()
	return appendTime(dst, seconds-int64(offset), micros)
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
