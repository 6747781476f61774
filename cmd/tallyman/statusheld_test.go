package main

import (
	"testing"

	"github.com/google/uuid"
)

// Announcements that were refused, and what holds a dataset back, are shown.
func TestStatusShowsRefusedAnnouncements(t *testing.T) {
	t.Parallel()
	s := newBadSite(t, nil)
	st := s.stream(verified)
	contains(t, succeed(t, s.env, "status", "verify/me"), "missing 0")
	forged := uuid.New()
	s.exec(`INSERT INTO tallyman.streams (revision_id, incarnation, source, announced, announced_at, refused, refused_why) VALUES ($1, $2, 'forger', 2, '2026-01-02', 3, 'too_many_missing')`,
		st.revision, forged)
	s.exec("INSERT INTO tallyman.announcements (revision_id, incarnation, sequence, at, since) VALUES ($1, $2, 2, '2026-01-02', '2026-01-02')", st.revision, forged)
	contains(t, succeed(t, s.env, "status", "verify/me"), "missing 2",
		"held by source forger, stream "+forged.String()+": batch 1 of 2 is not loaded; 3 of its announcements were not taken (too_many_missing)", "refused 3 announcements")
	contains(t, succeed(t, s.env, "status"), "verify/me: 3 announcements were refused; tallyman status verify/me tells more")
	d := decode[statusReport](t, succeed(t, s.env, "status", "verify/me", "-o", "json")).Datasets[0]
	if d.Refused != 3 || len(d.Holds) != 1 || *d.Holds[0].Incarnation != forged || d.Holds[0].Fault != "too_many_missing" || d.Holds[0].Through != nil || d.Holds[0].Announced != 2 {
		t.Errorf("%+v", d)
	}
}
