package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"tallyman/schema/batch"
)

// everyType is a manifest with a required column and a nullable one of each type.
func everyType(dataset string) string {
	return "dataset: " + dataset + `
columns:
  - {name: k, type: text}
  - {name: n, type: int64, nullable: true}
  - {name: f, type: float64, nullable: true}
  - {name: b, type: bool, nullable: true}
  - {name: s, type: text, nullable: true}
  - {name: t, type: timestamptz, nullable: true}
  - {name: u, type: uuid, nullable: true}
  - {name: j, type: json, nullable: true}
`
}

// Whatever a stranger publishes goes between two good batches and is met: the
// neighbours load, the position passes, and what can't load is kept whole, with
// the reason from one list, and counted.
//
// What the broker's own framing can hold against a reader — checksums, magic
// numbers, lengths below zero, 2^31 records or headers, cut and unknown
// compression — is met by the tests of damage in package loader/consume, where
// the wire can be made to lie; and each fault of a row, type by type, by the
// tests of package schema/rows.
func TestBadInput(t *testing.T) {
	t.Parallel()
	s := newBadSite(t, nil)
	input := s.stream(everyType("bad/input"), lines(`{"k":"good"}`))
	values := s.stream(everyType("bad/values"), native("good", nil, nil, nil, nil, nil, nil, nil))
	for _, cases := range [][]badCase{identities(), versions(), envelopes(), tuples(), texts(), numbers(), times(), documents()} {
		input.produceCases(cases)
	}
	values.produceCases(refusedValues())
	p := s.load()
	for _, st := range []*stream{input, values} {
		st.passed(p)
		st.check(p)
		st.checkRedrive()
	}
	p.checkLog()
}

// checkLog checks that no value of a stranger reaches a terminal as it is.
func (p *process) checkLog() {
	p.t.Helper()
	for line := range strings.Lines(p.log.String()) {
		line = strings.TrimSuffix(line, "\n")
		if printable(line) != line || !strings.HasPrefix(line, "time=") {
			p.t.Errorf("the log has the line %q", line)
		}
	}
}

// spelled sets ce_id to a spelling of the id.
func spelled(f func(string) string) change {
	return header("ce_id", func(id uuid.UUID) string { return f(id.String()) })
}

// at gives the batch a v7 id of another time.
func at(when time.Time) change {
	return edit(func(b *batch.Batch) {
		var head [8]byte
		binary.BigEndian.PutUint64(head[:], uint64(when.UnixMilli())<<16)
		copy(b.ID[:6], head[:6])
		b.Time = when.Truncate(time.Millisecond)
	})
}

func ofVersion(v byte) change {
	return edit(func(b *batch.Batch) { b.ID[6] = b.ID[6]&0x0f | v<<4 })
}

