package sinktest

import (
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"

	"tallyman/schema"
	"tallyman/sink"
)

// retired ends that a stream holds its dataset back, once and for all, and
// nothing else of it.
func retired(f *fixture) {
	s := f.stream()
	r := sink.Retirement{Revision: f.revision.ID, Source: "suite", By: "somebody", Why: "a test"}
	retire := func(incarnation uuid.UUID) []sink.RetiredStream {
		f.Helper()
		r.Incarnation = incarnation
		all, err := f.w.RetireSource(f.Context(), r)
		if err != nil {
			f.Fatal(err)
		}
		return all
	}
	unknown := func(r sink.Retirement, known ...string) {
		f.Helper()
		_, err := f.w.RetireSource(f.Context(), r)
		if e := (*sink.UnknownSourceError)(nil); !errors.As(err, &e) || e.Source != r.Source || !slices.Equal(e.Known, known) {
			f.Errorf("retired what is unknown: %v", err)
		}
	}
	unknown(r)
	s.load(s.element(1))
	s.announce(nil, s.says(1, 1, false), s.says(3, 3, false))
	f.through(at(1), false)
	unknown(sink.Retirement{Revision: f.revision.ID, Source: "another", By: "somebody", Why: "a test"}, "suite")
	unknown(sink.Retirement{Revision: f.revision.ID, Source: "suite", Incarnation: uuid.New(), By: "somebody", Why: "a test"}, "suite")

	// One that was heard of just now lives, unless somebody knows better.
	if all := retire(uuid.Nil); len(all) != 1 || !all[0].Alive {
		f.Errorf("%+v", all)
	}
	f.through(at(1), false)
	all := retire(s.incarnation)
	if len(all) != 1 || all[0].Alive || all[0].Incarnation != s.incarnation || all[0].State != sink.StreamOpen ||
		all[0].Announced != 3 || all[0].Missing != 2 || time.Since(all[0].Heard) > time.Hour {
		f.Errorf("%+v", all)
	}
	f.missing()
	if c := f.through(time.Time{}, true); c.Announced != 0 || c.Streams != 1 {
		f.Errorf("%+v", c)
	}
	if all := retire(s.incarnation); len(all) != 0 {
		f.Errorf("retired again: %+v", all)
	}
	// It loads like any other, and whatever it announces does not bring it back.
	late := s.element(2)
	s.load(late)
	f.rows(late.Batch.ID, 1)
	s.announce(nil, s.says(9, 9, false))
	f.through(time.Time{}, true)
	next := f.stream()
	next.next = s.next
	next.announce(nil, next.says(0, 12, false))
	f.through(at(12), false)
}

// expected says that the dataset is complete only as far as every source is
// that the manifest expects, and for a continuous one only as far as it was.
func expected(f *fixture) {
	expect := func(sources ...schema.Source) {
		f.Helper()
		m := f.revision.Manifest
		m.Sources = sources
		if _, err := f.w.Apply(m); err != nil {
			f.Fatal(err)
		}
	}
	holds := func(c sink.Completeness, source string, through time.Time) {
		f.Helper()
		if len(c.Holds) == 0 || c.Holds[0].Source != source || c.Holds[0].Incarnation != uuid.Nil || !c.Holds[0].Through.Equal(through) {
			f.Errorf("held back by %+v, want %s", c.Holds, source)
		}
	}
	suite := schema.Source{Name: "suite", Continuous: true}
	expect(suite, schema.Source{Name: "another"})
	if c := f.through(time.Time{}, false); c.Expected != 2 || c.Streams != 0 {
		f.Errorf("%+v", c)
	}
	s := f.stream()
	s.load(s.element(1), s.element(2))
	s.announce(nil, s.says(1, 1, false), s.says(3, 5, false))
	if c := f.through(time.Time{}, false); c.Announced != 3 || c.Satisfied != 2 {
		f.Errorf("%+v", c)
	}
	holds(f.through(time.Time{}, false), "another", time.Time{})
	expect(suite)
	s.load(s.element(3))
	if c := f.through(at(5), false); c.Expected != 1 || c.Announced != 3 || c.Satisfied != 3 {
		f.Errorf("%+v", c)
	}
	s.announce(nil, s.says(3, 9, true))
	holds(f.through(at(9), false), "suite", at(9))
	next := f.stream()
	next.next = s.next
	next.announce(nil, next.says(0, 12, false))
	f.through(at(12), false)
	// To retire its last stream ends nothing: it is expected to come back.
	if _, err := f.w.RetireSource(f.Context(), sink.Retirement{Revision: f.revision.ID, Source: "suite", Incarnation: next.incarnation, By: "somebody", Why: "a test"}); err != nil {
		f.Fatal(err)
	}
	holds(f.through(at(12), false), "suite", at(12))
	expect(schema.Source{Name: "suite"})
	f.through(time.Time{}, true)
	expect(suite) // applied before
	holds(f.through(at(12), false), "suite", at(12))
	expect()
	if c := f.through(time.Time{}, true); c.Expected != 0 {
		f.Errorf("%+v", c)
	}
}
