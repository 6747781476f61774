package main

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"tallyman/sink"
)

// holdStatus is what holds a dataset back: a stream, or a source without one.
type holdStatus struct {
	Source      string     `json:"source"`
	Incarnation *uuid.UUID `json:"incarnation"` // null: an expected source that has no stream
	Announced   uint64     `json:"announced"`
	Covered     uint64     `json:"covered"` // up to here all is loaded or discarded
	Through     *time.Time `json:"through"` // null: nothing is covered
	Open        bool       `json:"open"`
	Refused     int64      `json:"refused_announcements"`
	Fault       string     `json:"refused_last_for,omitempty"`

	Line string `json:"-"` // for a person
}

// complete adds how far the dataset is loaded, by what its sources announced.
func (d *datasetStatus) complete(c sink.Completeness) {
	d.ExpectedSources, d.Missing, d.Complete, d.Refused = c.Expected, c.Missing, c.All, c.Refused
	if !c.Through.IsZero() {
		d.CompleteThrough = &c.Through
	}
	for _, h := range c.Holds {
		s := holdStatus{Source: h.Source, Announced: h.Announced, Covered: h.Covered, Open: h.Open, Refused: h.Refused, Fault: h.Fault, Line: holdLine(h)}
		if h.Incarnation != uuid.Nil {
			s.Incarnation = &h.Incarnation
		}
		if !h.Through.IsZero() {
			s.Through = &h.Through
		}
		d.Holds = append(d.Holds, s)
	}
}

// printHeld says what holds the dataset back, the worst first.
func (d *datasetStatus) printHeld(p *program) error {
	for _, h := range d.Holds {
		if _, err := fmt.Fprintf(p.stdout, "held by     %s\n", h.Line); err != nil {
			return err
		}
	}
	if d.Refused > 0 {
		fmt.Fprintf(p.stdout, "refused     %d announcements\n", d.Refused)
	}
	_, err := fmt.Fprintln(p.stdout)
	return err
}
