package inventory

import (
	"context"
	"slices"
	"sync"
	"time"

	"dray"
)

// A Change is what one frame of a subscription says. Its slices are reused; what they hold is
// shared: read only.
type Change struct {
	Snapshot bool              // Rows are all there are; they replace what the client holds
	Version  uint64            // grows with every Change of a subscription
	Rows     [][]byte          // Stock objects of the contract, JSON
	Left     []dray.StockLeave // held by the client, and no longer named by the shape
	Events   []dray.StockEvent // thresholds crossed since the Change before, also before a snapshot that came again
}

// WatchOptions of a subscription.
type WatchOptions struct {
	// Interval is the least time between two Changes; 0 is at once.
	Interval time.Duration
	// Due is called when Next has something to say. It is called with locks held: it must not
	// block, nor call the Hub or its subscriptions. Once called, it is not called again until
	// Next was.
	Due func()
}

// A Subscription is the watched stock of one location. Next is for one goroutine, the rest for
// any. It holds nothing of a row but while the client's is an older one.
type Subscription struct {
	hub *Hub
	o   WatchOptions

	// held by Subscribe, Update and Close alone, one at a time; changed under Hub.mu
	turn    sync.Mutex
	replica *replica
	skus    []string // in order, each once; nil for all
	closed  bool

	mu       sync.Mutex // guards the fields below; taken after Hub.mu
	low      int64
	live     bool               // the snapshot may be sent
	fresh    bool               // no snapshot of this location was sent yet
	dirty    map[string]pending // SKU -> how what the client holds differs
	version  uint64
	whole    bool // the next Change is a snapshot
	told     bool // Due was called and Next was not yet
	armed    bool // the timer runs
	last     time.Time
	timer    *time.Timer
	finished bool
}

// A pending is a row as the client holds it, and as it should; nil is none. They differ.
type pending struct{ sent, now *row }

// Subscribe watches the stock that shape names. It returns once the copy is attached; the first
// Next is then the snapshot, and is due already (Due is called). A location without stock is an
// empty snapshot. Invalid shapes are dray.ErrBadRequest or dray.ErrTooLarge.
func (h *Hub) Subscribe(ctx context.Context, shape dray.StockShape, o WatchOptions) (*Subscription, error) {
	if o.Interval < 0 || o.Interval > dray.MaxInterval {
		return nil, dray.FieldError(dray.CodeBadRequest, "intervalMs", "must be within 0 and %d", dray.MaxInterval.Milliseconds())
	}
	s := &Subscription{hub: h, o: o, dirty: make(map[string]pending)}
	s.timer = time.AfterFunc(time.Hour, s.tick)
	s.timer.Stop()
	if err := s.Update(ctx, shape, func() {}); err != nil {
		return nil, err
	}
	return s, nil
}

// Update changes the shape. Within a location the difference is due then: rows that are newly
// named, and leaves; another location is due as a snapshot. accepted is called when the change is
// certain and before the difference is due, with locks held as for WatchOptions.Due. On an
// error the subscription is as before.
func (s *Subscription) Update(ctx context.Context, shape dray.StockShape, accepted func()) error {
	if err := shape.Validate(); err != nil {
		return err
	}
	var skus []string
	if len(shape.SKUs) > 0 {
		skus = slices.Compact(slices.Sorted(slices.Values(shape.SKUs)))
	}
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.closed {
		return dray.ErrNotFound
	}
	h := s.hub
	r, err := h.attach(ctx, shape.Location)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return errClosed
	}
	h.subs[s] = struct{}{}
	s.mu.Lock()
	defer s.mu.Unlock()
	if before := s.replica; before != nil {
		before.unlistLocked(s, s.skus)
		h.releaseLocked(before)
	}
	switch {
	case s.replica != r:
		s.whole, s.fresh = true, true
		clear(s.dirty)
	case !s.fresh:
		r.eachLocked(s.skus, func(sku string, x *row) {
			if !isNamed(skus, sku) {
				s.turnLocked(sku, x, nil)
			}
		})
		r.eachLocked(skus, func(sku string, x *row) {
			if !isNamed(s.skus, sku) {
				s.turnLocked(sku, nil, x)
			}
		})
	}
	s.replica, s.skus, s.low = r, skus, shape.Low
	r.listLocked(s, skus)
	s.live = true
	accepted()
	s.wakeLocked()
	return nil
}

