package batch_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tallyman/schema/batch"
)

// The format is frozen: these bytes were computed by another program.
func TestAnnouncementVectors(t *testing.T) {
	t.Parallel()
	for _, v := range readVectors(t).Announcements {
		if batch.KindOf(v.headers()) != batch.IsAnnouncement {
			t.Errorf("%s: of kind %d", v.Name, batch.KindOf(v.headers()))
		}
		a, err := batch.ParseAnnouncement(nil, v.headers())
		if err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		if a.Digest.String() != v.Digest || string(a.Key()) != v.Key {
			t.Errorf("%s: digest %s and key %s", v.Name, a.Digest, a.Key())
		}
		if diff := cmp.Diff(v.headers(), a.Headers()); diff != "" {
			t.Errorf("%s: headers written are others than read:\n%s", v.Name, diff)
		}
	}
}

// What FORMAT.md shows is the first vector.
func TestFormatShowsAnAnnouncement(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range readVectors(t).Announcements[0].Headers {
		if !strings.Contains(string(text), h[0]+": "+h[1]) {
			t.Errorf("FORMAT.md does not show %s: %s", h[0], h[1])
		}
	}
}

// One bit flipped anywhere in what an announcement says is seen, and so is a
// header that came from another one, or twice.
func TestAnnouncementDamaged(t *testing.T) {
	t.Parallel()
	all := readVectors(t).Announcements
	for _, v := range all {
		whole := v.headers()
		for i := range whole {
			if whole[i].Key == "ce_id" { // it says nothing of its own
				continue
			}
			for bit := range 8 * len(whole[i].Value) {
				damaged := v.headers()
				damaged[i].Value[bit/8] ^= 1 << (bit % 8)
				if a, err := batch.ParseAnnouncement(nil, damaged); err == nil && a.Incarnation.String() == v.Key && a.Digest.String() == v.Digest &&
					!strings.EqualFold(string(damaged[i].Value), string(whole[i].Value)) {
					t.Errorf("%s: %s became %q", v.Name, whole[i].Key, damaged[i].Value)
				}
			}
			if _, err := batch.ParseAnnouncement(nil, append(v.headers(), whole[i])); err == nil {
				t.Errorf("%s: %s twice is taken", v.Name, whole[i].Key)
			}
			without := append(v.headers()[:i], whole[i+1:]...)
			if _, err := batch.ParseAnnouncement(nil, without); err == nil {
				t.Errorf("%s: it is taken without %s", v.Name, whole[i].Key)
			}
		}
		if _, err := batch.ParseAnnouncement([]byte("x"), whole); err == nil {
			t.Errorf("%s: it is taken with a value", v.Name)
		}
	}
}

// Whatever the headers say: no panic; an error is a Refusal with a reason; and
// what is read, written again and read again is the same announcement.
func FuzzParseAnnouncement(f *testing.F) {
	for _, v := range readVectors(f).Announcements {
		var lines strings.Builder
		for _, h := range v.Headers {
			lines.WriteString(h[0] + ":" + h[1] + "\n")
		}
		f.Add(lines.String())
	}
	f.Fuzz(func(t *testing.T, lines string) {
		var headers []batch.Header
		for line := range strings.Lines(lines) {
			key, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
			headers = append(headers, batch.Header{Key: key, Value: []byte(text)})
		}
		first, err := batch.ParseAnnouncement(nil, headers)
		if err != nil {
			var r *batch.Refusal
			if !errors.As(err, &r) || r.Reason == "" || r.Detail == "" {
				t.Fatalf("no refusal: %v", err)
			}
			return
		}
		again, err := batch.ParseAnnouncement(nil, first.Headers())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(first, again); diff != "" {
			t.Error(diff)
		}
	})
}
