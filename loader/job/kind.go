package job

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"regexp"
	"strings"
)

// Key is what makes two requests the same job. The ledger only compares it.
type Key string

// Valid returns an error unless the key is one that the ledger takes.
func (k Key) Valid() error {
	if !keyForm.MatchString(string(k)) {
		return fmt.Errorf("%w: %q is neither 64 hexadecimal digits nor legacy:N", ErrMalformed, clip(string(k)))
	}
	return nil
}

var keyForm = regexp.MustCompile(`^([0-9a-f]{64}|legacy:[1-9][0-9]*)$`)

// clip shortens what a stranger sent, for an error.
func clip(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}

// Target is what a job is about.
type Target struct {
	Dataset  string // namespace/name
	Manifest string // the hash of the revision's manifest
	Revision int64
}

// HashKey makes the key of a kind's job about a target: the SHA-256, in
// hexadecimal, of the scheme's version, the kind, dataset, manifest and revision,
// each with its length before it, so that no two lists look the same.
func HashKey(kind string, t Target) Key {
	h := sha256.New()
	for _, part := range []string{"v1", kind, t.Dataset, t.Manifest, fmt.Sprint(t.Revision)} {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		h.Write(length[:])
		h.Write([]byte(part))
	}
	return Key(hex.EncodeToString(h.Sum(nil)))
}

// Kind is a kind of jobs. Each is a package of its own.
type Kind interface {
	// Name is what requests call it.
	Name() string
	// Key makes the key of a job about a target.
	Key(t Target) Key
	// Options reads options: a pointer to a struct whose fields have json tags,
	// with all defaults filled in. What it does not know is an error.
	Options(raw json.RawMessage) (any, error)
}

// ReadOptions fills in the struct that into points to. Unknown fields and what
// follows the object are errors; nothing at all leaves every default. A whole number
// may be spelled as any: 2, 2.0 and 2e0 are one.
func ReadOptions(raw json.RawMessage, into any) error {
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil
	}
	var given any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&given); err != nil {
		return fmt.Errorf("%w: options: %w", ErrMalformed, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: options: something follows the object", ErrMalformed)
	}
	if given == nil {
		return nil
	}
	if _, object := given.(map[string]any); !object {
		return fmt.Errorf("%w: options: want an object", ErrMalformed)
	}
	spelled, err := json.Marshal(plain(given))
	if err != nil {
		return fmt.Errorf("%w: options: %w", ErrMalformed, err)
	}
	d = json.NewDecoder(bytes.NewReader(spelled))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%w: options: %w", ErrMalformed, err)
	}
	return nil
}

// plain spells whole numbers as such, as far as a float64 tells them apart.
func plain(v any) any {
	const exact = 1 << 53
	switch v := v.(type) {
	case json.Number:
		if _, err := v.Int64(); err == nil {
			return v
		}
		if f, err := v.Float64(); err == nil && f == math.Trunc(f) && math.Abs(f) < exact {
			return int64(f)
		}
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	case map[string]any:
		for name := range v {
			v[name] = plain(v[name])
		}
	}
	return v
}

// Difference is an option that a request would change.
type Difference struct {
	Option string `json:"option"`
	Have   any    `json:"have"`
	Want   any    `json:"want"`
}

// differences compares options of one kind, value by value, after defaults.
func differences(have, want any) (all []Difference) {
	h, w := reflect.Indirect(reflect.ValueOf(have)), reflect.Indirect(reflect.ValueOf(want))
	for i := range h.NumField() {
		a, b := h.Field(i).Interface(), w.Field(i).Interface()
		if !reflect.DeepEqual(a, b) {
			name, _, _ := strings.Cut(h.Type().Field(i).Tag.Get("json"), ",")
			all = append(all, Difference{Option: name, Have: a, Want: b})
		}
	}
	return all
}
