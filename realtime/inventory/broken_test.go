package inventory_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"dray"
	"dray/realtime/inventory"
	"dray/redisconn"
	"dray/redisconn/redistest"
)

// TestForeignValueUnderAKey puts somebody else's value under each of a location's keys. A request
// that meets it is unavailable and writes nothing; when it is gone, all is as before.
func TestForeignValueUnderAKey(t *testing.T) {
	names := []string{"stock", "holds", "keys", "due", "ledger", "skus", "registry", "locations"}
	onEach(t, func(t *testing.T, s *inventory.Store) {
		if s.Client().Mode() == redisconn.Embedded {
			t.Skip("nobody else can write to it")
		}
		ctx, rdb := t.Context(), s.Client().Redis()
		for i, name := range names {
			t.Run(name, func(t *testing.T) {
				location := "shop-" + name
				set(t, s, location, "milk", 10)
				keyed := inventory.Options{Key: "k", By: "alice"}
				r, err := s.Reserve(ctx, location, cart("milk", 2), time.Hour, keyed)
				if err != nil {
					t.Fatal(err)
				}
				key := s.KeysOf(location)[i]
				aside := key + ":aside"
				if err := rdb.Rename(ctx, key, aside).Err(); err != nil {
					t.Fatal(err)
				}
				rdb.Set(ctx, key, "foreign", 0)
				before := dump(t, s, location)
				for what, call := range map[string]func() error{
					"reserve": func() error {
						_, err := s.Reserve(ctx, location, cart("milk", 1), time.Hour, inventory.Options{Key: "k2"})
						return err
					},
					"set of a new SKU": func() error {
						_, err := s.Set(ctx, location, "bread", inventory.Set{Quantity: 5}, inventory.Options{})
						return err
					},
					"adjust": func() error {
						_, err := s.Adjust(ctx, location, "milk", 1, "", inventory.Options{})
						return err
					},
					"commit": func() error {
						_, err := s.Commit(ctx, r.Reservation, cart("milk", 1), inventory.Options{})
						return err
					},
				} {
					err := call()
					switch after := dump(t, s, location); {
					case err == nil: // it does not need this key
						before = after
					case !errors.Is(err, dray.ErrUnavailable):
						t.Errorf("%s = %v, want unavailable", what, err)
					case after != before:
						t.Errorf("%s failed (%v), but wrote\n%s\nwas\n%s", what, err, after, before)
						before = after
					}
				}
				rdb.Rename(ctx, aside, key)
				if _, err := s.Commit(ctx, r.Reservation, nil, inventory.Options{}); err != nil {
					t.Errorf("Commit() when the key is back = %v", err)
				}
				audit(t, s, location)
			})
		}
	})
}

// dump is all that Redis has under the keys of a location.
func dump(t *testing.T, s *inventory.Store, location string) string {
	t.Helper()
	rdb, all := s.Client().Redis(), ""
	for _, key := range s.KeysOf(location) {
		kind, err := rdb.Type(t.Context(), key).Result()
		var v any
		switch kind {
		case "hash":
			v, err = rdb.HGetAll(t.Context(), key).Result()
		case "zset":
			if strings.HasSuffix(key, ":inv:due") { // other locations' too
				v, err = rdb.ZScore(t.Context(), key, location).Result()
			} else {
				v, err = rdb.ZRangeWithScores(t.Context(), key, 0, -1).Result()
			}
		case "set":
			v, err = rdb.SIsMember(t.Context(), key, location).Result()
		case "stream":
			v, err = rdb.XLen(t.Context(), key).Result()
		}
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		all += fmt.Sprintf("%s %s %v\n", key, kind, v)
	}
	return all
}

