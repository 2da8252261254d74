package inventory_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"dray"
	"dray/realtime/inventory"
	"dray/redisconn/redistest"
)

// Attempts under one key, on two nodes whose answers are lost, while stock and places come and go:
// each key ends with one reservation at one location, and whoever asks again is told of that one.
func TestNearUnderLostAnswersReservesOnceAKey(t *testing.T) {
	server, prefix, seed := redistest.Start(t), redistest.Prefix(t), seed(t)
	nodes := [2]*node{newNode(t, server, prefix), newNode(t, server, prefix)}
	direct := server.Config()
	direct.KeyPrefix = prefix
	s := newStore(t, inventory.Config{Redis: redistest.Open(t, direct)})
	const shops, keys = 5, 60
	shop := func(i int) string { return "shop-" + strconv.Itoa(i) }
	for i := range shops {
		place(t, s, shop(i), float64(500*(i+1)))
		set(t, s, shop(i), "milk", 2)
	}
	reserve := func(s *inventory.Store, key string) (string, error) {
		r, err := s.ReserveNear(context.Background(), center, 5000, cart("milk", 1), time.Minute, inventory.Options{Key: key})
		return r.Reservation, err
	}
	end := make(chan struct{})
	var trouble, all sync.WaitGroup
	trouble.Go(func() {
		r := rand.New(rand.NewPCG(seed, 1))
		for {
			select {
			case <-end:
				return
			default:
			}
			switch n := nodes[r.IntN(2)]; r.IntN(4) {
			case 0, 1:
				n.proxy.Replies(redistest.Cut)
				time.Sleep(time.Duration(r.IntN(2000)) * time.Microsecond)
				n.proxy.Replies(redistest.Pass)
			case 2:
				place(t, s, shop(r.IntN(shops)), float64(500+r.IntN(2500)))
			case 3:
				if _, err := s.Adjust(context.Background(), shop(r.IntN(shops)), "milk", 1, "", inventory.Options{}); err != nil {
					t.Error(err)
				}
			}
			time.Sleep(time.Duration(r.IntN(500)) * time.Microsecond)
		}
	})
	var mu sync.Mutex
	got := map[string]string{} // key -> reservation
	unknown := 0
	for k := range keys {
		key := "key " + strconv.Itoa(k)
		for attempt := range 4 {
			all.Go(func() {
				r := rand.New(rand.NewPCG(seed, uint64(100+4*k+attempt)))
				for range 6 {
					id, err := reserve(nodes[r.IntN(2)].now(), key)
					mu.Lock()
					switch {
					case err == nil && got[key] != "" && got[key] != id:
						t.Errorf("%s: told of %s and %s", key, got[key], id)
					case err == nil:
						got[key] = id
					case !errors.Is(err, dray.ErrInsufficientStock):
						unknown++
					}
					mu.Unlock()
				}
			})
		}
	}
	all.Wait()
	close(end)
	trouble.Wait()
	for k := range keys {
		key := "key " + strconv.Itoa(k)
		id, err := reserve(s, key)
		if got[key] != "" && (err != nil || id != got[key]) {
			t.Errorf("%s: told of %s, then %s, %v", key, got[key], id, err)
		}
		if err == nil {
			got[key] = id
		}
	}
	held := 0
	for i := range shops {
		for id, record := range s.Client().Redis().HGetAll(t.Context(), s.KeysOf(shop(i))[1]).Val() {
			held++
			if !strings.HasPrefix(record, "h ") {
				t.Errorf("%s is %q", id, record)
			}
		}
	}
	lost := nodes[0].proxy.Lost() + nodes[1].proxy.Lost()
	t.Logf("seed %d: %d keys of %d have a reservation, %d replies lost, %d answers unknown", seed, len(got), keys, lost, unknown)
	if held != len(got) || lost == 0 || unknown == 0 {
		t.Errorf("%d reservations under %d keys, %d replies lost, %d unknown", held, len(got), lost, unknown)
	}
}
