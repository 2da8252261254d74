package watch

import (
	"context"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/redis/go-redis/v9"

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
	ready   chan struct{} // closed when the first read has ended
	err     error         // of the first read, once ready is closed
	number  int64         // of the last message that the copy holds
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
	hub       *Hub
	partition int
	conn      *redisconn.Feed
	directory int64            // number of the directory's last message; 0 while nobody is followed here
	entries   []location.Entry // of the message being heard: Message's own
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

var errNoRoom = dray.Errorf(dray.CodeTooLarge, "this node holds as many buckets as it may")

// readTimeout bounds listening to and reading one set of buckets.
const readTimeout = 3 * time.Second

// attach holds copies of all of ids, and returns when they are read. release gives them back.
func (h *Hub) attach(ctx context.Context, ids []location.Bucket) ([]*bucket, error) {
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
	if len(h.buckets)+len(fresh) > h.cfg.maxBuckets() {
		return nil, errNoRoom
	}
	for _, b := range fresh {
		h.buckets[b.id] = b
	}
	for _, b := range held {
		b.users++
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

// begin attaches new buckets of one feed.
func (h *Hub) begin(f *feed, list []*bucket) {
	ctx, cancel := context.WithTimeout(h.ctx, readTimeout)
	defer cancel()
	channels := make([]string, len(list))
	for i, b := range list {
		channels[i] = h.cfg.Locations.FeedChannel(b.id)
	}
	err := f.conn.Subscribe(ctx, channels...)
	if err == nil {
		err = h.read(ctx, list)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range list {
		if err != nil {
			h.dropLocked(b)
			b.err = err
		}
		close(b.ready)
	}
}

// read reads buckets of one feed and takes in what the feed has told meanwhile. On an error
// they are as they were, and still reading.
func (h *Hub) read(ctx context.Context, list []*bucket) error {
	const atOnce = 32 // buckets in one round trip: each may be megabytes
	for len(list) > 0 {
		some := list[:min(atOnce, len(list))]
		list = list[len(some):]
		var now *redis.TimeCmd
		replies := make([]*redis.MapStringStringCmd, len(some))
		_, err := h.cfg.Redis.Redis().Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, b := range some {
				replies[i] = p.HGetAll(ctx, h.cfg.Locations.RecordsKey(b.id))
			}
			now = p.Time(ctx)
			return nil
		})
		if err != nil {
			return err
		}
		h.mu.Lock()
		for i, b := range some {
			h.takeLocked(b, replies[i].Val(), now.Val().UnixMilli())
		}
		h.mu.Unlock()
		h.metrics.reads.Add(float64(len(some)))
	}
	return nil
}

// takeLocked makes the copy what was read. now is Redis's clock, ms.
func (h *Hub) takeLocked(b *bucket, fields map[string]string, now int64) {
	gone := make(map[*driver]struct{}, len(b.drivers))
	for d := range b.drivers {
		gone[d] = struct{}{}
	}
	b.number = 0
	for name, text := range fields {
		if name == "#" {
			b.number = parseNumber(text)
			continue
		}
		e, ok := location.ParseEntry(unsafeBytes(text))
		if !ok || string(e.Driver) != name {
			h.cfg.Locations.BadRecord(b.id, name)
			continue
		}
		h.applyLocked(b, &e, max(now-e.ReceivedAt, 0))
		if d := h.drivers[name]; d != nil && !e.Left {
			delete(gone, d)
		}
	}
	for d := range gone {
		if d.bucket == b && !d.moving && h.drivers[d.id] == d {
			h.removeLocked(d, dray.LeftStale) // Redis has forgotten it
		}
	}
	b.reading = false
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
	if name == "dir" {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.hearDirectoryLocked(f, number, lines)
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
		h.rereadLocked(b.feed, []*bucket{b})
		b.waiting = append(b.waiting, m)
		return
	}
	b.number = m.number
	for i := range entries {
		h.applyLocked(b, &entries[i], 0)
	}
}

// Reset is called when the feed was made again: whatever it told may have been lost.
func (f *feed) Reset() {
	h := f.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []*bucket
	for _, b := range h.buckets {
		if b.feed == f && !b.reading {
			list = append(list, b)
		}
	}
	h.metrics.resets.Inc()
	h.rereadLocked(f, list)
	h.refollowLocked(f)
}

// rereadLocked reads buckets again, as often as it takes, and has a snapshot sent to the
// subscriptions that lie in them.
func (h *Hub) rereadLocked(f *feed, list []*bucket) {
	for _, b := range list {
		b.reading = true
	}
	h.goLocked(func() {
		for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
			ctx, cancel := context.WithTimeout(h.ctx, readTimeout)
			err := h.read(ctx, list)
			cancel()
			if err == nil {
				break
			}
			h.cfg.Logger.Warn("buckets not read again yet", "partition", f.partition, "buckets", len(list), "error", err)
			select {
			case <-h.ctx.Done():
				return
			case <-time.After(pause):
			}
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.metrics.rereads.Add(float64(len(list)))
		for _, b := range list {
			for s := range b.subs {
				s.resend()
			}
		}
	})
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
				if b.users == 0 && !b.reading && now.UnixNano()-b.used.Load() > h.cfg.linger().Nanoseconds() {
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