func identities() []badCase {
	loaded := good("", "")[0]
	other := lines(`{"k":"other content"}`)
	hostile := "\x1b[31mred\x1b[0m\r\n<script>alert(1)</script>\x00\u202e"
	return []badCase{
		{"no id", bad(batch.NoID, "header ce_id is missing or empty", without("ce_id"))},
		{"empty id", bad(batch.NoID, "header ce_id is missing or empty", says("ce_id", ""))},
		{"nothing but a value", bad(batch.NoID, "header ce_id", message(func(r *kgo.Record) { r.Headers, r.Key = nil, nil }))},
		{"nothing at all", bad(batch.NoID, "header ce_id", message(func(r *kgo.Record) { r.Headers, r.Key, r.Value = nil, nil, nil }))},
		{"headers of bytes", bad(batch.NoID, "header ce_id", message(func(r *kgo.Record) {
			r.Headers = []kgo.RecordHeader{{Key: "\xff\x00\n", Value: []byte("\x00\xfe")}, {Key: "", Value: nil}, {Key: "x", Value: []byte{}}}
		}))},
		{"an id that is no UUID", bad(batch.BadID, `ce_id "42" is not a UUID`, says("ce_id", "42"))},
		{"an id of controls", bad(batch.BadID, `ce_id "\x1b[31mred\x1b[0m\r\n<script>alert(1)</script>\x00\u202e" is not a UUID`, says("ce_id", hostile))},
		{"an id in brackets", bad(batch.BadID, "is not a UUID", spelled(func(s string) string { return "[" + s + "]" }))},
		{"the nil UUID", bad(batch.BadID, "the nil UUID", edit(func(b *batch.Batch) { b.ID = uuid.Nil }))},
		{"the max UUID", bad(batch.BadID, "the max UUID", edit(func(b *batch.Batch) { b.ID = uuid.Max }))},
		{"v2", bad(batch.BadID, "of version 2", ofVersion(2))},
		{"v5", bad(batch.BadID, "of version 5", ofVersion(5))},
		{"another variant", bad(batch.BadID, "not of the variant of RFC 9562", edit(func(b *batch.Batch) { b.ID[8] = 0xc0 }))},
		{"v8", good("k", "good", ofVersion(8))},
		{"two ids", bad(batch.BadEnvelope, "header ce_id comes more than once", message(func(r *kgo.Record) {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: "ce_id", Value: r.Key})
		}))},
		{"another key", bad(batch.BadEnvelope, `key "me" is not the id`, message(func(r *kgo.Record) { r.Key = []byte("me") }))},
		{"no key", good("k", "good", message(func(r *kgo.Record) { r.Key = nil }))},
		{"a key in capitals", good("k", "good", message(func(r *kgo.Record) { r.Key = []byte(strings.ToUpper(string(r.Key))) }))},
		{"other spellings", []send{loaded,
			duplicate(spelled(strings.ToUpper)),
			duplicate(spelled(func(s string) string { return "{" + s + "}" })),
			duplicate(spelled(func(s string) string { return "urn:uuid:" + s })),
			duplicate(spelled(func(s string) string { return strings.ReplaceAll(s, "-", "") }))}},
		{"first in capitals", []send{good("k", "good", spelled(strings.ToUpper))[0], duplicate()}},
		{"the same twice", []send{loaded, duplicate()}},
		{"the same from elsewhere", []send{loaded, duplicate(edit(func(b *batch.Batch) { b.Source = "elsewhere" }))}},
		{"other content", []send{loaded, bad(batch.IDConflict, "stands for the content", other)[0], duplicate()}},
		{"other encoding", []send{loaded, bad(batch.IDConflict, "stands for the content", native("good", nil, nil, nil, nil, nil, nil, nil))[0]}},
		{"damaged copies", []send{
			bad(batch.BadDigest, "digest", message(func(r *kgo.Record) { r.Value = []byte(`{"k":"evil"}`) }))[0], loaded,
			bad(batch.BadDigest, "digest", message(func(r *kgo.Record) { r.Value = []byte(`{"k":"bad!"}`) }))[0]}},
		{"two hours ahead", bad(batch.FromTheFuture, "plus the allowed skew of 1h0m0s", at(time.Now().Add(2*time.Hour)))},
		{"the year 9999", bad(batch.FromTheFuture, "batch time 9999-12-31", at(time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)))},
		{"the last v7 time", bad(batch.FromTheFuture, "batch time 10889-08-02", at(time.UnixMilli(1<<48-1).UTC()))},
		{"half an hour ahead", good("k", "good", at(time.Now().Add(30*time.Minute)))},
		{"the year 1970", good("k", "good", at(time.UnixMilli(0).UTC()))},
	}
}

// gregorian gives the batch an id of version 1 or 6, of a time.
func gregorian(version int, when time.Time) change {
	return edit(func(b *batch.Batch) {
		b.Time = when.UTC().Truncate(time.Microsecond)
		units := uint64(b.Time.UnixMicro()-time.Date(1582, 10, 15, 0, 0, 0, 0, time.UTC).UnixMicro())*10 + 7
		head := units>>12<<16 | 6<<12 | units&0xfff
		if version == 1 {
			head = units<<32 | units>>32&0xffff<<16 | 1<<12 | units>>48
		}
		binary.BigEndian.PutUint64(b.ID[:8], head)
	})
}

