package inventory

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"dray"
	"dray/redisconn"
)

// A replica is this node's copy of the stock of one location. It is attached by listening
// first and reading then, in pieces: of what is read and what is heard the greater version is
// right. A gap in the numbers of entries, or a feed that was made again, means read again,
// into a new copy, for Redis may have lost what it had.
type replica struct {
	location    string
	feed        *feed
	live        bool          // it was read once
	ready       chan struct{} // closed when it is live, or was given up with err
	err         error
	reading     bool            // what the feed tells goes into next
	epoch       int             // counts the reads asked for: an older one that comes late is not taken
	first, last int64           // entries heard without a gap since the read began; last: or held by what was read. 0 for none
	rows        map[string]*row // SKU -> its row
	next        map[string]*row // what will be rows; nil unless reading
	users       int             // subscriptions, and attach while it waits
	used        time.Time       // when it last was
	all         map[*Subscription]struct{}
	bySKU       map[string]map[*Subscription]struct{} // of those that name SKUs
}

// A row is one state of a SKU. It never changes.
type row struct {
	version, available int64
	json               []byte // Stock of the contract, shared by all subscriptions
}

func newRow(stock *dray.Stock) *row {
	return &row{stock.Version, stock.Available, stock.AppendJSON(nil)}
}

var errNoRoom = dray.Errorf(dray.CodeUnavailable, "this node holds as much stock as it may")

const (
	readTimeout = 3 * time.Second // for listening, and for each piece that is read
	readAtOnce  = 1000            // SKUs in a piece, about
)

// attach holds a copy of a location, and returns when it is read. releaseLocked gives it back.
func (h *Hub) attach(ctx context.Context, location string) (*replica, error) {
	h.mu.Lock()
	r, err := h.holdLocked(location)
	h.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case <-r.ready:
		err = r.err
	case <-ctx.Done():
		err = redisconn.Wrap(ctx.Err())
	}
	if err != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.releaseLocked(r)
		return nil, err
	}
	return r, nil
}

// holdLocked counts the caller as a user of a location, and begins to read it if it is new.
func (h *Hub) holdLocked(location string) (*replica, error) {
	if h.closed {
		return nil, errClosed
	}
	r := h.replicas[location]
	if r == nil {
		if len(h.replicas) >= h.cfg.MaxLocations && !h.makeRoomLocked() {
			return nil, errNoRoom
		}
		r = &replica{
			location: location, feed: h.feedLocked(location), ready: make(chan struct{}), reading: true, next: make(map[string]*row),
			all: make(map[*Subscription]struct{}), bySKU: make(map[string]map[*Subscription]struct{}),
		}
		h.replicas[location] = r
		h.goLocked(func() { h.begin(r) })
	}
	r.users++
	return r, nil
}

func (h *Hub) releaseLocked(r *replica) {
	r.users--
	r.used = time.Now()
}

// makeRoomLocked detaches the location that was not used for longest; false where all are used.
func (h *Hub) makeRoomLocked() bool {
	var oldest *replica
	for _, r := range h.replicas {
		if r.users == 0 && r.live && (oldest == nil || r.used.Before(oldest.used)) {
			oldest = r
		}
	}
	if oldest == nil {
		return false
	}
	h.dropLocked(oldest)
	return true
}

// dropLocked detaches a location.
func (h *Hub) dropLocked(r *replica) {
	if h.replicas[r.location] != r {
		return
	}
	delete(h.replicas, r.location)
	h.skus -= len(r.rows)
	r.feed.conn.Unsubscribe(h.keys.feed(r.location))
}

