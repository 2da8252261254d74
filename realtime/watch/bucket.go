package watch

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"dray"
	"dray/realtime/location"
	"dray/redisconn"
)

// A bucket is this node's copy of one bucket. It is attached by listening first and reading
// then, so that nothing falls between; a gap in the numbers, or a feed that was made again,
// means read again.
type bucket struct {
	id      location.Bucket
	feed    *feed
	reading bool          // what the feed tells is kept in waiting until the read is there
	epoch   int           // counts the reads asked for: an older one that comes late is not taken
	live    bool          // it was read once
	ready   chan struct{} // closed when it is live, or was given up with err
	err     error
	number  int64 // of the last message that the copy holds
	waiting []message
	users   int                  // subscriptions, follows and questions in progress
	used    atomic.Int64         // when it last was, Unix nanoseconds
	drivers map[*driver]struct{} // whose record is from here
	subs    map[*Subscription]struct{}
}

type message struct {
	number int64
	lines  string
}

// A feed hears the buckets and the directory of one partition.
type feed struct {
	hub         *Hub
	partition   int
	conn        *redisconn.Feed
	directory   int64            // number of the directory's last message heard; 0 before the first
	listening   chan struct{}    // closed when the directory's channel is heard; nil while nobody is followed here
	refollowing bool             // drivers that could not be followed will be looked up again
	entries     []location.Entry // of the message being heard: Message's own
}

// feedLocked opens the feed of a partition at its first use.
func (h *Hub) feedLocked(partition int) *feed {
	f := h.feeds[partition]
	if f == nil {
		f = &feed{hub: h, partition: partition}
		f.conn = h.cfg.Redis.OpenFeed(partition, f)
		h.feeds[partition] = f
	}
	return f
}

var errNoRoom = dray.Errorf(dray.CodeUnavailable, "this node holds as many buckets as it may")

const (
	readTimeout = 3 * time.Second // for listening to buckets, and for each read
	readAtOnce  = 8               // buckets in one read: each may be megabytes
	readers     = 2               // reads at once: one travels while the other is taken in
	takeAtOnce  = 1000            // entries of a read that are taken in before others get a turn
)

// attach holds copies of all of ids, and returns when they are read. release gives them back.
func (h *Hub) attach(ctx context.Context, ids []location.Bucket) ([]*bucket, error) {
	if err := h.awaitClaims(ctx); err != nil {
		return nil, err
	}
	h.mu.Lock()
	held, err := h.holdLocked(ids)
	h.mu.Unlock()
	if err != nil {
		return nil, err
	}
	for _, b := range held {
		select {
		case <-b.ready:
		case <-ctx.Done():
			err = redisconn.Wrap(ctx.Err())
		}
		if err == nil {
			err = b.err
		}
		if err != nil {
			h.release(held)
			return nil, err
		}
	}
	return held, nil
}

// holdLocked counts the caller as a user of ids and begins to read those that are new.
func (h *Hub) holdLocked(ids []location.Bucket) ([]*bucket, error) {
	if h.closed {
		return nil, location.ErrClosed
	}
	held := make([]*bucket, len(ids))
	var fresh []*bucket
	for i, id := range ids {
		b := h.buckets[id]
		if b == nil {
			b = &bucket{
				id: id, feed: h.feedLocked(h.cfg.Locations.PartitionOf(id)), reading: true, ready: make(chan struct{}),
				drivers: make(map[*driver]struct{}), subs: make(map[*Subscription]struct{}),
			}
			fresh = append(fresh, b)
		}
		held[i] = b
	}
	for _, b := range held {
		b.users++ // before room is made, which takes the unused
	}
	if more := len(h.buckets) + len(fresh) - h.cfg.maxBuckets(); more > 0 && !h.makeRoomLocked(more) {
		h.releaseLocked(held)
		return nil, errNoRoom
	}
	for _, b := range fresh {
		h.buckets[b.id] = b
	}
	for f, list := range byFeed(fresh) {
		h.goLocked(func() { h.begin(f, list) })
	}
	return held, nil
}

func byFeed(list []*bucket) map[*feed][]*bucket {
	m := make(map[*feed][]*bucket)
	for _, b := range list {
		m[b.feed] = append(m[b.feed], b)
	}
	return m
}

// makeRoomLocked detaches buckets that nobody uses, the longest unused first; some more
// than asked for, so that it is not called for each.
func (h *Hub) makeRoomLocked(n int) bool {
	var idle []*bucket
	for _, b := range h.buckets {
		if b.users == 0 && b.live {
			idle = append(idle, b)
		}
	}
	if len(idle) < n {
		return false
	}
	slices.SortFunc(idle, func(a, b *bucket) int { return cmp.Compare(a.used.Load(), b.used.Load()) })
	for _, b := range idle[:min(len(idle), n+len(h.buckets)/16)] {
		h.dropLocked(b)
	}
	return true
}