// random gives the batch an id of version 4 that comes with a time.
func random(when time.Time) change {
	return edit(func(b *batch.Batch) {
		b.ID[6] = b.ID[6]&0x0f | 4<<4
		b.Time = when.UTC().Truncate(time.Microsecond)
	})
}

// versions are ids that come from elsewhere: good ones, and what can be wrong
// with their times.
func versions() []badCase {
	now := time.Now()
	future := bad(batch.FromTheFuture, "plus the allowed skew of 1h0m0s")[0].want
	var cases []badCase
	for _, v := range []int{1, 6} {
		is, again := gregorian(v, now), func(s string) string { return "urn:uuid:" + strings.ToUpper(s) }
		cases = append(cases, []badCase{
			{fmt.Sprintf("v%d", v), []send{good("k", "good", is)[0], duplicate(is), duplicate(is, spelled(again)), duplicate(is, without("ce_time")),
				bad(batch.IDConflict, "stands for the content", is, lines(`{"k":"other content"}`))[0]}},
			{fmt.Sprintf("v%d of 1582", v), good("k", "good", gregorian(v, time.Date(1582, 10, 15, 0, 0, 0, 0, time.UTC)))},
			{fmt.Sprintf("v%d half an hour ahead", v), good("k", "good", gregorian(v, now.Add(30*time.Minute)))},
			{fmt.Sprintf("v%d two hours ahead", v), []send{{future, []change{gregorian(v, now.Add(2*time.Hour))}}}},
			{fmt.Sprintf("v%d of the year 5236", v), []send{{future, []change{gregorian(v, time.Date(5236, 1, 1, 0, 0, 0, 0, time.UTC))}}}},
			{fmt.Sprintf("v%d at another time", v), bad(batch.BadEnvelope, "is not the time in the id", is, says("ce_time", now.Add(time.Microsecond).Format(time.RFC3339Nano)))},
		}...)
	}
	is, moved := random(now), random(now.Add(-time.Hour))
	return append(cases, []badCase{
		{"v4", []send{good("k", "good", is)[0], duplicate(is), duplicate(is, spelled(strings.ToUpper)),
			bad(batch.IDConflict, "stands for the batch time", moved)[0], bad(batch.IDConflict, "stands for the content", is, lines(`{"k":"other content"}`))[0],
			duplicate(is, says("ce_time", now.In(time.FixedZone("", -5*60*60)).Format("2006-01-02T15:04:05.000000000Z07:00")))}},
		{"v4 without a time", []send{bad(batch.BadEnvelope, "header ce_time is missing", is, without("ce_time"))[0], good("k", "good", is)[0]}},
		{"v4 of no time", bad(batch.BadEnvelope, `ce_time "yesterday" is not a time of RFC 3339`, is, says("ce_time", "yesterday"))},
		{"v4 of 1582", good("k", "good", random(time.Date(1582, 10, 15, 0, 0, 0, 0, time.UTC)))},
		{"v4 before 1582", bad(batch.BadEnvelope, "is not from 1582-10-15", is, says("ce_time", "0001-01-01T00:00:00Z"))},
		{"v4 after 9999", bad(batch.BadEnvelope, "is not from 1582-10-15", is, says("ce_time", "9999-12-31T23:59:59-01:00"))},
		{"v4 two hours ahead", []send{{future, []change{random(now.Add(2 * time.Hour))}}}},
	}...)
}

