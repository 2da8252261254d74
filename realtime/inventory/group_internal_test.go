package inventory

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"dray"
	"dray/redisconn"
	"dray/redisconn/redistest"
)

// TestCallsOfManyHolds sends calls of random simple holds, among other requests, at stock that does
// not suffice: each is answered by itself, who came first is served first, and what is held is what is
// read afterwards.
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
				if _, err := newQueue(s, lane{location: location}).run(t.Context(), batch); err != nil {
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
				left := maps.Clone(stock)
				for i, o := range batch {
					if o.kind == 'g' {
						continue
					}
					it := o.items[0]
					fits := len(o.items) == 1 && it.Quantity <= left[it.SKU]
					if fits {
						left[it.SKU] -= it.Quantity
					}
					if fits != strings.HasPrefix(o.answer, "k") {
						t.Fatalf("request %d for %v was answered %q; first come, first served would be %t", i, o.items, o.answer, fits)
					}
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

// A hold that was extended or ended is due with those it was made with, and by itself. One call
// that settles both gives it back once, and keeps or forgets it as one of them alone would.
func TestWhatIsDueTwiceIsSettledOnce(t *testing.T) {
	for _, key := range []string{"", "k"} {
		for _, ownFirst := range []bool{true, false} {
			for _, commit := range []bool{true, false} {
				name := fmt.Sprintf("key %q, own first %v, commit %v", key, ownFirst, commit)
				config := redistest.Single(t).Config()
				config.KeyPrefix = redistest.Prefix(t)
				s, err := New(t.Context(), Config{Redis: redistest.Open(t, config), WaitTimeout: time.Millisecond})
				if err != nil {
					t.Fatal(err)
				}
				s.sweeper.close() // nobody settles before Get
				run := func(replicas int, ops ...*op) {
					t.Helper()
					if _, err := newQueue(s, lane{"shop", replicas}).run(t.Context(), ops); err != nil {
						t.Fatal(err)
					}
				}
				hold := func(quantity int64, n string) *op {
					r := ref{by: "*"}
					if key != "" {
						r.key, r.print = key+n, "print"
					}
					return &op{kind: 'h', id: newReservation("shop"), ttl: time.Hour, ref: r, items: []dray.Item{{SKU: "a", Quantity: quantity}}}
				}
				if _, err := s.Set(t.Context(), "shop", "a", Set{Quantity: 20}, Options{}); err != nil {
					t.Fatal(err)
				}
				first, second := hold(3, "1"), hold(3, "2")
				run(0, first, second)
				run(0, hold(4, "3"))
				then := &op{kind: 'e', id: second.id, ttl: 2 * time.Hour, ref: ref{by: "*"}}
				if commit {
					then.kind = 'c'
				}
				if run(0, then); then.answer[0] != 'k' {
					t.Fatalf("%s: answered %q", name, then.answer)
				}

				rdb, k := s.redis.Redis(), s.keys.ofApply("shop")
				for _, id := range []string{first.id, second.id} { // long ago
					w := strings.SplitN(rdb.HGet(t.Context(), k[1], id).Val(), " ", 4)
					w[2] = "1"
					rdb.HSet(t.Context(), k[1], id, strings.Join(w, " "))
				}
				alone := second.id // as it is due by itself
				if commit {
					alone = "~" + alone
				}
				own, both := 2.0, 1.0
				if ownFirst {
					own, both = 1, 2
				}
				rdb.ZAddXX(t.Context(), k[3], redis.Z{Score: own, Member: alone}, redis.Z{Score: both, Member: first.id + "," + second.id})
				if n, err := rdb.ZCount(t.Context(), k[3], "1", "2").Result(); n != 2 || err != nil {
					t.Fatalf("%s: %d are due, %v, want 2", name, n, err)
				}

				run(1, &op{kind: 'q', id: second.id}) // which writes what it reads once more
				row, err := s.Get(t.Context(), "shop", "a")
				if err != nil || row.Reserved != 4 {
					t.Errorf("%s: %d are reserved, %v, want 4", name, row.Reserved, err)
				}
				if kept := rdb.HExists(t.Context(), k[1], second.id).Val(); kept == commit {
					t.Errorf("%s: the reservation is kept: %v", name, kept)
				}
				if found, err := s.Audit(t.Context(), "shop", false); err != nil || len(found) > 0 {
					t.Errorf("%s: Audit() = %v, %v", name, found, err)
				}
				_ = s.Close(t.Context())
			}
		}
	}
}
