package commit

import (
	"context"
	"slices"
	"sync"
	"time"

	"tallyman/loader/consume"
	"tallyman/sink"
)

// lane is one committer with its share of the partitions.
//
// Records wait in inbox until they are decoded and in queue until they are
// committed. Everything below mu is guarded by it; changed is closed and
// replaced whenever something happened that a waiting goroutine may care for.
type lane struct {
	handler   *Handler
	committer sink.Committer

	mu        sync.Mutex
	parts     map[int32]*part
	inbox     []*step
	queue     []*step
	whole     map[int32]*step // the newest known step of each partition, queued or later
	queued    int64           // bytes of rows in queue and in flight
	flying    bool            // a group is being submitted
	rereading bool            // what comes may have been loaded before: the newest group was, or the newest look ahead
	trouble   error           // why the group in flight is not committed yet
	puzzled   error           // why it is not known by which manifest a batch is to be read
	stopped   string          // the reason for which nothing moves until a person mends it; empty: none
	changed   chan struct{}
}

// part is one partition that this member owns.
type part struct {
	session  uint64
	live     bool // between Begin and End, or a fence
	position sink.Position
	high     int64
	pending  []stamp // data records handed over and not committed, in offset order
}

// stamp is when, by Kafka's clock, a record was published.
type stamp struct {
	offset int64
	at     time.Time
}

// newLane returns a lane without partitions.
func newLane(h *Handler, c sink.Committer) *lane {
	return &lane{handler: h, committer: c, parts: map[int32]*part{}, whole: map[int32]*step{}, changed: make(chan struct{})}
}

// broadcast wakes everyone who waits for a change. The caller holds mu.
func (l *lane) broadcast() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// begin starts a session of a partition.
func (l *lane) begin(p sink.Position) {
	number := p.Partition.Number
	l.drop(func(n int32) bool { return n == number })
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.parts[number]
	next := &part{session: 1, live: true, position: p, high: p.Next}
	if old != nil {
		next.session = old.session + 1
	}
	l.parts[number] = next
	l.rereading = l.handler.config.Ledger != nil // if nothing is known, one look tells
	l.broadcast()
}

// handle queues records for decoding, or drops them if their session is over.
func (l *lane) handle(number int32, records []consume.Record) {
	now := l.handler.config.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.parts[number]
	if p == nil || !p.live {
		for i := range records {
			records[i].Release()
		}
		return
	}
	for i := range records {
		r := records[i]
		p.high = max(p.high, r.HighWater)
		if !r.Skip {
			p.pending = append(p.pending, stamp{offset: r.Offset, at: r.Timestamp})
		}
		l.inbox = append(l.inbox, &step{record: r, session: p.session, arrived: now})
	}
	l.broadcast()
}

// drop ends the sessions of the chosen partitions and forgets what is queued of them.
func (l *lane) drop(chosen func(int32) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for number, p := range l.parts {
		if chosen(number) {
			p.live = false
			p.session++
			p.pending = nil
			delete(l.whole, number)
		}
	}
	l.inbox = l.prune(l.inbox)
	before := l.queue
	for _, s := range before {
		if l.stale(s) {
			l.queued -= s.bytes
		}
	}
	l.queue = l.prune(l.queue)
	l.broadcast()
}

// stale says that the step's session is over. The caller holds mu.
func (l *lane) stale(s *step) bool {
	p := l.parts[s.partition()]
	return p == nil || !p.live || p.session != s.session
}

// prune returns the steps whose session goes on and releases the others. The caller holds mu.
func (l *lane) prune(steps []*step) []*step {
	var kept []*step
	for _, s := range steps {
		if l.stale(s) {
			s.record.Release()
		} else {
			kept = append(kept, s)
		}
	}
	return kept
}

