package batch

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"time"

	"github.com/google/uuid"

	"tallyman/schema"
)

// NewID returns a new v7 id. Ids of one process are in order of creation.
func NewID() uuid.UUID { return uuid.Must(uuid.NewV7()) }

// fileScheme is the version of the rule by which files become batches. Another
// rule for cutting chunks or deriving ids is another version.
const fileScheme = "tallyman-file-1"

// FileID derives the v8 id of chunk number chunk (from 0) of a file with the
// given digest. It is the SHA-256 of six parts, each preceded by its length as
// eight bytes, big-endian: "tallyman-file-1", the dataset, the format, content
// in lower-case hexadecimal, chunk in decimal, label; of it the first 16 bytes,
// with version 8 and the variant of RFC 9562 written over their bits.
func FileID(d schema.Dataset, format string, content Digest, chunk uint64, label string) uuid.UUID {
	h := sha256.New()
	for _, part := range []string{
		fileScheme, d.String(), format, hex.EncodeToString(content[:]), strconv.FormatUint(chunk, 10), label,
	} {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		h.Write([]byte(part))
	}
	var id uuid.UUID
	copy(id[:], h.Sum(nil))
	id[6] = id[6]&0x0f | 8<<4
	id[8] = id[8]&0x3f | 0x80
	return id
}

// ParseID reads any RFC 9562 spelling of an accepted id; the error is a *Refusal.
func ParseID(s string) (uuid.UUID, error) {
	id, err := parseUUID(s)
	if err != nil {
		return uuid.Nil, refuse(BadID, "id %s is not a UUID", quote(s))
	}
	if r := checkID(id); r != nil {
		return uuid.Nil, r
	}
	return id, nil
}

// checkID refuses what is no id of a version that is accepted.
func checkID(id uuid.UUID) *Refusal {
	switch {
	case id == uuid.Nil:
		return refuse(BadID, "the id is the nil UUID")
	case id == uuid.Max:
		return refuse(BadID, "the id is the max UUID")
	case id.Variant() != uuid.RFC4122:
		return refuse(BadID, "id %s is not of the variant of RFC 9562", id)
	}
	switch id.Version() {
	case 1, 4, 6, 7, 8:
		return nil
	default:
		return refuse(BadID, "id %s is of version %d, accepted are 1, 4, 6, 7 and 8", id, id.Version())
	}
}

// TimeOf returns the batch time inside an accepted id, in UTC: for v7 to the
// millisecond; for v1 and v6 to the microsecond, which is what warehouses keep,
// cut toward the past; for v8, which has none, the constant
// 0001-01-01T00:00:00Z (the zero time.Time). A v4 id has no time, see
// [TimeWith]. The error is a *Refusal.
func TimeOf(id uuid.UUID) (time.Time, error) {
	if r := checkID(id); r != nil {
		return time.Time{}, r
	}
	high := binary.BigEndian.Uint64(id[:8])
	switch id.Version() {
	case 1: // time_low, time_mid, version, time_high
		return gregorian(high>>32 | high>>16&0xffff<<32 | high&0x0fff<<48), nil
	case 4:
		return time.Time{}, refuse(BadID, "id %s is of version 4, which has no time in it: it needs one beside it", id)
	case 6: // time_high, time_mid, version, time_low
		return gregorian(high>>16<<12 | high&0x0fff), nil
	case 7:
		return time.UnixMilli(int64(high >> 16)).UTC(), nil
	default: // 8
		return time.Time{}, nil
	}
}

// gregorian reads the time of v1 and v6: units of 100 ns since 1582-10-15, the
// beginning of the Gregorian calendar (RFC 9562, section 5.1).
func gregorian(units uint64) time.Time {
	return time.UnixMicro(firstTime().UnixMicro() + int64(units/10)).UTC()
}

// firstTime is the first time of v1 and v6, and so the first that a v4 id may
// come with.
func firstTime() time.Time { return time.Date(1582, 10, 15, 0, 0, 0, 0, time.UTC) }

// endOfTime is the first time that RFC 3339 can't write.
func endOfTime() time.Time { return time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }

// TimeWith returns the batch time of an accepted id that comes with a time: for
// v4 that time, cut to the microsecond; for the others as [TimeOf], with which
// it must agree, both cut to the millisecond for v7 and to the microsecond for
// v1 and v6. Cut is toward the past. The error is a *Refusal.
func TimeWith(id uuid.UUID, told time.Time) (time.Time, error) {
	if r := checkID(id); r != nil {
		return time.Time{}, r
	}
	if id.Version() == 4 {
		at := told.UTC().Truncate(time.Microsecond)
		if at.Before(firstTime()) || !at.Before(endOfTime()) {
			return time.Time{}, refuse(BadEnvelope, "time %s of id %s is not from 1582-10-15 to the year 9999", at.Format(time.RFC3339Nano), id)
		}
		return at, nil
	}
	at, err := TimeOf(id)
	if cut := precision(id); err == nil && cut > 0 && !told.Truncate(cut).Equal(at) {
		return time.Time{}, refuse(BadEnvelope, "time %s is not the time in the id, %s",
			told.Format(time.RFC3339Nano), at.Format(time.RFC3339Nano))
	}
	return at, err
}

// precision returns to what times are cut before they are compared; 0 for v8,
// which has no time.
func precision(id uuid.UUID) time.Duration {
	switch id.Version() {
	case 7:
		return time.Millisecond
	case 8:
		return 0
	default:
		return time.Microsecond
	}
}

// parseUUID reads a UUID in any of its spellings. Parse alone would take any
// two characters for braces.
func parseUUID(s string) (uuid.UUID, error) {
	if err := uuid.Validate(s); err != nil {
		return uuid.Nil, err
	}
	return uuid.Parse(s)
}
