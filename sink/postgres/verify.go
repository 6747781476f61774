package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"tallyman/schema/batch"
	"tallyman/sink"
)

// VerifyOptions say what of a dataset is verified.
type VerifyOptions struct {
	// Since and Until bound the batches by their time; zero: no bound. The batches
	// of files have no time: they are there only without Since.
	Since, Until time.Time
	// Values makes every row's value count, so that Compare has something to
	// compare with. It needs the right to make temporary tables.
	Values bool
	// Limit bounds the findings that are kept; those beyond are counted. Defaults to all.
	Limit int
	// SliceBatches is how many batches are verified at a time, which bounds the
	// memory: about 130 bytes each. Defaults to 1,000,000.
	SliceBatches int
	// Progress hears how many bytes of the table were read in the slice. Defaults to nothing.
	Progress func(done, total int64)
}

// FindingKind is what is wrong.
type FindingKind string

// The kinds of finding.
const (
	NoRows         FindingKind = "no_rows"         // the ledger has the batch, the table has nothing of it
	TooFewRows     FindingKind = "too_few_rows"    // than the ledger says
	TooManyRows    FindingKind = "too_many_rows"   // than the ledger says
	UnknownBatch   FindingKind = "unknown_batch"   // rows of a batch that the ledger does not have
	DiscardedBatch FindingKind = "discarded_batch" // rows of a batch that was given up
	AlteredBatch   FindingKind = "altered_batch"   // as many rows as the ledger says, with other values than were published
	OtherTotal     FindingKind = "other_total"     // all rows together, where none says of which batch it is
)

// Finding is something that is not as it should be.
type Finding struct {
	Kind  FindingKind
	Batch uuid.UUID // uuid.Nil: of no batch
	Time  time.Time // of the batch; zero: it has none, or none that is known
	Want  int64     // rows, by the ledger
	Have  int64     // rows, in the table
}

// Verified is what a verification has found so far.
type Verified struct {
	Batches   int64 // loaded, by the ledger
	Rows      int64 // of them, by the ledger
	TableRows int64 // found in the table for these batches and for unknown ones
	Findings  []Finding
	Total     map[FindingKind]int64 // findings, kept or not
	Compared  int64                 // batches whose values were compared
	// Lost are batches whose values could not be compared, since none of what was
	// offered was them: how many, and the first of them.
	Lost      int64
	FirstLost []uuid.UUID
	// Forgotten are rows of batches before the ledger's horizon; if there is one, also
	// of v4 ids that are not known, whose times are forgotten with them.
	Forgotten int64
}

// lostKept is how many batches that could not be compared are named.
const lostKept = 10

// Verifier compares a dataset's table with the ledger, a slice of the batches
// after another, each in one snapshot. It is for one goroutine.
type Verifier struct {
	w       *Warehouse
	dataset DatasetInfo
	options VerifyOptions
	seed    int64 // of the sums over values: nobody can know beforehand which rows make the same one
	found   Verified

	started, ended bool
	from, to       ledgerKey // the slice: after from, to to; a zero to: to the end
	window         sink.Window
	index          map[uuid.UUID]int32
	tallies        []tally
	unknown        map[uuid.UUID]int64
}

// ledgerKey is a place in the order of the ledger.
type ledgerKey struct {
	at time.Time
	id uuid.UUID
}

// tally is what is known of a batch.
type tally struct {
	id         uuid.UUID
	content    batch.Digest
	at         int64 // microseconds since 1970
	want, have int64
	sum        uint64 // over the values of its rows
	loaded     bool   // else given up
	compared   bool
}

// NewVerifier starts to verify a dataset's revision.
func (w *Warehouse) NewVerifier(d DatasetInfo, o VerifyOptions) *Verifier {
	if o.SliceBatches == 0 {
		o.SliceBatches = 1_000_000
	}
	if o.Progress == nil {
		o.Progress = func(int64, int64) {}
	}
	v := &Verifier{w: w, dataset: d, options: o, seed: newSeed()}
	v.found.Total = map[FindingKind]int64{}
	v.to = ledgerKey{at: o.Since}
	return v
}

