package publish

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	registerer  prometheus.Registerer
	collectors  []prometheus.Collector
	published   *prometheus.CounterVec
	bytes       *prometheus.CounterVec
	failures    *prometheus.CounterVec
	unpublished prometheus.Gauge
	aside       prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"topic"})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &metrics{
		registerer:  r,
		published:   counter("tallyman_source_published_batches_total", "Batches that all in-sync replicas have acknowledged."),
		bytes:       counter("tallyman_source_published_bytes_total", "Bytes of rows in acknowledged batches, before compression."),
		failures:    counter("tallyman_source_publish_failures_total", "Attempts to publish a batch that failed and were or will be repeated."),
		unpublished: gauge("tallyman_source_unpublished_batches", "Batches in the journal that Kafka has not acknowledged yet."),
		aside:       gauge("tallyman_source_set_aside_batches", "Batches set aside since the start, because the broker refuses them for good or the journal can't read them."),
	}
	m.collectors = []prometheus.Collector{m.published, m.bytes, m.failures, m.unpublished, m.aside}
	if r == nil {
		return m, nil
	}
	var errs []error
	for _, c := range m.collectors {
		errs = append(errs, r.Register(c))
	}
	return m, errors.Join(errs...)
}

// unregister lets a later publisher use the same registerer.
func (m *metrics) unregister() {
	if m.registerer == nil {
		return
	}
	for _, c := range m.collectors {
		m.registerer.Unregister(c)
	}
}