func envelopes() []badCase {
	many := message(func(r *kgo.Record) {
		for i := range 2_000 {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: fmt.Sprint("x", i), Value: []byte{byte(i)}})
		}
	})
	return []badCase{
		{"empty value", bad(batch.BadRows, "the value is empty", message(func(r *kgo.Record) { r.Value = []byte{} }))},
		{"null value", bad(batch.BadRows, "the value is empty", message(func(r *kgo.Record) { r.Value = nil }))},
		{"another's message", bad(batch.BadEnvelope, `ce_type is "com.example.order"`, says("ce_type", "com.example.order"))},
		{"no type", bad(batch.BadEnvelope, `ce_type is ""`, without("ce_type"))},
		{"an announcement", skipped(says("ce_type", "tallyman.announcement.v1"))},
		{"a later release's message", skipped(says("ce_type", "tallyman.hello.v9"))},
		{"an old CloudEvent", bad(batch.BadEnvelope, `ce_specversion is "0.3"`, says("ce_specversion", "0.3"))},
		{"another time", bad(batch.BadEnvelope, "is not the time in the id", says("ce_time", "2020-01-01T00:00:00Z"))},
		{"time without zone", bad(batch.BadEnvelope, "is not a time of RFC 3339", says("ce_time", "2020-01-01T00:00:00"))},
		{"no source", bad(batch.BadEnvelope, "header ce_source is missing or empty", without("ce_source"))},
		{"a source of controls", bad(batch.BadEnvelope, `ce_source "\x1b[2J" is not UTF-8 without control characters`, says("ce_source", "\x1b[2J"))},
		{"half a stream", bad(batch.BadEnvelope, "come together or not at all", says("ce_sequence", "1"))},
		{"sequence 0", bad(batch.BadEnvelope, `ce_sequence "0" is not a decimal number`, says("ce_incarnation", uuid.NewString()), says("ce_sequence", "0"))},
		{"another dataset", bad(batch.WrongDataset, "a batch of bad/other on the topic of bad/input",
			edit(func(b *batch.Batch) { b.Dataset.Name, b.Schema = "other", "" }))},
		{"no dataset", bad(batch.BadEnvelope, "ce_subject", says("ce_subject", `bad"/; DROP TABLE input`))},
		{"no manifest named", good("k", "good", edit(func(b *batch.Batch) { b.Schema = "" }))},
		{"an unknown manifest", bad(batch.NoManifest, "encoded by manifest 0000", edit(func(b *batch.Batch) { b.Schema = strings.Repeat("0", 64) }))},
		{"no rows told", bad(batch.BadEnvelope, `ce_rows ""`, without("ce_rows"))},
		{"-1 rows", bad(batch.BadEnvelope, `ce_rows "-1"`, says("ce_rows", "-1"))},
		{"2^63 rows", bad(batch.BadEnvelope, `ce_rows "9223372036854775808"`, says("ce_rows", "9223372036854775808"))},
		{"a row more than told", bad(batch.BadRows, "2 rows, the envelope says 1", lines(`{"k":"a"}`, `{"k":"b"}`), edit(func(b *batch.Batch) { b.Rows = 1 }))},
		{"a row less than told", bad(batch.BadRows, "1 rows, the envelope says 2", edit(func(b *batch.Batch) { b.Rows = 2 }))},
		{"no digest", bad(batch.BadDigest, "header ce_digest is missing", without("ce_digest"))},
		{"no digest, twice", []send{bad(batch.BadDigest, "is missing", without("ce_digest"))[0], repeated(batch.BadDigest, without("ce_digest"))}},
		{"half a digest", bad(batch.BadDigest, "ce_digest", says("ce_digest", "sha-256=00"))},
		{"another digest", bad(batch.BadDigest, "digest", says("ce_digest", "sha-256="+strings.Repeat("0", 64)))},
		{"headers of another", bad(batch.BadDigest, "digest", says("ce_source", "somebody else"))},
		{"another's hole", bad(batch.BadDigest, "digest", says("ce_incarnation", uuid.NewString()), says("ce_sequence", "7"))},
		{"an unknown encoding", bad(batch.BadEnvelope, `content-type is "text/csv"`, says("content-type", "text/csv"))},
		{"a broken trace", good("k", "good", says("traceparent", "\x00"))},
		{"2,000 headers more", good("k", "good", many)},
		{"2,000 headers kept", bad(batch.NoID, "ce_id", many, without("ce_id"))},
	}
}

