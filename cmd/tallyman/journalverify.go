package main

import (
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"tallyman/source/journal"
)

func newJournalVerify(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check that every batch of a journal is there and whole",
		Long: `Check that every batch of a journal is there and whole.

Every batch is read, and its checksum and digest are compared; streams must be without holes, every
id must point to its batch, and marks to batches that are there. What is wrong is named. The status
is 3 if anything is.`,
		Example: `  tallyman source journal verify
  tallyman source journal verify --journal /mnt/rescued/journal -o json`,
		Args: cobra.NoArgs,
	}
	root := journalFlag(cmd)
	output := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o, err := p.openJournal(cmd, *root)
		if errors.Is(err, journal.ErrCorrupt) {
			return &foundError{err.Error()}
		}
		if err != nil {
			return err
		}
		defer o.close()
		c := o.Contents()
		v, err := o.Verify(cmd.Context(), c)
		if err != nil {
			return err
		}
		result := journalVerified{
			Journal: o.dir, Source: o.Source(), Streams: len(c.Streams), Batches: v.Batches, Rows: v.Rows, Bytes: v.Bytes, Faults: faultsToJSON(v.Faults),
		}
		if *output == asJSON {
			err = printJSON(p.stdout, result)
		} else {
			err = p.printVerified(result)
		}
		if err == nil && len(v.Faults) > 0 {
			err = &foundError{fmt.Sprintf("journal %s: %s", o.dir, count(len(v.Faults), "fault"))}
		}
		return err
	}
	return cmd
}

// journalVerified is what verify prints. The sums are of batches that are sound.
type journalVerified struct {
	Journal string         `json:"journal"`
	Source  string         `json:"source"`
	Streams int            `json:"streams"`
	Batches int64          `json:"batches"`
	Rows    int64          `json:"rows"`
	Bytes   int64          `json:"bytes"`
	Faults  []journalFault `json:"faults"`
}

type journalFault struct {
	Dataset     string     `json:"dataset,omitempty"`
	Incarnation *uuid.UUID `json:"incarnation,omitempty"`
	Sequence    uint64     `json:"sequence,omitempty"` // without it, the fault is the stream's
	ID          *uuid.UUID `json:"unique_id,omitempty"`
	Detail      string     `json:"detail"`
}

func faultsToJSON(faults []journal.Fault) []journalFault {
	all := []journalFault{}
	for _, f := range faults {
		j := journalFault{Sequence: f.Key.Sequence, Detail: f.Detail}
		if f.Key.Incarnation != uuid.Nil {
			j.Dataset, j.Incarnation = f.Key.Dataset.String(), &f.Key.Incarnation
		}
		if f.ID != uuid.Nil {
			j.ID = &f.ID
		}
		all = append(all, j)
	}
	return all
}

// where names what a fault is about.
func (f journalFault) where() string {
	switch {
	case f.Incarnation == nil:
		return "journal"
	case f.Sequence == 0:
		return fmt.Sprintf("stream %s %s", f.Dataset, f.Incarnation)
	}
	text := fmt.Sprintf("batch %s %s/%d", f.Dataset, f.Incarnation, f.Sequence)
	if f.ID != nil {
		text += ", id " + f.ID.String()
	}
	return text
}

func (p *program) printVerified(v journalVerified) error {
	for _, f := range v.Faults {
		if _, err := fmt.Fprintln(p.stdout, printable(f.where()+": "+f.Detail)); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(p.stdout, "journal %s of source %s: in %s, %s with %s and %s are sound\n", printable(v.Journal), printable(v.Source),
		count(v.Streams, "stream"), count(int(v.Batches), "batch"), count(int(v.Rows), "row"), count(int(v.Bytes), "byte"))
	return err
}

// count is a number with its noun.
func count(n int, noun string) string {
	switch {
	case n == 1:
		return "1 " + noun
	case noun == "batch":
		noun += "e"
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
