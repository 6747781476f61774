package journal

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"tallyman/schema"
)

// Fault is something that is wrong in a journal.
type Fault struct {
	// Key names the batch. Without a sequence it is about a stream, without an
	// incarnation about the journal as a whole.
	Key Key
	// ID is the batch's, where it is known; else uuid.Nil.
	ID     uuid.UUID
	Detail string
}

// Held is what a journal's keys say of a batch.
type Held struct {
	Sequence uint64
	ID       uuid.UUID // uuid.Nil: no id points to it, which is a fault
	// Unpublished says that Kafka has not acknowledged it.
	Unpublished bool
	// Aside is why the broker refuses it for good; nil: it does not.
	Aside *string

	record bool // it is there
}

// StreamContents is what a journal's keys say of a stream.
type StreamContents struct {
	Stream
	// Opened is when the incarnation began; zero: not known, which is a fault.
	Opened time.Time
	// Batches are in the order of their sequences. One that only an id or a
	// mark points to is among them.
	Batches []Held
	// Trimmed are those that were let go, once every target had confirmed them.
	Trimmed Trimmed
}

// Contents is what a journal's keys say, in the order in which the streams'
// incarnations began.
type Contents struct {
	Streams []StreamContents
	// Faults are those that the keys alone show.
	Faults []Fault
}

// Contents reads the journal's keys, not its batches. It takes about a hundred
// bytes of memory for a batch.
func (r *Reader) Contents() *Contents {
	c := &catalogue{streams: map[Stream]map[uint64]*Held{}, gone: map[Stream]Trimmed{}, opened: map[uuid.UUID]time.Time{}}
	for _, part := range []struct {
		kind  byte
		name  string
		visit func(key, value []byte) error
	}{
		{kindIncarnation, "incarnations", c.incarnation},
		{kindBatch, "batches", c.batch},
		{kindID, "ids", c.id},
		{kindUnpublished, "marks of unpublished batches", c.unpublished},
		{kindAside, "marks of batches set aside", c.aside},
		{kindTrimmed, "notes of trimmed batches", c.trimmed},
	} {
		err := guarded(func() error {
			return r.journal.scanKeys(part.kind, func(key []byte, value func() ([]byte, error)) error {
				var text []byte
				var err error
				if part.kind != kindBatch { // whose values are read one by one, when all are known
					text, err = value()
				}
				if err == nil {
					err = part.visit(key, text)
				}
				if err != nil {
					c.fault(Key{}, uuid.Nil, "one of the %s: %v", part.name, err)
				}
				return nil
			})
		})
		if err != nil {
			c.fault(Key{}, uuid.Nil, "the %s can't be listed to their end: %s", part.name, detail(Key{}, err))
		}
	}
	return c.contents()
}

// catalogue collects contents.
type catalogue struct {
	streams map[Stream]map[uint64]*Held
	gone    map[Stream]Trimmed
	opened  map[uuid.UUID]time.Time
	faults  []Fault
}

func (c *catalogue) fault(k Key, id uuid.UUID, format string, args ...any) {
	c.faults = append(c.faults, Fault{Key: k, ID: id, Detail: fmt.Sprintf(format, args...)})
}

// held returns the entry of a key, which may be the first that names the batch.
func (c *catalogue) held(key []byte) (*Held, Key, error) {
	k, err := parseKey(key)
	if err != nil {
		return nil, k, err
	}
	s := c.streams[k.Stream]
	if s == nil {
		s = map[uint64]*Held{}
		c.streams[k.Stream] = s
	}
	h := s[k.Sequence]
	if h == nil {
		h = &Held{Sequence: k.Sequence}
		s[k.Sequence] = h
	}
	return h, k, nil
}

func (c *catalogue) incarnation(key, value []byte) error {
	id, err := uuid.FromBytes(key)
	if err != nil {
		return err
	}
	var at time.Time
	if err := at.UnmarshalBinary(value); err != nil {
		return fmt.Errorf("when %s began: %w", id, err)
	}
	c.opened[id] = at
	return nil
}

func (c *catalogue) batch(key, _ []byte) error {
	h, _, err := c.held(key)
	if err == nil {
		h.record = true
	}
	return err
}

func (c *catalogue) id(key, value []byte) error {
	if len(key) < idSize+1 {
		return fmt.Errorf("a key of %d bytes", len(key))
	}
	id := uuid.UUID(key[len(key)-idSize:])
	name := string(key[:len(key)-idSize-1])
	h, k, err := c.held(value)
	switch {
	case err != nil:
		return fmt.Errorf("%s in %s: %w", id, name, err)
	case k.Dataset.String() != name:
		return fmt.Errorf("%s in %s points to batch %s", id, name, k)
	case h.ID != uuid.Nil:
		c.fault(k, id, "the ids %s and %s both point to it", h.ID, id)
		return nil
	}
	h.ID = id
	return nil
}

