package consume

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
)

// step is a record batch that may be believed, in its place in the log.
type step struct {
	rawBatch
	from int64 // the first offset that it tells of; what lies before in it was read already
	drop bool  // it belongs to a transaction that was aborted
}

// claim is what an answer says of a batch that no checksum covers, other than
// that it follows on what was read. It has to be said twice.
type claim struct {
	base, last int64
	drop       bool
	list       uint64 // a hash of what drop was told from: different lies can come to the same
}

// hearsay are the claims of one answer, by the offset from which they go on.
type hearsay map[int64]claim

// vet goes through the batches of an answer that was fetched at offset next,
// and returns those that may be believed. heard are the claims that have to be
// made once more; told those of the answer before. The error says what came
// damaged; what lies behind it is asked for again.
func vet(p *fetched, next int64, told hearsay) (steps []step, heard hearsay, err error) {
	aborts := newAborts(p.transactions)
	heard = hearsay{}
	believed := true
	for i := range p.batches {
		b := &p.batches[i]
		switch b.fault {
		case badCRC, badMagic:
			return steps, heard, fmt.Errorf("the record batch at offset %d came damaged", next)
		case cutShort:
			return steps, heard, nil // how a full answer ends
		}
		drop := aborts.pass(b)
		if b.last < next {
			continue // a broker sends whole batches, of which some were read
		}
		// Nothing but the answer's list of aborted transactions says whether a
		// transaction was committed.
		plain := b.base == next && (b.control() || !b.transactional())
		c := claim{base: b.base, last: b.last, drop: drop}
		if b.transactional() {
			c.list = aborts.list
		}
		if !plain && told[next] != c {
			believed = false
		}
		if !plain && !believed {
			heard[next] = c
		}
		if believed {
			steps = append(steps, step{rawBatch: *b, from: next, drop: drop})
		}
		next = b.last + 1
	}
	return steps, heard, nil
}

// aborts knows, while the batches of one answer are passed in order, which
// producers are in the middle of a transaction that was aborted.
type aborts struct {
	coming []aborted // by first offset
	active map[int64]bool
	list   uint64 // a hash of all
}

func newAborts(transactions []aborted) *aborts {
	slices.SortFunc(transactions, func(a, b aborted) int {
		switch {
		case a.first < b.first:
			return -1
		case a.first > b.first:
			return 1
		}
		return 0
	})
	h := fnv.New64a()
	for _, t := range transactions {
		_ = binary.Write(h, binary.BigEndian, []int64{t.producer, t.first})
	}
	return &aborts{coming: transactions, active: map[int64]bool{}, list: h.Sum64()}
}

// pass takes note of a batch, and says whether it belongs to an aborted
// transaction. A control batch ends its producer's.
func (a *aborts) pass(b *rawBatch) (drop bool) {
	for len(a.coming) > 0 && a.coming[0].first <= b.last {
		a.active[a.coming[0].producer] = true
		a.coming = a.coming[1:]
	}
	if !b.control() {
		return b.transactional() && a.active[b.producer]
	}
	if controlAbort(b.records) {
		delete(a.active, b.producer)
	}
	return false
}
