package inventory_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	miniserver "github.com/alicebob/miniredis/v2/server"
	"github.com/redis/go-redis/v9"

	"dray"
	"dray/realtime/inventory"
	"dray/redisconn"
	"dray/redisconn/redistest"
)

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

// redisTime is Redis's clock, in milliseconds.
func redisTime(t *testing.T, s *inventory.Store) int64 {
	t.Helper()
	now, err := s.Client().Redis().Time(context.Background()).Result()
	if err != nil {
		t.Fatal(err)
	}
	return now.UnixMilli()
}

func hold(t *testing.T, s *inventory.Store, location string, units int, ttl time.Duration) dray.Reservation {
	t.Helper()
	r, err := s.ReserveFor(t.Context(), location, cart("milk", units), ttl, inventory.Options{})
	if err != nil {
		t.Fatalf("Reserve() = %v", err)
	}
	return r
}

// expiry is the entry of the ledger that tells how a reservation expired, read past the Store.
func expiry(t *testing.T, s *inventory.Store, location, id string) (e entry, ok bool) {
	t.Helper()
	for _, e := range audit(t, s, location).entries {
		if e.kind == "expire" && e.reservation == id {
			return e, true
		}
	}
	return e, false
}

func TestHoldExpiresWhileRedisIsPaused(t *testing.T) {
	server := redistest.Start(t)
	s := newStore(t, inventory.Config{Redis: redistest.Open(t, server.Config()), Logger: quiet})
	set(t, s, "shop", "milk", 10)
	r := hold(t, s, "shop", 10, 100*time.Millisecond)
	server.Freeze()
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	_, err := s.Get(ctx, "shop", "milk")
	wantCode(t, "Get() while Redis is paused", err, dray.ErrUnavailable)
	server.Thaw()
	for _, err = s.Reserve(t.Context(), "shop", cart("milk", 10), time.Minute, inventory.Options{Key: "k"}); errors.Is(err, dray.ErrUnavailable); {
		_, err = s.Reserve(t.Context(), "shop", cart("milk", 10), time.Minute, inventory.Options{Key: "k"})
	}
	if err != nil {
		t.Errorf("Reserve() of all that came back = %v", err)
	}
	if e, ok := expiry(t, s, "shop", r.Reservation); !ok || e.at < r.ExpiresAt.UnixMilli() {
		t.Errorf("expired at %d, %t, want %d or later", e.at, ok, r.ExpiresAt.UnixMilli())
	}
}

// TestNodeOfAnotherCentury runs a node whose clock stands in the year 2000: what expires when, and
// what is told of it, is Redis's to say.
func TestNodeOfAnotherCentury(t *testing.T) {
	config := redistest.Single(t).Config()
	now := time.Now()
	synctest.Test(t, func(t *testing.T) {
		if time.Now().Year() != 2000 {
			t.Fatalf("the clock says %v", time.Now())
		}
		s := newStore(t, inventory.Config{Redis: redistest.Open(t, config), Logger: quiet})
		set(t, s, "shop", "milk", 10)
		r := hold(t, s, "shop", 10, 50*time.Millisecond)
		if r.ExpiresAt.Before(now) {
			t.Errorf("expires at %v, want a time of Redis", r.ExpiresAt)
		}
		for {
			before := redisTime(t, s)
			stock, err := s.Get(t.Context(), "shop", "milk")
			if err != nil {
				t.Fatal(err)
			}
			if stock.Available == 10 {
				break
			}
			if before >= r.ExpiresAt.UnixMilli() {
				t.Fatal("held after its time")
			}
		}
		if e, ok := expiry(t, s, "shop", r.Reservation); !ok || e.at < r.ExpiresAt.UnixMilli() {
			t.Errorf("expired at %d, %t, want %d or later", e.at, ok, r.ExpiresAt.UnixMilli())
		}
	})
}

