package load_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"tallyman/loader/job"
	"tallyman/loader/job/load"
)

// Keys never change: jobs that are in a ledger would be strangers otherwise.
func TestKey(t *testing.T) {
	t.Parallel()
	for target, want := range map[job.Target]job.Key{
		{Dataset: "ads/clicks", Manifest: strings.Repeat("a", 64), Revision: 1}:  "ce62c65bd9c10a464fef19f2ed33165eb878fbe8c880ac5b41aefc9fa394c648",
		{Dataset: "ads/clicks", Manifest: strings.Repeat("b", 64), Revision: 12}: "9ba23b7d3fa0242bc00936c119b90fd4877d915ebe97a51b459568f387b9a9bb",
	} {
		if got := (load.Kind{}).Key(target); got != want {
			t.Errorf("%+v: %s, want %s", target, got, want)
		}
	}
}

// Times that are one are one option, however they are written; what can't be meant
// is refused.
func TestOptions(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]load.Options{
		"": {}, "{}": {}, `{"end": "", "parallelism": 0}`: {}, `{"end": "latest"}`: {End: "latest"}, `{"parallelism": 3.0}`: {Parallelism: 3},
		`{"end": "2026-01-31T12:00:00Z"}`: {End: "2026-01-31T12:00:00Z"}, `{"end": "2026-01-31T13:00:00.000+01:00"}`: {End: "2026-01-31T12:00:00Z"},
	} {
		if got, err := (load.Kind{}).Options([]byte(raw)); err != nil || *got.(*load.Options) != want {
			t.Errorf("%s: %+v, %v, want %+v", raw, got, err, want)
		}
	}
	for _, raw := range []string{`{"end": "soon"}`, `{"end": 7}`, `{"parallelism": -1}`, `{"parallelism": 1.5}`, `{"members": 1}`, `[]`, `{`} {
		if got, err := (load.Kind{}).Options([]byte(raw)); !errors.Is(err, job.ErrMalformed) {
			t.Errorf("%s: %+v, %v", raw, got, err)
		}
	}
}

// "latest" is the moment when the job was scheduled, in every attempt.
func TestUntil(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for end, want := range map[string]time.Time{"": {}, load.Latest: at, "2027-01-01T00:00:00Z": time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)} {
		if got := load.Until(&job.Run{Options: &load.Options{End: end}, Scheduled: at}); !got.Equal(want) {
			t.Errorf("%q: %v, want %v", end, got, want)
		}
	}
}
