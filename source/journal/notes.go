package journal

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2"
)

// Note returns a value that its user once kept in the journal; false: none.
func (j *Journal) Note(name string) (string, bool, error) {
	if err := j.enter(); err != nil {
		return "", false, err
	}
	defer j.using.Done()
	return j.meta(metaNote + name)
}

// SetNote keeps a small value under a name, fsynced. Everything appended
// before is then on disk as well.
func (j *Journal) SetNote(name, value string) error {
	if err := j.enter(); err != nil {
		return err
	}
	defer j.using.Done()
	if err := j.db.Set(metaKey(metaNote+name), []byte(value), pebble.Sync); err != nil {
		return fmt.Errorf("keep note %q: %w", name, err)
	}
	return nil
}

// Notes returns the values whose names begin with a prefix, by their names.
func (j *Journal) Notes(prefix string) (map[string]string, error) {
	if err := j.enter(); err != nil {
		return nil, err
	}
	defer j.using.Done()
	return j.notes(prefix)
}

func (j *Journal) notes(prefix string) (map[string]string, error) {
	found := map[string]string{}
	err := j.scan(kindMeta, func(key, value []byte) error {
		if name, ok := strings.CutPrefix(string(key), metaNote); ok && strings.HasPrefix(name, prefix) {
			found[name] = string(value)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list notes: %w", err)
	}
	return found, nil
}

// DiskBytes returns what the journal takes on the disk.
func (j *Journal) DiskBytes() (int64, error) {
	if err := j.enter(); err != nil {
		return 0, err
	}
	defer j.using.Done()
	return int64(j.db.Metrics().DiskSpaceUsage()), nil
}

func (j *Journal) meta(name string) (string, bool, error) {
	value, closer, err := j.db.Get(metaKey(name))
	if errors.Is(err, pebble.ErrNotFound) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("read %s: %w", name, err)
	}
	owned := string(value) // in one statement with Close it could be read after it
	return owned, true, closer.Close()
}

// Aside is a batch that the broker refuses for good.
type Aside struct {
	Key    Key
	Reason string
}

// Stats describes a journal.
type Stats struct {
	Incarnations int
	Batches      int // in total, over all incarnations
	Unpublished  int // of these, set aside included
	Aside        []Aside
	DiskBytes    int64 // what the directory takes
}

// Stats counts what the journal holds. It reads keys, not batches.
func (j *Journal) Stats() (Stats, error) {
	if err := j.enter(); err != nil {
		return Stats{}, err
	}
	defer j.using.Done()
	st := Stats{DiskBytes: int64(j.db.Metrics().DiskSpaceUsage())}
	err := errors.Join(
		j.scan(kindIncarnation, func(_, _ []byte) error { st.Incarnations++; return nil }),
		j.scan(kindID, func(_, _ []byte) error { st.Batches++; return nil }),
		j.scan(kindUnpublished, func(_, _ []byte) error { st.Unpublished++; return nil }),
		j.scan(kindAside, func(key, value []byte) error {
			k, err := parseKey(key)
			st.Aside = append(st.Aside, Aside{Key: k, Reason: string(value)})
			return err
		}),
	)
	if err != nil {
		return Stats{}, fmt.Errorf("journal statistics: %w", err)
	}
	return st, nil
}

// scan visits the entries of one kind; the key comes without its kind.
func (j *Journal) scan(kind byte, visit func(key, value []byte) error) error {
	return j.scanKeys(kind, func(key []byte, value func() ([]byte, error)) error {
		text, err := value()
		if err != nil {
			return err
		}
		return visit(key, text)
	})
}

// scanKeys is scan for those who do not want every value.
func (j *Journal) scanKeys(kind byte, visit func(key []byte, value func() ([]byte, error)) error) error {
	it, err := j.db.NewIter(bounds([]byte{kind}))
	if err != nil {
		return err
	}
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		err = visit(it.Key()[1:], it.ValueAndErr)
	}
	return errors.Join(err, it.Close())
}
