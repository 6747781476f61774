package commit

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"tallyman/loader/consume"
	"tallyman/schema"
	"tallyman/schema/batch"
	"tallyman/schema/rows"
	"tallyman/sink"
)

// step is one record on its way into a transaction. At most one of element, dead
// and told is set and a known step has none; none: the position passes it and
// nothing else happens.
type step struct {
	record  consume.Record
	session uint64    // of its partition, when it arrived
	arrived time.Time // by this process's clock
	bytes   int64     // that the step holds in memory
	element *sink.Element
	dead    *sink.Dead
	told    *batch.Announcement
	known   bool // a batch that the ledger has: a duplicate, seen before its transaction
	bare    bool // of a known batch: what the message held was let go
	waits   bool // in its lane's queue
}

// passes says that the step carries nothing into the warehouse that could not
// wait a moment for company: a position, perhaps an announcement.
func (s *step) passes() bool { return s.element == nil && s.dead == nil && !s.known }

// rows returns the bytes that the step adds to a COPY.
func (s *step) rows() int64 {
	if s.element == nil {
		return 0
	}
	return int64(len(s.element.Tuples))
}

// partition returns the number of the step's partition.
func (s *step) partition() int32 { return s.record.Partition.Number }

// strip lets go of what a known batch's message holds.
func (s *step) strip() {
	s.record.Key, s.record.Value, s.record.Headers = nil, nil, nil
	s.record.Release()
	s.bare, s.bytes = true, 0
}

// bury turns a batch that the warehouse refused into one for quarantine.
func (s *step) bury(reason batch.Reason, detail string) {
	s.dead = &sink.Dead{Message: s.element.Message, Reason: reason, Detail: detail, Batch: s.element.Batch}
	s.element = nil
}

// decoder checks records and turns them into steps, by the manifests that it
// knows. It is safe for concurrent use.
type decoder struct {
	dataset schema.Dataset
	skew    time.Duration
	now     func() time.Time
	// refused hears of announcements that are not taken.
	refused func(m sink.Message, fault sink.AnnouncementFault, err error)

	mu    sync.RWMutex
	known map[string]*encoding // by hash; the revision's own manifest also by ""
}

// encoding is how rows by a manifest are read.
type encoding struct {
	manifest *schema.Manifest
	codec    *rows.Codec
}

// newDecoder builds the decoder of a revision. It knows the revision's own manifest.
func newDecoder(r sink.Revision, skew time.Duration, now func() time.Time) (*decoder, error) {
	d := &decoder{dataset: r.Manifest.Dataset, skew: skew, now: now, known: map[string]*encoding{},
		refused: func(sink.Message, sink.AnnouncementFault, error) {}}
	if err := d.add(&r.Manifest); err != nil {
		return nil, err
	}
	d.known[""] = d.known[r.Manifest.Hash()]
	return d, nil
}