// TestUnreadableRecords spoils a row, a reservation and an answer: each is unavailable and
// counted, and all others are as good as before.
func TestUnreadableRecords(t *testing.T) {
	registry := prometheus.NewRegistry()
	s := newStore(t, inventory.Config{Redis: redistest.Open(t, redisconn.Config{}), Metrics: registry, Logger: quiet})
	ctx, none, rdb, k := t.Context(), inventory.Options{}, s.Client().Redis(), s.KeysOf("shop")
	set(t, s, "shop", "milk", 10)
	set(t, s, "shop", "bread", 10)
	good, err := s.Reserve(ctx, "shop", cart("bread", 1), time.Hour, none)
	if err != nil {
		t.Fatal(err)
	}
	bad, err := s.Reserve(ctx, "shop", cart("bread", 2), time.Hour, inventory.Options{Key: "k"})
	if err != nil {
		t.Fatal(err)
	}
	field := ""
	for field = range audit(t, s, "shop").keys {
	}
	rdb.HSet(ctx, k[0], "milk", "ten")
	rdb.HSet(ctx, k[1], bad.Reservation, "spoilt")
	rdb.HSet(ctx, k[2], field, "spoilt")

	_, err = s.Get(ctx, "shop", "milk")
	wantCode(t, "Get()", err, dray.ErrUnavailable)
	_, err = s.Reserve(ctx, "shop", cart("milk", 1, "bread", 1), time.Hour, none)
	wantCode(t, "Reserve()", err, dray.ErrUnavailable)
	_, err = s.Set(ctx, "shop", "milk", inventory.Set{Quantity: 5}, none)
	wantCode(t, "Set()", err, dray.ErrUnavailable)
	_, err = s.Reservation(ctx, bad.Reservation, none)
	wantCode(t, "Reservation()", err, dray.ErrUnavailable)
	_, err = s.Commit(ctx, bad.Reservation, nil, none)
	wantCode(t, "Commit()", err, dray.ErrUnavailable)
	_, err = s.Reserve(ctx, "shop", cart("bread", 2), time.Hour, inventory.Options{Key: "k"})
	wantCode(t, "Reserve() under the key", err, dray.ErrUnavailable)
	page, _, err := s.List(ctx, "shop", "", 10)
	if err != nil || len(page) != 1 || page[0].SKU != "bread" {
		t.Errorf("List() = %v, %v, want bread", page, err)
	}
	if got := counter(t, registry, "dray_inventory_unreadable_total"); got < 6 {
		t.Errorf("%v unreadable records were counted, want at least 6", got)
	}

	rdb.ZAdd(ctx, k[3], redisZ(1, bad.Reservation)) // due: others must not wait for it
	if _, err := s.Commit(ctx, good.Reservation, nil, none); err != nil {
		t.Errorf("Commit() of another = %v", err)
	}
	wantStock(t, s, "shop", "bread", 9, 2)
	if score, err := rdb.ZScore(ctx, k[3], bad.Reservation).Result(); err == nil {
		t.Errorf("the unreadable reservation is still due at %v", score)
	}
}

// A row that cannot be read is not held, and no message of the ledger is made of it.
func TestUnreadableRowIsNotHeld(t *testing.T) {
	s := newStore(t, inventory.Config{Redis: redistest.Open(t, redisconn.Config{}), Logger: quiet})
	rdb, k := s.Client().Redis(), s.KeysOf("shop")
	set(t, s, "shop", "milk", 10)
	for _, row := range []string{"ten", "10 0 3", "10 0 3 x", "10 0 3x 4", "10 0 3 4 5", "10 0 3 4\nbread\n9 0 3 4"} {
		rdb.HSet(t.Context(), k[0], "milk", row)
		before := dump(t, s, "shop")
		_, err := s.Reserve(t.Context(), "shop", cart("milk", 1), time.Hour, inventory.Options{})
		wantCode(t, fmt.Sprintf("Reserve() where the row is %q", row), err, dray.ErrUnavailable)
		if after := dump(t, s, "shop"); after != before {
			t.Errorf("Reserve() where the row is %q wrote\n%s\nwas\n%s", row, after, before)
		}
	}
}