func (c *catalogue) unpublished(key, _ []byte) error {
	h, _, err := c.held(key)
	if err == nil {
		h.Unpublished = true
	}
	return err
}

func (c *catalogue) aside(key, value []byte) error {
	h, _, err := c.held(key)
	if err == nil {
		why := string(value)
		h.Aside = &why
	}
	return err
}

func (c *catalogue) trimmed(key, value []byte) error {
	s, err := parseStream(key)
	if err != nil {
		return err
	}
	var t Trimmed
	if err := json.Unmarshal(value, &t); err != nil {
		return fmt.Errorf("that of %s %s: %w", s.Dataset, s.Incarnation, err)
	}
	if c.gone[s] = t; c.streams[s] == nil {
		c.streams[s] = map[uint64]*Held{}
	}
	return nil
}

// contents puts everything in order and compares the keys with one another.
func (c *catalogue) contents() *Contents {
	all := &Contents{}
	for s, batches := range c.streams {
		one := StreamContents{Stream: s, Opened: c.opened[s.Incarnation], Trimmed: c.gone[s]}
		for _, h := range batches {
			one.Batches = append(one.Batches, *h)
		}
		slices.SortFunc(one.Batches, func(a, b Held) int { return cmp.Compare(a.Sequence, b.Sequence) })
		all.Streams = append(all.Streams, one)
	}
	slices.SortFunc(all.Streams, func(a, b StreamContents) int {
		return cmp.Or(a.Opened.Compare(b.Opened), slices.Compare(a.Incarnation[:], b.Incarnation[:]), compareDatasets(a.Dataset, b.Dataset))
	})
	for i := range all.Streams {
		c.compare(&all.Streams[i])
	}
	all.Faults = c.faults
	return all
}

func compareDatasets(a, b schema.Dataset) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// compare finds what is missing between the keys of a stream.
func (c *catalogue) compare(s *StreamContents) {
	if s.Opened.IsZero() {
		c.fault(Key{Stream: s.Stream}, uuid.Nil, "nothing says when its incarnation began")
	}
	next := uint64(1)
	for _, h := range s.Batches {
		k := Key{Stream: s.Stream, Sequence: h.Sequence}
		switch {
		case h.Sequence > next && s.Trimmed.Holds(Range{First: next, Last: h.Sequence - 1}):
		case h.Sequence == next+1:
			c.fault(Key{Stream: s.Stream}, uuid.Nil, "sequence %d is missing", next)
		case h.Sequence > next:
			c.fault(Key{Stream: s.Stream}, uuid.Nil, "sequences %d to %d are missing", next, h.Sequence-1)
		}
		next = h.Sequence + 1
		switch {
		case h.record && h.ID == uuid.Nil:
			c.fault(k, uuid.Nil, "no id points to it")
		case !h.record && h.ID != uuid.Nil:
			c.fault(k, h.ID, "an id points to it, and it is not there")
		case !h.record:
			c.fault(k, uuid.Nil, "a mark points to it, and it is not there")
		}
	}
}

// Verification is what Verify found.
type Verification struct {
	Batches, Rows, Bytes int64 // of the batches that are sound
	Faults               []Fault
}

// Verify reads every batch of contents and checks its checksum, its digest and
// its id.
func (r *Reader) Verify(ctx context.Context, c *Contents) (Verification, error) {
	v := Verification{Faults: slices.Clone(c.Faults)}
	for _, s := range c.Streams {
		for _, h := range s.Batches {
			if err := ctx.Err(); err != nil {
				return v, fmt.Errorf("verify journal: %w", err)
			}
			if !h.record {
				continue // one of the keys' faults
			}
			k := Key{Stream: s.Stream, Sequence: h.Sequence}
			record, err := r.Get(k)
			switch {
			case err != nil:
				v.Faults = append(v.Faults, Fault{Key: k, ID: h.ID, Detail: detail(k, err)})
			case h.ID != uuid.Nil && record.Batch.ID != h.ID:
				v.Faults = append(v.Faults, Fault{Key: k, ID: record.Batch.ID, Detail: fmt.Sprintf("the id %s points to it, and it has another", h.ID)})
			default:
				v.Batches++
				v.Rows += int64(record.Batch.Rows)
				v.Bytes += record.Size()
			}
		}
	}
	return v, nil
}

// detail is an error in one line, without the batch that it names.
func detail(k Key, err error) string {
	text := strings.TrimPrefix(err.Error(), "batch "+k.String()+": ")
	return strings.ReplaceAll(strings.TrimSuffix(text, carrier), "\n", "; ")
}

// carrier is what the store appends to an error that says which file is damaged.
const carrier = "\n<corruption detail carrier>"
