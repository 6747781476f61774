package commit

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tallyman/loader/consume"
	"tallyman/schema/batch"
	"tallyman/sink"
)

// says returns an announcement as a record.
func (r *rig) says(edit func(a *batch.Announcement)) (batch.Announcement, consume.Record) {
	a := batch.Announcement{Source: "test", Incarnation: uuid.New(), Dataset: r.manifest.Dataset, Sequence: 3, At: time.Now().UTC()}
	if edit != nil {
		edit(&a)
	}
	a.Seal()
	return a, consume.Record{Message: sink.Message{Key: a.Key(), Headers: a.Headers(), Timestamp: time.Now()}}
}

// TestCarriesAnnouncements sees announcements in the transaction that commits
// batches anyway, and alone, soon, where there are none.
func TestCarriesAnnouncements(t *testing.T) {
	withRig(t, nil, func(t *testing.T, r *rig) {
		with, record := r.says(nil)
		r.publish(0, r.batch(1))
		r.append(0, record)
		r.publish(0, r.batch(2))
		r.together([]int32{0})
		r.eventually("position at 3", at(0, 3))
		if len(r.book.groups) != 1 {
			t.Errorf("groups of %v, want one", r.book.groups)
		}
		alone, record := r.says(func(a *batch.Announcement) { a.Sequence, a.Final = 0, true })
		r.append(1, record)
		began := time.Now()
		r.restart([]int32{1})
		r.eventually("position of the other partition at 1", at(1, 1))
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("an announcement alone took %v", took)
		}
		if diff := cmp.Diff([]batch.Announcement{with, alone}, r.book.told); diff != "" {
			t.Errorf("announcements committed (-want +got):\n%s", diff)
		}
		if n := testutil.ToFloat64(r.handler.metrics.announced); n != 2 {
			t.Errorf("metric says %v announcements", n)
		}
	})
}

// TestPassesBadAnnouncements sees positions move over announcements that can't be
// believed, with a metric that says why, and nothing of them kept.
func TestPassesBadAnnouncements(t *testing.T) {
	withRig(t, nil, func(t *testing.T, r *rig) {
		_, future := r.says(func(a *batch.Announcement) { a.At = a.At.Add(61 * time.Minute) })
		_, other := r.says(func(a *batch.Announcement) { a.Dataset.Name = "other" })
		_, damaged := r.says(nil)
		damaged.Headers[6].Value = []byte("4")
		for _, record := range []consume.Record{future, other, damaged} {
			r.append(0, record)
		}
		good, record := r.says(func(a *batch.Announcement) { a.At = a.At.Add(59 * time.Minute) })
		r.append(0, record)
		r.restart([]int32{0})
		r.eventually("position at 4", at(0, 4))
		if diff := cmp.Diff([]batch.Announcement{good}, r.book.told); diff != "" || len(r.book.dead) != 0 {
			t.Errorf("%d dead; announcements committed (-want +got):\n%s", len(r.book.dead), diff)
		}
		for fault, want := range map[sink.AnnouncementFault]float64{sink.Malformed: 2, sink.Ahead: 1} {
			if n := testutil.ToFloat64(r.handler.metrics.refused.WithLabelValues(string(fault))); n != want {
				t.Errorf("metric says %v announcements %s, want %v", n, fault, want)
			}
		}
	})
}
