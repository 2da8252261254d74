package inventory_test

import (
	"errors"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"dray"
	"dray/realtime/inventory"
)

var center = dray.Point{Latitude: 30.2672, Longitude: -97.7431}

// place puts a location so many metres north of center.
func place(t testing.TB, s *inventory.Store, location string, metres float64) {
	t.Helper()
	at := dray.Point{Latitude: center.Latitude + metres/111_226, Longitude: center.Longitude}
	if err := s.PutLocation(t.Context(), location, at); err != nil {
		t.Fatal(err)
	}
}

func TestNearestLocationWithTheWholeCart(t *testing.T) {
	onEach(t, func(t *testing.T, s *inventory.Store) {
		ctx, none := t.Context(), inventory.Options{}
		reserve := func(radius float64, o inventory.Options) (dray.Reservation, error) {
			return s.ReserveNear(ctx, center, radius, cart("milk", 2, "bread", 1), time.Minute, o)
		}
		_, err := reserve(5000, none)
		wantCode(t, "ReserveNear() without locations", err, dray.ErrInsufficientStock)
		for i, name := range []string{"near", "mid", "far"} {
			place(t, s, name, float64(1000*(i+1)))
			set(t, s, name, "milk", 3)
		}
		set(t, s, "mid", "bread", 1)
		set(t, s, "far", "bread", 1)
		r, err := reserve(5000, none)
		if err != nil || r.Location != "mid" || r.Distance < 1990 || r.Distance > 2010 {
			t.Fatalf("ReserveNear() = %+v, %v, want mid at 2 km", r, err)
		}
		_, err = reserve(2500, none)
		wantCode(t, "ReserveNear() of too much", err, dray.ErrInsufficientStock)
		if e := dray.AsError(err); len(e.Details) != 1 || e.Details[0].SKU != "bread" {
			t.Fatalf("details = %+v, want those of the nearest", e.Details)
		}
		// a refusal is not kept, and a success is
		key := inventory.Options{Key: "k"}
		_, err = reserve(2500, key)
		wantCode(t, "ReserveNear() with a key", err, dray.ErrInsufficientStock)
		set(t, s, "near", "bread", 5)
		first, err := reserve(2500, key)
		if err != nil || first.Location != "near" {
			t.Fatalf("ReserveNear() after a refusal = %+v, %v, want near", first, err)
		}
		again, err := reserve(2500, key)
		if err != nil || again.Reservation != first.Reservation || again.Distance-first.Distance > 0.01 {
			t.Fatalf("ReserveNear() again = %+v, %v, want %+v", again, err, first)
		}
		_, err = reserve(2600, key)
		wantCode(t, "ReserveNear() of another request", err, dray.ErrIdempotencyMismatch)
		if err := s.DeleteLocation(ctx, "near"); err != nil {
			t.Fatal(err)
		}
		if again, err = reserve(2500, key); err != nil || again.Reservation != first.Reservation {
			t.Fatalf("ReserveNear() when the location has no place = %+v, %v, want the answer of before", again, err)
		}
		wantCode(t, "DeleteLocation() twice", s.DeleteLocation(ctx, "near"), dray.ErrNotFound)
	})
}

// Attempts under one key run at once while stock comes and goes: each key ends at one location.
func TestAttemptsUnderOneKeyEndAtOneLocation(t *testing.T) {
	onEach(t, func(t *testing.T, s *inventory.Store) {
		ctx := t.Context()
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		r := rand.New(rand.NewPCG(seed, 0))
		for i := range 4 {
			place(t, s, "shop-"+strconv.Itoa(i), float64(500*(i+1)))
			set(t, s, "shop-"+strconv.Itoa(i), "milk", 1)
		}
		for k := range 20 {
			key := inventory.Options{Key: "key " + strconv.Itoa(k)}
			var mu sync.Mutex
			got := map[string]bool{}
			var attempts sync.WaitGroup
			for range 4 {
				attempts.Go(func() {
					res, err := s.ReserveNear(ctx, center, 5000, cart("milk", 1), time.Minute, key)
					if err != nil {
						if !errors.Is(err, dray.ErrInsufficientStock) {
							t.Errorf("ReserveNear() = %v", err)
						}
						return
					}
					mu.Lock()
					defer mu.Unlock()
					got[res.Reservation] = true
				})
			}
			shop := "shop-" + strconv.Itoa(r.IntN(4))
			if _, err := s.Adjust(ctx, shop, "milk", 1, "", inventory.Options{}); err != nil {
				t.Fatal(err)
			}
			attempts.Wait()
			if len(got) > 1 {
				t.Fatalf("key %d got %v", k, got)
			}
		}
		var reserved int64
		for i := range 4 {
			stock, err := s.Get(ctx, "shop-"+strconv.Itoa(i), "milk")
			if err != nil {
				t.Fatal(err)
			}
			reserved += stock.Reserved
		}
		if reserved > 20 {
			t.Fatalf("%d units reserved under 20 keys", reserved)
		}
	})
}