// begin attaches a new location.
func (h *Hub) begin(r *replica) {
	ctx, cancel := context.WithTimeout(h.ctx, readTimeout)
	err := r.feed.conn.Subscribe(ctx, h.keys.feed(r.location))
	cancel()
	if err == nil {
		err = h.read(r, 0)
	}
	if err == nil {
		return // live, given up, or to be read again by who asked for that
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.giveUpLocked(r, err)
}

// giveUpLocked detaches a location that is not live, and tells who waits for it.
func (h *Hub) giveUpLocked(r *replica, err error) {
	if r.live || h.replicas[r.location] != r {
		return
	}
	h.dropLocked(r)
	r.err = err
	close(r.ready)
}

// read reads a location, and takes it in if no other read was asked for since, or gives it up
// if there is no room; epoch was the replica's when this read was asked for. The number of its
// last entry comes first: of all after that the feed must tell.
func (h *Hub) read(r *replica, epoch int) error {
	rdb, key := h.cfg.Redis.Redis(), h.keys.stock(r.location)
	within := func(f func(ctx context.Context) error) error {
		ctx, cancel := context.WithTimeout(h.ctx, readTimeout)
		defer cancel()
		return f(ctx)
	}
	var number int64
	if err := within(func(ctx context.Context) error {
		text, err := rdb.HGet(ctx, key, "#").Result()
		if errors.Is(err, redis.Nil) {
			return nil // nothing was ever set
		}
		numbers([]string{text}, &number)
		return err
	}); err != nil {
		return err
	}
	rows, cursor, bad := make(map[string]*row), uint64(0), 0
	for {
		var pairs []string
		if err := within(func(ctx context.Context) (err error) {
			pairs, cursor, err = rdb.HScan(ctx, key, cursor, "", readAtOnce).Result()
			return err
		}); err != nil {
			return err
		}
		for i := 0; i+1 < len(pairs); i += 2 {
			if pairs[i] == "#" {
				continue
			}
			stock, ok := parseRow(r.location, pairs[i], pairs[i+1])
			if !ok {
				bad++
				continue
			}
			if held := rows[stock.SKU]; held == nil || held.version < stock.Version { // HSCAN may tell twice
				rows[stock.SKU] = newRow(&stock)
			}
		}
		if !h.fits(r, len(rows)) {
			return nil
		}
		if cursor == 0 {
			break
		}
	}
	h.unreadable(r.location, bad)
	h.metrics.reads.Inc()
	h.mu.Lock()
	defer h.mu.Unlock()
	if r.epoch == epoch && h.replicas[r.location] == r {
		h.takeLocked(r, number, rows)
	}
	return nil
}

// fits makes room for so many SKUs of a location that is new, or gives it up; one that is live
// has its room. False when there is nothing more to read for.
func (h *Hub) fits(r *replica, skus int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for !r.live && h.skus+skus > h.cfg.MaxSKUs {
		if !h.makeRoomLocked() {
			h.giveUpLocked(r, errNoRoom)
			break
		}
	}
	return h.replicas[r.location] == r
}

// takeLocked makes the copy what was read and heard.
func (h *Hub) takeLocked(r *replica, number int64, rows map[string]*row) {
	switch {
	case number == 0:
	case r.first > number+1: // lost between the two
		h.gapLocked(r)
		return
	default:
		r.last = max(r.last, number)
	}
	for sku, x := range r.next {
		if read := rows[sku]; read == nil || read.version < x.version {
			rows[sku] = x
		}
	}
	before := r.rows
	r.rows, r.next, r.reading = rows, nil, false
	h.skus += len(rows) - len(before)
	for sku, x := range rows {
		if was := before[sku]; was == nil || !slices.Equal(was.json, x.json) {
			r.tellLocked(sku, was, x)
		} else {
			rows[sku] = was // subscriptions know it
		}
	}
	for sku, was := range before {
		if rows[sku] == nil {
			r.tellLocked(sku, was, nil)
		}
	}
	if !r.live {
		r.live = true
		close(r.ready)
		return
	}
	h.metrics.rereads.Inc()
	r.everyoneLocked((*Subscription).resend)
}

// hearLocked applies a message.
func (h *Hub) hearLocked(r *replica, m *message, after map[string]*row) {
	switch {
	case r.last != 0 && m.last <= r.last:
		return // what was read holds it
	case r.last != 0 && m.first != r.last+1:
		h.gapLocked(r)
	}
	if r.first == 0 {
		r.first = m.first
	}
	r.last = m.last
	into := r.rows
	if r.reading {
		into = r.next
	}
	for sku, x := range after {
		was := into[sku]
		if was != nil && was.version >= x.version {
			continue
		}
		into[sku] = x
		if r.reading {
			continue
		}
		if was == nil {
			h.skus++
		}
		r.tellLocked(sku, was, x)
	}
}

func (h *Hub) gapLocked(r *replica) {
	h.metrics.gaps.Inc()
	h.rereadLocked(r)
}

// rereadLocked reads a location again, as often as it takes; a snapshot is then sent to who
// watches it.
func (h *Hub) rereadLocked(r *replica) {
	r.epoch++
	r.reading, r.next, r.first, r.last = true, make(map[string]*row), 0, 0
	epoch := r.epoch
	h.goLocked(func() {
		h.persist("stock is not read again yet", r.location, func() error { return h.read(r, epoch) })
	})
}

// tellLocked tells who watches a SKU that its row turned from was to now.
func (r *replica) tellLocked(sku string, was, now *row) {
	for s := range r.all {
		s.change(sku, was, now)
	}
	for s := range r.bySKU[sku] {
		s.change(sku, was, now)
	}
}

// everyoneLocked calls f for each subscription, once.
func (r *replica) everyoneLocked(f func(*Subscription)) {
	for s := range r.all {
		f(s)
	}
	told := make(map[*Subscription]bool)
	for _, subs := range r.bySKU {
		for s := range subs {
			if !told[s] {
				told[s] = true
				f(s)
			}
		}
	}
}

// listLocked notes that s watches skus, all of them where skus is nil.
func (r *replica) listLocked(s *Subscription, skus []string) {
	if skus == nil {
		r.all[s] = struct{}{}
	}
	for _, sku := range skus {
		if r.bySKU[sku] == nil {
			r.bySKU[sku] = make(map[*Subscription]struct{})
		}
		r.bySKU[sku][s] = struct{}{}
	}
}

// unlistLocked undoes listLocked.
func (r *replica) unlistLocked(s *Subscription, skus []string) {
	delete(r.all, s)
	for _, sku := range skus {
		if delete(r.bySKU[sku], s); len(r.bySKU[sku]) == 0 {
			delete(r.bySKU, sku)
		}
	}
}

// eachLocked visits the rows of skus in order, all of them in any order where skus is nil.
func (r *replica) eachLocked(skus []string, visit func(sku string, x *row)) {
	if skus == nil {
		for sku, x := range r.rows {
			visit(sku, x)
		}
	}
	for _, sku := range skus {
		if x := r.rows[sku]; x != nil {
			visit(sku, x)
		}
	}
}

// lingerLoop detaches the locations that nobody has watched for Linger.
func (h *Hub) lingerLoop() {
	tick := time.NewTicker(h.cfg.Linger/8 + time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case now := <-tick.C:
			h.mu.Lock()
			for _, r := range h.replicas {
				if r.users == 0 && r.live && now.Sub(r.used) > h.cfg.Linger {
					h.dropLocked(r)
				}
			}
			h.mu.Unlock()
		}
	}
}
