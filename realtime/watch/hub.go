// Package watch keeps exact copies of the buckets that somebody on this node watches, and
// tells subscriptions how their sets change.
//
// A change travels: feed -> bucket (copy) -> driver -> index -> subscription -> Due, Next.
package watch

import (
	"bytes"
	"container/heap"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"dray"
	"dray/realtime/location"
	"dray/redisconn"
)

// Config configures a Hub. Redis and Locations are required.
type Config struct {
	Redis     *redisconn.Client
	Locations *location.Store

	// MaxBuckets bounds the buckets this node holds copies of. Zero means 8 192.
	MaxBuckets int
	// Linger is how long a bucket that nobody watches is kept. Zero means a minute.
	Linger time.Duration

	Metrics prometheus.Registerer // nil: not published
	Logger  *slog.Logger          // nil: slog.Default()
}

func (c *Config) maxBuckets() int {
	if c.MaxBuckets == 0 {
		return 8192
	}
	return c.MaxBuckets
}

func (c *Config) linger() time.Duration {
	if c.Linger == 0 {
		return time.Minute
	}
	return c.Linger
}

// A Hub answers who is near, once or for as long as somebody watches. Safe for concurrent use.
type Hub struct {
	cfg     Config
	metrics *metrics
	tiles   tiles
	began   time.Time // origin of the monotonic clock that staleness runs on
	ctx     context.Context
	stop    context.CancelFunc
	work    sync.WaitGroup // every goroutine of the Hub; added to under mu
	wake    chan struct{}  // the first deadline changed
	finds   sync.Pool      // *finds
	reads   *semaphore.Weighted

	mu        sync.RWMutex // guards the fields below
	closed    bool
	feeds     []*feed // one a partition; nil until it is needed
	buckets   map[location.Bucket]*bucket
	drivers   map[string]*driver
	grid      grid
	index     index
	claims    claims
	followed  map[string]*follow // driver id -> who watches it by id
	deadlines deadlines
	subs      map[*Subscription]struct{}
}

// New makes a Hub. Close it before its location.Store and Redis client.
func New(cfg Config) *Hub {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	h := &Hub{
		cfg:      cfg,
		began:    time.Now(),
		wake:     make(chan struct{}, 1),
		reads:    semaphore.NewWeighted(readers),
		feeds:    make([]*feed, cfg.Redis.Partitions()),
		buckets:  make(map[location.Bucket]*bucket),
		drivers:  make(map[string]*driver),
		grid:     newGrid(),
		followed: make(map[string]*follow),
		subs:     make(map[*Subscription]struct{}),
	}
	h.metrics = newMetrics(cfg.Metrics, h)
	h.ctx, h.stop = context.WithCancel(context.Background())
	h.mu.Lock()
	defer h.mu.Unlock()
	h.attachClaimsLocked() // proves at once that Redis delivers
	h.goLocked(h.expireLoop)
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
	for _, f := range feeds { // before the subscriptions: one may be waiting for them
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
		return location.ErrClosed
	}
	for i, f := range h.feeds {
		if f != nil && !f.conn.Healthy() {
			return dray.Errorf(dray.CodeUnavailable, "the feed of partition %d does not deliver", i)
		}
	}
	return nil
}

// now is milliseconds on the Hub's monotonic clock.
func (h *Hub) now() int64 { return time.Since(h.began).Milliseconds() }

// A driver is one that this node knows to be live.
type driver struct {
	id       string
	record   *record // never nil while it is in Hub.drivers
	bucket   *bucket // whose feed told of record
	deadline int64   // when it is stale, on the Hub's clock
	at       cellRef
	hold     *hold // somebody has claimed it; else nil
	queued   int64 // its place in deadlines was made for this deadline
	moving   bool  // it left bucket for one that is being attached: kept until that is read
}

// A record is one state of a driver. It never changes.
type record struct {
	at         int64 // its timestamp, ms
	receivedAt int64 // ms, by Redis
	point      dray.Point
	vector     vector
	rawAttrs   []byte
	attributes map[string]string
	json       []byte
}

