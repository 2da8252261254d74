package inventory

import "github.com/prometheus/client_golang/prometheus"

// hubMetrics is the one list of what a Hub counts.
type hubMetrics struct {
	messages, gaps, resets, reads, rereads prometheus.Counter
	frames, events, unreadable             prometheus.Counter
}

func newHubMetrics(reg prometheus.Registerer, h *Hub) *hubMetrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "dray", Subsystem: "livestock", Name: name, Help: help})
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "dray", Subsystem: "livestock", Name: name, Help: help}, func() float64 {
			h.mu.RLock()
			defer h.mu.RUnlock()
			return value()
		})
	}
	m := &hubMetrics{
		messages:   counter("feed_messages_total", "Messages heard from feeds of stock."),
		gaps:       counter("gaps_total", "Gaps in the numbers of a location's entries."),
		resets:     counter("feed_resets_total", "Feeds of stock that were connected again."),
		reads:      counter("reads_total", "Locations read from Redis."),
		rereads:    counter("rereads_total", "Locations read again after a gap or a reset."),
		frames:     counter("frames_total", "Snapshots and deltas of stock made for subscriptions."),
		events:     counter("events_total", "Events low, out and back told to subscriptions."),
		unreadable: counter("unreadable_total", "Rows of stock that did not parse."),
	}
	if reg != nil {
		reg.MustRegister(m.messages, m.gaps, m.resets, m.reads, m.rereads, m.frames, m.events, m.unreadable,
			gauge("skus", "SKUs in the copies of this node.", func() float64 { return float64(h.skus) }),
			gauge("locations", "Locations this node holds copies of.", func() float64 { return float64(len(h.replicas)) }),
			gauge("subscriptions", "Live subscriptions to stock.", func() float64 { return float64(len(h.subs)) }),
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
