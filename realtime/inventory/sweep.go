package inventory

import (
	"context"
	"crypto/rand"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"dray/redisconn"
)

// How what is due is given back where nobody asks. Any request of a location settles what is
// due there first; the sweeper makes such requests for quiet locations, so that watchers and
// the ledger hear of it in time. One node at a time has the lease to sweep. Sweeping without it
// would do no harm but cost.
const (
	sweepEvery = 100 * time.Millisecond // at most as late is an expiry seen by watchers of a quiet location
	leaseTime  = 3 * time.Second
	leaseEvery = time.Second // renewed, or tried for
	sweepMost  = 64          // locations of a partition in one round
)

type sweeper struct {
	store  *Store
	token  string
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func startSweeper(s *Store) *sweeper {
	ctx, cancel := context.WithCancel(s.ctx)
	w := &sweeper{store: s, token: rand.Text(), cancel: cancel}
	w.wg.Go(func() { w.run(ctx) })
	return w
}

func (w *sweeper) close() {
	w.cancel()
	w.wg.Wait()
}

func (w *sweeper) run(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	var asked time.Time // when the lease was last asked for
	var until time.Time // when ours ends
	for {
		select {
		case <-ctx.Done():
			w.giveBack(until)
			return
		case now := <-tick.C:
			if now.Sub(asked) >= leaseEvery {
				asked = now
				if w.lease(ctx) {
					until = now.Add(leaseTime - leaseEvery)
				}
			}
			if now.Before(until) {
				w.sweep(ctx)
			}
		}
	}
}

// lease takes or renews the lease.
func (w *sweeper) lease(ctx context.Context) bool {
	rdb := w.store.redis.Redis()
	took, err := rdb.SetNX(ctx, w.store.keys.sweeper(), w.token, leaseTime).Result()
	if err == nil && !took {
		var holder string
		if holder, err = rdb.Get(ctx, w.store.keys.sweeper()).Result(); err == nil && holder == w.token {
			took, err = rdb.PExpire(ctx, w.store.keys.sweeper(), leaseTime).Result()
		}
	}
	if err != nil && ctx.Err() == nil {
		w.store.cfg.Logger.Debug("no lease to sweep", "error", err)
	}
	return err == nil && took
}

// giveBack lets another node sweep at once when this one stops.
func (w *sweeper) giveBack(until time.Time) {
	if time.Now().Before(until) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		w.store.redis.Redis().Del(ctx, w.store.keys.sweeper())
	}
}

// sweep sends a request that does nothing to each location where something is due.
func (w *sweeper) sweep(ctx context.Context) {
	s := w.store
	calls := make([]redisconn.Call, len(s.keys.bases))
	for i := range calls {
		calls[i] = s.scripts.due.Call([]string{s.keys.due(i)}, sweepMost)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var all sync.WaitGroup
	for _, cmd := range s.redis.RunAll(ctx, calls) {
		due, err := cmd.StringSlice()
		if err != nil || len(due) == 0 {
			if err != nil && ctx.Err() == nil {
				s.cfg.Logger.Debug("not swept", "error", err)
			}
			continue
		}
		for _, location := range due[1:] {
			all.Go(func() {
				if err := s.do(ctx, location, &op{kind: 'w'}); err != nil && ctx.Err() == nil {
					s.cfg.Logger.Debug("not swept", "location", location, "error", err)
				}
			})
		}
	}
	all.Wait()
}

// lexRange asks for members of a zset of equal scores, in the order of their bytes.
func lexRange(key, from string, count int64) redis.ZRangeArgs {
	return redis.ZRangeArgs{Key: key, Start: from, Stop: "+", ByLex: true, Count: count}
}

// unreadable counts a record that is not one of ours, and names one a minute.
func (s *Store) unreadable(location, name string) {
	s.metrics.unreadable.Inc()
	now, last := time.Now().UnixNano(), s.warned.Load()
	if now-last < int64(time.Minute) || !s.warned.CompareAndSwap(last, now) {
		return
	}
	s.cfg.Logger.Warn("a record of the stock cannot be read", "location", location, "name", strconv.Quote(name))
}
