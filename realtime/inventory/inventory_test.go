package inventory_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"dray"
	"dray/realtime/inventory"
	"dray/redisconn"
	"dray/redisconn/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }

// onEach runs a test on the embedded Redis, a single one and a Cluster.
func onEach(t *testing.T, test func(t *testing.T, s *inventory.Store)) {
	configs := map[string]func(t *testing.T) redisconn.Config{
		"embedded": func(t *testing.T) redisconn.Config { return redisconn.Config{} },
		"single":   func(t *testing.T) redisconn.Config { return redistest.Single(t).Config() },
		"cluster":  func(t *testing.T) redisconn.Config { return redistest.Cluster(t).Config() },
	}
	for name, config := range configs {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && name != "embedded" {
				t.Skip("SKIP-SHORT")
			}
			c := config(t)
			c.KeyPrefix = redistest.Prefix(t)
			test(t, newStore(t, inventory.Config{Redis: redistest.Open(t, c)}))
		})
	}
}

func newStore(t testing.TB, cfg inventory.Config) *inventory.Store {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s, err := inventory.New(context.Background(), cfg)
	if err != nil {
		t.Fatalf("New() = %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Errorf("Close() = %v", err)
		}
	})
	return s
}

func set(t testing.TB, s *inventory.Store, location, sku string, quantity int64) dray.Stock {
	t.Helper()
	stock, err := s.Set(t.Context(), location, sku, inventory.Set{Quantity: quantity}, inventory.Options{})
	if err != nil {
		t.Fatalf("Set(%s, %s, %d) = %v", location, sku, quantity, err)
	}
	return stock
}

// wantStock checks quantity and reserved.
func wantStock(t testing.TB, s *inventory.Store, location, sku string, quantity, reserved int64) dray.Stock {
	t.Helper()
	stock, err := s.Get(t.Context(), location, sku)
	if err != nil || stock.Quantity != quantity || stock.Reserved != reserved || stock.Available != max(quantity-reserved, 0) {
		t.Fatalf("Get(%s, %s) = %+v, %v, want quantity %d, reserved %d", location, sku, stock, err, quantity, reserved)
	}
	return stock
}

func cart(lines ...any) (items []dray.Item) {
	for i := 0; i < len(lines); i += 2 {
		items = append(items, dray.Item{SKU: lines[i].(string), Quantity: int64(lines[i+1].(int))})
	}
	return items
}

func wantCode(t testing.TB, what string, err error, want *dray.Error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s = %v, want %s", what, err, want.Code)
	}
}

func TestReservationFromHoldToCommit(t *testing.T) {
	onEach(t, func(t *testing.T, s *inventory.Store) {
		ctx, none := t.Context(), inventory.Options{}
		set(t, s, "shop", "milk", 10)
		set(t, s, "shop", "bread", 5)
		r, err := s.Reserve(ctx, "shop", cart("milk", 2, "bread", 1, "milk", 1), time.Minute, none)
		if err != nil || r.Status != dray.StatusHeld || len(r.Items) != 2 || r.Items[1].Quantity != 3 {
			t.Fatalf("Reserve() = %+v, %v, want bread 1 and milk 3 held", r, err)
		}
		wantStock(t, s, "shop", "milk", 10, 3)
		wantStock(t, s, "shop", "bread", 5, 1)

		_, err = s.Reserve(ctx, "shop", cart("milk", 8, "bread", 5, "eggs", 1), time.Minute, none)
		wantCode(t, "Reserve() of too much", err, dray.ErrInsufficientStock)
		if e := dray.AsError(err); len(e.Details) != 3 || e.Details[0].SKU != "bread" || *e.Details[0].Available != 4 ||
			*e.Details[1].Requested != 1 || *e.Details[1].Available != 0 || *e.Details[2].Available != 7 {
			t.Fatalf("details = %+v, want every short line", e.Details)
		}
		wantStock(t, s, "shop", "milk", 10, 3)

		r, err = s.Commit(ctx, r.Reservation, cart("milk", 1), none)
		if err != nil || r.Status != dray.StatusHeld || r.Items[1].Committed != 1 {
			t.Fatalf("Commit() of a part = %+v, %v", r, err)
		}
		_, err = s.Commit(ctx, r.Reservation, cart("milk", 3), none)
		wantCode(t, "Commit() of more than is held", err, dray.ErrExceedsHeld)
		if r, err = s.Release(ctx, r.Reservation, cart("bread", 1), none); err != nil {
			t.Fatalf("Release() of a part = %v", err)
		}
		if r, err = s.Commit(ctx, r.Reservation, nil, none); err != nil || r.Status != dray.StatusCommitted {
			t.Fatalf("Commit() of the rest = %+v, %v", r, err)
		}
		wantStock(t, s, "shop", "milk", 7, 0)
		wantStock(t, s, "shop", "bread", 5, 0)
		_, err = s.Commit(ctx, r.Reservation, nil, none)
		wantCode(t, "second Commit()", err, dray.ErrAlreadyCommitted)
		_, err = s.Release(ctx, r.Reservation, nil, none)
		wantCode(t, "Release() after Commit()", err, dray.ErrAlreadyCommitted)
		_, err = s.Commit(ctx, "shop.ABCDEFGH", nil, none)
		wantCode(t, "Commit() of an unknown one", err, dray.ErrNotFound)

		entries, next, err := s.Ledger(ctx, "shop", "milk", "", 100)
		if err != nil || next != "" || len(entries) != 4 {
			t.Fatalf("Ledger() = %+v, %q, %v, want 4 entries", entries, next, err)
		}
		for i, want := range []struct {
			kind             dray.LedgerKind
			quantity, before int64
		}{{dray.LedgerCommit, 7, 9}, {dray.LedgerCommit, 9, 10}, {dray.LedgerHold, 10, 10}, {dray.LedgerSet, 10, 0}} {
			if e := entries[i]; e.Kind != want.kind || e.Quantity.After != want.quantity || e.Quantity.Before != want.before {
				t.Errorf("entry %d = %+v, want %+v", i, e, want)
			}
		}
		of, _, err := s.ReservationLedger(ctx, r.Reservation, "", 100)
		if err != nil || len(of) != 5 {
			t.Fatalf("ReservationLedger() = %+v, %v, want 5 entries", of, err)
		}
	})
}