// tuples are native values that don't walk.
func tuples() []badCase {
	tuple := raw(map[string]string{"k": "x", "s": "yy"})
	value := func(f func(v []byte) []byte) change { return edit(func(b *batch.Batch) { b.Value = f(b.Value) }) }
	// Where a tuple's first field and its last have their lengths.
	first := func(length uint32) change {
		return value(func(v []byte) []byte { binary.BigEndian.PutUint32(v[2:], length); return v })
	}
	last := func(length uint32) change {
		return value(func(v []byte) []byte { binary.BigEndian.PutUint32(v[len(v)-20:], length); return v })
	}
	return []badCase{
		{"a native row", good("k || s", "xyy", tuple)},
		{"swallows its neighbour", bad(batch.BadRows, `column "_batch_id": 17 bytes, want 16`, tuple, last(17))},
		{"swallows the rest", bad(batch.BadRows, `column "k": 200 bytes, but only 51 are left`, tuple, first(200))},
		{"swallows its next row", bad(batch.BadRows, "row 2: the value ends after 1 of 2 rows", tuple, value(func(v []byte) []byte {
			first := binary.BigEndian.AppendUint16(nil, binary.BigEndian.Uint16(v))
			first = binary.BigEndian.AppendUint32(first, uint32(1+len(v)-2-4-1+2+4+1))
			return append(append(first, 'x'), append(v[7:], v...)...)
		}), edit(func(b *batch.Batch) { b.Rows = 2 }))},
		{"2^31-1 bytes", bad(batch.BadRows, "2147483647 bytes, but only", tuple, first(math.MaxInt32))},
		{"-2 bytes", bad(batch.BadRows, "a length of -2", tuple, first(0xfffffffe))},
		{"-2^31 bytes", bad(batch.BadRows, "a length of -2147483648", tuple, first(1<<31))},
		{"NULL where a value is required", bad(batch.BadRows, "NULL in a required column", raw(map[string]string{"s": "x"}))},
		{"a field less", bad(batch.BadRows, "8 fields, want 9", tuple, value(func(v []byte) []byte { v[1]--; return v }))},
		{"a short integer", bad(batch.BadRows, `column "n": 4 bytes, want 8`, raw(map[string]string{"k": "x", "n": "\x00\x00\x00\x01"}))},
		{"another batch's row", bad(batch.BadRows, "is not the batch's", raw(map[string]string{"k": "x", "_batch_id": string(make([]byte, 16))}))},
		{"cut", bad(batch.BadRows, "row 1", tuple, value(func(v []byte) []byte { return v[:len(v)-1] }))},
		{"something behind", bad(batch.BadRows, "1 bytes follow the last of 1 rows", tuple, value(func(v []byte) []byte { return append(v, 0) }))},
		{"an end of COPY inside", bad(batch.BadRows, "2 bytes follow", tuple, value(func(v []byte) []byte { return append(v, 0xff, 0xff) }))},
		{"a head of COPY", bad(batch.BadRows, "fields, want 9", tuple, value(func(v []byte) []byte {
			return append([]byte("PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"), v...)
		}))},
		{"more rows than there are", bad(batch.BadRows, "the value ends after 1 of 10000000 rows", tuple, edit(func(b *batch.Batch) { b.Rows = batch.MaxRows }))},
	}
}

func texts() []badCase {
	hard := "tab\tnewline\nreturn\r\\ \\n \\. \\N\n\\.\n'\";--\x01\x1b[31m\u202eé𝄞\ufffd"
	quoted := strings.NewReplacer("\\", `\\`, "\t", `\t`, "\n", `\n`, "\r", `\r`, `"`, `\"`, "\x01", `\u0001`, "\x1b", `\u001b`).Replace(hard)
	return []badCase{
		{"hard text", good("s", hard, lines(`{"k":"x","s":"`+quoted+`"}`))},
		{"hard native text", good("s", hard, native("x", nil, nil, nil, hard, nil, nil, nil))},
		{"empty text", good("s || '|' || (s IS NOT NULL)", "|true", lines(`{"k":"x","s":""}`))},
		{"NUL", bad(batch.BadRows, "invalid character '\\x00'", lines("{\"k\":\"a\x00b\"}"))},
		{"escaped NUL", bad(batch.BadRows, "contains U+0000", lines(`{"k":"a\u0000b"}`))},
		{"invalid UTF-8", bad(batch.BadRows, "invalid UTF-8", lines("{\"k\":\"a\xffb\"}"))},
		{"a lone surrogate", bad(batch.BadRows, "invalid surrogate pair", lines(`{"k":"\ud800"}`))},
		{"a surrogate in UTF-8", bad(batch.BadRows, "invalid UTF-8", lines("{\"k\":\"\xed\xa0\x80\"}"))},
		{"no JSON", bad(batch.BadRows, "invalid JSON", lines(`k=x`))},
		{"controls in a key", bad(batch.BadRows, `is not a column`, lines(`{"k":"x","\u001b[31m<b>":1}`))},
	}
}

