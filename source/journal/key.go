package journal

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/google/uuid"

	"tallyman/schema"
	"tallyman/schema/batch"
)

// Stream names one incarnation's batches of one dataset.
type Stream struct {
	Incarnation uuid.UUID
	Dataset     schema.Dataset
}

// Key names one batch of a journal.
type Key struct {
	Stream
	Sequence uint64 // from 1
}

// String returns "namespace/name incarnation sequence", as in messages.
func (k Key) String() string {
	return fmt.Sprintf("%s %s %d", k.Dataset, k.Incarnation, k.Sequence)
}

// Range is a run of numbers of a stream, both ends included.
type Range = batch.Range

// The first byte of a store key says what it holds. Keys of batches are
//
//	kind · incarnation (16 bytes) · "namespace/name" · 0x00 · sequence (8 bytes, big-endian)
//
// so that they sort by stream and number; a dataset's name holds no zero byte.
const (
	kindBatch       = 'b' // → record
	kindUnpublished = 'u' // → empty
	kindAside       = 'x' // → the broker's reason
	kindID          = 'd' // · "namespace/name" · 0x00 · id (16 bytes) → batch key without its kind
	kindIncarnation = 'i' // · incarnation → when it was opened, as time.Time encodes itself
	kindAnnounced   = 'a' // · incarnation · "namespace/name" · 0x00 → the last announcement of the stream, as JSON
	kindMark        = 'k' // · as of a batch → by when it and all before it were there, as time.Time encodes itself
	kindTrimmed     = 't' // · incarnation · "namespace/name" · 0x00 → what was trimmed of the stream, as JSON
	kindMeta        = 'm' // · name → value: see the names below
)

// The names of meta entries.
const (
	metaFormat = "format"
	metaSource = "source"
	metaNote   = "note/"
	metaClock  = "clock" // of the last announcement, RFC 3339
)

// The versions of this layout. A journal gets the second with the first batch
// that is trimmed: a release that does not know of trimming would take the
// numbers that are gone for free.
const (
	format        = "1"
	formatTrimmed = "2"
)

const (
	sequenceSize = 8
	idSize       = len(uuid.UUID{})
)

func appendStream(dst []byte, kind byte, s Stream) []byte {
	dst = append(dst, kind)
	dst = append(dst, s.Incarnation[:]...)
	dst = append(dst, s.Dataset.Namespace...)
	dst = append(dst, '/')
	dst = append(dst, s.Dataset.Name...)
	return append(dst, 0)
}

func appendKey(dst []byte, kind byte, k Key) []byte {
	return binary.BigEndian.AppendUint64(appendStream(dst, kind, k.Stream), k.Sequence)
}

func storeKey(kind byte, k Key) []byte { return appendKey(nil, kind, k) }

func idKey(d schema.Dataset, id uuid.UUID) []byte {
	dst := append([]byte{kindID}, d.String()...)
	dst = append(dst, 0)
	return append(dst, id[:]...)
}

func metaKey(name string) []byte { return append([]byte{kindMeta}, name...) }

// parseKey reads a batch key without its kind.
func parseKey(b []byte) (Key, error) {
	if len(b) < sequenceSize {
		return Key{}, fmt.Errorf("journal key of %d bytes", len(b))
	}
	s, err := parseStream(b[:len(b)-sequenceSize])
	return Key{Stream: s, Sequence: binary.BigEndian.Uint64(b[len(b)-sequenceSize:])}, err
}

// parseStream reads what comes before the sequence.
func parseStream(b []byte) (Stream, error) {
	if len(b) < idSize+1 {
		return Stream{}, fmt.Errorf("journal key of %d bytes names no stream", len(b))
	}
	var s Stream
	copy(s.Incarnation[:], b)
	name, ok := bytes.CutSuffix(b[idSize:], []byte{0})
	namespace, short, found := bytes.Cut(name, []byte{'/'})
	if !ok || !found {
		return Stream{}, fmt.Errorf("journal key %x names no dataset", b)
	}
	s.Dataset = schema.Dataset{Namespace: string(namespace), Name: string(short)}
	return s, nil
}

// upper returns the smallest key that is above all keys with the given prefix.
func upper(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	end[len(end)-1]++ // a kind or a zero byte: it can't overflow
	return end
}
