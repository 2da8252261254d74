package inventory

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"dray"
	"dray/redisconn"
	"dray/redisconn/redistest"
)

// TestCallsOfManyHolds sends calls of random simple holds, among other requests, at stock that does
// not suffice: each is answered by itself, none is refused that would fit, and what is held is
// what is read afterwards.
func TestCallsOfManyHolds(t *testing.T) {
	for mode, config := range map[string]redisconn.Config{"embedded": {}, "single": redistest.Single(t).Config()} {
		t.Run(mode, func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			rng := rand.New(rand.NewPCG(seed, 0))
			config.KeyPrefix = redistest.Prefix(t)
			s, err := New(t.Context(), Config{Redis: redistest.Open(t, config)})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.Close(t.Context()) })
			skus := []string{"a", "b", "c", "d"}
			for round := range 50 {
				location := fmt.Sprintf("shop%d", round)
				stock := map[string]int64{"d": 0} // d was never set
				for _, sku := range skus[:3] {
					stock[sku] = rng.Int64N(40)
					if _, err := s.Set(t.Context(), location, sku, Set{Quantity: stock[sku]}, Options{}); err != nil {
						t.Fatal(err)
					}
				}
				var batch []*op
				for range 1 + rng.IntN(60) {
					o := &op{kind: 'h', id: newReservation(location), ttl: time.Minute << rng.IntN(2), ref: ref{by: []string{"*", "ann"}[rng.IntN(2)]},
						items: []dray.Item{{SKU: skus[rng.IntN(len(skus))], Quantity: 1 + rng.Int64N(3)}}}
					switch rng.IntN(8) {
					case 0:
						o.items = append(o.items, dray.Item{SKU: "e", Quantity: 1})
					case 1:
						o.ref.key, o.ref.print = hash([]byte(o.id), 16), "print"
					case 2:
						o = &op{kind: 'g', sku: "a"}
					}
					batch = append(batch, o)
				}
				if _, err := (&queue{store: s, lane: lane{location: location}}).run(t.Context(), batch); err != nil {
					t.Fatal(err)
				}
				free := map[string]int64{}
				for _, sku := range skus[:3] {
					row, err := s.Get(t.Context(), location, sku)
					if err != nil {
						t.Fatal(err)
					}
					free[sku] = row.Available
				}
				for i, o := range batch {
					if o.kind == 'g' {
						continue
					}
					it := o.items[0]
					r, err := s.Reservation(t.Context(), o.id, Options{})
					switch {
					case strings.HasPrefix(o.answer, "k"):
						if err != nil || len(r.Items) != 1 || r.Items[0] != (dray.ReservedItem{SKU: it.SKU, Quantity: it.Quantity}) || r.Status != dray.StatusHeld {
							t.Fatalf("request %d: %v, %v; want %v held", i, r, err, it)
						}
						if "k"+fmt.Sprint(r.ExpiresAt.UnixMilli()) != o.answer {
							t.Fatalf("request %d was answered %s, ends at %d", i, o.answer, r.ExpiresAt.UnixMilli())
						}
						stock[it.SKU] -= it.Quantity
					case strings.HasPrefix(o.answer, "S"):
						if err == nil {
							t.Fatalf("request %d was refused, but is %v", i, r)
						}
						var requested, available int64
						_, err := fmt.Sscanf(o.answer, "S"+it.SKU+" %d %d\n", &requested, &available)
						if len(o.items) > 1 {
							continue
						}
						if err != nil || requested != it.Quantity || available >= requested || available < free[it.SKU] {
							t.Fatalf("request %d for %v was answered %q, %v; %d are left", i, it, o.answer, err, free[it.SKU])
						}
					default:
						t.Fatalf("request %d was answered %q", i, o.answer)
					}
				}
				for _, sku := range skus[:3] {
					if stock[sku] != free[sku] {
						t.Fatalf("%d of %s are left, by the answers %d", free[sku], sku, stock[sku])
					}
				}
				if found, err := s.Audit(t.Context(), location, false); err != nil || len(found) > 0 {
					t.Fatalf("Audit() = %v, %v", found, err)
				}
				entries, _, err := s.Ledger(t.Context(), location, "a", "", dray.MaxLimit)
				if err != nil {
					t.Fatal(err)
				}
				var paged []dray.LedgerEntry
				for cursor := ""; len(paged) == 0 || cursor != ""; {
					page, next, err := s.Ledger(t.Context(), location, "a", cursor, 7)
					if err != nil || len(page) > 7 || len(page) == 0 && next != "" {
						t.Fatalf("a page of %d entries, %v", len(page), err)
					}
					paged, cursor = append(paged, page...), next
				}
				if !slices.Equal(paged, entries) {
					t.Fatalf("by pages the entries are %v, at once %v", paged, entries)
				}
				for i, e := range entries[:len(entries)-1] {
					own, _, err := s.ReservationLedger(t.Context(), e.Reservation, "", 10)
					if before := entries[i+1]; err != nil || len(own) != 1 || own[0] != e || before.Reserved.After != e.Reserved.Before || before.Entry >= e.Entry {
						t.Fatalf("entry %+v follows %+v; of its reservation %+v, %v", e, before, own, err)
					}
				}
			}
		})
	}
}

