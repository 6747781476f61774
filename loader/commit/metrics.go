package commit

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tallyman/sink"
)

// metrics are what one load tells Prometheus. A process that works on several
// loads registers each with a label of its own on the Registerer.
type metrics struct {
	batches     *prometheus.CounterVec
	quarantined *prometheus.CounterVec
	rows        prometheus.Counter
	bytes       prometheus.Counter
	errors      *prometheus.CounterVec
	commit      prometheus.Histogram
	group       prometheus.Histogram
	last        prometheus.Gauge
	stopped     *prometheus.GaugeVec
	announced   prometheus.Counter
	refused     *prometheus.CounterVec
}

// newMetrics makes and registers the metrics.
func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.CounterOpts { return prometheus.CounterOpts{Name: name, Help: help} }
	gauge := func(name, help string) prometheus.GaugeOpts { return prometheus.GaugeOpts{Name: name, Help: help} }
	m := &metrics{
		batches: prometheus.NewCounterVec(counter("tallyman_loader_batches_total",
			"Batches committed, by outcome: loaded, duplicate, conflict (quarantined, the id stands for other content) or quarantined."), []string{"outcome"}),
		quarantined: prometheus.NewCounterVec(counter("tallyman_loader_quarantined_total",
			"Batches quarantined, conflicts included, by reason."), []string{"reason"}),
		rows:  prometheus.NewCounter(counter("tallyman_loader_rows_total", "Rows loaded.")),
		bytes: prometheus.NewCounter(counter("tallyman_loader_bytes_total", "Bytes of rows loaded, as native tuples.")),
		errors: prometheus.NewCounterVec(counter("tallyman_loader_commit_errors_total",
			"Warehouse transactions that failed, by class of error."), []string{"class"}),
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tallyman_loader_commit_seconds", Help: "Duration of warehouse transactions that committed.",
			Buckets: prometheus.ExponentialBuckets(0.002, 2, 13),
		}),
		group: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tallyman_loader_group_batches", Help: "Batches in a transaction that committed.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 12),
		}),
		last: prometheus.NewGauge(gauge("tallyman_loader_last_commit_timestamp_seconds", "Unix time of the last commit; 0: none yet.")),
		stopped: prometheus.NewGaugeVec(gauge("tallyman_loader_stopped",
			"Committers at a stop until a person mends the named cause."), []string{"reason"}),
		announced: prometheus.NewCounter(counter("tallyman_loader_announcements_total", "Announcements of sources committed.")),
		refused: prometheus.NewCounterVec(counter("tallyman_loader_announcements_refused_total",
			"Announcements that were not taken, by fault. They change nothing; what was announced before stays."), []string{"fault"}),
	}
	for _, c := range []prometheus.Collector{m.batches, m.quarantined, m.rows, m.bytes, m.errors, m.commit, m.group, m.last, m.stopped, m.announced, m.refused} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	for _, outcome := range []string{"loaded", "duplicate", "conflict", "quarantined"} {
		m.batches.WithLabelValues(outcome) // a counter that starts at 0 can be alarmed on from its first step
	}
	return m, nil
}

// committed counts a group that is durable.
func (m *metrics) committed(g *sink.Group, res sink.Result, took time.Duration) {
	m.commit.Observe(took.Seconds())
	if n := len(g.Elements) + len(g.Dead); n > 0 {
		m.group.Observe(float64(n))
	}
	m.last.SetToCurrentTime()
	for i, outcome := range res.Outcomes {
		e := &g.Elements[i]
		switch outcome {
		case sink.Loaded:
			m.batches.WithLabelValues("loaded").Inc()
			m.rows.Add(float64(e.Batch.Rows))
			m.bytes.Add(float64(len(e.Tuples)))
		case sink.Duplicate:
			m.batches.WithLabelValues("duplicate").Inc()
		case sink.Conflict:
			m.batches.WithLabelValues("conflict").Inc()
		case sink.Expired:
			m.batches.WithLabelValues("quarantined").Inc()
		}
		if reason := outcome.Refused(); reason != "" {
			m.quarantined.WithLabelValues(string(reason)).Inc()
		}
	}
	m.announced.Add(float64(len(g.Announcements) - len(res.Refused)))
	for i := range g.Dead {
		m.batches.WithLabelValues("quarantined").Inc()
		m.quarantined.WithLabelValues(string(g.Dead[i].Reason)).Inc()
	}
}

// lag describes the two gauges that a scrape computes from the partitions.
type lag struct {
	handler  *Handler
	seconds  *prometheus.Desc
	messages *prometheus.Desc
}

// newLag makes the collector of a handler's load lag.
func newLag(h *Handler) *lag {
	return &lag{
		handler: h,
		seconds: prometheus.NewDesc("tallyman_loader_lag_seconds",
			"Age, by Kafka's timestamp, of the oldest batch that is not yet committed.", []string{"topic", "partition"}, nil),
		messages: prometheus.NewDesc("tallyman_loader_lag_messages",
			"Offsets between the committed position and the high watermark.", []string{"topic", "partition"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (l *lag) Describe(ch chan<- *prometheus.Desc) { ch <- l.seconds; ch <- l.messages }

// Collect implements prometheus.Collector.
func (l *lag) Collect(ch chan<- prometheus.Metric) {
	for _, p := range l.handler.Lags() {
		number := strconv.Itoa(int(p.Partition.Number))
		ch <- prometheus.MustNewConstMetric(l.seconds, prometheus.GaugeValue, p.Age.Seconds(), p.Partition.Topic, number)
		ch <- prometheus.MustNewConstMetric(l.messages, prometheus.GaugeValue, float64(p.Messages), p.Partition.Topic, number)
	}
}
