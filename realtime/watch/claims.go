package watch

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"slices"
	"strings"
	"time"

	"dray"
	"dray/realtime/claim"
	"dray/realtime/location"
	"dray/redisconn"
)

// claims is this node's copy of who is held (package claim), kept as a bucket's is: heard
// first and read then; a gap in the numbers, or a feed that was made again, means read again.
//
// A live driver that is held stands in claims.grid instead of Hub.grid, and only those who
// follow it by id are told of it. So the others cost nothing here.
type claims struct {
	feed    *feed
	heard   bool          // the channel is subscribed to
	ready   chan struct{} // closed when it is live
	live    bool          // it was read once
	reading bool          // what the feed tells is kept in waiting until the read is there
	epoch   int           // counts the reads asked for: an older one that comes late is not taken
	number  int64         // of the last message that the copy holds
	waiting []message

	held map[string]*hold // driver id -> its hold, whether it is live or not
	due  holds
	grid grid
}

// A hold is a driver that somebody has claimed.
type hold struct {
	driver string
	until  int64 // on the Hub's clock
	place  int   // in claims.due
}

// holds is a heap by until.
type holds []*hold

func (q holds) Len() int           { return len(q) }
func (q holds) Less(i, j int) bool { return q[i].until < q[j].until }
func (q holds) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}
func (q *holds) Push(x any) {
	x.(*hold).place = len(*q)
	*q = append(*q, x.(*hold))
}
func (q *holds) Pop() any {
	old := *q
	x := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return x
}

