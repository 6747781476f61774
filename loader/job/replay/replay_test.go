package replay_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"tallyman/loader/job"
	"tallyman/loader/job/replay"
	"tallyman/sink"
)

// Keys never change.
func TestKey(t *testing.T) {
	t.Parallel()
	got := (replay.Kind{}).Key(job.Target{Dataset: "ads/clicks", Manifest: strings.Repeat("b", 64), Revision: 12})
	if want := job.Key("492b8ba5bebd50ba7513f960cbe0ed9a56ec3b8ec72856ec527f473bd3359f33"); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// What nobody can have meant is refused; times that are one are one option.
func TestOptions(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{`{"since": "yesterday"}`, `{"until": 5}`, `{"sources": "x"}`} {
		if got, err := (replay.Kind{}).Options([]byte(raw)); !errors.Is(err, job.ErrMalformed) {
			t.Errorf("%s: %+v, %v", raw, got, err)
		}
	}
	got, err := (replay.Kind{}).Options([]byte(`{"since": "2026-01-31T13:00:00+01:00", "source": "eu"}`))
	if want := (replay.Options{Source: "eu", Since: "2026-01-31T12:00:00Z"}); err != nil || *got.(*replay.Options) != want {
		t.Errorf("%+v, %v", got, err)
	}
}

// A replay asks for what is missing of what it is about, asks again after a while,
// and is done once that is loaded, whatever else is missing by then.
func TestRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		eu, us := uuid.New(), uuid.New()
		missing := []sink.Missing{
			{Source: "eu", Incarnation: eu, First: 3, Last: 9, Since: began}, {Source: "us", Incarnation: us, First: 1, Last: 1, Since: began},
			{Source: "eu", Incarnation: eu, First: 20, Last: 20, Since: began.Add(-time.Hour)},
		}
		var asked [][]sink.Missing
		c := replay.Config{
			Missing: func(context.Context, time.Duration) ([]sink.Missing, error) {
				switch {
				case time.Since(began) > 12*time.Minute:
					return []sink.Missing{{Source: "eu", Incarnation: eu, First: 30, Last: 40}, {Source: "us", Incarnation: us, First: 1, Last: 1}}, nil
				case time.Since(began) > time.Minute:
					return []sink.Missing{{Source: "eu", Incarnation: eu, First: 5, Last: 25}}, nil
				}
				return missing, nil
			},
			Request: func(_ context.Context, ranges []sink.Missing) error { asked = append(asked, ranges); return nil },
			Logger:  slog.New(slog.DiscardHandler),
		}
		o := &replay.Options{Source: "eu", Since: began.Add(-time.Minute).UTC().Format(time.RFC3339Nano)}
		if err := replay.Run(t.Context(), &job.Run{Options: o}, c); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 12*time.Minute || took > 13*time.Minute {
			t.Errorf("it took %v", took)
		}
		if len(asked) != 2 || len(asked[0]) != 1 || asked[0][0].First != 3 || asked[0][0].Last != 9 || len(asked[1]) != 1 || asked[1][0].First != 5 || asked[1][0].Last != 9 {
			t.Errorf("asked for %+v", asked)
		}
	})
}
