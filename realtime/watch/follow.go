package watch

import (
	"context"
	"slices"
	"strings"
	"time"

	"dray"
	"dray/realtime/location"
	"dray/redisconn"
)

// A follow is a driver that somebody watches by its id, wherever it is. The directory tells
// its bucket, the directory's feed tells when that changes, and the bucket is held.
type follow struct {
	id     string
	users  int // subscriptions, and followAll while it works
	subs   map[*Subscription]struct{}
	bucket *bucket         // held; nil while the driver is nowhere
	target location.Bucket // where it was last said to be; 0 for nowhere
	number int64           // of the directory's message, or of its state when it was read, that said so
	err    error           // why the bucket could not be attached; it is tried again
}

// retryFollow is how long after a failure a driver is looked up again.
const retryFollow = 250 * time.Millisecond

func (r *region) has(id string) bool {
	return slices.Contains(r.ids, id)
}

// followAll follows ids, and returns when the buckets of those that are somewhere are read.
func (h *Hub) followAll(ctx context.Context, ids []string) error {
	if err := h.awaitClaims(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(h.ctx, cancel)()
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return location.ErrClosed
	}
	partitions := make(map[*feed][]string)
	for _, id := range ids {
		x := h.followed[id]
		if x == nil {
			x = &follow{id: id, subs: make(map[*Subscription]struct{})}
			h.followed[id] = x
		}
		x.users++
		f := h.feedLocked(h.cfg.Locations.DirectoryPartition(id))
		h.listenLocked(f)
		partitions[f] = append(partitions[f], id)
	}
	h.mu.Unlock()

	err := func() error {
		for f, list := range partitions {
			// listen first, then read: nothing falls between
			if err := wait(ctx, f.listening); err != nil {
				return err
			}
			if err := h.lookUp(ctx, f, list); err != nil {
				return err
			}
		}
		for _, id := range ids {
			h.mu.RLock()
			x := h.followed[id]
			b, err := x.bucket, x.err
			h.mu.RUnlock()
			if b != nil && err == nil {
				if err = wait(ctx, b.ready); err == nil {
					err = b.err
				}
			}
			if err != nil {
				return err
			}
		}
		return nil
	}()
	if err != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.unfollowLocked(nil, ids)
	}
	return err
}

func wait(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return redisconn.Wrap(ctx.Err())
	}
}

// listenLocked hears the directory's channel of a partition, from the first follow to the
// Hub's end: it belongs to no one subscription.
func (h *Hub) listenLocked(f *feed) {
	if f.listening != nil {
		return
	}
	f.listening = make(chan struct{})
	h.goLocked(func() {
		if h.persist("directory is not heard yet", func() error {
			ctx, cancel := context.WithTimeout(h.ctx, readTimeout)
			defer cancel()
			return f.conn.Subscribe(ctx, h.cfg.Locations.DirectoryChannel(f.partition))
		}) {
			close(f.listening)
		}
	})
}

// lookUp asks the directory of one partition where ids are and follows them there.
func (h *Hub) lookUp(ctx context.Context, f *feed, ids []string) error {
	values, err := h.cfg.Redis.Redis().HMGet(ctx, h.cfg.Locations.DirectoryKey(f.partition), append(slices.Clone(ids), "#")...).Result()
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	text, _ := values[len(ids)].(string)
	number := parseNumber(text)
	for i, id := range ids {
		value, _ := values[i].(string)
		if x := h.followed[id]; x != nil && number >= x.number { // else a message has told more since
			x.number = number
			h.followLocked(x, location.ParseDirectoryEntry(value))
		}
	}
	return nil
}

// followMoveLocked takes in that a driver left b for another bucket; false when there is
// nothing to wait for, so that it is to be taken out.
func (h *Hub) followMoveLocked(x *follow, b *bucket, to location.Bucket) bool {
	if x.target == b.id { // else the directory has told more than this
		h.followLocked(x, to)
	}
	return x.bucket != nil && x.bucket != b && !x.bucket.live
}

// followLocked turns to the bucket where the driver is now said to be. The one before is
// held until that is read, so that the driver is in one of them.
func (h *Hub) followLocked(x *follow, to location.Bucket) {
	if to == 0 || to == x.target {
		return
	}
	held, err := h.holdLocked([]location.Bucket{to})
	if err != nil {
		h.followFailedLocked(x, err)
		return
	}
	before, b := x.bucket, held[0]
	x.bucket, x.target, x.err = b, to, nil
	h.goLocked(func() {
		select {
		case <-b.ready:
		case <-h.ctx.Done():
			return
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if before != nil {
			if d := h.drivers[x.id]; d != nil && d.moving && d.bucket == before {
				h.removeLocked(d, dray.LeftMoved)
			}
			h.releaseLocked([]*bucket{before})
		}
		if b.err != nil && x.bucket == b {
			x.bucket = nil
			h.followFailedLocked(x, b.err)
		}
	})
}

// followFailedLocked has a driver looked up again in a while.
func (h *Hub) followFailedLocked(x *follow, err error) {
	h.cfg.Logger.Warn("driver is not followed yet", "driver", x.id, "error", err)
	x.err, x.target = err, 0
	h.refollowLocked(h.feedLocked(h.cfg.Locations.DirectoryPartition(x.id)), retryFollow)
}

// unfollowLocked ends what followAll began, for s, or for a followAll that failed.
func (h *Hub) unfollowLocked(s *Subscription, ids []string) {
	for _, id := range ids {
		x := h.followed[id]
		delete(x.subs, s)
		if x.users--; x.users > 0 {
			continue
		}
		delete(h.followed, id)
		if x.bucket != nil {
			h.releaseLocked([]*bucket{x.bucket})
			x.bucket = nil
		}
	}
}

// hearDirectoryLocked turns to where followed drivers have gone.
func (h *Hub) hearDirectoryLocked(f *feed, number int64, lines string) {
	if f.directory != 0 && number > f.directory+1 {
		h.metrics.gaps.Inc()
		h.refollowLocked(f, 0)
	}
	f.directory = number
	for line := range strings.Lines(lines) {
		id, cell, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if x := h.followed[id]; x != nil {
			x.number = number
			h.followLocked(x, location.ParseBucket(cell))
		}
	}
}

// refollowLocked asks the directory again, after a pause, for all that are followed through
// f, as often as it takes.
func (h *Hub) refollowLocked(f *feed, pause time.Duration) {
	var ids []string
	for id, x := range h.followed {
		if h.cfg.Locations.DirectoryPartition(id) == f.partition {
			ids = append(ids, id)
			if pause == 0 {
				x.number = 0 // whatever was heard, more may have been lost
			}
		}
	}
	if len(ids) == 0 || f.refollowing && pause > 0 {
		return
	}
	f.refollowing = f.refollowing || pause > 0
	h.goLocked(func() {
		select {
		case <-h.ctx.Done():
			return
		case <-time.After(pause):
		}
		if pause > 0 {
			h.mu.Lock()
			f.refollowing = false
			h.mu.Unlock()
		}
		if !h.persist("directory is not read again yet", func() error {
			ctx, cancel := context.WithTimeout(h.ctx, readTimeout)
			defer cancel()
			return h.lookUp(ctx, f, ids)
		}) {
			return
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, id := range ids {
			if x := h.followed[id]; x != nil && pause == 0 {
				for s := range x.subs {
					s.resend()
				}
			}
		}
	})
}