func TestHoldExpiresAtItsTime(t *testing.T) {
	onEach(t, func(t *testing.T, s *inventory.Store) {
		ctx, none := t.Context(), inventory.Options{}
		set(t, s, "shop", "milk", 10)
		r, err := s.Reserve(ctx, "shop", cart("milk", 10), time.Second, none)
		if err != nil {
			t.Fatal(err)
		}
		for { // every read after it sees the units, none before
			before := time.Now()
			stock, err := s.Get(ctx, "shop", "milk")
			if err != nil {
				t.Fatal(err)
			}
			if stock.Available == 10 {
				if time.Now().Before(r.ExpiresAt) {
					t.Fatalf("given back %v early", time.Until(r.ExpiresAt))
				}
				break
			}
			if before.After(r.ExpiresAt.Add(20 * time.Millisecond)) {
				t.Fatalf("%v late", time.Since(r.ExpiresAt))
			}
			time.Sleep(5 * time.Millisecond)
		}
		_, err = s.Commit(ctx, r.Reservation, nil, none)
		wantCode(t, "Commit() after expiry", err, dray.ErrReservationExpired)
		_, err = s.Extend(ctx, r.Reservation, time.Minute, none)
		wantCode(t, "Extend() after expiry", err, dray.ErrReservationExpired)
		if r, err = s.Reservation(ctx, r.Reservation, none); err != nil || r.Status != dray.StatusExpired {
			t.Fatalf("Reservation() = %+v, %v, want expired", r, err)
		}
	})
}

func TestKeyGivesTheSameAnswer(t *testing.T) {
	onEach(t, func(t *testing.T, s *inventory.Store) {
		ctx, key := t.Context(), inventory.Options{Key: "order 7", By: "alice"}
		set(t, s, "shop", "milk", 5)
		first, err := s.Reserve(ctx, "shop", cart("milk", 3), time.Minute, key)
		if err != nil {
			t.Fatal(err)
		}
		second, err := s.Reserve(ctx, "shop", cart("milk", 1, "milk", 2), time.Minute, key)
		if err != nil || second.Reservation != first.Reservation || !second.ExpiresAt.Equal(first.ExpiresAt) {
			t.Fatalf("Reserve() again = %+v, %v, want %+v", second, err, first)
		}
		_, err = s.Reserve(ctx, "shop", cart("milk", 2), time.Minute, key)
		wantCode(t, "Reserve() of another cart", err, dray.ErrIdempotencyMismatch)
		_, err = s.Reserve(ctx, "shop", cart("milk", 3), time.Minute, inventory.Options{Key: "order 7", By: "bob"})
		wantCode(t, "Reserve() by another caller", err, dray.ErrInsufficientStock)
		wantStock(t, s, "shop", "milk", 5, 3)

		refused := inventory.Options{Key: "order 8"}
		_, err = s.Reserve(ctx, "shop", cart("milk", 3), time.Minute, refused)
		wantCode(t, "Reserve() of too much", err, dray.ErrInsufficientStock)
		set(t, s, "shop", "milk", 6)
		if _, err = s.Reserve(ctx, "shop", cart("milk", 3), time.Minute, refused); err != nil {
			t.Fatalf("Reserve() after a refusal = %v, want success", err)
		}
		adjust := inventory.Options{Key: "delivery"}
		for range 2 {
			if stock, err := s.Adjust(ctx, "shop", "milk", 10, "delivery", adjust); err != nil || stock.Quantity != 16 {
				t.Fatalf("Adjust() = %+v, %v, want 16", stock, err)
			}
		}
		commit := inventory.Options{Key: "paid"}
		for range 2 {
			if r, err := s.Commit(ctx, first.Reservation, cart("milk", 1), commit); err != nil || r.Items[0].Committed != 1 {
				t.Fatalf("Commit() = %+v, %v, want 1 committed", r, err)
			}
		}
		wantStock(t, s, "shop", "milk", 15, 5)
	})
}

func TestProductsOfTheOlderShape(t *testing.T) {
	onEach(t, func(t *testing.T, s *inventory.Store) {
		ctx, p := t.Context(), s.Products()
		if _, err := p.Set(ctx, "p.1", 10); err != nil {
			t.Fatal(err)
		}
		for _, n := range []int64{4, 5} {
			if err := p.Reserve(ctx, "p.1", n); err != nil {
				t.Fatalf("Reserve(%d) = %v", n, err)
			}
		}
		wantCode(t, "Reserve(2)", p.Reserve(ctx, "p.1", 2), dray.ErrInsufficientStock)
		if err := p.Release(ctx, "p.1", 3); err != nil {
			t.Fatal(err)
		}
		if err := p.Sell(ctx, "p.1", 6); err != nil {
			t.Fatal(err)
		}
		wantStock(t, s, dray.DefaultLocation, "p.1", 4, 0)
		wantCode(t, "Release(1)", p.Release(ctx, "p.1", 1), dray.ErrNotFound)
		if err := p.Reserve(ctx, "p.1", 1); err != nil {
			t.Fatal(err)
		}
		wantStock(t, s, dray.DefaultLocation, "p.1", 4, 1)
	})
}
