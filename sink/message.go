package sink

import (
	"crypto/sha256"
	"encoding/binary"

	"tallyman/schema/batch"
)

// Fingerprint returns the SHA-256 by which an anchor recognises a record: over
// key, each header's key and value, and the record's value, every part
// preceded by its length as eight bytes, big-endian; a nil key or value by
// 0xFF repeated eight times.
func (m *Message) Fingerprint() batch.Digest {
	h := sha256.New()
	var n [8]byte
	part := func(b []byte, null bool) {
		length := uint64(len(b))
		if null {
			length = ^uint64(0)
		}
		binary.BigEndian.PutUint64(n[:], length)
		h.Write(n[:])
		h.Write(b)
	}
	part(m.Key, m.Key == nil)
	for _, kv := range m.Headers {
		part([]byte(kv.Key), false)
		part(kv.Value, kv.Value == nil)
	}
	part(m.Value, m.Value == nil)
	var d batch.Digest
	h.Sum(d[:0])
	return d
}

// Header returns the first value of a header; empty: there is none.
func (m *Message) Header(key string) string {
	for _, h := range m.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}