// TestRedisClockIsMoved moves the clock of Redis back and forth by hours. libfaketime would be the
// way with a real one, but redis-server hangs under it (jemalloc); this one's clock can be set.
func TestRedisClockIsMoved(t *testing.T) {
	server := miniredis.RunT(t)
	server.Server().SetPreHook(func(peer *miniserver.Peer, cmd string, _ ...string) bool {
		if cmd == "INFO" { // which it does not know
			peer.WriteBulk("redis_version:7.0.15\r\n")
		}
		return cmd == "INFO"
	})
	now := time.Now()
	move := func(by time.Duration) { server.SetTime(now.Add(by)) }
	move(0)
	s := newStore(t, inventory.Config{Redis: redistest.Open(t, redisconn.Config{Host: server.Host(), Port: server.Server().Addr().Port}), Logger: quiet})
	set(t, s, "shop", "milk", 10)
	r := hold(t, s, "shop", 10, time.Hour)

	move(-time.Hour)
	_, err := s.Reserve(t.Context(), "shop", cart("milk", 1), time.Minute, inventory.Options{})
	wantCode(t, "Reserve() when the clock went back", err, dray.ErrInsufficientStock)
	was := r.ExpiresAt
	if r, err = s.Extend(t.Context(), r.Reservation, time.Hour, inventory.Options{}); err != nil || !r.ExpiresAt.Equal(was.Add(-time.Hour)) {
		t.Errorf("Extend() when the clock went back = %v, %v, want an hour before %v", r.ExpiresAt, err, was)
	}
	move(-time.Millisecond)
	wantStock(t, s, "shop", "milk", 10, 10)
	move(0)
	if _, err = s.Reserve(t.Context(), "shop", cart("milk", 9), 2*time.Hour, inventory.Options{}); err != nil {
		t.Errorf("Reserve() at the moment when all comes back = %v", err)
	}
	if e, ok := expiry(t, s, "shop", r.Reservation); !ok || e.at != r.ExpiresAt.UnixMilli() {
		t.Errorf("expired at %d, %t, want %d", e.at, ok, r.ExpiresAt.UnixMilli())
	}
	move(-time.Hour) // an expiry is not taken back
	wantStock(t, s, "shop", "milk", 10, 9)
	move(2*time.Hour - time.Millisecond)
	wantStock(t, s, "shop", "milk", 10, 9)
	move(2 * time.Hour)
	wantStock(t, s, "shop", "milk", 10, 0)
	move(200 * 24 * time.Hour) // all is forgotten but the stock
	wantStock(t, s, "shop", "milk", 10, 0)
	if b := audit(t, s, "shop"); len(b.records) != 0 {
		t.Errorf("%d reservations after 200 days, want none", len(b.records))
	}
}

// TestQuietLocations lets holds at places where nobody asks end: the sweeper gives them back, and
// strikes each place from its list.
func TestQuietLocations(t *testing.T) {
	onEach(t, func(t *testing.T, s *inventory.Store) {
		var held []dray.Reservation
		for i := range 100 { // more than one round of the sweeper
			location := fmt.Sprint("shop", i)
			set(t, s, location, "milk", 10)
			held = append(held, hold(t, s, location, 10, 50*time.Millisecond))
		}
		latest := time.Duration(0)
		for _, r := range held {
			var e entry
			eventually(t, r.Location+" is swept", func() (ok bool) {
				e, ok = expiry(t, s, r.Location, r.Reservation)
				return ok
			})
			late := time.UnixMilli(e.at).Sub(r.ExpiresAt)
			if late < 0 {
				t.Errorf("%s expired %v early", r.Location, -late)
			}
			latest = max(latest, late)
			// What is due next there is that its record is forgotten, in a day.
			if next, err := s.Client().Redis().ZScore(t.Context(), s.KeysOf(r.Location)[6], r.Location).Result(); err != nil || int64(next) <= e.at {
				t.Errorf("%s is due at %v, %v, want a day from now", r.Location, next, err)
			}
		}
		t.Logf("given back at most %v late", latest)
	})
}

// TestManyDueAtOnce makes all holds of a location due at the same moment. What one call of the
// script does is bounded, and a reserve right after it still sees every unit.
func TestManyDueAtOnce(t *testing.T) {
	const holds = 100_000 / 64 * 64 // every 16th of three lines, the others of one
	const inCall = 2000             // lines that apply.lua works through in a call
	server := redistest.Start(t)
	client := redistest.Open(t, server.Config())
	calls := &calls{}
	client.Redis().AddHook(calls)
	s := newStore(t, inventory.Config{Redis: client, Logger: quiet})
	all := cart("milk", holds, "bread", holds, "eggs", holds)
	for _, it := range all {
		set(t, s, "shop", it.SKU, it.Quantity)
	}
	var callers sync.WaitGroup
	for range 64 {
		callers.Go(func() {
			for i := range holds / 64 {
				items := cart("milk", 1)
				if i%16 == 0 {
					items = cart("milk", 1, "bread", 1, "eggs", 1)
				}
				if _, err := s.Reserve(t.Context(), "shop", items, time.Hour, inventory.Options{}); err != nil {
					t.Errorf("Reserve() = %v", err)
				}
			}
		})
	}
	callers.Wait()
	wantStock(t, s, "shop", "milk", holds, holds)
	calls.reset()
	dueNow(t, s, "shop")
	if _, err := s.Reserve(t.Context(), "shop", all, time.Hour, inventory.Options{}); err != nil {
		t.Errorf("Reserve() of all that came back = %v", err)
	}
	expired, made, most := calls.reset()
	t.Logf("%d holds expired in %d calls, %d in one at most", expired, made, most)
	if expired != holds || most > inCall {
		t.Errorf("%d holds expired, %d in one call, want %d and at most %d", expired, most, holds, inCall)
	}
	for _, it := range all {
		wantStock(t, s, "shop", it.SKU, it.Quantity, it.Quantity)
	}
	audit(t, s, "shop")
}

