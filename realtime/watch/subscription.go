package watch

import (
	"context"
	"sync"
	"time"

	"dray"
	"dray/realtime/location"
)

// A Change is what one frame of a subscription says.
type Change struct {
	Snapshot bool     // Entered is the whole set; replaces all that the client holds
	Version  uint64   // grows with every Change of a subscription
	Entered  [][]byte // Driver objects of the contract, JSON, shared by all subscriptions: read only
	Moved    [][]byte
	Left     []dray.Leave
	Oldest   int64 // receivedAt of the position longest on its way, Unix ms; 0 where there is none
}

// Options of a subscription.
type Options struct {
	// Interval is the least time between two Changes; 0 is at once.
	Interval time.Duration
	// Due is called when Next has something to say. It is called with locks held: it must not
	// block, nor call the Hub or its subscriptions. Once called, it is not called again until
	// Next was.
	Due func()
}

// A Subscription is one watched set. Next is for one goroutine, the rest for any.
type Subscription struct {
	hub *Hub
	o   Options

	// held by Subscribe, Update and Close alone, one at a time
	turn    sync.Mutex
	region  *region  // read by change under mu
	listing *listing // of region
	buckets []*bucket
	closed  bool

	mu       sync.Mutex // guards the fields below; taken after Hub.mu
	filter   dray.Filter
	known    map[*record]bool   // what judge found, while the region is set
	live     bool               // the snapshot may be sent
	members  map[string]*member // driver id -> what the client holds and should hold
	dirty    []*member
	version  uint64
	whole    bool // the next Change is a snapshot
	told     bool // Due was called and Next was not yet
	armed    bool // the timer runs
	last     time.Time
	timer    *time.Timer
	finished bool
}

// A member is a driver that is in the set, or that the client believes to be.
type member struct {
	id     string
	record *record // nil when it is not in the set
	sent   *record // what the client holds; nil when it does not
	reason dray.LeaveReason
	dirty  int // its place in Subscription.dirty, from 1; 0 when it is not there
}

// Subscribe watches the drivers inside shape that pass filter. It returns once the copies
// are attached; the first Next is then the snapshot, and is due already (Due is called).
// shape.Stock is not for this Hub. Invalid shapes are dray.ErrBadRequest or dray.ErrTooLarge.
func (h *Hub) Subscribe(ctx context.Context, shape dray.Shape, filter dray.Filter, o Options) (*Subscription, error) {
	if o.Interval < 0 || o.Interval > dray.MaxInterval {
		return nil, bad("intervalMs", "must be within 0 and %d", dray.MaxInterval.Milliseconds())
	}
	s := &Subscription{hub: h, o: o, members: make(map[string]*member), whole: true}
	s.timer = time.AfterFunc(time.Hour, s.tick)
	s.timer.Stop()
	if err := s.set(ctx, &shape, &filter, func() {}); err != nil {
		return nil, err
	}
	return s, nil
}

// Update changes the shape, the filter, or both (nil leaves it). accepted is called when
// the change is certain and before the difference is due, with locks held as for
// Options.Due. On an error the subscription is as before.
func (s *Subscription) Update(ctx context.Context, shape *dray.Shape, filter *dray.Filter, accepted func()) error {
	return s.set(ctx, shape, filter, accepted)
}

func (s *Subscription) set(ctx context.Context, shape *dray.Shape, filter *dray.Filter, accepted func()) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.closed {
		return dray.ErrNotFound
	}
	region, buckets := s.region, s.buckets
	if filter != nil {
		if err := filter.Validate(); err != nil {
			return err
		}
	}
	h := s.hub
	if shape != nil {
		var err error
		if region, err = compile(*shape); err != nil {
			return err
		}
		if region.ids != nil {
			err = h.followAll(ctx, region.ids)
			buckets = nil
		} else if ids, e := h.tiles.cover(region); e != nil {
			err = e
		} else {
			buckets, err = h.attach(ctx, ids)
		}
		if err != nil {
			return err
		}
	}

	next := newListing(s, region.boxes)
	known := h.judge(region)

	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return location.ErrClosed
	}
	h.subs[s] = struct{}{}
	s.mu.Lock()
	defer s.mu.Unlock()
	before, listed, held := s.region, s.listing, s.buckets
	s.region, s.buckets = region, buckets
	if filter != nil {
		s.filter = *filter
	}
	if shape != nil {
		h.unlistLocked(s, before, listed, held)
		s.listing = next
		h.index.add(next)
		for _, b := range buckets {
			b.subs[s] = struct{}{}
		}
		for _, id := range region.ids {
			h.followed[id].subs[s] = struct{}{}
		}
		h.releaseLocked(held)
	}
	s.known = known
	// those that are out, then those that are in
	for _, m := range s.members {
		if m.record == nil {
			continue
		}
		if in, why := s.inside(m.id, m.record); !in {
			if why == dray.LeftMoved {
				why = dray.LeftShape
			}
			s.changeLocked(m.id, nil, why)
		}
	}
	h.scanLocked(region, func(d *driver) { s.changeLocked(d.id, d.record, "") })
	s.known = nil
	s.live = true
	accepted()
	s.wakeLocked()
	return nil
}