// isNamed tells whether sku is one of skus, which are in order; nil names all.
func isNamed(skus []string, sku string) bool {
	_, found := slices.BinarySearch(skus, sku)
	return found || skus == nil
}

// change takes in that a row turned from was to now.
func (s *Subscription) change(sku string, was, now *row) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fresh {
		return // the snapshot will tell
	}
	s.turnLocked(sku, was, now)
	s.wakeLocked()
}

// turnLocked notes that the row that the client should hold turned from was to now.
func (s *Subscription) turnLocked(sku string, was, now *row) {
	p, dirty := s.dirty[sku]
	if !dirty {
		p.sent = was
	}
	if p.now = now; p.now == p.sent {
		delete(s.dirty, sku)
		return
	}
	s.dirty[sku] = p
}

// resend makes the next Change a snapshot.
func (s *Subscription) resend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.whole = true
	s.wakeLocked()
}

// wakeLocked calls Due now, or sees that the timer will.
func (s *Subscription) wakeLocked() {
	if s.told || !s.live || s.finished || len(s.dirty) == 0 && !s.whole {
		return
	}
	if wait := s.o.Interval - time.Since(s.last); wait > 0 && !s.whole { // a snapshot does not wait
		if !s.armed {
			s.armed = true
			s.timer.Reset(wait)
		}
		return
	}
	s.told = true
	s.o.Due()
}

// tick is the timer's.
func (s *Subscription) tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed = false
	s.wakeLocked()
}

// manyDirty is the size from which a set of changes is made anew, for emptying costs its room.
const manyDirty = 1024

// Next fills c with what changed since the last Next, and tells whether there is anything.
// Latest wins: however long it was not called, it holds one entry a SKU.
func (s *Subscription) Next(c *Change) bool {
	*c = Change{Rows: c.Rows[:0], Left: c.Left[:0], Events: c.Events[:0]}
	s.mu.Lock()
	if s.whole { // only Next undoes that; the rows are the Hub's, whose lock comes first
		s.mu.Unlock()
		s.hub.mu.RLock()
		defer s.hub.mu.RUnlock()
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	if s.finished || !s.told {
		return false
	}
	s.told, s.last = false, time.Now()
	c.Snapshot = s.whole
	s.whole, s.fresh = false, false
	for sku, p := range s.dirty {
		s.sayLocked(c, sku, p)
	}
	if len(s.dirty) < manyDirty {
		clear(s.dirty)
	} else {
		s.dirty = make(map[string]pending)
	}
	if c.Snapshot {
		s.replica.eachLocked(s.skus, func(_ string, x *row) { c.Rows = append(c.Rows, x.json) })
	} else if len(c.Rows)+len(c.Left) == 0 {
		return false
	}
	s.version++
	c.Version = s.version
	s.hub.metrics.frames.Inc()
	s.hub.metrics.events.Add(float64(len(c.Events)))
	return true
}

// sayLocked puts into c how a row differs from what the client holds; a snapshot tells the rows itself.
func (s *Subscription) sayLocked(c *Change, sku string, p pending) {
	switch {
	case c.Snapshot:
	case p.now == nil:
		c.Left = append(c.Left, dray.StockLeave{SKU: sku, Reason: dray.LeftShape})
	default:
		c.Rows = append(c.Rows, p.now.json)
	}
	if p.sent == nil || p.now == nil { // nothing to compare
		return
	}
	if kind, crossed := dray.StockCrossing(p.sent.available, p.now.available, s.low); crossed {
		c.Events = append(c.Events, dray.StockEvent{SKU: sku, Event: kind, Available: p.now.available})
	}
}

// Close ends the subscription; Due is not called after it returned.
func (s *Subscription) Close() {
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replica.unlistLocked(s, s.skus)
	h.releaseLocked(s.replica)
	delete(h.subs, s)
	s.finished = true
	s.timer.Stop()
	s.dirty = nil
}