// applyLocked takes in one entry of bucket b. age is how long ago Redis received it; own tells
// that the entry's bytes are in no larger text, which they would keep in memory.
func (h *Hub) applyLocked(b *bucket, e *location.Entry, age int64, own bool) {
	d := h.drivers[string(e.Driver)]
	if e.Left {
		if f := h.followed[string(e.Driver)]; d == nil && f != nil && e.To != 0 {
			h.followMoveLocked(f, b, e.To) // the directory, which named b, is told of a crossing last
			return
		}
		if d == nil || d.bucket != b || e.At < d.record.at {
			return
		}
		reason := dray.LeftOffline
		if e.To != 0 {
			reason = dray.LeftMoved
			if f := h.followed[d.id]; f != nil && h.followMoveLocked(f, b, e.To) {
				d.moving = true
				return
			}
		}
		h.removeLocked(d, reason)
		return
	}
	if d != nil && (e.At < d.record.at || e.At == d.record.at && d.bucket != b) {
		return
	}
	left := h.cfg.Locations.TTL().Milliseconds() - age
	if left <= 0 {
		if d != nil && d.bucket == b {
			h.removeLocked(d, dray.LeftStale)
		}
		return
	}
	r := &record{at: e.At, receivedAt: e.ReceivedAt, point: e.Point, vector: vectorOf(e.Point), json: e.JSON}
	if !own {
		r.json = bytes.Clone(e.JSON)
	}
	var old *record
	if d == nil {
		d = &driver{id: string(e.Driver), hold: h.claims.held[string(e.Driver)]}
		h.drivers[d.id] = d
	} else {
		old = d.record
	}
	if len(e.Attributes) > 0 {
		if old != nil && string(old.rawAttrs) == string(e.Attributes) {
			r.rawAttrs, r.attributes = old.rawAttrs, old.attributes
		} else {
			r.rawAttrs = append([]byte(nil), e.Attributes...)
			if err := dray.Unmarshal(r.rawAttrs, &r.attributes); err != nil {
				h.cfg.Locations.BadRecord(b.id, d.id)
			}
		}
	}
	if d.bucket != b {
		if d.bucket != nil {
			delete(d.bucket.drivers, d)
		}
		d.bucket = b
		b.drivers[d] = struct{}{}
	}
	if d.hold != nil {
		r = r.claimed()
	}
	d.record, d.moving = r, false
	h.gridOf(d).put(d)
	d.deadline = h.now() + left
	if d.queued == 0 {
		d.queued = d.deadline
		heap.Push(&h.deadlines, d)
		if h.deadlines[0] == d {
			h.nudge()
		}
	}
	h.tellLocked(d, old, r, "")
}

// removeLocked takes a driver out of every set.
func (h *Hub) removeLocked(d *driver, reason dray.LeaveReason) {
	delete(h.drivers, d.id)
	delete(d.bucket.drivers, d)
	h.gridOf(d).remove(d)
	d.deadline = 0 // its place in deadlines falls away when it comes up
	h.tellLocked(d, d.record, nil, reason)
}

// tellLocked tells the subscriptions that held old or may hold now.
func (h *Hub) tellLocked(d *driver, old, now *record, reason dray.LeaveReason) {
	if d.hold == nil {
		visit := func(s *Subscription) { s.change(d.id, now, reason) }
		if now != nil {
			h.index.at(now.point, visit)
		}
		if old != nil && (now == nil || old.point != now.point) {
			h.index.at(old.point, visit)
		}
	}
	h.tellFollowersLocked(d.id, now, reason)
}

// tellFollowersLocked tells those that watch a driver by its id.
func (h *Hub) tellFollowersLocked(id string, now *record, reason dray.LeaveReason) {
	if f := h.followed[id]; f != nil {
		for s := range f.subs {
			s.change(id, now, reason)
		}
	}
}

// deadlines is a heap of drivers by queued: the deadline they had when they were put in. An
// update only moves the driver's own deadline, so it costs nothing here; a driver that comes
// up too early goes in again.
type deadlines []*driver

func (q deadlines) Len() int           { return len(q) }
func (q deadlines) Less(i, j int) bool { return q[i].queued < q[j].queued }
func (q deadlines) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *deadlines) Push(x any)        { *q = append(*q, x.(*driver)) }
func (q *deadlines) Pop() any {
	old := *q
	d := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return d
}

func (h *Hub) nudge() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// expireLoop removes drivers at their deadlines.
func (h *Hub) expireLoop() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(h.expire())
		select {
		case <-h.ctx.Done():
			return
		case <-h.wake:
		case <-timer.C:
		}
	}
}

// expire removes those that are due and tells how long until the next may be.
func (h *Hub) expire() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	wait := h.expireHoldsLocked(now)
	for len(h.deadlines) > 0 && h.deadlines[0].queued <= now {
		d := h.deadlines[0]
		switch {
		case d.deadline == 0: // gone already
			heap.Pop(&h.deadlines)
		case d.deadline > now:
			d.queued = d.deadline
			heap.Fix(&h.deadlines, 0)
		default:
			heap.Pop(&h.deadlines)
			h.removeLocked(d, dray.LeftStale)
		}
	}
	if len(h.deadlines) == 0 {
		return wait
	}
	return min(wait, time.Duration(h.deadlines[0].queued-now)*time.Millisecond)
}