func counter(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// TestRedisThatForgot has its Redis restarted empty: nothing can be reserved until stock is
// set again, and no version of before is taken for one of now.
func TestRedisThatForgot(t *testing.T) {
	server := redistest.Start(t)
	s := newStore(t, inventory.Config{Redis: redistest.Open(t, server.Config()), Logger: quiet})
	ctx, none := t.Context(), inventory.Options{}
	old := set(t, s, "shop", "milk", 10)
	r, err := s.Reserve(ctx, "shop", cart("milk", 1), time.Hour, none)
	if err != nil {
		t.Fatal(err)
	}
	server.Restart(t)
	for _, err = s.Get(ctx, "shop", "milk"); errors.Is(err, dray.ErrUnavailable); _, err = s.Get(ctx, "shop", "milk") {
		time.Sleep(5 * time.Millisecond) // the connections that the restart cut
	}
	wantCode(t, "Get()", err, dray.ErrNotFound)
	_, err = s.Reserve(ctx, "shop", cart("milk", 1), time.Hour, none)
	wantCode(t, "Reserve()", err, dray.ErrInsufficientStock)
	_, err = s.Commit(ctx, r.Reservation, nil, none)
	wantCode(t, "Commit()", err, dray.ErrNotFound)
	_, err = s.Set(ctx, "shop", "milk", inventory.Set{Quantity: 10, Version: &old.Version}, none)
	wantCode(t, "Set() with the version of before", err, dray.ErrVersionConflict)
	again := set(t, s, "shop", "milk", 10)
	if again.Version <= old.Version {
		t.Errorf("version %d after %d, want a greater one", again.Version, old.Version)
	}
	_, err = s.Set(ctx, "shop", "milk", inventory.Set{Quantity: 10, Version: &old.Version}, none)
	wantCode(t, "Set() with the version of before", err, dray.ErrVersionConflict)
	if _, err = s.Reserve(ctx, "shop", cart("milk", 1), time.Hour, none); err != nil {
		t.Errorf("Reserve() = %v", err)
	}
	audit(t, s, "shop")
}

func TestScriptsAreForgottenInTheMiddle(t *testing.T) {
	server := redistest.Start(t)
	s := newStore(t, inventory.Config{Redis: redistest.Open(t, server.Config()), Logger: quiet})
	set(t, s, "shop", "milk", 1000)
	var callers sync.WaitGroup
	for range 16 {
		callers.Go(func() {
			for range 20 {
				if _, err := s.Reserve(t.Context(), "shop", cart("milk", 1), time.Hour, inventory.Options{}); err != nil {
					t.Errorf("Reserve() = %v", err)
				}
			}
		})
	}
	callers.Go(func() {
		for range 10 {
			server.Do(t, "SCRIPT", "FLUSH")
		}
	})
	callers.Wait()
	wantStock(t, s, "shop", "milk", 1000, 320)
	audit(t, s, "shop")
}

func TestLostAnswerIsDoneOnce(t *testing.T) {
	for name, fate := range map[string]redistest.Fate{"silent": redistest.Drop, "cut": redistest.Cut} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Single(t)
			n := newNode(t, server, redistest.Prefix(t))
			s := n.store
			ctx, key := t.Context(), inventory.Options{Key: "k"}
			set(t, s, "shop", "milk", 10)
			n.proxy.Replies(fate)
			_, err := s.Reserve(ctx, "shop", cart("milk", 1), time.Hour, inventory.Options{})
			wantCode(t, "Reserve() without an answer", err, dray.ErrUnavailable)
			_, err = s.Reserve(ctx, "shop", cart("milk", 2), time.Hour, key)
			wantCode(t, "Reserve() without an answer", err, dray.ErrUnavailable)
			n.proxy.Replies(redistest.Pass)
			n.proxy.CutAll()
			var r dray.Reservation
			for r, err = s.Reserve(ctx, "shop", cart("milk", 2), time.Hour, key); errors.Is(err, dray.ErrUnavailable); {
				r, err = s.Reserve(ctx, "shop", cart("milk", 2), time.Hour, key)
			}
			if err != nil {
				t.Fatal(err)
			}
			b := audit(t, s, "shop")
			// The first one may have died with its connection before it was sent, never be done twice.
			if stock := b.rows["milk"]; len(b.records) > 2 || stock.reserved > 3 || b.records[r.Reservation].lines["milk"][0] != 2 {
				t.Errorf("%d reservations, %d reserved, want 2, 3", len(b.records), stock.reserved)
			}
		})
	}
}
