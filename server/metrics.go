package server

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are the counters of requests, in a registry of their own. Every
// series exists from the start, at zero, so that a rate over a first event is
// right. What a request counts is looked up when the routes are made.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	problems map[string]prometheus.Counter // by code; filled at the start, then only read
	handler  http.Handler
}

// outcomes of a request, in order of the hundreds of its status.
var outcomes = []string{"ok", "client_error", "server_error"}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kvs_http_requests_total",
			Help: "Requests answered, by route, method and outcome (ok, client_error, server_error).",
		}, []string{"route", "method", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "kvs_http_request_seconds",
			Help:    "Time from a request's headers to its answer, by route and method.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5},
		}, []string{"route", "method"}),
		problems: make(map[string]prometheus.Counter),
	}
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "kvs_http_problems_total",
		Help: "Requests refused, by problem code.",
	}, []string{"code"})
	for _, p := range problems {
		m.problems[p.code] = refused.WithLabelValues(p.code)
	}
	m.registry.MustRegister(m.requests, m.seconds, refused,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.handler = promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
	return m
}

// meter counts the requests of one route and method.
type meter struct {
	outcomes [3]prometheus.Counter
	seconds  prometheus.Observer
}

func (m *metrics) meter(route, method string) *meter {
	t := &meter{seconds: m.seconds.WithLabelValues(route, method)}
	for i, outcome := range outcomes {
		t.outcomes[i] = m.requests.WithLabelValues(route, method, outcome)
	}
	return t
}

func (t *meter) observe(status int, took time.Duration) {
	t.outcomes[min(max(status/100-3, 0), 2)].Inc()
	t.seconds.Observe(took.Seconds())
}

// serveMetrics answers GET /metrics.
func (a *api) serveMetrics(w http.ResponseWriter, r *request) error {
	if _, err := parseParams(r); err != nil {
		return err
	}
	a.metrics.handler.ServeHTTP(w, r.Request)
	return nil
}