// add makes a manifest known.
func (d *decoder) add(m *schema.Manifest) error {
	codec, err := rows.NewCodec(*m)
	if err != nil {
		return fmt.Errorf("codec of %s: %w", m.Dataset, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if hash := m.Hash(); d.known[hash] == nil { // one manifest is one pointer: a COPY each
		d.known[hash] = &encoding{manifest: m, codec: codec}
	}
	return nil
}

// encoding returns how rows by a manifest are read; nil: it is not known.
func (d *decoder) encoding(hash string) *encoding {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.known[hash]
}

// decode fills in the step's element, dead or told. An announcement that is not
// taken is no dead message: it says nothing that has to be kept.
func (d *decoder) decode(s *step) {
	s.element, s.dead = d.judge(&s.record)
	if r := &s.record; !r.Skip && r.Refused == nil && batch.KindOf(r.Headers) == batch.IsAnnouncement {
		var fault sink.AnnouncementFault
		var err error
		if s.told, fault, err = d.announcement(r.Message); err != nil {
			d.refused(r.Message, fault, err)
		}
	}
}

// announcement reads what a source says of its stream, or tells what is wrong with it.
func (d *decoder) announcement(m sink.Message) (*batch.Announcement, sink.AnnouncementFault, error) {
	a, err := batch.ParseAnnouncement(m.Value, m.Headers)
	if err != nil {
		return nil, sink.Malformed, err
	}
	if a.Dataset != d.dataset {
		return nil, sink.Malformed, fmt.Errorf("an announcement of %s on the topic of %s", a.Dataset, d.dataset)
	}
	if limit := d.now().Add(d.skew); a.At.After(limit) {
		return nil, sink.Ahead, fmt.Errorf("its time %s is after %s, the clock plus the allowed skew of %s",
			a.At.Format(time.RFC3339Nano), limit.UTC().Format(time.RFC3339Nano), d.skew)
	}
	return a, "", nil
}

// measure fills in the step's size, which stays what it is once it is queued.
func (s *step) measure() {
	s.bytes = int64(len(s.record.Value))
	if s.element != nil && s.element.Batch.ContentType != batch.Native { // native tuples are the message's own bytes
		s.bytes += s.rows()
	}
}

// judge decides what a record is: something to load, something for quarantine,
// or neither, where the position merely passes. It has no other way to fail.
func (d *decoder) judge(r *consume.Record) (*sink.Element, *sink.Dead) {
	if r.Skip {
		return nil, nil
	}
	if r.Refused != nil {
		return nil, &sink.Dead{Message: r.Message, Reason: r.Refused.Reason, Detail: r.Refused.Detail}
	}
	if kind := batch.KindOf(r.Headers); kind != batch.IsBatch && kind != batch.Foreign {
		return nil, nil // another message of ours, perhaps of a type that this version doesn't know
	}
	element, err := d.element(r.Message)
	if err == nil {
		return element, nil
	}
	var refusal *batch.Refusal
	if !errors.As(err, &refusal) {
		refusal = &batch.Refusal{Reason: batch.BadRows, Detail: err.Error()}
	}
	return nil, &sink.Dead{Message: r.Message, Reason: refusal.Reason, Detail: refusal.Detail, Batch: refusal.Batch}
}

// element checks a message and returns it ready to load; the error is a *batch.Refusal.
func (d *decoder) element(m sink.Message) (*sink.Element, error) {
	b, err := batch.Parse(m.Key, m.Value, m.Headers)
	if err != nil {
		return nil, err
	}
	refuse := func(reason batch.Reason, format string, args ...any) error {
		return &batch.Refusal{Reason: reason, Detail: fmt.Sprintf(format, args...), Batch: b}
	}
	if b.Dataset != d.dataset {
		return nil, refuse(batch.WrongDataset, "a batch of %s on the topic of %s", b.Dataset, d.dataset)
	}
	by := d.encoding(b.Schema)
	if by == nil {
		return nil, refuse(batch.NoManifest, "encoded by manifest %s, which the table takes no rows by: "+
			"apply it with tallyman dataset apply, if it only adds nullable columns", b.Schema)
	}
	if limit := d.now().Add(d.skew); b.Time.After(limit) {
		return nil, refuse(batch.FromTheFuture, "batch time %s is after %s, the clock plus the allowed skew of %s",
			b.Time.Format(time.RFC3339Nano), limit.UTC().Format(time.RFC3339Nano), d.skew)
	}
	tuples, err := by.tuples(b)
	if err != nil {
		return nil, refuse(batch.BadRows, "%v", err)
	}
	return &sink.Element{Message: m, Batch: b, Manifest: by.manifest, Content: b.Content(), Tuples: tuples}, nil
}

// tuples returns the batch's rows as native tuples, walked.
func (by *encoding) tuples(b *batch.Batch) ([]byte, error) {
	if b.ContentType == batch.Native {
		return b.Value, by.codec.Walk(b.Value, b.Rows, b.ID)
	}
	tuples, n, err := by.codec.AppendNDJSON(make([]byte, 0, len(b.Value)), b.ID, b.Value)
	if err != nil {
		return nil, err
	}
	if n != b.Rows {
		return nil, fmt.Errorf("%d rows, the envelope says %d", n, b.Rows)
	}
	return tuples, nil
}
