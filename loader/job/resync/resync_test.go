package resync_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tallyman/loader/job"
	"tallyman/loader/job/load"
	"tallyman/loader/job/resync"
	"tallyman/sink"
)

// Keys never change.
func TestKey(t *testing.T) {
	t.Parallel()
	got := (resync.Kind{}).Key(job.Target{Dataset: "ads/clicks", Manifest: strings.Repeat("b", 64), Revision: 12})
	if want := job.Key("9678d50d31ec5c13f91759a8617e19cdaf1f27da08f66447ce3122f3dc01bb24"); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// filling is a revision that is filled.
type filling struct {
	deployed []string
	asked    int
	behind   func() int64
	lacks    func() resync.Lacking
}

func (f *filling) run(t *testing.T) (time.Duration, error) {
	t.Helper()
	began := time.Now()
	err := resync.Run(t.Context(), &job.Run{Options: &resync.Options{Options: load.Options{Parallelism: 2}}}, resync.Config{
		Deploy: func(_ context.Context, o json.RawMessage) error {
			f.deployed = append(f.deployed, string(o))
			return nil
		},
		Behind:   func(context.Context) (int64, error) { return f.behind(), nil },
		Lacks:    func(context.Context) (resync.Lacking, error) { return f.lacks(), nil },
		Request:  func(context.Context, []sink.Missing) error { f.asked++; return nil },
		Patience: time.Minute, Logger: slog.New(slog.DiscardHandler),
	})
	return time.Since(began), err
}

// A resync deploys the load of its revision, waits until that has read the topic,
// asks the sources once for what is not there, and waits as long as some of it comes.
func TestFills(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began, left := time.Now(), int64(10)
		f := &filling{
			behind: func() int64 { return max(0, 30-int64(time.Since(began).Seconds())) },
			lacks: func() resync.Lacking {
				left = max(0, 10-int64(time.Since(began)/(50*time.Second)))
				if left == 0 {
					return resync.Lacking{}
				}
				return resync.Lacking{Batches: left, Text: "some", Ranges: []sink.Missing{{First: 1, Last: 10}}}
			},
		}
		took, err := f.run(t)
		if err != nil || took < 500*time.Second || took > 510*time.Second || f.asked != 1 {
			t.Errorf("%v after %v, asked %d times", err, took, f.asked)
		}
		if len(f.deployed) != 1 || f.deployed[0] != `{"end":"","parallelism":2}` {
			t.Errorf("deployed %v", f.deployed)
		}
	})
}

// What nobody sends is hopeless, and named.
func TestIsHopeless(t *testing.T) {
	t.Parallel()
	for name, lacks := range map[string]resync.Lacking{
		"batches":                 {Batches: 3, Text: "batches 4 to 6", Ranges: []sink.Missing{{First: 4, Last: 6}}},
		"without numbers":         {Batches: 3, Text: "batches 4 to 6"},
		"rows that are forgotten": {Text: "batches 4 to 6"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := &filling{behind: func() int64 { return 0 }, lacks: func() resync.Lacking { return lacks }}
				took, err := f.run(t)
				var hopeless *job.HopelessError
				if !errors.As(err, &hopeless) || !strings.Contains(err.Error(), "batches 4 to 6") || took < time.Minute || took > 70*time.Second {
					t.Errorf("%v after %v", err, took)
				}
			})
		})
	}
}