// begin attaches new buckets of one feed.
func (h *Hub) begin(f *feed, list []*bucket) {
	ctx, cancel := context.WithTimeout(h.ctx, readTimeout)
	channels := make([]string, len(list))
	for i, b := range list {
		channels[i] = h.cfg.Locations.FeedChannel(b.id)
	}
	err := f.conn.Subscribe(ctx, channels...)
	cancel()
	if err == nil {
		var reads errgroup.Group
		for some := range slices.Chunk(list, readAtOnce) {
			reads.Go(func() error { return h.read(some, make([]int, len(some))) })
		}
		err = reads.Wait()
	}
	if err == nil {
		return // all live, or to be read again by who asked for that
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range list {
		if !b.live {
			h.dropLocked(b)
			b.err = err
			close(b.ready)
		}
	}
}

// read reads buckets of one feed and takes in what the feed has told meanwhile, for those
// of which no other read was asked for since: epochs are theirs when this one was.
func (h *Hub) read(list []*bucket, epochs []int) error {
	if err := h.reads.Acquire(h.ctx, 1); err != nil {
		return redisconn.Wrap(err)
	}
	defer h.reads.Release(1)
	ctx, cancel := context.WithTimeout(h.ctx, readTimeout)
	defer cancel()
	var now *redis.TimeCmd
	replies := make([]*redis.StringSliceCmd, len(list)) // field, value, ...: no map is made of thousands
	_, err := h.cfg.Redis.Redis().Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, b := range list {
			replies[i] = redis.NewStringSliceCmd(ctx, "hgetall", h.cfg.Locations.RecordsKey(b.id))
			if err := p.Process(ctx, replies[i]); err != nil {
				return err
			}
		}
		now = p.Time(ctx)
		return nil
	})
	if err != nil && now.Err() != nil {
		return err
	}
	for i, b := range list {
		if err := replies[i].Err(); err != nil && !strings.Contains(err.Error(), "WRONGTYPE") {
			return err
		} else if err != nil {
			h.cfg.Locations.BadRecord(b.id, "") // somebody else's value: empty to us
		}
	}
	for i, b := range list {
		number, entries := h.parseFields(b.id, replies[i].Val())
		h.take(b, epochs[i], number, entries, now.Val().UnixMilli())
	}
	h.metrics.reads.Add(float64(len(list)))
	return nil
}

// parseFields makes entries of a bucket's fields and values. They point into fields.
func (h *Hub) parseFields(id location.Bucket, fields []string) (number int64, entries []location.Entry) {
	entries = make([]location.Entry, 0, len(fields)/2)
	for i := 0; i+1 < len(fields); i += 2 {
		if fields[i] == "#" {
			number = parseNumber(fields[i+1])
		} else if e, ok := location.ParseEntry(unsafeBytes(fields[i+1])); ok && string(e.Driver) == fields[i] {
			entries = append(entries, e)
		} else {
			h.cfg.Locations.BadRecord(id, fields[i])
		}
	}
	return number, entries
}

// take makes the copy what was read, unless another read was asked for since. now is Redis's
// clock, ms. While it goes on what the feed tells is kept in waiting, so others get their turns.
func (h *Hub) take(b *bucket, epoch int, number int64, entries []location.Entry, now int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if b.epoch != epoch || h.buckets[b.id] != b {
		return
	}
	gone := make(map[*driver]struct{}, len(b.drivers))
	for d := range b.drivers {
		gone[d] = struct{}{}
	}
	b.number = number
	for i := range entries {
		if i%takeAtOnce == takeAtOnce-1 {
			h.mu.Unlock()
			h.mu.Lock()
			if b.epoch != epoch || h.buckets[b.id] != b {
				return
			}
		}
		e := &entries[i]
		h.applyLocked(b, e, max(now-e.ReceivedAt, 0), true)
		if len(gone) > 0 && !e.Left {
			delete(gone, h.drivers[string(e.Driver)])
		}
	}
	for d := range gone {
		if d.bucket == b && !d.moving && h.drivers[d.id] == d {
			h.removeLocked(d, dray.LeftStale) // Redis has forgotten it
		}
	}
	b.reading = false
	if !b.live {
		b.live = true
		close(b.ready)
	}
	waiting := b.waiting
	b.waiting = nil
	for _, m := range waiting {
		if m.number > b.number {
			h.hearLocked(b, m, h.parse(b.id, m.lines, nil))
		}
	}
}

// Message takes in one message of the feed.
func (f *feed) Message(channel, payload string) {
	h := f.hub
	number, lines, ok := location.ParseMessage(payload)
	_, name, _ := strings.Cut(channel, "}:feed:")
	if !ok {
		h.cfg.Logger.Error("feed message does not parse", "channel", channel)
		return
	}
	h.metrics.messages.Inc()
	if name == "dir" || name == "claims" {
		h.mu.Lock()
		defer h.mu.Unlock()
		if name == "dir" {
			h.hearDirectoryLocked(f, number, lines)
		} else {
			h.hearClaimsLocked(message{number, lines})
		}
		return
	}
	id := location.ParseBucket(name)
	f.entries = h.parse(id, lines, f.entries[:0]) // before the lock: others need it
	h.mu.Lock()
	defer h.mu.Unlock()
	if b := h.buckets[id]; b != nil {
		h.hearLocked(b, message{number, lines}, f.entries)
	}
}