// judge tells of each record about which are inside a costly region, before the lock is
// taken that all feeds and questions wait for; what changes meanwhile is judged under it.
// nil for other regions.
func (h *Hub) judge(r *region) map[*record]bool {
	if !r.costly {
		return nil
	}
	known := make(map[*record]bool)
	h.mu.RLock()
	h.scanLocked(r, func(d *driver) { known[d.record] = false })
	h.mu.RUnlock()
	for x := range known {
		known[x] = r.contains(x.point, x.vector)
	}
	return known
}

// scanLocked visits every driver that may be inside r.
func (h *Hub) scanLocked(r *region, visit func(d *driver)) {
	for _, id := range r.ids {
		if d := h.drivers[id]; d != nil {
			visit(d)
		}
	}
	for _, b := range r.boxes {
		h.grid.scan(b, func(x *spot) { visit(x.driver) })
	}
}

// unlistLocked takes s out of where its region had listed it.
func (h *Hub) unlistLocked(s *Subscription, r *region, l *listing, held []*bucket) {
	if r == nil {
		return
	}
	h.index.remove(l)
	for _, b := range held {
		delete(b.subs, s)
	}
	h.unfollowLocked(s, r.ids)
}

// inside tells whether a record belongs to the set, and if not, why.
func (s *Subscription) inside(id string, r *record) (bool, dray.LeaveReason) {
	if s.region.ids != nil {
		if !s.region.has(id) {
			return false, dray.LeftMoved
		}
	} else if in, known := s.known[r]; known && !in || !known && !s.region.contains(r.point, r.vector) {
		return false, dray.LeftMoved
	}
	if len(s.filter) > 0 && !s.filter.Match(r.attributes) {
		return false, dray.LeftFilter
	}
	return true, ""
}

// change takes in the newest state of a driver: a record, or nil and why it left.
func (s *Subscription) change(id string, r *record, reason dray.LeaveReason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changeLocked(id, r, reason)
	s.wakeLocked()
}

func (s *Subscription) changeLocked(id string, r *record, reason dray.LeaveReason) {
	in := false
	if r != nil {
		in, reason = s.inside(id, r)
	}
	m := s.members[id]
	switch {
	case m == nil && !in, m != nil && !in && m.record == nil, m != nil && in && m.record == r:
		return
	case m == nil:
		m = &member{id: id}
		s.members[id] = m
	}
	if !in && m.sent == nil { // the client never heard of it, and need not
		delete(s.members, id)
		if m.dirty > 0 {
			last := len(s.dirty) - 1
			s.dirty[m.dirty-1] = s.dirty[last]
			s.dirty[m.dirty-1].dirty = m.dirty
			s.dirty[last] = nil
			s.dirty = s.dirty[:last]
		}
		return
	}
	if m.record, m.reason = r, reason; !in {
		m.record = nil
	}
	if m.dirty == 0 {
		s.dirty = append(s.dirty, m)
		m.dirty = len(s.dirty)
	}
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

// Next fills c with what changed since the last Next, reusing its slices, and tells
// whether there is anything. Latest wins: however long it was not called, it holds one
// entry a driver.
func (s *Subscription) Next(c *Change) bool {
	*c = Change{Entered: c.Entered[:0], Moved: c.Moved[:0], Left: c.Left[:0]}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.finished || !s.told {
		return false
	}
	s.told, s.last = false, time.Now()
	c.Snapshot, s.whole = s.whole, false
	if c.Snapshot {
		for _, m := range s.members {
			s.sayLocked(c, m)
		}
	} else {
		for _, m := range s.dirty {
			s.sayLocked(c, m)
		}
	}
	clear(s.dirty)
	s.dirty = s.dirty[:0]
	if !c.Snapshot && len(c.Entered)+len(c.Moved)+len(c.Left) == 0 {
		return false
	}
	s.version++
	c.Version = s.version
	return true
}

// sayLocked puts into c how m differs from what the client holds.
func (s *Subscription) sayLocked(c *Change, m *member) {
	m.dirty = 0
	switch {
	case m.record != nil && (m.sent == nil || c.Snapshot):
		c.Entered = append(c.Entered, m.record.json)
	case m.record != nil:
		c.Moved = append(c.Moved, m.record.json)
	default:
		if m.sent != nil && !c.Snapshot {
			c.Left = append(c.Left, dray.Leave{Driver: m.id, Reason: m.reason})
		}
		delete(s.members, m.id)
		return
	}
	if m.record != m.sent && (c.Oldest == 0 || m.record.receivedAt < c.Oldest) {
		c.Oldest = m.record.receivedAt
	}
	m.sent = m.record
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
	h.unlistLocked(s, s.region, s.listing, s.buckets)
	h.releaseLocked(s.buckets)
	delete(h.subs, s)
	s.finished = true
	s.timer.Stop()
	s.members, s.dirty = nil, nil
}
