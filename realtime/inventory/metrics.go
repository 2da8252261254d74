package inventory

import (
	"errors"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dray"
)

// metrics is the one list of what this package counts.
type metrics struct {
	done                          map[byte]prometheus.Counter // by kind of op
	refused                       *prometheus.CounterVec
	expired, repeated, unreadable prometheus.Counter
	shortLines                    prometheus.Counter
	notReplicated                 prometheus.Counter
	batch, seconds                prometheus.Histogram
	differences                   prometheus.Gauge
}

// kinds names the requests that are counted.
var kinds = map[byte]string{'h': "reserve", 'p': "reserve", 'c': "commit", 'r': "release", 'e': "extend", 's': "set", 'a': "adjust"}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "dray", Subsystem: "inventory", Name: name, Help: help})
	}
	vec := func(name, help string, label ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "dray", Subsystem: "inventory", Name: name, Help: help}, label)
	}
	m := &metrics{
		done:          map[byte]prometheus.Counter{},
		refused:       vec("refused_total", "Requests refused, by kind and code.", "kind", "code"),
		expired:       counter("expired_total", "Reservations that expired and gave units back."),
		repeated:      counter("repeated_total", "Requests answered from their idempotency key."),
		unreadable:    counter("unreadable_total", "Records in Redis that did not parse."),
		shortLines:    counter("short_lines_total", "Lines of carts for which there was not enough stock."),
		notReplicated: counter("not_replicated_total", "Changes that fewer replicas confirmed in time than were asked for."),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "dray", Subsystem: "inventory", Name: "batch_size", Help: "Requests in one script call.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 10),
		}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "dray", Subsystem: "inventory", Name: "call_seconds", Help: "Time of one script call, with the wait for replicas.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 15),
		}),
		differences: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "dray", Subsystem: "inventory", Name: "audit_differences",
			Help: "Differences between counters, reservations and ledger that the last audit found.",
		}),
	}
	done := vec("done_total", "Requests done, by kind.", "kind")
	for op, kind := range kinds {
		m.done[op] = done.WithLabelValues(kind)
	}
	if reg != nil {
		reg.MustRegister(done, m.refused, m.expired, m.repeated, m.unreadable, m.shortLines, m.notReplicated, m.batch, m.seconds, m.differences)
	}
	return m
}

func (m *metrics) call(requests int, took time.Duration) {
	m.batch.Observe(float64(requests))
	m.seconds.Observe(took.Seconds())
}

func (m *metrics) expire(count string) {
	if n, err := strconv.Atoi(count); err == nil && n > 0 {
		m.expired.Add(float64(n))
	}
}

// settled counts what became of o.
func (m *metrics) settled(o *op) {
	kind, ok := kinds[o.kind]
	if !ok {
		return
	}
	if o.err != nil {
		m.refused.WithLabelValues(kind, string(dray.CodeOf(o.err))).Inc()
		if e, is := errors.AsType[*dray.Error](o.err); is && e.Code == dray.CodeInsufficientStock {
			m.shortLines.Add(float64(len(e.Details)))
		}
		return
	}
	if o.answer[0] == '=' {
		m.repeated.Inc()
	}
	m.done[o.kind].Inc()
	if o.acked < o.ref.replicas {
		m.notReplicated.Inc()
	}
}