func numbers() []badCase {
	n := func(literal string) change { return lines(`{"k":"x","n":` + literal + `}`) }
	f := func(literal string) change { return lines(`{"k":"x","f":` + literal + `}`) }
	return []badCase{
		{"2^53+1", good("n::text", "9007199254740993", n("9007199254740993"))},
		{"the largest integer", good("n::text", "9223372036854775807", n("9223372036854775807"))},
		{"the least integer", good("n::text", "-9223372036854775808", n("-9223372036854775808"))},
		{"2^63", bad(batch.BadRows, `"9223372036854775808" does not fit int64`, n("9223372036854775808"))},
		{"an integer of 1e400000", bad(batch.BadRows, `"1e400000"`, n("1e400000"))},
		{"an integer with a point", bad(batch.BadRows, `"1.0"`, n("1.0"))},
		{"an integer in quotes", bad(batch.BadRows, "want a number", n(`"1"`))},
		{"an infinite integer", bad(batch.BadRows, "want a number", n(`"Infinity"`))},
		{"1e400000", bad(batch.BadRows, `"1e400000" does not fit float64`, f("1e400000"))},
		{"1e-400000", bad(batch.BadRows, "too small for float64", f("1e-400000"))},
		{"1e308", good("f::text", "1e+308", f("1e308"))},
		{"NaN", good("f::text", "NaN", f(`"NaN"`))},
		{"Infinity", good("f::text", "Infinity", f(`"Infinity"`))},
		{"-Infinity", good("f::text", "-Infinity", f(`"-Infinity"`))},
		{"a bare NaN", bad(batch.BadRows, "invalid character 'N'", f("NaN"))},
		{"1 for true", bad(batch.BadRows, "want true or false", lines(`{"k":"x","b":1}`))},
	}
}

func times() []badCase {
	t := func(text string) change { return lines(`{"k":"x","t":"` + text + `"}`) }
	return []badCase{
		{"a leap day", good("(t AT TIME ZONE 'UTC')::text", "2024-02-29 18:29:59.999999", t("2024-02-29T23:59:59.999999+05:30"))},
		{"2024-02-30", bad(batch.BadRows, "there is no such day", t("2024-02-30T00:00:00Z"))},
		{"no leap day", bad(batch.BadRows, "there is no such day", t("2023-02-29T00:00:00Z"))},
		{"the year 10000", bad(batch.BadRows, "is not a time", t("10000-01-01T00:00:00Z"))},
		{"BC", bad(batch.BadRows, "is not a time", t("-0044-03-15T00:00:00Z"))},
		{"the year 0", bad(batch.BadRows, "calendars disagree on the year 0", t("0000-01-01T00:00:00Z"))},
		{"a leap second", bad(batch.BadRows, "leap seconds can't be stored", t("2016-12-31T23:59:60Z"))},
		{"24 o'clock", bad(batch.BadRows, "there is no such time of day", t("2024-01-01T24:00:00Z"))},
		{"no zone", bad(batch.BadRows, "the zone is missing", t("2024-01-01T00:00:00"))},
		{"nanoseconds", bad(batch.BadRows, "finer than a microsecond", t("2024-01-01T00:00:00.123456789Z"))},
		{"an infinite time", bad(batch.BadRows, "is not a time", t("infinity"))},
	}
}

