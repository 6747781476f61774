package intake

import (
	"context"

	"github.com/google/uuid"

	"tallyman/schema/batch"
	"tallyman/source/journal"
)

// The ids of a file's batches need the digest of all of it, which one core makes
// while the others have nothing to do. So its rows are encoded meanwhile, with no
// ids, as far as there is room for them.

// earlyBytes bounds the rows that are kept until their ids are known.
const earlyBytes = 32 << 20

// encoded is a chunk's rows.
type encoded struct {
	number uint64
	line   int64
	rows   int
	value  []byte
}

// know says what ids are made of, and where batches go. It is called once.
func (e *encoding) know(content batch.Digest, j *journal.Journal) {
	e.content, e.journal = content, j
	close(e.known)
}

func (e *encoding) isKnown() bool {
	select {
	case <-e.known:
		return true
	default:
		return false
	}
}

// await waits until ids are known.
func (e *encoding) await(ctx context.Context) error {
	select {
	case <-e.known:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// id returns a chunk's id, once ids are known.
func (e *encoding) id(number uint64) uuid.UUID {
	return batch.FileID(e.manifest.Dataset, string(e.format), e.content, number, e.label)
}

// keep keeps a chunk's rows, if there is room, until ids are known.
func (e *encoding) keep(made encoded) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.kept+len(made.value) > e.room {
		return false
	}
	e.early = append(e.early, made)
	e.kept += len(made.value)
	return true
}

// catchUp makes batches of what was kept, once ids are known.
func (e *encoding) catchUp() {
	for {
		e.mu.Lock()
		if len(e.early) == 0 {
			e.mu.Unlock()
			return
		}
		made := e.early[0]
		e.early[0].value, e.early = nil, e.early[1:]
		e.mu.Unlock()
		e.note(made.number, e.appendEarly(made))
	}
}

// appendEarly makes a batch of rows that have no id.
func (e *encoding) appendEarly(made encoded) error {
	id := e.id(made.number)
	e.codec.SetIDs(made.value, id)
	return e.append(made, id)
}

// finish makes batches of what is still kept at the end of the file.
func (e *encoding) finish(ctx context.Context) error {
	if err := e.await(ctx); err != nil {
		return err
	}
	e.catchUp()
	return nil
}

// reading is the reading of a file into a journal, under way.
type reading struct {
	*encoding
	stop  context.CancelFunc
	ended chan struct{} // closed when these two are known
	total totals
	err   error
}

// begin begins to read the file into a journal that is yet to be named.
func (p *push) begin(ctx context.Context) *reading {
	ctx, stop := context.WithCancel(ctx)
	r := &reading{stop: stop, ended: make(chan struct{}), encoding: &encoding{
		manifest: p.cfg.Manifest, hash: p.hash, codec: p.codec, null: p.cfg.Null,
		format: p.file.Format, label: p.cfg.Again, known: make(chan struct{}), room: earlyBytes,
	}}
	go func() {
		defer close(r.ended)
		r.total, r.err = p.read(ctx, r.encoding)
	}()
	return r
}

// wait returns what the reading came to.
func (r *reading) wait() (totals, error) {
	<-r.ended
	return r.total, r.err
}

// end ends the reading, wherever it is.
func (r *reading) end() {
	r.stop()
	<-r.ended
	r.early = nil
}
