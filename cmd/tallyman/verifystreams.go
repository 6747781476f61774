package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"tallyman/sink"
	"tallyman/sink/postgres"
)

// streamsReport is what became of the batches that sources announced.
type streamsReport struct {
	Number int64        `json:"number"`
	Total  streamCounts `json:"total"`
	// Worst are the streams that need a look first, as many as --limit says.
	Worst []accountJSON `json:"worst_first"`
	// The first of what is nowhere, and of the numbers that several batches have.
	FirstUnaccounted []numbersJSON `json:"unaccounted_first"`
	FirstTwice       []numbersJSON `json:"numbered_twice_first"`
}

// streamCounts add up: announced is loaded, discarded, satisfied, quarantined,
// missing and unaccounted together.
type streamCounts struct {
	Announced   int64 `json:"announced"`
	Loaded      int64 `json:"loaded"`
	Discarded   int64 `json:"discarded"`
	Satisfied   int64 `json:"satisfied"`
	Forgotten   int64 `json:"forgotten"` // of these, not in the ledger any more, or lost
	Quarantined int64 `json:"quarantined"`
	Missing     int64 `json:"missing"`
	Unaccounted int64 `json:"unaccounted"`    // accounted for once, and nowhere now
	Overdue     int64 `json:"overdue"`        // missing longer than the grace period
	Twice       int64 `json:"numbered_twice"` // batches whose number another one has, too
}

type accountJSON struct {
	Source      string `json:"source"`
	Incarnation string `json:"incarnation"`
	State       string `json:"state"`
	streamCounts
}

// numbersJSON is a range of a stream's numbers, with the batches that have it.
type numbersJSON struct {
	Incarnation string   `json:"incarnation"`
	First       int64    `json:"first"`
	Last        int64    `json:"last"`
	Batches     []string `json:"unique_ids,omitempty"`
}

// counting shows how many announced batches were counted.
func counting(p *progress) func(done, total int64) {
	var bar *showing
	return func(done, total int64) {
		if bar == nil {
			bar = &showing{p.add("announced batches", total)}
		}
		bar.set(done)
	}
}

// accounts accounts for what sources announced.
func accounts(ctx context.Context, w *postgres.Warehouse, r sink.Revision, o postgres.AccountOptions) (streamsReport, error) {
	found, err := w.Accounts(ctx, r, o)
	if err != nil {
		return streamsReport{}, err
	}
	report := streamsReport{Number: found.Streams, Total: countsOf(&found.Total), Worst: []accountJSON{},
		FirstUnaccounted: numbersOf(found.FirstLost), FirstTwice: numbersOf(found.FirstTwice)}
	for i := range found.Worst {
		a := &found.Worst[i]
		report.Worst = append(report.Worst, accountJSON{a.Source, a.Incarnation.String(), a.State, countsOf(a)})
	}
	return report, nil
}

func countsOf(a *postgres.Account) streamCounts {
	return streamCounts{Announced: a.Announced, Loaded: a.Loaded, Discarded: a.Discarded, Satisfied: a.Satisfied, Forgotten: a.Forgotten, Quarantined: a.Quarantined,
		Missing: a.Missing, Unaccounted: a.Unaccounted(), Overdue: a.Overdue, Twice: a.Twice}
}

func numbersOf(all []postgres.Numbers) []numbersJSON {
	list := []numbersJSON{}
	for _, n := range all {
		j := numbersJSON{Incarnation: n.Incarnation.String(), First: n.First, Last: n.Last}
		for _, id := range n.Batches {
			j.Batches = append(j.Batches, id.String())
		}
		list = append(list, j)
	}
	return list
}

// wrong says what is not as it should be; empty: nothing.
func (r verifyReport) wrong() string {
	var all []string
	for _, w := range []struct {
		n    int64
		text string
	}{
		{r.Total, "%d findings"},
		{r.Streams.Total.Unaccounted, "%d announced batches that were accounted for are nowhere"},
		{r.Streams.Total.Twice, "%d batches have the number of another (was a journal cloned while it ran?)"},
		{r.Streams.Total.Overdue, "%d batches are missing (see tallyman missing list)"},
	} {
		if w.n != 0 {
			all = append(all, fmt.Sprintf(w.text, w.n))
		}
	}
	return strings.Join(all, "; ")
}

func (s streamsReport) print(p *program) error {
	if s.Number == 0 {
		return nil
	}
	if _, err := fmt.Fprintf(p.stdout, "%d streams\n\n", s.Number); err != nil {
		return err
	}
	line := func(source, stream, state string, c streamCounts) []string {
		cells := []string{source, stream, state}
		for _, n := range []int64{c.Announced, c.Loaded, c.Discarded, c.Satisfied, c.Quarantined, c.Missing, c.Unaccounted, c.Twice} {
			cells = append(cells, strconv.FormatInt(n, 10))
		}
		return cells
	}
	var rows [][]string
	for _, w := range s.Worst {
		rows = append(rows, line(w.Source, w.Incarnation, w.State, w.streamCounts))
	}
	rows = append(rows, line("all", "", "", s.Total))
	err := printTable(p.stdout, []string{"SOURCE", "STREAM", "STATE", "ANNOUNCED", "LOADED", "DISCARDED", "SATISFIED", "QUARANTINED", "MISSING", "NOWHERE", "TWICE"}, rows)
	if err != nil {
		return err
	}
	if more := s.Number - int64(len(s.Worst)); more > 0 {
		fmt.Fprintf(p.stdout, "and %d streams more; --limit 0 lists all\n", more)
	}
	for _, n := range s.FirstUnaccounted {
		fmt.Fprintf(p.stdout, "nowhere: %s of stream %s\n", span(uint64(n.First), uint64(n.Last)), n.Incarnation)
	}
	for _, n := range s.FirstTwice {
		fmt.Fprintf(p.stdout, "numbered %d in stream %s: %s\n", n.First, n.Incarnation, strings.Join(n.Batches, ", "))
	}
	_, err = fmt.Fprintln(p.stdout)
	return err
}
