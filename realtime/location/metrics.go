package location

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics is the one list of what this package counts.
type metrics struct {
	taken, crossings, badRecords, trailErrors prometheus.Counter
	outcomes                                  [Refused + 1]prometheus.Counter
	batch, flush                              prometheus.Histogram
	badLogged                                 atomic.Int64 // Unix seconds
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "dray", Subsystem: "positions", Name: name, Help: help})
	}
	m := &metrics{
		taken:       counter("taken_total", "Positions taken from clients."),
		crossings:   counter("crossings_total", "Entries into a bucket of another partition."),
		badRecords:  counter("bad_records_total", "Records in Redis that did not parse."),
		trailErrors: counter("trail_errors_total", "Positions that were not added to their driver's trail."),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "dray", Subsystem: "positions", Name: "batch_size", Help: "Positions in one script call.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 10),
		}),
		flush: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "dray", Subsystem: "positions", Name: "flush_seconds", Help: "Time of one script call.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 15),
		}),
	}
	m.outcomes[Stored] = counter("stored_total", "Positions stored in Redis.")
	m.outcomes[Superseded] = counter("superseded_total", "Positions that were not newer than the one held.")
	m.outcomes[Refused] = counter("refused_total", "Positions that were not valid or that Redis did not take.")
	if reg != nil {
		reg.MustRegister(m.taken, m.crossings, m.badRecords, m.trailErrors, m.batch, m.flush,
			m.outcomes[Stored], m.outcomes[Superseded], m.outcomes[Refused])
	}
	return m
}
