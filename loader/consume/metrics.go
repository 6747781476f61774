package consume

import "github.com/prometheus/client_golang/prometheus"

// metrics are what one consumer tells Prometheus.
type metrics struct {
	generations prometheus.Counter
	rewinds     prometheus.Counter
	gaps        prometheus.Counter
	failures    *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, c *Consumer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		generations: counter("tallyman_loader_group_generations_total", "Generations of the consumer group that this member took part in."),
		rewinds:     counter("tallyman_loader_topic_rewinds_total", "Rewinds to a log's start, because the topic was deleted and made again."),
		gaps:        counter("tallyman_loader_gap_messages_total", "Offsets that were gone from the log before they were read."),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tallyman_loader_fetch_failures_total", Help: "Fetches that failed and were or will be repeated, by cause.",
		}, []string{"cause"}),
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	for _, collector := range []prometheus.Collector{
		m.generations, m.rewinds, m.gaps, m.failures,
		gauge("tallyman_loader_read_ahead_bytes", "Decompressed bytes that were read and are not yet committed.", func() float64 {
			return float64(c.budget.held.Load())
		}),
		gauge("tallyman_loader_partitions", "Partitions that this member reads.", func() float64 {
			if s := c.current(); s != nil {
				return float64(len(s.numbers))
			}
			return 0
		}),
	} {
		if err := reg.Register(collector); err != nil {
			return nil, err
		}
	}
	return m, nil
}