// parse appends the entries of a message's lines to dst. They point into lines.
func (h *Hub) parse(id location.Bucket, lines string, dst []location.Entry) []location.Entry {
	for line := range strings.Lines(lines) {
		e, ok := location.ParseEntry(unsafeBytes(strings.TrimSuffix(line, "\n")))
		if !ok {
			h.cfg.Locations.BadRecord(id, "")
			continue
		}
		dst = append(dst, e)
	}
	return dst
}

// maxWaiting bounds the messages kept for a bucket while it is read; more, and what is read
// will show a gap.
const maxWaiting = 4096

// hearLocked applies a message, whose entries are given, in its turn.
func (h *Hub) hearLocked(b *bucket, m message, entries []location.Entry) {
	switch {
	case b.reading:
		if len(b.waiting) < maxWaiting {
			b.waiting = append(b.waiting, m)
		}
		return
	case m.number <= b.number:
		return // what was read holds it
	case b.number != 0 && m.number != b.number+1:
		h.metrics.gaps.Inc()
		h.rereadLocked([]*bucket{b})
		b.waiting = append(b.waiting, m)
		return
	}
	b.number = m.number
	for i := range entries {
		h.applyLocked(b, &entries[i], 0, false)
	}
}

// Reset is called when the feed was made again: whatever it told may have been lost.
func (f *feed) Reset() {
	h := f.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []*bucket
	for _, b := range h.buckets {
		if b.feed == f {
			list = append(list, b) // those being read too: that read may be of before the loss
		}
	}
	h.metrics.resets.Inc()
	h.rereadLocked(list)
	h.refollowLocked(f, 0)
	if f == h.claims.feed {
		h.readClaimsLocked()
	}
}

// rereadLocked reads buckets of one feed again, as often as it takes, and has a snapshot
// sent to the subscriptions that lie in them.
func (h *Hub) rereadLocked(list []*bucket) {
	for _, b := range list {
		b.reading = true
		b.waiting = nil
		b.epoch++
	}
	for some := range slices.Chunk(list, readAtOnce) {
		epochs := make([]int, len(some))
		for i, b := range some {
			epochs[i] = b.epoch
		}
		h.goLocked(func() {
			if !h.persist("buckets are not read again yet", func() error { return h.read(some, epochs) }) {
				return
			}
			h.mu.Lock()
			defer h.mu.Unlock()
			h.metrics.rereads.Add(float64(len(some)))
			told := make(map[*Subscription]bool)
			for _, b := range some {
				for s := range b.subs {
					if !told[s] {
						told[s] = true
						s.resend()
					}
				}
			}
		})
	}
}

// persist calls f until it succeeds, with pauses from 50 ms to 1 s; false when the Hub is
// closed first.
func (h *Hub) persist(what string, f func() error) bool {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := f()
		if err == nil {
			return true
		}
		if h.ctx.Err() != nil {
			return false
		}
		h.cfg.Logger.Warn(what, "error", err)
		select {
		case <-h.ctx.Done():
			return false
		case <-time.After(pause):
		}
	}
}

// release gives back what attach or holdLocked gave.
func (h *Hub) release(held []*bucket) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.releaseLocked(held)
}

func (h *Hub) releaseLocked(held []*bucket) {
	for _, b := range held {
		b.users--
		b.used.Store(time.Now().UnixNano())
	}
}

// dropLocked detaches a bucket.
func (h *Hub) dropLocked(b *bucket) {
	if h.buckets[b.id] != b {
		return
	}
	delete(h.buckets, b.id)
	for d := range b.drivers {
		h.removeLocked(d, dray.LeftMoved)
	}
	b.feed.conn.Unsubscribe(h.cfg.Locations.FeedChannel(b.id))
}

// lingerLoop detaches the buckets that nobody has used for Config.Linger.
func (h *Hub) lingerLoop() {
	tick := time.NewTicker(h.cfg.linger()/8 + time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case now := <-tick.C:
			h.mu.Lock()
			for _, b := range h.buckets {
				if b.users == 0 && b.live && now.UnixNano()-b.used.Load() > h.cfg.linger().Nanoseconds() {
					h.dropLocked(b)
				}
			}
			h.mu.Unlock()
		}
	}
}

func parseNumber(s string) (n int64) {
	for i := range len(s) {
		n = n*10 + int64(s[i]-'0')
	}
	return n
}

// unsafeBytes is the bytes of s, to be read only.
func unsafeBytes(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
