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
	if _, err := TimeOf(id); err != nil {
		return uuid.Nil, err
	}
	return id, nil
}

// TimeOf returns the batch time inside an accepted id, in UTC: to the
// millisecond for v7; for v8, which has none, the constant
// 0001-01-01T00:00:00Z (the zero time.Time). The error is a *Refusal.
func TimeOf(id uuid.UUID) (time.Time, error) {
	switch {
	case id == uuid.Nil:
		return time.Time{}, refuse(BadID, "the id is the nil UUID")
	case id == uuid.Max:
		return time.Time{}, refuse(BadID, "the id is the max UUID")
	case id.Variant() != uuid.RFC4122:
		return time.Time{}, refuse(BadID, "id %s is not of the variant of RFC 9562", id)
	}
	switch id.Version() {
	case 7:
		return time.UnixMilli(int64(binary.BigEndian.Uint64(id[:8]) >> 16)).UTC(), nil
	case 8:
		return time.Time{}, nil
	default:
		return time.Time{}, refuse(BadID, "id %s is of version %d, accepted are 7 and 8", id, id.Version())
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