// A hold that was extended is due with those it was made with, and by itself: it is given back
// once, and kept for its retention, though one call settles both.
func TestExtendedHoldIsGivenBackOnce(t *testing.T) {
	for _, ttl := range []time.Duration{20 * time.Millisecond, 40 * time.Millisecond} { // its own time comes first, or last
		for _, key := range []string{"", "k"} {
			s, err := New(t.Context(), Config{Redis: redistest.Open(t, redistest.Single(t).Config())})
			if err != nil {
				t.Fatal(err)
			}
			s.sweeper.close() // nobody settles meanwhile
			location := fmt.Sprint(redistest.Prefix(t), ttl.Milliseconds(), "x", key)
			location = strings.Map(func(r rune) rune {
				if dray.ValidID(string(r)) {
					return r
				}
				return '.'
			}, location)
			q := &queue{store: s, lane: lane{location: location}}
			run := func(ops ...*op) {
				t.Helper()
				if _, err := q.run(t.Context(), ops); err != nil {
					t.Fatal(err)
				}
			}
			hold := func(n int64, ttl time.Duration, key string) *op {
				return &op{kind: 'h', id: newReservation(location), ttl: ttl, ref: ref{by: "*", key: key, print: "p"}, items: []dray.Item{{SKU: "a", Quantity: n}}}
			}
			if _, err := s.Set(t.Context(), location, "a", Set{Quantity: 10}, Options{}); err != nil {
				t.Fatal(err)
			}
			k1, k2 := key, key
			if key != "" {
				k1, k2 = "k1", "k2"
			}
			first, second := hold(3, 30*time.Millisecond, k1), hold(3, 30*time.Millisecond, k2)
			run(first, second)
			run(hold(4, time.Hour, ""))
			run(&op{kind: 'e', id: second.id, ttl: ttl, ref: ref{by: "*"}})
			time.Sleep(80 * time.Millisecond) // both times pass
			row, err := s.Get(t.Context(), location, "a")
			if err != nil || row.Reserved != 4 {
				t.Errorf("extended to %v, key %q: %d are reserved, %v, want 4", ttl, key, row.Reserved, err)
			}
			if found, err := s.Audit(t.Context(), location, false); err != nil || len(found) > 0 {
				t.Errorf("Audit() = %v, %v", found, err)
			}
			if r, err := s.Reservation(t.Context(), second.id, Options{}); err != nil || r.Status != dray.StatusExpired {
				t.Errorf("Reservation() = %v, %v, want expired", r, err)
			}
			_ = s.Close(t.Context())
		}
	}
}
