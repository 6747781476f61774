package main

import (
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"

	"tallyman/loader/job"
	"tallyman/sink"
)

func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "tallyman_build_info", Help: "1; the label tells the version.", ConstLabels: prometheus.Labels{"version": version()},
	})
	info.Set(1)
	r.MustRegister(info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// metrics are those of the process and of each load that it runs at the moment.
type metrics struct {
	process *prometheus.Registry

	mu    sync.Mutex
	loads map[*prometheus.Registry]bool
}

func newMetrics(w *job.Worker) *metrics {
	m := &metrics{process: newRegistry(), loads: map[*prometheus.Registry]bool{}}
	m.process.MustRegister(jobCollector{worker: w})
	return m
}

// add returns where the metrics of a load of a revision go, and what ends them.
func (m *metrics) add(r sink.Revision) (prometheus.Registerer, func()) {
	registry := prometheus.NewRegistry()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loads[registry] = true
	labels := prometheus.Labels{"dataset": r.Manifest.Dataset.String(), "revision": strconv.FormatInt(r.ID, 10)}
	return prometheus.WrapRegistererWith(labels, registry), func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.loads, registry)
	}
}

// Gather implements prometheus.Gatherer.
func (m *metrics) Gather() ([]*dto.MetricFamily, error) {
	m.mu.Lock()
	all := prometheus.Gatherers{m.process}
	for registry := range m.loads {
		all = append(all, registry)
	}
	m.mu.Unlock()
	return all.Gather()
}

// jobCollector tells how the jobs stand that a process is there for.
type jobCollector struct{ worker *job.Worker }

func (jobCollector) desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, append([]string{"dataset", "revision", "kind"}, labels...), nil)
}

func (c jobCollector) status() *prometheus.Desc {
	return c.desc("tallyman_job_status", "1 for the status that a job was in when this process last looked.", "status")
}

func (c jobCollector) member() *prometheus.Desc {
	return c.desc("tallyman_job_member", "1 if this process works on the job, 0 if it is idle.")
}

// Describe implements prometheus.Collector.
func (c jobCollector) Describe(descs chan<- *prometheus.Desc) {
	descs <- c.status()
	descs <- c.member()
}

// Collect implements prometheus.Collector.
func (c jobCollector) Collect(metrics chan<- prometheus.Metric) {
	jobs, working, _ := c.worker.Jobs()
	for _, j := range jobs {
		revision := strconv.FormatInt(j.Revision, 10)
		works := 0.0
		if working[j.ID] {
			works = 1
		}
		metrics <- prometheus.MustNewConstMetric(c.status(), prometheus.GaugeValue, 1, j.Dataset, revision, j.Kind, string(j.Status))
		metrics <- prometheus.MustNewConstMetric(c.member(), prometheus.GaugeValue, works, j.Dataset, revision, j.Kind)
	}
}