// attachClaimsLocked begins to listen and to read.
func (h *Hub) attachClaimsLocked() {
	f := h.feedLocked(claim.Partition)
	h.claims = claims{feed: f, ready: make(chan struct{}), reading: true, held: make(map[string]*hold), grid: newGrid()}
	h.goLocked(func() {
		if !h.persist("claims are not heard yet", func() error {
			ctx, cancel := context.WithTimeout(h.ctx, readTimeout)
			defer cancel()
			return f.conn.Subscribe(ctx, claim.Channel(h.cfg.Redis))
		}) {
			return
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.claims.heard = true
		h.readClaimsLocked()
	})
}

// awaitClaims returns when the copy is live: nothing may be told before.
func (h *Hub) awaitClaims(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	select {
	case <-h.claims.ready:
		return nil
	case <-h.ctx.Done():
		return location.ErrClosed
	case <-ctx.Done():
		return redisconn.Wrap(ctx.Err())
	}
}

// sureLocked tells whether the copy is what Redis holds, but for what is on its way.
func (x *claims) sureLocked() bool { return !x.reading && x.feed.conn.Healthy() }

// readClaimsLocked has the copy read, as often as it takes.
func (h *Hub) readClaimsLocked() {
	x := &h.claims
	if !x.heard {
		return // it will be when that is
	}
	x.reading, x.waiting = true, nil
	x.epoch++
	epoch := x.epoch
	h.goLocked(func() {
		h.persist("claims are not read yet", func() error {
			ctx, cancel := context.WithTimeout(h.ctx, readTimeout)
			defer cancel()
			number, left, err := claim.Read(ctx, h.cfg.Redis)
			if err != nil && !strings.Contains(err.Error(), "WRONGTYPE") {
				return err
			} else if err != nil { // nobody can be claimed then
				h.cfg.Logger.Error("the claims in Redis are somebody else's value", "error", err)
			}
			h.mu.Lock()
			defer h.mu.Unlock()
			if x.epoch == epoch {
				h.takeClaimsLocked(number, left)
			}
			return nil
		})
	})
}

// takeClaimsLocked makes the copy what was read: who is held, and for how long still.
func (h *Hub) takeClaimsLocked(number int64, left map[string]time.Duration) {
	x := &h.claims
	for id := range x.held {
		if left[id] == 0 {
			h.endHoldLocked(id)
		}
	}
	for id, time := range left {
		h.beginHoldLocked(id, time.Milliseconds())
	}
	x.number, x.reading = number, false
	if !x.live {
		x.live = true
		close(x.ready)
	}
	waiting := x.waiting
	x.waiting = nil
	for _, m := range waiting {
		h.hearClaimsLocked(m)
	}
}

// hearClaimsLocked takes in a message in its turn.
func (h *Hub) hearClaimsLocked(m message) {
	x := &h.claims
	switch {
	case x.reading:
		if len(x.waiting) < maxWaiting {
			x.waiting = append(x.waiting, m)
		}
		return
	case m.number <= x.number:
		return // what was read holds it
	case x.number != 0 && m.number != x.number+1:
		h.metrics.gaps.Inc()
		h.readClaimsLocked()
		x.waiting = append(x.waiting, m)
		return
	}
	x.number = m.number
	for line := range strings.Lines(m.lines) {
		id, left, ok := claim.ParseLine(strings.TrimSuffix(line, "\n"))
		switch {
		case !ok:
			h.cfg.Logger.Error("a line of the claims' feed does not parse")
		case left == 0:
			h.endHoldLocked(id)
		default:
			h.beginHoldLocked(id, left)
		}
	}
}

// beginHoldLocked takes in that a driver is held for so many milliseconds from now.
func (h *Hub) beginHoldLocked(id string, left int64) {
	x := &h.claims
	o := x.held[id]
	if o == nil {
		o = &hold{driver: id, until: h.now() + left}
		x.held[id] = o
		heap.Push(&x.due, o)
	} else {
		o.until = h.now() + left
		heap.Fix(&x.due, o.place)
	}
	if x.due[0] == o {
		h.nudge()
	}
	if d := h.drivers[id]; d != nil && d.hold == nil {
		h.grid.remove(d)
		d.hold, d.record = o, d.record.claimed()
		x.grid.put(d)
		h.index.at(d.record.point, func(s *Subscription) { s.change(id, nil, dray.LeftClaimed) })
		h.tellFollowersLocked(id, d.record, "")
	}
}

// endHoldLocked takes in that a driver is not held any more.
func (h *Hub) endHoldLocked(id string) {
	x := &h.claims
	o := x.held[id]
	if o == nil {
		return
	}
	delete(x.held, id)
	heap.Remove(&x.due, o.place)
	if d := h.drivers[id]; d != nil {
		x.grid.remove(d)
		d.hold, d.record = nil, d.record.unclaimed()
		h.grid.put(d)
		h.tellLocked(d, nil, d.record, "")
	}
}

// expireHoldsLocked ends the holds whose time is over, and tells how long until the next is.
func (h *Hub) expireHoldsLocked(now int64) time.Duration {
	x := &h.claims
	for len(x.due) > 0 && x.due[0].until <= now {
		h.endHoldLocked(x.due[0].driver)
	}
	if len(x.due) == 0 {
		return time.Hour
	}
	return time.Duration(x.due[0].until-now) * time.Millisecond
}

// gridOf is where d stands.
func (h *Hub) gridOf(d *driver) *grid {
	if d.hold != nil {
		return &h.claims.grid
	}
	return &h.grid
}

var claimedEnd = []byte(`,"claimed":true}`)

// claimed is r as those see it who follow a driver that is held.
func (r *record) claimed() *record {
	c := *r
	c.json = append(bytes.Clone(r.json[:len(r.json)-1]), claimedEnd...)
	return &c
}

// unclaimed is what claimed was made of.
func (r *record) unclaimed() *record {
	c := *r
	c.json = append(bytes.TrimSuffix(bytes.Clone(r.json), claimedEnd), '}')
	return &c
}

// Candidates is Nearby for package claim: at most free drivers that nobody holds and held
// that, as far as this node knows, somebody does; nearest first.
func (h *Hub) Candidates(ctx context.Context, circle dray.Circle, filter dray.Filter, free, held int) ([]claim.Candidate, error) {
	hits, err := h.Nearby(ctx, circle.Center(), circle.Radius, free, filter)
	if err != nil {
		return nil, err
	}
	if held > 0 {
		hits = h.withHeld(hits, circle, filter, free, held)
	}
	all := make([]claim.Candidate, 0, len(hits))
	for _, hit := range hits {
		if e, ok := location.ParseEntry(hit.record.json); ok {
			all = append(all, claim.Candidate{Driver: string(e.Driver), JSON: hit.AppendJSON(nil)})
		}
	}
	return all, nil
}

// withHeld is the search of both at one moment, so that nobody changes sides between; hits
// where the copies do not tell, for these are of Redis then.
func (h *Hub) withHeld(hits []Hit, circle dray.Circle, filter dray.Filter, free, held int) []Hit {
	center := circle.Center()
	ids := h.tiles.circle(h.cfg.Locations.BucketAt(center), vectorOf(center), circle.Radius, nil)
	h.mu.RLock()
	defer h.mu.RUnlock()
	both, err := h.searchLocked(ids, center, circle.Radius, free, filter)
	if err != nil {
		return hits
	}
	for _, hit := range h.nearestLocked(&h.claims.grid, center, circle.Radius, held, filter) {
		both = append(both, Hit{hit.Distance, hit.record.unclaimed()})
	}
	slices.SortStableFunc(both, func(a, b Hit) int { return cmp.Compare(a.Distance, b.Distance) })
	return both
}

// unheld asks Redis which of found, the nearest limit at least, nobody holds.
func (h *Hub) unheld(ctx context.Context, found []near, limit int) (free []near, err error) {
	sortNear(found)
	for len(found) > 0 && len(free) < limit {
		some := found[:min(len(found), dray.MaxLimit)]
		found = found[len(some):]
		ids := make([]string, len(some))
		for i, n := range some {
			ids[i] = n.driver.id
		}
		_, left, err := claim.Read(ctx, h.cfg.Redis, ids...)
		if err != nil {
			return nil, err
		}
		for _, n := range some {
			if left[n.driver.id] == 0 {
				free = append(free, n)
			}
		}
	}
	return free, nil
}
