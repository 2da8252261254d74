package redisconn

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"dray"

	"github.com/redis/go-redis/v9"
)

// A FeedHandler takes what a [Feed] hears. Its methods are called one at a time, from the
// goroutine that reads the connection: while one runs nothing else is heard, so it must not
// wait for [Feed.Subscribe] or [Feed.Close].
type FeedHandler interface {
	// Message is called for each message in order; payload may be kept.
	Message(channel, payload string)
	// Reset is called after the connection was made again and all channels are subscribed
	// again (confirmed): anything may have been lost in between, re-read. Messages may come before it.
	Reset()
}

// A Feed is one pub/sub connection that notices loss and repairs itself. Safe for concurrent use.
//
// It notices by hearing itself: every second it publishes a probe the ordinary way, as any
// publisher would, to a channel of its own. Three seconds without one, and the connection is
// given up and made again, whatever the reason: frozen or replaced master, cut network, moved slot.
type Feed struct {
	client  *Client
	handler FeedHandler
	timing  feedTiming
	tag     string
	probe   string // the feed's own channel
	epoch   time.Time

	heard atomic.Int64 // when the last own probe came, nanoseconds after epoch; 0 for never
	lag   atomic.Int64 // nanoseconds it took
	kick  chan struct{}

	cancel context.CancelFunc
	ctx    context.Context // ends with Close
	wg     sync.WaitGroup

	mu       sync.Mutex               // guards the fields below
	channels map[string]*subscription // channel -> what is wanted, the probe's among them
	link     *link                    // nil while there is no connection
	fault    error                    // why the last connection ended, nil after a good start
}

// A subscription is a channel that is wanted.
type subscription struct {
	confirmed chan struct{} // closed once Redis has confirmed it on the present connection
}

type feedTiming struct {
	probe    time.Duration // between two probes
	patience time.Duration // without an own probe, until the connection is given up
	minPause time.Duration // before the first new try
	maxPause time.Duration // before a late one
}

var defaultTiming = feedTiming{
	probe: time.Second, patience: 3 * time.Second, minPause: 50 * time.Millisecond, maxPause: time.Second,
}

// OpenFeed makes a feed for channels that have the tag of a partition, which in a Cluster all
// must have: there it is sharded pub/sub (SSUBSCRIBE), elsewhere plain. It returns at once and
// connects in the background, as often as it takes. Close it; [Client.Close] does so too.
func (c *Client) OpenFeed(partition int, h FeedHandler) *Feed {
	return c.openFeed(partition, h, defaultTiming)
}

func (c *Client) openFeed(partition int, h FeedHandler, timing feedTiming) *Feed {
	f := &Feed{
		client: c, handler: h, timing: timing, tag: c.Tag(partition),
		epoch: time.Now(), kick: make(chan struct{}, 1),
		channels: map[string]*subscription{},
	}
	f.probe = c.Prefix() + "{" + f.tag + "}:probe:" + rand.Text()
	f.ctx, f.cancel = context.WithCancel(context.Background())

	c.mu.Lock()
	if c.closed {
		f.cancel()
	} else {
		c.feeds[f] = struct{}{}
	}
	c.mu.Unlock()
	f.wg.Go(f.run)
	f.wg.Go(f.probeLoop)
	return f
}

// PublishCommand is the command for scripts and pipelines to publish to a [Feed].
func (c *Client) PublishCommand() string {
	if c.mode == Cluster {
		return "SPUBLISH"
	}
	return "PUBLISH"
}

// Close ends the feed and waits for its goroutines. The handler is not called after it.
func (f *Feed) Close() {
	f.cancel()
	f.wg.Wait()
	f.client.mu.Lock()
	delete(f.client.feeds, f)
	f.client.mu.Unlock()
}

// Healthy tells whether an own probe was heard within the last 3 s.
func (f *Feed) Healthy() bool {
	heard := f.heard.Load()
	return heard > 0 && f.sinceEpoch()-heard < int64(f.timing.patience) && f.ctx.Err() == nil
}

// Lag is how long the last own probe took from publisher to reader; 0 before the first.
func (f *Feed) Lag() time.Duration { return time.Duration(f.lag.Load()) }

func (f *Feed) sinceEpoch() int64 { return int64(time.Since(f.epoch)) }

// Subscribe adds channels and returns once Redis has confirmed them: every message published
// after that is delivered, or lost in a fault that [FeedHandler].Reset tells of. A channel that is
// subscribed already is only waited for. Each channel should have one owner.
//
// It fails with [dray.ErrUnavailable] when ctx or the feed ends first; then none of the
// channels that this call added remains.
func (f *Feed) Subscribe(ctx context.Context, channels ...string) error {
	var waits []chan struct{}
	var added []string
	f.mu.Lock()
	for _, name := range channels {
		sub := f.channels[name]
		if sub == nil {
			sub = &subscription{confirmed: make(chan struct{})}
			f.channels[name] = sub
			added = append(added, name)
		}
		waits = append(waits, sub.confirmed)
	}
	if f.link != nil {
		f.subscribeLocked(added)
	}
	f.mu.Unlock()

	for _, confirmed := range waits {
		select {
		case <-confirmed:
			continue
		case <-ctx.Done():
		case <-f.ctx.Done():
		}
		f.Unsubscribe(added...)
		return f.unconfirmed(ctx)
	}
	return nil
}

func (f *Feed) unconfirmed(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	cause := errors.Join(ctx.Err(), f.fault)
	if f.ctx.Err() != nil {
		cause = errors.New("the feed is closed")
	}
	return fmt.Errorf("subscribe: %w: %w", dray.ErrUnavailable, cause)
}

