package daemon

import (
	"context"
	"database/sql"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics are the figures of one daemon, for a listener of the kind "metrics".
// All names begin with dovepost_.
type Metrics struct {
	registry    *prometheus.Registry
	open        *prometheus.GaugeVec
	connections *prometheus.CounterVec
	requests    *prometheus.CounterVec
	latency     *prometheus.HistogramVec
	decisions   *prometheus.CounterVec
}

// NewMetrics makes the figures of the daemon of that name.
func NewMetrics(daemon string) *Metrics {
	always := prometheus.Labels{"daemon": daemon}
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "dovepost_connections_open", Help: "Connections open now.", ConstLabels: always}, []string{"kind"}),
		connections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dovepost_connections_total", Help: "Connections accepted.", ConstLabels: always}, []string{"kind"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dovepost_requests_total", Help: "Requests answered, by result.", ConstLabels: always}, []string{"kind", "result"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "dovepost_request_duration_seconds", Help: "Time from a request to its answer.", ConstLabels: always,
			Buckets: prometheus.ExponentialBuckets(20e-6, 4, 10)}, []string{"kind"}),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dovepost_decisions_total", Help: "Decisions of policyd's rules, by action.", ConstLabels: always}, []string{"rule", "action"}),
	}
	m.registry.MustRegister(m.open, m.connections, m.requests, m.latency, m.decisions,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Observe returns a function that counts one answered request of kind by its
// result, a short word of a small set, and the time it took.
func (m *Metrics) Observe(kind string) func(result string, took time.Duration) {
	latency, count := m.latency.WithLabelValues(kind), byWord(m.requests, kind)
	return func(result string, took time.Duration) {
		count(result)
		latency.Observe(took.Seconds())
	}
}

// Decisions returns a function that counts one decision of a rule by its action, a word of
// a small set.
func (m *Metrics) Decisions(rule string) func(action string) { return byWord(m.decisions, rule) }

// byWord returns a function that counts by vec's second label. It spares the lookup of the labels on
// the hot path.
func byWord(vec *prometheus.CounterVec, label string) func(word string) {
	var counters sync.Map // word -> prometheus.Counter
	return func(word string) {
		counter, ok := counters.Load(word)
		if !ok {
			counter, _ = counters.LoadOrStore(word, vec.WithLabelValues(label, word))
		}
		counter.(prometheus.Counter).Inc()
	}
}

func (m *Metrics) onConn(kind string) func(delta int) {
	open, total := m.open.WithLabelValues(kind), m.connections.WithLabelValues(kind)
	return func(delta int) {
		open.Add(float64(delta))
		if delta > 0 {
			total.Add(float64(delta))
		}
	}
}

// figure is one number that is read when it is asked for.
type figure struct {
	name, help string
	kind       prometheus.ValueType
	value      func() float64
}

func (m *Metrics) register(labels prometheus.Labels, figures []figure) {
	for _, f := range figures {
		opts := prometheus.Opts{Name: f.name, Help: f.help, ConstLabels: labels}
		var c prometheus.Collector
		if f.kind == prometheus.CounterValue {
			c = prometheus.NewCounterFunc(prometheus.CounterOpts(opts), f.value)
		} else {
			c = prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts), f.value)
		}
		// A reload registers its new pools and caches in place of the old ones.
		if err := m.registry.Register(c); err != nil {
			m.registry.Unregister(c)
			m.registry.MustRegister(c)
		}
	}
}

// Pool publishes the figures of a MySQL pool.
func (m *Metrics) Pool(name string, stats func() sql.DBStats) {
	m.register(prometheus.Labels{"pool": name}, []figure{
		{"dovepost_mysql_connections_open", "MySQL connections open.", prometheus.GaugeValue, func() float64 { return float64(stats().OpenConnections) }},
		{"dovepost_mysql_connections_in_use", "MySQL connections at work.", prometheus.GaugeValue, func() float64 { return float64(stats().InUse) }},
		{"dovepost_mysql_connections_max", "Bound of the MySQL pool.", prometheus.GaugeValue, func() float64 { return float64(stats().MaxOpenConnections) }},
		{"dovepost_mysql_waits_total", "Queries that waited for a free connection.", prometheus.CounterValue, func() float64 { return float64(stats().WaitCount) }},
		{"dovepost_mysql_wait_seconds_total", "Time that queries waited for a free connection.", prometheus.CounterValue, func() float64 { return stats().WaitDuration.Seconds() }},
	})
}

// Cache publishes the figures of a cache.
func (m *Metrics) Cache(name string, stats func() (hits, stale, misses, entries, bytes uint64)) {
	pick := func(i int) func() float64 {
		return func() float64 {
			hits, stale, misses, entries, bytes := stats()
			return float64([]uint64{hits, stale, misses, entries, bytes}[i])
		}
	}
	m.register(prometheus.Labels{"cache": name}, []figure{
		{"dovepost_cache_hits_total", "Answers given from the cache.", prometheus.CounterValue, pick(0)},
		{"dovepost_cache_stale_total", "Old answers given because the database did not answer.", prometheus.CounterValue, pick(1)},
		{"dovepost_cache_misses_total", "Answers that the database had to give.", prometheus.CounterValue, pick(2)},
		{"dovepost_cache_entries", "Answers in the cache.", prometheus.GaugeValue, pick(3)},
		{"dovepost_cache_bytes", "Octets that the cache holds.", prometheus.GaugeValue, pick(4)},
	})
}

// Guard publishes the figures of those who guess passwords.
func (m *Metrics) Guard(stats func() (waits, refused, again, delayed, records int64)) {
	pick := func(i int) func() float64 {
		return func() float64 {
			waits, refused, again, delayed, records := stats()
			return float64([]int64{waits, refused, again, delayed, records}[i])
		}
	}
	m.register(nil, []figure{
		{"dovepost_auth_waits_total", "Logins that had to wait before their password was looked at.", prometheus.CounterValue, pick(0)},
		{"dovepost_auth_guard_refused_total", "Logins told to come again later because of where they came from.", prometheus.CounterValue, pick(1)},
		{"dovepost_auth_repeated_failures_total", "Wrong passwords that were tried again.", prometheus.CounterValue, pick(2)},
		{"dovepost_auth_delayed", "Logins that wait now, or whose refusal does.", prometheus.GaugeValue, pick(3)},
		{"dovepost_auth_guard_records", "Networks and accounts that the guard remembers.", prometheus.GaugeValue, pick(4)},
	})
}

// serve answers GET /metrics on ln until ctx ends.
func (m *Metrics) serve(ctx context.Context, ln net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(ln); err != http.ErrServerClosed {
		return err
	}
	return nil
}
