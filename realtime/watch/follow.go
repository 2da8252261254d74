package watch

import (
	"context"
	"slices"
	"strings"
	"time"

	"dray"
	"dray/realtime/location"
)

// A follow is a driver that somebody watches by its id, wherever it is. The directory tells
// its bucket, the directory's feed tells when that changes, and the bucket is held.
type follow struct {
	id     string
	users  int // subscriptions, and followAll while it works
	subs   map[*Subscription]struct{}
	bucket *bucket         // held; nil while the driver is nowhere
	target location.Bucket // where it was last said to be; 0 for nowhere
}

func (r *region) has(id string) bool {
	return slices.Contains(r.ids, id)
}

// followAll follows ids, and returns when the buckets of those that are somewhere are read.
func (h *Hub) followAll(ctx context.Context, ids []string) error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return location.ErrClosed
	}
	partitions := make(map[*feed][]string)
	for _, id := range ids {
		f := h.followed[id]
		if f == nil {
			f = &follow{id: id, subs: make(map[*Subscription]struct{})}
			h.followed[id] = f
		}
		f.users++
		feed := h.feedLocked(h.cfg.Locations.DirectoryPartition(id))
		partitions[feed] = append(partitions[feed], id)
	}
	h.mu.Unlock()

	err := func() error {
		for feed, list := range partitions {
			// listen first, then read: nothing falls between
			if err := feed.conn.Subscribe(ctx, h.cfg.Locations.DirectoryChannel(feed.partition)); err != nil {
				return err
			}
			if err := h.lookUp(ctx, feed, list); err != nil {
				return err
			}
		}
		for _, id := range ids {
			h.mu.RLock()
			b := h.followed[id].bucket
			h.mu.RUnlock()
			if b == nil {
				continue
			}
			select {
			case <-b.ready:
			case <-ctx.Done():
				return dray.ErrUnavailable
			}
			if b.err != nil {
				return b.err
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

// lookUp asks the directory of one partition where ids are and follows them there.
func (h *Hub) lookUp(ctx context.Context, f *feed, ids []string) error {
	values, err := h.cfg.Redis.Redis().HMGet(ctx, h.cfg.Locations.DirectoryKey(f.partition), append(slices.Clone(ids), "#")...).Result()
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if number, ok := values[len(ids)].(string); ok {
		f.directory = max(f.directory, parseNumber(number))
	}
	for i, id := range ids {
		value, _ := values[i].(string)
		if x := h.followed[id]; x != nil {
			h.followLocked(x, location.ParseDirectoryEntry(value))
		}
	}
	return nil
}

// followLocked turns to the bucket where the driver is now said to be.
func (h *Hub) followLocked(f *follow, to location.Bucket) {
	if to == 0 || to == f.target {
		return
	}
	held, err := h.holdLocked([]location.Bucket{to})
	if err != nil {
		h.cfg.Logger.Warn("driver not followed", "driver", f.id, "bucket", to.String(), "error", err)
		return
	}
	f.target = to
	before, b := f.bucket, held[0]
	f.bucket = b
	if before == nil {
		return
	}
	// the old bucket is held until the new one is read, so that the driver is in one of them
	h.goLocked(func() {
		<-b.ready
		h.mu.Lock()
		defer h.mu.Unlock()
		if d := h.drivers[f.id]; d != nil && d.moving && d.bucket == before && b.err == nil {
			h.removeLocked(d, dray.LeftMoved)
		}
		h.releaseLocked([]*bucket{before})
	})
}

// unfollowLocked ends what followAll began, for s, or for a followAll that failed.
func (h *Hub) unfollowLocked(s *Subscription, ids []string) {
	for _, id := range ids {
		f := h.followed[id]
		delete(f.subs, s)
		if f.users--; f.users > 0 {
			continue
		}
		delete(h.followed, id)
		if f.bucket != nil {
			h.releaseLocked([]*bucket{f.bucket})
		}
	}
}

// hearDirectoryLocked turns to where followed drivers have gone.
func (h *Hub) hearDirectoryLocked(f *feed, number int64, lines string) {
	if gap := f.directory != 0 && number > f.directory+1; gap {
		h.metrics.gaps.Inc()
		h.refollowLocked(f)
	}
	f.directory = max(f.directory, number)
	for line := range strings.Lines(lines) {
		id, cell, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if x := h.followed[id]; x != nil {
			h.followLocked(x, location.ParseBucket(cell))
		}
	}
}

// refollowLocked asks the directory again for all that are followed through f, as often as
// it takes.
func (h *Hub) refollowLocked(f *feed) {
	var ids []string
	for id := range h.followed {
		if h.cfg.Locations.DirectoryPartition(id) == f.partition {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return
	}
	h.goLocked(func() {
		for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
			ctx, cancel := context.WithTimeout(h.ctx, readTimeout)
			err := h.lookUp(ctx, f, ids)
			cancel()
			if err == nil {
				break
			}
			h.cfg.Logger.Warn("directory not read again yet", "partition", f.partition, "error", err)
			select {
			case <-h.ctx.Done():
				return
			case <-time.After(pause):
			}
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, id := range ids {
			if x := h.followed[id]; x != nil {
				for s := range x.subs {
					s.resend()
				}
			}
		}
	})
}
