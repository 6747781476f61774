package replay

import (
	"errors"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tallyman/source/journal"
)

type metrics struct {
	registerer  prometheus.Registerer
	batches     prometheus.Counter
	bytes       prometheus.Counter
	announced   prometheus.Counter
	trimmed     prometheus.Counter
	refused     prometheus.Counter
	stuck       prometheus.Gauge
	lost        prometheus.Gauge
	unconfirmed prometheus.Gauge
	age         *prometheus.GaugeVec
	all         []prometheus.Collector
}

func newMetrics(r prometheus.Registerer, j *journal.Journal) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &metrics{
		registerer:  r,
		batches:     counter("tallyman_source_replayed_batches_total", "Batches published again, because a target misses them or somebody asked for them."),
		bytes:       counter("tallyman_source_replayed_bytes_total", "Bytes of rows in batches published again, before compression."),
		announced:   counter("tallyman_source_ends_announced_again_total", "Times that the end of an earlier stream was announced again."),
		trimmed:     counter("tallyman_source_trimmed_batches_total", "Batches deleted from the journal, which every target had confirmed."),
		refused:     counter("tallyman_source_receipts_refused_total", "Receipts that could not be read."),
		stuck:       gauge("tallyman_source_stuck_batches", "Batches that a target still misses after they were sent as often as they may be."),
		lost:        gauge("tallyman_source_lost_batches", "Batches that a target misses and the journal does not have any more, or only damaged."),
		unconfirmed: gauge("tallyman_source_oldest_unconfirmed_seconds", "Age of the oldest batch that a target has not confirmed; 0: all are confirmed."),
		age: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tallyman_source_receipt_age_seconds", Help: "Age of the newest receipt of a target, by the clocks of both.",
		}, []string{"target"}),
	}
	disk := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tallyman_source_journal_bytes", Help: "What the journal takes on the disk.",
	}, func() float64 {
		n, err := j.DiskBytes()
		if err != nil {
			return math.NaN() // it is being closed
		}
		return float64(n)
	})
	m.all = []prometheus.Collector{m.batches, m.bytes, m.announced, m.trimmed, m.refused, m.stuck, m.lost, m.unconfirmed, m.age, disk}
	if r == nil {
		return m, nil
	}
	var errs []error
	for _, c := range m.all {
		errs = append(errs, r.Register(c))
	}
	return m, errors.Join(errs...)
}

// unregister lets a later replayer use the same registerer.
func (m *metrics) unregister() {
	if m.registerer == nil {
		return
	}
	for _, c := range m.all {
		m.registerer.Unregister(c)
	}
}

// count counts a batch that was sent.
func (m *metrics) count(o Outcome) {
	if o.State == Sent {
		m.batches.Inc()
		m.bytes.Add(float64(o.Bytes))
	}
}

// measure brings the gauges up to date.
func (r *Replayer) measure() {
	now := time.Now()
	var stuck, lost uint64
	r.mu.Lock()
	first := map[journal.Stream]uint64{}
	for _, e := range r.book.streams {
		confirmed := uint64(math.MaxUint64)
		for _, s := range e.said {
			a, b := s.holes.sums()
			stuck, lost = stuck+a, lost+b
		}
		for _, name := range r.book.expected() {
			s := e.said[name]
			if s == nil {
				confirmed = 0
				break
			}
			confirmed = min(confirmed, s.receipt.Through)
		}
		if len(r.book.expected()) > 0 && confirmed < math.MaxUint64 {
			first[e.stream] = confirmed + 1
		}
	}
	for name, t := range r.book.targets {
		if !t.newest.IsZero() {
			r.metrics.age.WithLabelValues(name).Set(max(now.Sub(t.newest).Seconds(), 0))
		}
	}
	r.mu.Unlock()
	r.metrics.stuck.Set(float64(stuck))
	r.metrics.lost.Set(float64(lost))
	r.metrics.unconfirmed.Set(r.oldest(first, now).Seconds())
}

// oldest returns how long the oldest batch has been in the journal, of those at or
// above each stream's first number that is not confirmed.
func (r *Replayer) oldest(first map[journal.Stream]uint64, now time.Time) (age time.Duration) {
	for s, n := range first {
		held, err := r.cfg.Journal.Held(s, n, math.MaxUint64, 1)
		if err != nil || len(held) == 0 {
			continue
		}
		if at, err := r.cfg.Journal.ThereBy(journal.Key{Stream: s, Sequence: held[0]}); err == nil && !at.IsZero() {
			age = max(age, now.Sub(at))
		}
	}
	return age
}