// dueNow makes all holds of a location end now.
func dueNow(t *testing.T, s *inventory.Store, location string) {
	t.Helper()
	k := s.KeysOf(location)
	err := s.Client().Redis().Eval(t.Context(), `
		local time = redis.call('TIME')
		local now = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
		for _, id in ipairs(redis.call('HKEYS', KEYS[1])) do
			local text = redis.call('HGET', KEYS[1], id)
			redis.call('HSET', KEYS[1], id, (string.gsub(text, '^(%a %d+) %d+', '%1 ' .. now)))
		end
		for _, member in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
			redis.call('ZADD', KEYS[2], now, member)
		end
		return 1`, []string{k[1], k[3]}).Err()
	if err != nil {
		t.Fatal(err)
	}
}

// calls counts what apply.lua says it gave back.
type calls struct {
	mu                  sync.Mutex // guards the fields below
	expired, made, most int
}

func (c *calls) reset() (expired, made, most int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	expired, made, most = c.expired, c.made, c.most
	c.expired, c.made, c.most = 0, 0, 0
	return expired, made, most
}

func (c *calls) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *calls) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (c *calls) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		reply, ok := cmd.(interface{ StringSlice() ([]string, error) })
		if err != nil || !ok || cmd.Name() != "evalsha" {
			return err
		}
		if words, err := reply.StringSlice(); err == nil && len(words) > 0 {
			var n int
			if _, err := fmt.Sscan(words[0], &n); err == nil && n > 0 {
				c.mu.Lock()
				c.expired, c.made, c.most = c.expired+n, c.made+1, max(c.most, n)
				c.mu.Unlock()
			}
		}
		return err
	}
}

// TestForgottenAfterRetention ends reservations in each way: when they were kept for long enough
// nothing is left of them or their keys, and a key is free again.
func TestForgottenAfterRetention(t *testing.T) {
	for name, config := range map[string]redisconn.Config{"embedded": {}, "single": redistest.Single(t).Config()} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, inventory.Config{Redis: redistest.Open(t, config), Retention: 50 * time.Millisecond, Logger: quiet})
			ctx := t.Context()
			set(t, s, "shop", "milk", 10)
			key := func(i int) inventory.Options { return inventory.Options{Key: fmt.Sprint("k", i)} }
			var ids []string
			for i := range 3 {
				r, err := s.ReserveFor(ctx, "shop", cart("milk", 1), 30*time.Millisecond+time.Duration(i)*time.Hour, key(i))
				if err != nil {
					t.Fatal(err)
				}
				ids = append(ids, r.Reservation)
			}
			if _, err := s.Commit(ctx, ids[1], nil, key(10)); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Release(ctx, ids[2], nil, key(11)); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Adjust(ctx, "shop", "milk", 1, "", key(12)); err != nil {
				t.Fatal(err)
			}
			eventually(t, "all is forgotten", func() bool {
				b := audit(t, s, "shop")
				return len(b.records) == 0 && len(b.keys) == 0
			})
			k := s.KeysOf("shop")
			if due, err := s.Client().Redis().ZCard(ctx, k[3]).Result(); err != nil || due != 0 {
				t.Errorf("%d are due, %v, want none", due, err)
			}
			if score, err := s.Client().Redis().ZScore(ctx, k[6], "shop").Result(); err == nil {
				t.Errorf("the location is still due at %v", score)
			}
			for _, id := range ids {
				_, err := s.Reservation(ctx, id, inventory.Options{})
				wantCode(t, "Reservation()", err, dray.ErrNotFound)
			}
			if _, err := s.Reserve(ctx, "shop", cart("milk", 2), time.Minute, key(0)); err != nil {
				t.Errorf("Reserve() of another cart under a forgotten key = %v", err)
			}
			wantStock(t, s, "shop", "milk", 10, 2)
		})
	}
}
