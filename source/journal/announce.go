package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"tallyman/schema"
	"tallyman/schema/batch"
)

// Announced is an announcement that the journal has prepared, and the topic that
// it belongs on.
type Announced struct {
	Topic        string
	Announcement batch.Announcement
	// Heard says that Kafka has had it.
	Heard bool
}

// spoken is what the journal keeps of the last announcement of a stream.
type spoken struct {
	Topic string    `json:"topic"`
	At    time.Time `json:"at"`
	Over  bool      `json:"over,omitempty"` // Kafka has the final one
}

// Announce prepares a statement on a stream of this opening: how far it is
// numbered, and when. The clock is read before the number, under the lock that
// gives numbers out, and never goes back, over all openings of the journal; and
// everything up to the number is on disk once Announce returns.
func (j *Journal) Announce(topic string, d schema.Dataset, final bool) (Announced, error) {
	if err := j.enter(); err != nil {
		return Announced{}, err
	}
	defer j.using.Done()
	j.speaking.Lock()
	defer j.speaking.Unlock()
	s := j.stream(d)
	s.mu.Lock()
	at := j.now()
	last := s.last
	s.mu.Unlock()
	return j.speak(topic, Key{Stream: Stream{Incarnation: j.incarnation, Dataset: d}, Sequence: last}, at, final)
}

// speak makes an announcement and keeps its time. Callers hold j.speaking.
func (j *Journal) speak(topic string, k Key, at time.Time, final bool) (Announced, error) {
	value, err := json.Marshal(spoken{Topic: topic, At: at})
	if err != nil {
		return Announced{}, err
	}
	b := j.db.NewBatch()
	defer func() { _ = b.Close() }()
	err = errors.Join(
		b.Set(metaKey(metaClock), []byte(at.Format(time.RFC3339Nano)), nil),
		b.Set(appendStream(nil, kindAnnounced, k.Stream), value, nil),
		j.mark(b, k, at, final),
		b.Commit(pebble.Sync), // and with it everything that was written before
	)
	if err != nil {
		return Announced{}, fmt.Errorf("announce %s: %w", k, err)
	}
	return j.announced(topic, k, at, final), nil
}

func (j *Journal) announced(topic string, k Key, at time.Time, final bool) Announced {
	a := batch.Announcement{
		Source: j.cfg.Source, Incarnation: k.Incarnation, Dataset: k.Dataset, Sequence: k.Sequence, At: at, Final: final,
	}
	a.Seal()
	return Announced{Topic: topic, Announcement: a}
}

// now is the clock that never goes back. Callers hold j.speaking.
func (j *Journal) now() time.Time {
	at := time.Now().UTC().Truncate(time.Microsecond)
	if !at.After(j.clock) {
		at = j.clock.Add(time.Microsecond)
	}
	j.clock = at
	return at
}

// readClock reads where the clock was at the last announcement.
func (j *Journal) readClock() error {
	text, ok, err := j.meta(metaClock)
	if err != nil || !ok {
		return err
	}
	if j.clock, err = time.Parse(time.RFC3339Nano, text); err != nil {
		return fmt.Errorf("its clock is %q: %w", text, err)
	}
	return nil
}

// Finals returns the final announcements of the streams of earlier openings, each
// with the highest number that it had: of those that Kafka is not known to have,
// or of all. What Kafka has is said again as it was. Topic is empty where the
// journal can't tell it.
func (j *Journal) Finals(all bool) ([]Announced, error) {
	if err := j.enter(); err != nil {
		return nil, err
	}
	defer j.using.Done()
	j.speaking.Lock()
	defer j.speaking.Unlock()
	streams := map[Stream]*unfinished{}
	err := j.spokenStreams(streams)
	if err == nil {
		err = j.filledStreams(streams, all)
	}
	if err == nil {
		// After the batches: what is trimmed meanwhile is seen here or was seen there.
		err = j.trimmedStreams(streams)
	}
	if err != nil {
		return nil, fmt.Errorf("list streams of earlier openings: %w", err)
	}
	var finals []Announced
	for s, u := range streams {
		k := Key{Stream: s, Sequence: u.last}
		switch {
		case u.over && !all || s.Incarnation == j.incarnation:
		case u.over:
			a := j.announced(u.topic, k, u.at, true)
			a.Heard = true
			finals = append(finals, a)
		default:
			a, err := j.speak(u.topic, k, j.now(), true)
			if err != nil {
				return nil, err
			}
			finals = append(finals, a)
		}
	}
	return finals, nil
}

// unfinished is what is known of a stream: zero topic, nothing but that it is there.
type unfinished struct {
	topic string
	at    time.Time // of its last announcement
	last  uint64
	over  bool
}

// spokenStreams finds the streams that something was announced of.
func (j *Journal) spokenStreams(streams map[Stream]*unfinished) error {
	return j.scan(kindAnnounced, func(key, value []byte) error {
		s, err := parseStream(key)
		if err != nil {
			return err
		}
		var said spoken
		if err := json.Unmarshal(value, &said); err != nil {
			return fmt.Errorf("announcement of %s %s: %w", s.Dataset, s.Incarnation, err)
		}
		streams[s] = &unfinished{topic: said.Topic, at: said.At, over: said.Over}
		return nil
	})
}

// filledStreams finds the streams that have batches, and their last ones,
// without reading more than one of each. Streams that are over are passed,
// unless all are wanted.
func (j *Journal) filledStreams(streams map[Stream]*unfinished, all bool) error {
	it, err := j.db.NewIter(bounds([]byte{kindBatch}))
	if err != nil {
		return err
	}
	for ok := it.First(); ok && err == nil; {
		var k Key
		if k, err = parseKey(it.Key()[1:]); err != nil {
			break
		}
		end := upper(appendStream(nil, kindBatch, k.Stream))
		if u := streams[k.Stream]; u == nil || !u.over || all {
			it.SeekLT(end)
			if u == nil {
				u = &unfinished{}
				streams[k.Stream] = u
			}
			err = u.end(it)
		}
		ok = it.SeekGE(end)
	}
	return errors.Join(err, it.Close())
}

// end takes the stream's last number, and the topic if it is not known, from
// the batch under the iterator.
func (u *unfinished) end(it *pebble.Iterator) error {
	k, err := parseKey(it.Key()[1:])
	if err != nil {
		return err
	}
	u.last = k.Sequence
	if u.topic != "" {
		return nil
	}
	if r, err := current(it); err == nil { // a damaged batch is told of when it is published
		u.topic = r.Topic
	}
	return nil
}

// Finished notes that Kafka has the final announcement of a stream.
func (j *Journal) Finished(a Announced) error {
	if err := j.enter(); err != nil {
		return err
	}
	defer j.using.Done()
	value, err := json.Marshal(spoken{Topic: a.Topic, At: a.Announcement.At, Over: true})
	if err != nil {
		return err
	}
	key := appendStream(nil, kindAnnounced, Stream{Incarnation: a.Announcement.Incarnation, Dataset: a.Announcement.Dataset})
	if err := j.db.Set(key, value, pebble.NoSync); err != nil {
		return fmt.Errorf("note the end of stream %s: %w", a.Announcement.Incarnation, err)
	}
	return nil
}