// Unsubscribe gives channels up. Messages that are on their way may still come.
func (f *Feed) Unsubscribe(channels ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var known []string
	for _, name := range channels {
		if f.channels[name] != nil {
			delete(f.channels, name)
			known = append(known, name)
		}
	}
	if f.link != nil && len(known) > 0 {
		f.link.send(f.word("UNSUBSCRIBE"), known, make([]*subscription, len(known)))
	}
}

func (f *Feed) subscribeLocked(names []string) {
	// In pieces, so that no single command holds Redis up.
	for piece := range slices.Chunk(names, 256) {
		subs := make([]*subscription, len(piece))
		for i, name := range piece {
			subs[i] = f.channels[name]
		}
		f.link.send(f.word("SUBSCRIBE"), piece, subs)
	}
}

// word is SUBSCRIBE or UNSUBSCRIBE in the kind of pub/sub that is used.
func (f *Feed) word(plain string) string {
	if f.client.mode == Cluster {
		return "S" + plain
	}
	return plain
}

// Goroutines and flow of a feed:
//
//	run              connects, listens until a fault, pauses, again
//	└ listen         one connection: subscribes, reads, calls the handler; reads have a deadline
//	  └ link.write   what Subscribe and Unsubscribe want sent
//	probeLoop        publishes a probe every second through the ordinary client
func (f *Feed) run() {
	again, told := false, false
	pause := f.timing.minPause
	for {
		live, err := f.listen(again)
		if f.ctx.Err() != nil {
			return
		}
		f.mu.Lock()
		f.fault = err
		f.mu.Unlock()
		if live {
			again, told = true, false
			pause = f.timing.minPause
		}
		if !told { // once for each outage
			told = true
			f.client.log.Warn("redis feed lost; connecting again", "tag", f.tag, "error", err)
		}
		if cluster, ok := f.client.rdb.(*redis.ClusterClient); ok {
			cluster.ReloadState(f.ctx)
		}
		// Half of the pause is chance: the feeds of many nodes lose a master at the same time.
		if !sleep(f.ctx, pause/2+mathrand.N(pause/2)) {
			return
		}
		pause = min(2*pause, f.timing.maxPause)
	}
}

// listen makes one connection and reads it until it fails. live tells whether all channels were confirmed.
func (f *Feed) listen(again bool) (live bool, err error) {
	l, err := f.client.dialLink(f.ctx, f.tag)
	if err != nil {
		return false, err
	}
	stop := context.AfterFunc(f.ctx, l.close)
	var writer sync.WaitGroup
	writer.Go(l.write)
	defer writer.Wait()
	defer l.close()
	defer stop()
	defer f.detach()

	last := f.attach(l)
	deadline := time.Now().Add(f.timing.patience) // to hear the next probe
	for {
		ev, err := l.next(deadline)
		if err != nil {
			return live, err
		}
		switch ev.kind {
		case eventMessage:
			if ev.channel == f.probe {
				f.hear(ev.payload)
				deadline = time.Now().Add(f.timing.patience)
				continue
			}
			start := time.Now()
			f.handler.Message(ev.channel, ev.payload)
			deadline = deadline.Add(time.Since(start)) // the handler's time is not Redis's
		case eventSubscribed:
			close(ev.sub.confirmed)
			if ev.sub != last {
				continue
			}
			live = true
			f.mu.Lock()
			f.fault = nil
			f.mu.Unlock()
			f.probeNow()
			if again {
				start := time.Now()
				f.handler.Reset()
				deadline = deadline.Add(time.Since(start))
				f.client.log.Info("redis feed is back", "tag", f.tag)
			}
		}
	}
}

// attach sends the subscriptions of all wanted channels over l. The confirmation of the last
// one, which it returns, is the sign that all are in place.
func (f *Feed) attach(l *link) (last *subscription) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.channels, f.probe)
	names := make([]string, 0, len(f.channels)+1)
	for name := range f.channels {
		names = append(names, name)
	}
	last = &subscription{confirmed: make(chan struct{})}
	f.channels[f.probe] = last
	f.link = l
	f.subscribeLocked(append(names, f.probe))
	return last
}

func (f *Feed) detach() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.link = nil
	for _, sub := range f.channels {
		select {
		case <-sub.confirmed:
			sub.confirmed = make(chan struct{})
		default: // somebody may wait for it: the next connection will confirm it
		}
	}
}

// probeLoop publishes when the feed listens, each time within one interval.
func (f *Feed) probeLoop() {
	t := time.NewTicker(f.timing.probe)
	defer t.Stop()
	for {
		select {
		case <-f.ctx.Done():
			return
		case <-f.kick:
		case <-t.C:
		}
		f.mu.Lock()
		listening := f.link != nil
		f.mu.Unlock()
		if listening {
			f.publishProbe()
		}
	}
}

func (f *Feed) probeNow() {
	select {
	case f.kick <- struct{}{}:
	default:
	}
}

func (f *Feed) publishProbe() {
	ctx, cancel := context.WithTimeout(f.ctx, f.timing.probe)
	defer cancel()
	probe := Command(f.client.PublishCommand(), f.probe, strconv.FormatInt(f.sinceEpoch(), 10))
	_ = f.client.rdb.Process(ctx, probe.once(ctx)) // a probe that fails is one that is not heard
}

func (f *Feed) hear(payload string) {
	sent, err := strconv.ParseInt(payload, 10, 64)
	if err != nil {
		return
	}
	now := f.sinceEpoch()
	f.lag.Store(now - sent)
	f.heard.Store(now)
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
