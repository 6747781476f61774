package main

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"tallyman/schema"
	"tallyman/source/journal"
)

func newJournal(p *program) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "journal",
		Short: "Read a source's journal: its batches, published or not",
		Long: `Read a source's journal: its batches, published or not.

A journal is a directory at or below source.dir, or a copy of one from another machine. Nothing in
it is changed, and neither Kafka nor a warehouse is needed. One that a process holds can't be read:
end the process, or read a copy.`,
		Example: `  tallyman source journal list
  tallyman source journal list --dataset ads/conversions --state unpublished
  tallyman source journal verify --journal /mnt/rescued/serve/ads/conversions
  tallyman source journal export --state unpublished --file rescued.ndjson`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newJournalList(p), newJournalShow(p), newJournalVerify(p), newJournalExport(p))
	return cmd
}

// journalFlag gives a command the flag that names a journal.
func journalFlag(cmd *cobra.Command) *string {
	settingFlags(cmd, "source")
	return cmd.Flags().String("journal", "", "the journal's `directory`, or one above it (default the one journal below source.dir)")
}

// opened is a journal that a command reads.
type opened struct {
	*journal.Reader
	dir     string
	log     *slog.Logger
	targets []string // that receive what is in it
}

// openJournal opens the one journal at or below a directory.
func (p *program) openJournal(cmd *cobra.Command, root string) (*opened, error) {
	cfg, err := p.settings(cmd, 0)
	if err != nil {
		return nil, err
	}
	if root == "" {
		if root, err = p.stateDir(cfg); err != nil {
			return nil, err
		}
	}
	found, err := journal.Find(root)
	switch {
	case err != nil:
		return nil, err
	case len(found) == 0:
		return nil, fmt.Errorf("there is no journal at or below %s: name one with --journal", root)
	case len(found) > 1:
		return nil, &usageError{command: cmd.CommandPath(), err: fmt.Errorf(
			"%d journals are below %s: name one with --journal:\n%s", len(found), root, strings.Join(found, "\n"))}
	}
	log := p.logger(cfg)
	r, err := journal.OpenReader(found[0], log)
	if errors.Is(err, journal.ErrInUse) {
		err = fmt.Errorf("%w: end that process (a daemon, a push, a program with the library), or read a copy of the directory", err)
	}
	if err != nil {
		return nil, err
	}
	return &opened{Reader: r, dir: found[0], log: log, targets: cfg.ServeTargets}, nil
}

// close gives the journal up. After damage the store may complain; what was
// read is what counts.
func (o *opened) close() {
	if err := o.Close(); err != nil {
		o.log.Debug("journal was not closed well", "error", err)
	}
}

// batchSelector is the flags by which batches of a journal are selected.
type batchSelector struct{ dataset, incarnation, state string }

func batchSelectorFlags(cmd *cobra.Command) *batchSelector {
	s := &batchSelector{}
	f := cmd.Flags()
	f.StringVar(&s.dataset, "dataset", "", "only of this dataset (`NS/NAME`)")
	f.StringVar(&s.incarnation, "incarnation", "", "only of this opening of the journal (`UUID`)")
	f.StringVar(&s.state, "state", "all", "published, unpublished, aside or all")
	return s
}

// The states of a batch in a journal.
const (
	statePublished   = "published"
	stateUnpublished = "unpublished"
	stateAside       = "aside"
)

// stateOf returns the state of a batch.
func stateOf(h journal.Held) string {
	switch {
	case h.Aside != nil:
		return stateAside
	case h.Unpublished:
		return stateUnpublished
	default:
		return statePublished
	}
}

// check refuses what can't select anything.
func (s *batchSelector) check(cmd *cobra.Command) error {
	var errs []error
	if s.dataset != "" {
		_, err := schema.ParseDataset(s.dataset)
		errs = append(errs, err)
	}
	if s.incarnation != "" {
		id, err := uuid.Parse(s.incarnation)
		if err != nil {
			errs = append(errs, fmt.Errorf("--incarnation %q is not a UUID", s.incarnation))
		}
		s.incarnation = id.String()
	}
	switch s.state {
	case statePublished, stateUnpublished, stateAside, "all":
	default:
		errs = append(errs, fmt.Errorf("--state %q is none of published, unpublished, aside and all", s.state))
	}
	if err := errors.Join(errs...); err != nil {
		return &usageError{command: cmd.CommandPath(), err: err}
	}
	return nil
}

// chosen is a batch that was selected.
type chosen struct {
	key  journal.Key
	held journal.Held
}

// name returns the batch's incarnation and sequence, as show and export take them.
func (c chosen) name() string { return fmt.Sprintf("%s/%d", c.key.Incarnation, c.key.Sequence) }

// streams returns those with the dataset and the incarnation.
func (s *batchSelector) streams(c *journal.Contents) (found []journal.StreamContents) {
	for _, one := range c.Streams {
		if (s.dataset == "" || one.Dataset.String() == s.dataset) && (s.incarnation == "" || one.Incarnation.String() == s.incarnation) {
			found = append(found, one)
		}
	}
	return found
}

// choose returns the batches that are selected, in the journal's order.
func (s *batchSelector) choose(c *journal.Contents) (found []chosen) {
	for _, one := range s.streams(c) {
		for _, h := range one.Batches {
			if s.state == "all" || stateOf(h) == s.state {
				found = append(found, chosen{journal.Key{Stream: one.Stream, Sequence: h.Sequence}, h})
			}
		}
	}
	return found
}

// batchName is how a command line names a batch: by id, or by incarnation and sequence.
type batchName struct {
	text     string
	id       uuid.UUID // of the batch, or of the incarnation if there is a sequence
	sequence uint64
}

// parseBatchNames reads the names of batches.
func parseBatchNames(cmd *cobra.Command, args []string) (names []batchName, err error) {
	for _, arg := range args {
		n := batchName{text: arg}
		first, number, numbered := strings.Cut(arg, "/")
		n.id, err = uuid.Parse(first)
		if err == nil && numbered {
			n.sequence, err = strconv.ParseUint(number, 10, 64)
		}
		if err != nil || numbered && n.sequence == 0 {
			return nil, &usageError{command: cmd.CommandPath(), err: fmt.Errorf(
				"%q is neither a batch's UUID nor INCARNATION/SEQUENCE", arg)}
		}
		names = append(names, n)
	}
	return names, nil
}

// pick returns those of the batches that are named; none left out, each once.
func pick(from []chosen, names []batchName) (found []chosen, err error) {
	for _, n := range names {
		var of []chosen
		for _, c := range from {
			if n.sequence == 0 && c.held.ID == n.id || n.sequence == c.key.Sequence && c.key.Incarnation == n.id {
				of = append(of, c)
			}
		}
		switch len(of) {
		case 0:
			return nil, fmt.Errorf("nothing that is selected in the journal is batch %s: see tallyman source journal list", n.text)
		case 1:
			found = append(found, of[0])
		default:
			return nil, fmt.Errorf("%d datasets have a batch %s: say which with --dataset", len(of), n.text)
		}
	}
	return found, nil
}

// batchTime is the batch time as a table shows it.
func batchTime(t time.Time) string {
	if t.IsZero() {
		return "none"
	}
	return t.UTC().Format("2006-01-02 15:04:05.000")
}