// settle waits until no group is in flight, or ctx ends.
func (l *lane) settle(ctx context.Context) {
	for {
		l.mu.Lock()
		flying, changed := l.flying, l.changed
		l.mu.Unlock()
		if !flying {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// decode turns records into steps until ctx ends. It stays about one group
// ahead of the committer, so that decoded rows never pile up.
func (l *lane) decode(ctx context.Context) {
	for {
		steps, changed := l.arrived()
		if len(steps) == 0 {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return
			}
		}
		l.lookAhead(ctx, steps)
		for _, s := range steps {
			if !s.known {
				l.handler.decoder.decode(s)
				l.find(ctx, s)
			}
			s.measure()
			l.enqueue(s)
		}
	}
}

// enqueue puts a decoded step into the queue. A known one that stays whole to
// recognise the log by takes the place of the one before it.
func (l *lane) enqueue(s *step) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stale(s) {
		s.record.Release()
		return
	}
	if s.known && !s.bare {
		if before := l.whole[s.partition()]; before != nil && before.waits {
			l.queued -= before.bytes
			before.strip()
		}
		l.whole[s.partition()] = s
	}
	s.waits = true
	l.queue = append(l.queue, s)
	l.queued += s.bytes
	l.broadcast()
}

// arrived takes what is to be decoded next off the inbox: one step, or several
// while a topic is read again; none, if there is no room or nothing there.
func (l *lane) arrived() (steps []*step, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.queued >= 2*l.handler.config.GroupBytes || len(l.queue) >= 2*l.handler.config.GroupBatches {
		return nil, l.changed
	}
	n := min(1, len(l.inbox))
	if l.rereading {
		n = min(aheadSteps, len(l.inbox))
	}
	steps = slices.Clone(l.inbox[:n])
	clear(l.inbox[:n])
	l.inbox = l.inbox[n:]
	return steps, l.changed
}

// commit submits groups until ctx ends.
func (l *lane) commit(ctx context.Context) {
	for ctx.Err() == nil {
		steps := l.take(ctx)
		if len(steps) == 0 {
			continue
		}
		l.submit(ctx, steps)
		l.land(steps)
	}
}

// take waits for something to commit and cuts a group from the queue: all that
// is there, up to the limits. Steps that only pass wait for PassEvery.
func (l *lane) take(ctx context.Context) []*step {
	for {
		l.mu.Lock()
		wait := l.due()
		if wait == 0 {
			steps := l.cut()
			l.flying = true
			l.mu.Unlock()
			return steps
		}
		changed := l.changed
		l.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		timer.Stop()
	}
}

// due returns how long the queue may still wait: nothing, if there is
// something to load in it. The caller holds mu.
func (l *lane) due() time.Duration {
	if len(l.queue) == 0 {
		return time.Hour
	}
	for _, s := range l.queue {
		if !s.passes() {
			return 0
		}
	}
	return max(0, l.handler.config.PassEvery-l.handler.config.Now().Sub(l.queue[0].arrived))
}

// cut takes a group's worth of steps off the queue. The caller holds mu.
func (l *lane) cut() []*step {
	var bytes int64
	n := 0
	for n < len(l.queue) && n < l.handler.config.GroupBatches {
		bytes += l.queue[n].rows()
		if n > 0 && bytes > l.handler.config.GroupBytes {
			break
		}
		n++
	}
	steps := l.queue[:n:n]
	l.queue = l.queue[n:]
	for _, s := range steps {
		s.waits = false
	}
	return steps
}

// land releases the steps of a group that is no longer in flight.
func (l *lane) land(steps []*step) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range steps {
		l.queued -= s.bytes
		s.record.Release()
	}
	l.flying = false
	l.trouble = nil
	l.stop("")
	l.broadcast()
}

// advanced notes that a transaction moved positions. Steps of sessions that
// ended meanwhile are passed over.
func (l *lane) advanced(advances []sink.Advance) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range advances {
		p := l.parts[a.Partition.Number]
		if p == nil || !p.live || p.position.Era != a.Era || p.position.Next != a.From {
			continue
		}
		p.position.Next = a.To
		n := 0
		for n < len(p.pending) && p.pending[n].offset < a.To {
			n++
		}
		p.pending = p.pending[n:]
	}
	l.broadcast()
}

// lags returns the lag of the lane's partitions at a time.
func (l *lane) lags(now time.Time) []Lag {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lags []Lag
	for number, p := range l.parts {
		if !p.live {
			continue
		}
		high := p.high
		if h, ok := l.handler.config.HighWater(number); ok {
			high = max(high, h)
		}
		lag := Lag{Partition: p.position.Partition, Next: p.position.Next, Messages: max(0, high-p.position.Next)}
		if len(p.pending) > 0 {
			lag.Age = max(0, now.Sub(p.pending[0].at))
		}
		lags = append(lags, lag)
	}
	return lags
}

// condition returns why the lane does not go on; nil if it does.
func (l *lane) condition() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.trouble != nil {
		return l.trouble
	}
	return l.puzzled
}