// documents are JSON values, and the shape of rows.
func documents() []badCase {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	odd := `{"n": 12345678901234567890.10, "big":1e400000,  "b":[ ]}`
	return []badCase{
		{"JSON as it is spelled", good("j::text", odd, lines(`{"k":"x","j":`+odd+`}`))},
		{"a repeated column", bad(batch.BadRows, `the key "k" is repeated`, lines(`{"k":"x","k":"y"}`))},
		{"a repeated key", bad(batch.BadRows, `the key "a" is repeated`, lines(`{"k":"x","j":{"a":1,"a":2}}`))},
		{"100,000 levels", bad(batch.BadRows, "nests deeper than 1000 levels", lines(`{"k":"x","j":`+deep(100_000)+`}`))},
		{"100,000 levels in no column", bad(batch.BadRows, "nests deeper than 1000 levels", lines(`{"k":"x","z":`+deep(100_000)+`}`))},
		{"100,000 levels, open", bad(batch.BadRows, "nests deeper", lines(`{"k":"x","j":`+strings.Repeat(`{"a":`, 100_000)))},
		{"1,000 levels", good("length(j::text)::text", "2000", lines(`{"k":"x","j":`+deep(1_000)+`}`))},
		{"NUL in JSON", bad(batch.BadRows, `the JSON contains \u0000`, lines(`{"k":"x","j":{"a":"\u0000"}}`))},
		{"a missing column", bad(batch.BadRows, "the key is missing, and the column is required", lines(`{"n":1}`))},
		{"a missing column that may be NULL", good("(n IS NULL)::text", "true", lines(`{"k":"x"}`))},
		{"an extra column", bad(batch.BadRows, `key "z" is not a column`, lines(`{"k":"x","z":1}`))},
		{"a renamed column", bad(batch.BadRows, `key "K" is not a column`, lines(`{"K":"x"}`))},
		{"reordered columns", good("k || n || s", "x1y", lines(`{"s":"y","n":1,"k":"x"}`))},
		{"someone else's _batch_id", bad(batch.BadRows, `key "_batch_id" is not a column`, lines(`{"k":"x","_batch_id":"00000000-0000-0000-0000-000000000000"}`))},
		{"a sparse value", bad(batch.BadRows, "the key is missing", lines(strings.Repeat("{}\n", 100_000)+"{}"))},
		{"an array of rows", bad(batch.BadRows, "want a JSON object", lines(`[{"k":"x"}]`))},
	}
}

// refusedValues are native values that walk: the warehouse says what it thinks
// of them, and a group that it refuses is cut until one batch alone repeats it.
func refusedValues() []badCase {
	field := func(name, value string) change { return raw(map[string]string{"k": "x", name: value}) }
	micros := func(n int64) string { return string(binary.BigEndian.AppendUint64(nil, uint64(n))) }
	return []badCase{
		{"NUL", bad(batch.Rejected, "SQLSTATE 22021", field("s", "a\x00b"))},
		{"invalid UTF-8", bad(batch.Rejected, "SQLSTATE 22021", field("s", "a\xffb"))},
		{"a surrogate in UTF-8", bad(batch.Rejected, "SQLSTATE 22021", field("s", "\xed\xa0\x80"))},
		{"no JSON", bad(batch.Rejected, "SQLSTATE 22P02", field("j", "{"))},
		{"JSON of controls", bad(batch.Rejected, `Token "\x1b" is invalid.; JSON data, line 1: \x1b...\nCOPY`, field("j", "\x1b[31m\n\u202e"))},
		{"100,000 levels", bad(batch.Rejected, "SQLSTATE 54001", field("j", strings.Repeat("[", 100_000)+strings.Repeat("]", 100_000)))},
		{"a time beyond the last", bad(batch.Rejected, "SQLSTATE 22008", field("t", micros(math.MaxInt64-1)))},
		{"a time before the first", bad(batch.Rejected, "SQLSTATE 22008", field("t", micros(math.MinInt64+1)))},
		{"an infinite time", good("t::text", "infinity", field("t", micros(math.MaxInt64)))},
		{"NaN", good("f::text", "NaN", field("f", micros(int64(math.Float64bits(math.NaN())))))},
	}
}