// Next verifies the counts of the next slice. It returns false when there is
// none left.
func (v *Verifier) Next(ctx context.Context) (bool, error) {
	v.settle()
	if v.ended {
		return false, nil
	}
	if err := v.slice(ctx); err != nil {
		return false, v.w.class("verify", err)
	}
	v.started = true
	v.judge()
	return true, nil
}

// Result returns what was found in all slices.
func (v *Verifier) Result() Verified {
	v.settle()
	return v.found
}

// judge makes findings of the tallies.
func (v *Verifier) judge() {
	if !v.dataset.Revision.Manifest.BatchID {
		return
	}
	for i := range v.tallies {
		t := &v.tallies[i]
		v.found.TableRows += t.have
		if t.loaded {
			v.found.Batches++
			v.found.Rows += t.want
		}
		switch {
		case !t.loaded && t.have > 0:
			v.find(DiscardedBatch, t)
		case t.have == t.want:
		case t.have == 0:
			v.find(NoRows, t)
		case t.have < t.want:
			v.find(TooFewRows, t)
		default:
			v.find(TooManyRows, t)
		}
	}
	for id, rows := range v.unknown {
		v.found.TableRows += rows
		at, _ := batch.TimeOf(id) // one that has no time has the zero time
		v.add(Finding{Kind: UnknownBatch, Batch: id, Time: at, Have: rows})
	}
}

func (v *Verifier) find(kind FindingKind, t *tally) {
	v.add(Finding{Kind: kind, Batch: t.id, Time: time.UnixMicro(t.at).UTC(), Want: t.want, Have: t.have})
}

func (v *Verifier) add(f Finding) {
	v.found.Total[f.Kind]++
	if v.options.Limit == 0 || len(v.found.Findings) < v.options.Limit {
		v.found.Findings = append(v.found.Findings, f)
	}
}

// right says that as many rows are there as should be, so that their values are
// worth comparing.
func (t *tally) right() bool { return t.loaded && t.have == t.want && t.want > 0 }

// Wants says that the values of a batch in the slice have yet to be compared.
func (v *Verifier) Wants(id uuid.UUID) bool {
	i, ok := v.index[id]
	return ok && v.tallies[i].right() && !v.tallies[i].compared
}

// Unsettled is how many batches of the slice have yet to be compared.
func (v *Verifier) Unsettled() (n int) {
	for i := range v.tallies {
		if v.tallies[i].right() && !v.tallies[i].compared {
			n++
		}
	}
	return n
}

// settle ends the slice.
func (v *Verifier) settle() {
	if v.options.Values {
		for i := range v.tallies {
			t := &v.tallies[i]
			switch {
			case !t.right():
			case t.compared:
				v.found.Compared++
			default:
				v.found.Lost++
				if len(v.found.FirstLost) < lostKept {
					v.found.FirstLost = append(v.found.FirstLost, t.id)
				}
			}
		}
	}
	v.index, v.tallies, v.unknown = nil, nil, nil
}

// Compare compares batches with what the table has of them, row by row as the
// table would keep them. One that is not in the slice, or whose content is not
// what the ledger says was loaded, is passed over. What they hold together is
// for the caller to bound.
func (v *Verifier) Compare(ctx context.Context, elements []sink.Element) error {
	var fit []sink.Element
	chosen := map[uuid.UUID]bool{}
	for _, e := range elements {
		if id := e.Batch.ID; v.Wants(id) && !chosen[id] && v.tallies[v.index[id]].content == e.Content {
			chosen[id] = true
			fit = append(fit, e)
		}
	}
	if len(fit) == 0 {
		return nil
	}
	sums, err := v.sums(ctx, fit)
	if err != nil {
		return v.w.class("compare values", err)
	}
	for _, e := range fit {
		t := &v.tallies[v.index[e.Batch.ID]]
		t.compared = true
		s, ok := sums[e.Batch.ID]
		if !ok || s.rows != t.want {
			return fmt.Errorf("compare values: batch %s has %d rows as it was published, and %d in the ledger", e.Batch.ID, s.rows, t.want)
		}
		if s.sum != t.sum {
			v.find(AlteredBatch, t)
		}
	}
	return nil
}
