package watch

import "github.com/prometheus/client_golang/prometheus"

// metrics is the one list of what this package counts.
type metrics struct {
	messages, gaps, resets, reads, rereads, questions, fallbacks prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, h *Hub) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "dray", Subsystem: "watch", Name: name, Help: help})
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "dray", Subsystem: "watch", Name: name, Help: help}, func() float64 {
			h.mu.RLock()
			defer h.mu.RUnlock()
			return value()
		})
	}
	m := &metrics{
		messages:  counter("feed_messages_total", "Messages heard from feeds."),
		gaps:      counter("gaps_total", "Gaps in the numbers of a feed's messages."),
		resets:    counter("feed_resets_total", "Feeds that were connected again."),
		reads:     counter("bucket_reads_total", "Buckets read from Redis."),
		rereads:   counter("bucket_rereads_total", "Buckets read again after a gap or a reset."),
		questions: counter("questions_total", "Nearby questions."),
		fallbacks: counter("question_fallbacks_total", "Nearby questions that Redis had to answer."),
	}
	if reg != nil {
		reg.MustRegister(m.messages, m.gaps, m.resets, m.reads, m.rereads, m.questions, m.fallbacks,
			gauge("drivers", "Drivers in the copies of this node.", func() float64 { return float64(len(h.drivers)) }),
			gauge("claimed_drivers", "Drivers that are held by a claim, as this node knows.", func() float64 { return float64(len(h.claims.held)) }),
			gauge("buckets", "Buckets this node holds copies of.", func() float64 { return float64(len(h.buckets)) }),
			gauge("subscriptions", "Live subscriptions.", func() float64 { return float64(len(h.subs)) }),
			gauge("feed_lag_seconds", "Slowest way of a probe from publisher to this node.", func() (lag float64) {
				for _, f := range h.feeds {
					if f != nil {
						lag = max(lag, f.conn.Lag().Seconds())
					}
				}
				return lag
			}))
	}
	return m
}
