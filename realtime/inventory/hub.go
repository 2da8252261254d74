package inventory

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dray"
	"dray/redisconn"
)

// HubConfig configures a Hub. Redis is required.
type HubConfig struct {
	Redis *redisconn.Client

	// MaxLocations and MaxSKUs bound what this node holds copies of: a subscription that would
	// exceed them is dray.ErrUnavailable. Zero means 8 192 locations, and 500 000 SKUs in all of
	// them, each some 300 bytes. SKUs that are first set while their location is watched are told all the same.
	MaxLocations int
	MaxSKUs      int
	// Linger is how long a location that nobody watches is kept. Zero means a minute.
	Linger time.Duration

	Metrics prometheus.Registerer // nil: not published
	Logger  *slog.Logger          // nil: slog.Default()
}

func (c HubConfig) withDefaults() HubConfig {
	if c.MaxLocations == 0 {
		c.MaxLocations = 8192
	}
	if c.MaxSKUs == 0 {
		c.MaxSKUs = 500_000
	}
	if c.Linger == 0 {
		c.Linger = time.Minute
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// A Hub keeps exact copies of the stock of the locations that somebody on this node watches,
// and tells subscriptions how their rows change. It needs no Store: whichever node makes a
// change, the location's feed tells. Safe for concurrent use.
//
// A change travels: apply.lua -> feed -> replica -> Subscription -> Due, Next.
type Hub struct {
	cfg     HubConfig
	keys    keys
	metrics *hubMetrics
	ctx     context.Context
	stop    context.CancelFunc
	work    sync.WaitGroup // every goroutine of the Hub; added to under mu

	mu       sync.RWMutex // guards the fields below, and replicas' own
	closed   bool
	feeds    []*feed             // one a partition; nil until it is needed
	replicas map[string]*replica // location -> its copy
	skus     int                 // in all of them
	subs     map[*Subscription]struct{}
}

// NewHub makes a Hub. Close it before its Redis client.
func NewHub(cfg HubConfig) *Hub {
	h := &Hub{
		cfg:      cfg.withDefaults(),
		keys:     newKeys(cfg.Redis),
		feeds:    make([]*feed, cfg.Redis.Partitions()),
		replicas: make(map[string]*replica),
		subs:     make(map[*Subscription]struct{}),
	}
	h.metrics = newHubMetrics(cfg.Metrics, h)
	h.ctx, h.stop = context.WithCancel(context.Background())
	h.mu.Lock()
	defer h.mu.Unlock()
	h.goLocked(h.lingerLoop)
	return h
}

// Close ends every subscription and waits for the Hub's goroutines.
func (h *Hub) Close() {
	h.mu.Lock()
	h.closed = true
	h.stop()
	subs := make([]*Subscription, 0, len(h.subs))
	for s := range h.subs {
		subs = append(subs, s)
	}
	feeds := h.feeds
	h.mu.Unlock()
	for _, f := range feeds {
		if f != nil {
			f.conn.Close()
		}
	}
	for _, s := range subs {
		s.Close()
	}
	h.work.Wait()
}

// goLocked runs f in a goroutine that Close waits for; not at all once the Hub is closed.
func (h *Hub) goLocked(f func()) {
	if !h.closed {
		h.work.Go(f)
	}
}

// Ready is nil while every feed in use has proved within the last seconds that it delivers.
func (h *Hub) Ready() error {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.closed {
		return errClosed
	}
	for i, f := range h.feeds {
		if f != nil && !f.conn.Healthy() {
			return dray.Errorf(dray.CodeUnavailable, "the stock feed of partition %d does not deliver", i)
		}
	}
	return nil
}

// A feed hears the locations of one partition.
type feed struct {
	hub  *Hub
	base string // "<prefix>{<tag>}:inv:", before a location in the name of its channel
	conn *redisconn.Feed
}

// feedLocked opens the feed of a location's partition at its first use.
func (h *Hub) feedLocked(location string) *feed {
	partition := h.cfg.Redis.Partition(location)
	f := h.feeds[partition]
	if f == nil {
		f = &feed{hub: h, base: h.keys.bases[partition]}
		f.conn = h.cfg.Redis.OpenFeed(partition, f)
		h.feeds[partition] = f
	}
	return f
}

// Message takes in one message of a location.
func (f *feed) Message(channel, payload string) {
	h := f.hub
	location := strings.TrimSuffix(strings.TrimPrefix(channel, f.base), ":feed")
	m, ok := parseMessage(location, payload)
	if !ok {
		h.cfg.Logger.Error("feed message does not parse", "channel", channel)
		return // the next one will show a gap
	}
	h.metrics.messages.Inc()
	after := make(map[string]*row, len(m.rows)) // made before the lock: others need it
	for sku, stock := range m.after() {
		after[strings.Clone(sku)] = newRow(&stock) // it would hold the message
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if r := h.replicas[location]; r != nil {
		h.hearLocked(r, &m, after)
	}
}

// Reset is called when the feed was made again: whatever it told may have been lost.
func (f *feed) Reset() {
	h := f.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	h.metrics.resets.Inc()
	for _, r := range h.replicas {
		if r.feed == f {
			h.rereadLocked(r) // also while it is read: that may be of before the loss
		}
	}
}

// unreadable counts rows that are not ours, and names their location.
func (h *Hub) unreadable(location string, rows int) {
	if rows > 0 {
		h.metrics.unreadable.Add(float64(rows))
		h.cfg.Logger.Warn("rows of the stock cannot be read", "location", location, "rows", rows)
	}
}

// persist calls f until it succeeds, with pauses from 50 ms to 1 s; false when the Hub is
// closed first.
func (h *Hub) persist(what, location string, f func() error) bool {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := f()
		if err == nil {
			return true
		}
		h.cfg.Logger.Warn(what, "location", location, "error", err)
		select {
		case <-h.ctx.Done():
			return false
		case <-time.After(pause):
		}
	}
}
