package serve

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count requests.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	active   prometheus.Gauge
	rows     prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tallyman_http_requests_total", Help: "Requests that were answered, by path and status.",
		}, []string{"path", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tallyman_http_request_seconds", Help: "From a request's headers to its answer.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
		}, []string{"path"}),
		active: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tallyman_http_requests_active", Help: "Requests that are being worked on.",
		}),
		rows: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tallyman_http_rows_total", Help: "Rows of requests that were answered with 202; those sent again count again.",
		}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.requests, m.seconds, m.active, m.rows} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// watched is the answer to one request.
type watched struct {
	http.ResponseWriter
	metrics *metrics
	path    string
	began   time.Time
	status  int
}

func (m *metrics) begin(w http.ResponseWriter, path string) *watched {
	m.active.Inc()
	return &watched{ResponseWriter: w, metrics: m, path: path, began: time.Now(), status: http.StatusOK}
}

// WriteHeader implements http.ResponseWriter.
func (w *watched) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *watched) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *watched) end() {
	w.metrics.active.Dec()
	w.metrics.requests.WithLabelValues(w.path, strconv.Itoa(w.status)).Inc()
	w.metrics.seconds.WithLabelValues(w.path).Observe(time.Since(w.began).Seconds())
}
