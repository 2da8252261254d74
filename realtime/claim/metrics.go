package claim

import "github.com/prometheus/client_golang/prometheus"

// metrics is the one list of what this package counts. How many drivers are held now is
// told by package watch (dray_watch_claimed_drivers).
type metrics struct {
	claims, replayed, refused, taken, lost, released, expired prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "dray", Subsystem: "claims", Name: name, Help: help})
		if reg != nil {
			reg.MustRegister(c)
		}
		return c
	}
	return &metrics{
		claims:   counter("made_total", "Claims made."),
		replayed: counter("replayed_total", "Claims answered as before, by their idempotency key."),
		refused:  counter("refused_total", "Claims refused because no driver was available."),
		taken:    counter("drivers_taken_total", "Drivers taken by claims."),
		lost:     counter("drivers_lost_total", "Drivers that were to be claimed and that a rival had taken."),
		released: counter("drivers_released_total", "Drivers given back before their claim's time was over."),
		expired:  counter("drivers_expired_total", "Drivers whose claim's time was over, counted when they are cleared away."),
	}
}
