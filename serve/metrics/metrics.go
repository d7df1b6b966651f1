// Package metrics counts what a mirror does, for Prometheus. Names follow its
// conventions, and no label has a value that a client can choose.
package metrics

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"mirrorctl/serve"
	"mirrorctl/store"
)

// Sources are what is asked when somebody looks. All are called concurrently; nil
// leaves the metric out.
type Sources struct {
	Version     string
	Totals      func(context.Context) (store.Totals, error)
	Connections func() map[string]float64                // now, and by why they ended: open, client, total, evicted, slow
	Refused     func() map[string]float64                // requests, by reason
	Upstream    func() (received int64, transfers int)   //
	Budgets     func() map[string]Budget                 // by registry
	Expiry      func() (time.Time, bool)                 // of the certificate
	Reload      func() (last time.Time, successful bool) // of the configuration
}

// Budget is what a registry grants.
type Budget struct{ Limit, Remaining int }

// Metrics counts requests: it is a [serve.Observer]. It is safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	bytes    [serve.Kinds]prometheus.Counter
	seconds  [serve.Kinds]prometheus.Observer
	inFlight [serve.Kinds]prometheus.Gauge
	// counters are those of requests that came before: looking one up by its
	// labels takes longer than counting.
	counters [serve.Kinds][len(caches)][600]atomic.Pointer[prometheus.Counter]
}

// caches are the values of the label cache.
var caches = [...]string{"none", "hit", "miss"}

// New returns metrics.
func New(s Sources) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mirrorctl_requests_total",
		Help: "Requests answered, by what was asked for, status, and whether it was stored (hit), fetched or missing (miss), or neither (none).",
	}, []string{"kind", "status", "cache"})
	bytes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mirrorctl_response_bytes_total", Help: "Bytes of answers sent to clients, without headers, counted when an answer ends.",
	}, []string{"kind"})
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "mirrorctl_request_duration_seconds", Help: "Time from a request to the end of its answer.",
		Buckets: []float64{.0001, .001, .01, .1, 1, 10, 100},
	}, []string{"kind"})
	inFlight := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "mirrorctl_requests_in_flight", Help: "Requests being answered.",
	}, []string{"kind"})
	for k := range serve.Kinds {
		m.bytes[k] = bytes.WithLabelValues(k.String())
		m.seconds[k] = seconds.WithLabelValues(k.String())
		m.inFlight[k] = inFlight.WithLabelValues(k.String())
	}
	m.registry.MustRegister(m.requests, bytes, seconds, inFlight, newSourced(s),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Handler answers with all metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// Begin counts a request that is being answered.
func (m *Metrics) Begin(k serve.Kind) { m.inFlight[k].Inc() }

// End counts one that has been.
func (m *Metrics) End(k serve.Kind, status int, cache string, bytes int64, took time.Duration) {
	m.inFlight[k].Dec()
	m.bytes[k].Add(float64(bytes))
	m.seconds[k].Observe(took.Seconds())
	c := 0
	for i, name := range caches {
		if cache == name {
			c = i
		}
	}
	if status < 0 || status >= len(m.counters[k][c]) {
		status = 0
	}
	counter := m.counters[k][c][status].Load()
	if counter == nil {
		one := m.requests.WithLabelValues(k.String(), strconv.Itoa(status), caches[c])
		counter = &one
		m.counters[k][c][status].Store(counter)
	}
	(*counter).Inc()
}

// totalsFor is how long the totals of the store are not asked for again: with a
// million blobs that takes a quarter of a second.
const totalsFor = time.Minute

// sourced collects what the sources say.
type sourced struct {
	Sources
	mu    sync.Mutex
	asked time.Time
	last  store.Totals
}

func newSourced(s Sources) *sourced { return &sourced{Sources: s} }

// Describe says nothing in advance: what there is depends on the sources.
func (*sourced) Describe(chan<- *prometheus.Desc) {}

func (s *sourced) Collect(out chan<- prometheus.Metric) {
	send := func(name, help string, kind prometheus.ValueType, value float64, labels ...string) {
		var names, values []string
		for i := 0; i < len(labels); i += 2 {
			names, values = append(names, labels[i]), append(values, labels[i+1])
		}
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc("mirrorctl_"+name, help, names, nil), kind, value, values...)
	}
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue
	send("build_info", "Always 1; the version is in the label.", gauge, 1, "version", s.Version)
	if s.Totals != nil {
		totals, err := s.totals()
		up := 1.0
		if err != nil {
			up = 0
		} else {
			send("store_pins", "Pinned images.", gauge, float64(totals.Pins))
			send("store_blobs", "Complete blobs, manifests too.", gauge, float64(totals.Blobs))
			send("store_bytes", "Bytes of complete blobs.", gauge, float64(totals.Bytes))
		}
		send("store_readable", "Whether the store could be read when it was asked last.", gauge, up)
	}
	if s.Connections != nil {
		for name, n := range s.Connections() {
			if name == "open" {
				send("connections", "Open connections.", gauge, n)
				continue
			}
			send("connections_cut_total", "Connections refused (client, total), closed in favour of others (evicted), and answers cut off because they were taken too slowly (slow).", counter, n, "reason", name)
		}
	}
	if s.Refused != nil {
		for reason, n := range s.Refused() {
			send("requests_refused_total", "Requests that were refused: network, login, or fetch, which may not cause a download.", counter, n, "reason", reason)
		}
	}
	if s.Upstream != nil {
		received, transfers := s.Upstream()
		send("upstream_received_bytes_total", "Bytes of content received from upstreams.", counter, float64(received))
		send("upstream_transfers_in_flight", "Blobs being received from upstreams.", gauge, float64(transfers))
	}
	if s.Budgets != nil {
		for registry, b := range s.Budgets() {
			send("upstream_budget_limit", "Requests for manifests that a registry grants in a window.", gauge, float64(b.Limit), "registry", registry)
			send("upstream_budget_remaining", "How many of them were left, as it said last.", gauge, float64(b.Remaining), "registry", registry)
		}
	}
	if s.Expiry != nil {
		if at, ok := s.Expiry(); ok {
			send("certificate_expiry_timestamp_seconds", "When the certificate ends.", gauge, float64(at.Unix()))
		}
	}
	if s.Reload != nil {
		at, ok := s.Reload()
		value := 0.0
		if ok {
			value = 1
		}
		send("config_last_reload_successful", "Whether what was read last could be used.", gauge, value)
		send("config_last_reload_timestamp_seconds", "When that was.", gauge, float64(at.Unix()))
	}
}

func (s *sourced) totals() (store.Totals, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.asked.IsZero() && time.Since(s.asked) < totalsFor {
		return s.last, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	totals, err := s.Totals(ctx)
	if err == nil {
		s.asked, s.last = time.Now(), totals
	}
	return totals, err
}
