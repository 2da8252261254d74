package inventory_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"dray"
	"dray/realtime/inventory"
	"dray/redisconn"
	"dray/redisconn/redistest"
)

// TestEveryWrongOrder holds a cart of 3 milk and 2 bread and goes through steps, of which the last
// one must be refused and change nothing.
func TestEveryWrongOrder(t *testing.T) {
	s := newStore(t, inventory.Config{Redis: redistest.Open(t, redisconn.Config{})})
	for i, c := range []struct {
		name, steps string
		want        *dray.Error
	}{
		{"commit twice", "commit; commit", dray.ErrAlreadyCommitted},
		{"release after commit", "commit; release", dray.ErrAlreadyCommitted},
		{"extend after commit", "commit; extend", dray.ErrAlreadyCommitted},
		{"release twice", "release; release", dray.ErrAlreadyReleased},
		{"commit after release", "release; commit", dray.ErrAlreadyReleased},
		{"extend after release", "release; extend", dray.ErrAlreadyReleased},
		{"commit after expiry", "expire; commit", dray.ErrReservationExpired},
		{"release after expiry", "expire; release", dray.ErrReservationExpired},
		{"extend after expiry", "expire; extend", dray.ErrReservationExpired},
		{"part after expiry", "expire; commit milk 1", dray.ErrReservationExpired},
		{"commit of the rest after it expired", "commit milk 1; expire; commit", dray.ErrReservationExpired},
		{"part after commit", "commit; release milk 1", dray.ErrAlreadyCommitted},
		{"part after release", "release; commit milk 1", dray.ErrAlreadyReleased},
		{"the same line committed twice", "commit milk 3; commit milk 1", dray.ErrAlreadyCommitted},
		{"a committed line released", "commit milk 3; release milk 3", dray.ErrAlreadyCommitted},
		{"a released line committed", "release bread 2; commit bread 1", dray.ErrAlreadyReleased},
		{"a line half committed and half released", "commit milk 1; release milk 2; commit milk 1", dray.ErrExceedsHeld},
		{"one line committed, one released, both again", "commit milk 3; release bread 1; release bread 2, milk 1", dray.ErrExceedsHeld},
		{"parts until nothing is left, by commit", "release milk 3; commit bread 2; commit", dray.ErrAlreadyCommitted},
		{"parts until nothing is left, by release", "commit milk 3; release bread 2; commit", dray.ErrAlreadyReleased},
		{"more than is held", "commit milk 4", dray.ErrExceedsHeld},
		{"more than is left", "commit milk 2; release milk 2", dray.ErrExceedsHeld},
		{"one line of two is too much", "commit milk 1, bread 3", dray.ErrExceedsHeld},
		{"lines that add up to more", "commit milk 2, milk 2", dray.ErrExceedsHeld},
		{"an SKU that is not in it", "commit eggs 1", dray.ErrExceedsHeld},
		{"one that is not in it, before one committed", "commit milk 3; commit apple 1, milk 1", dray.ErrExceedsHeld},
		{"one that is not in it, after one committed", "commit bread 2; commit bread 1, eggs 1", dray.ErrExceedsHeld},
		{"commit of more than was left on hand", "force milk 2; commit", dray.ErrInsufficientStock},
		{"part of more than was left on hand", "force milk 0; commit milk 1", dray.ErrInsufficientStock},
		{"extend of what never expires", "product; extend", dray.ErrNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := order{t: t, s: s, location: fmt.Sprintf("shop%d", i)}
			set(t, s, o.location, "milk", 10)
			set(t, s, o.location, "bread", 10)
			r, err := s.Reserve(t.Context(), o.location, cart("milk", 3, "bread", 2), time.Hour, inventory.Options{})
			if err != nil {
				t.Fatal(err)
			}
			o.id = r.Reservation
			steps := strings.Split(c.steps, "; ")
			last := len(steps) - 1
			for _, step := range steps[:last] {
				if err := o.do(step); err != nil {
					t.Fatalf("%s = %v", step, err)
				}
			}
			before := audit(t, s, o.location)
			wantCode(t, steps[last], o.do(steps[last]), c.want)
			if after := audit(t, s, o.location); fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("%s was refused, but changed %v\nto %v", steps[last], before, after)
			}
		})
	}
}

// An order goes through the steps of a table.
type order struct {
	t            *testing.T
	s            *inventory.Store
	location, id string
}

func (o *order) do(step string) error {
	ctx, none := o.t.Context(), inventory.Options{}
	verb, rest, _ := strings.Cut(step, " ")
	var items []dray.Item
	for line := range strings.SplitSeq(rest, ", ") {
		var it dray.Item
		if n, _ := fmt.Sscan(line, &it.SKU, &it.Quantity); n == 2 {
			items = append(items, it)
		}
	}
	var err error
	switch verb {
	case "commit":
		_, err = o.s.Commit(ctx, o.id, items, none)
	case "release":
		_, err = o.s.Release(ctx, o.id, items, none)
	case "extend":
		_, err = o.s.Extend(ctx, o.id, time.Minute, none)
	case "expire":
		expireNow(o.t, o.s, o.location, o.id)
	case "force":
		_, err = o.s.Set(ctx, o.location, items[0].SKU, inventory.Set{Quantity: items[0].Quantity, Force: true}, none)
	case "product":
		p := o.s.Products()
		o.location = dray.DefaultLocation
		if _, err = p.Set(ctx, "p", 5); err == nil {
			err = p.Reserve(ctx, "p", 2)
		}
		o.id = audit(o.t, o.s, o.location).entries[1].reservation
	default:
		o.t.Fatalf("unknown step %q", step)
	}
	return err
}

// expireNow ends a hold before its time, as only Redis's clock can.
func expireNow(t *testing.T, s *inventory.Store, location, id string) {
	t.Helper()
	rdb, k := s.Client().Redis(), s.KeysOf(location)
	text, err := rdb.HGet(t.Context(), k[1], id).Result()
	if err != nil {
		t.Fatal(err)
	}
	w := strings.SplitN(text, " ", 4)
	w[2] = w[1] // it expires when it was made
	rdb.HSet(t.Context(), k[1], id, strings.Join(w, " "))
	rdb.ZAdd(t.Context(), k[3], redisZ(ints(w[1])[0], id))
	if r, err := s.Reservation(t.Context(), id, inventory.Options{}); err != nil || r.Status == dray.StatusHeld {
		t.Fatalf("Reservation() = %+v, %v, want expired", r, err)
	}
}

func TestEveryBadInput(t *testing.T) {
	s := newStore(t, inventory.Config{Redis: redistest.Open(t, redisconn.Config{})})
	set(t, s, "shop", "milk", 10)
	held, err := s.Reserve(t.Context(), "shop", cart("milk", 1), time.Hour, inventory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	before := audit(t, s, "shop")
	for _, c := range badInputs(held.Reservation) {
		t.Run(c.name, func(t *testing.T) {
			err := c.call(t.Context(), s)
			wantCode(t, "call", err, c.want)
			if strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("error %q repeats what was sent", err)
			}
		})
	}
	if after := audit(t, s, "shop"); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("refused requests changed %v\nto %v", before, after)
	}
}

type badInput struct {
	name string
	want *dray.Error
	call func(ctx context.Context, s *inventory.Store) error
}

func badInputs(held string) (all []badInput) {
	none := inventory.Options{}
	add := func(name string, want *dray.Error, call func(ctx context.Context, s *inventory.Store) error) {
		all = append(all, badInput{name, want, call})
	}
	reserve := func(location string, items []dray.Item, ttl time.Duration, o inventory.Options) func(context.Context, *inventory.Store) error {
		return func(ctx context.Context, s *inventory.Store) error {
			_, err := s.Reserve(ctx, location, items, ttl, o)
			return err
		}
	}
	for _, n := range []int64{0, -1, 1 << 53, dray.MaxQuantity + 1, math.MinInt64, math.MaxInt64} {
		items := []dray.Item{{SKU: "milk", Quantity: n}}
		add(fmt.Sprintf("cart of %d units", n), dray.ErrBadRequest, reserve("shop", items, time.Minute, none))
		add(fmt.Sprintf("commit of %d units", n), dray.ErrBadRequest, func(ctx context.Context, s *inventory.Store) error {
			_, err := s.Commit(ctx, held, items, none)
			return err
		})
		if n != 0 {
			add(fmt.Sprintf("set to %d units", n), dray.ErrBadRequest, func(ctx context.Context, s *inventory.Store) error {
				_, err := s.Set(ctx, "shop", "milk", inventory.Set{Quantity: n}, none)
				return err
			})
		}
		if n != -1 {
			add(fmt.Sprintf("adjust by %d units", n), dray.ErrBadRequest, func(ctx context.Context, s *inventory.Store) error {
				_, err := s.Adjust(ctx, "shop", "milk", n, "", none)
				return err
			})
		}
	}
	add("adjust over the most there may be", dray.ErrBadRequest, func(ctx context.Context, s *inventory.Store) error {
		_, err := s.Adjust(ctx, "shop", "milk", dray.MaxQuantity, "", none)
		return err
	})
	add("adjust below zero", dray.ErrInsufficientStock, func(ctx context.Context, s *inventory.Store) error {
		_, err := s.Adjust(ctx, "shop", "milk", -11, "", none)
		return err
	})
	add("adjust below what is reserved", dray.ErrBelowReserved, func(ctx context.Context, s *inventory.Store) error {
		_, err := s.Adjust(ctx, "shop", "milk", -10, "", none)
		return err
	})
	add("set below what is reserved", dray.ErrBelowReserved, func(ctx context.Context, s *inventory.Store) error {
		_, err := s.Set(ctx, "shop", "milk", inventory.Set{}, none)
		return err
	})
	for _, v := range []int64{0, -1, 7, math.MaxInt64} {
		add(fmt.Sprintf("set of version %d", v), dray.ErrVersionConflict, func(ctx context.Context, s *inventory.Store) error {
			_, err := s.Set(ctx, "shop", "milk", inventory.Set{Quantity: 5, Version: &v}, none)
			return err
		})
	}
	add("cart of no lines", dray.ErrBadRequest, reserve("shop", nil, time.Minute, none))
	add("cart of 101 lines", dray.ErrTooLarge, reserve("shop", make([]dray.Item, 101), time.Minute, none))
	for _, ttl := range []time.Duration{-1, -time.Second, time.Second - 1, dray.MaxHold + 1, math.MaxInt64} {
		add(fmt.Sprintf("hold for %d ns", ttl), dray.ErrBadRequest, reserve("shop", cart("milk", 1), ttl, none))
		add(fmt.Sprintf("extend by %d ns", ttl), dray.ErrBadRequest, func(ctx context.Context, s *inventory.Store) error {
			_, err := s.Extend(ctx, held, ttl, none)
			return err
		})
	}
	for _, id := range []string{"", strings.Repeat("x", 129), "a b", "{a}", "a*", "a\nb", "a\x00", "ä", "#", "+a"} {
		add(fmt.Sprintf("SKU %q", id), dray.ErrBadRequest, reserve("shop", cart(id, 1), time.Minute, none))
		if id != "" { // that is the default location
			add(fmt.Sprintf("location %q", id), dray.ErrBadRequest, reserve(id, cart("milk", 1), time.Minute, none))
			add(fmt.Sprintf("caller %q", id), dray.ErrBadRequest, reserve("shop", cart("milk", 1), time.Minute, inventory.Options{By: id}))
			add(fmt.Sprintf("list from %q", id), dray.ErrBadRequest, func(ctx context.Context, s *inventory.Store) error {
				_, _, err := s.List(ctx, "shop", id, 10)
				return err
			})
		}
		add(fmt.Sprintf("get of %q", id), dray.ErrBadRequest, func(ctx context.Context, s *inventory.Store) error {
			_, err := s.Get(ctx, "shop", id)
			return err
		})
		add(fmt.Sprintf("reservation %q", id), dray.ErrNotFound, func(ctx context.Context, s *inventory.Store) error {
			_, err := s.Commit(ctx, id, nil, none)
			return err
		})
	}
	for _, id := range []string{"shop.", ".abc", "shop", held + "x", strings.ToLower(held), "other" + held[4:], strings.Repeat("x", 200) + ".a"} {
		add(fmt.Sprintf("reservation %.20q", id), dray.ErrNotFound, func(ctx context.Context, s *inventory.Store) error {
			_, err := s.Reservation(ctx, id, none)
			return err
		})
	}
	for _, key := range []string{strings.Repeat("k", 256), "a\nb", "ä", "\x00"} {
		add(fmt.Sprintf("key %.10q", key), dray.ErrBadRequest, reserve("shop", cart("milk", 1), time.Minute, inventory.Options{Key: key}))
	}
	for _, n := range []int{-1, dray.MaxReplicas + 1} {
		add(fmt.Sprintf("%d replicas", n), dray.ErrBadRequest, reserve("shop", cart("milk", 1), time.Minute, inventory.Options{Replicas: n}))
	}
	for _, reason := range []string{strings.Repeat("x", 257), "a\nb", "\xff", "\x00"} {
		add(fmt.Sprintf("reason %.10q", reason), dray.ErrBadRequest, func(ctx context.Context, s *inventory.Store) error {
			_, err := s.Adjust(ctx, "shop", "milk", 1, reason, none)
			return err
		})
	}
	for _, limit := range []int{-1, 0, dray.MaxLimit + 1} {
		add(fmt.Sprintf("list of %d", limit), dray.ErrBadRequest, func(ctx context.Context, s *inventory.Store) error {
			_, _, err := s.List(ctx, "shop", "", limit)
			return err
		})
		add(fmt.Sprintf("ledger of %d", limit), dray.ErrBadRequest, func(ctx context.Context, s *inventory.Store) error {
			_, _, err := s.Ledger(ctx, "shop", "milk", "", limit)
			return err
		})
	}
	for _, cursor := range []string{"-1", "0", "x", "1-1", "99999999999999999999", " 1"} {
		add(fmt.Sprintf("ledger from %q", cursor), dray.ErrBadRequest, func(ctx context.Context, s *inventory.Store) error {
			_, _, err := s.Ledger(ctx, "shop", "milk", cursor, 10)
			return err
		})
	}
	add("unknown SKU in a cart", dray.ErrInsufficientStock, reserve("shop", cart("milk", 1, "eggs", 1), time.Minute, none))
	add("unknown location of a cart", dray.ErrInsufficientStock, reserve("nowhere", cart("milk", 1), time.Minute, none))
	add("unknown SKU read", dray.ErrNotFound, func(ctx context.Context, s *inventory.Store) error {
		_, err := s.Get(ctx, "shop", "eggs")
		return err
	})
	add("ledger of an unknown SKU", dray.ErrNotFound, func(ctx context.Context, s *inventory.Store) error {
		_, _, err := s.Ledger(ctx, "shop", "eggs", "", 10)
		return err
	})
	add("unknown SKU adjusted", dray.ErrNotFound, func(ctx context.Context, s *inventory.Store) error {
		_, err := s.Adjust(ctx, "shop", "eggs", 1, "", none)
		return err
	})
	return all
}

// TestSameKeyAtOnce sends one request from many callers of two nodes at the same time.
func TestSameKeyAtOnce(t *testing.T) {
	config := redistest.Single(t).Config()
	nodes := [2]*inventory.Store{}
	for i := range nodes {
		nodes[i] = newStore(t, inventory.Config{Redis: redistest.Open(t, config)})
	}
	set(t, nodes[0], "shop", "milk", 100)
	answers := make([]dray.Reservation, 32)
	var callers sync.WaitGroup
	for i := range answers {
		callers.Go(func() {
			var err error
			if answers[i], err = nodes[i%2].Reserve(t.Context(), "shop", cart("milk", 1), time.Minute, inventory.Options{Key: "k"}); err != nil {
				t.Errorf("Reserve() = %v", err)
			}
		})
	}
	callers.Wait()
	for _, r := range answers {
		if r.Reservation != answers[0].Reservation || !r.ExpiresAt.Equal(answers[0].ExpiresAt) {
			t.Fatalf("Reserve() = %+v and %+v, want the same", r, answers[0])
		}
	}
	wantStock(t, nodes[1], "shop", "milk", 100, 1)
	audit(t, nodes[0], "shop")
}

// TestProductsAtOnce reserves, releases and sells units of one product from many callers, so that
// its reservation ends and begins again within one call of Redis.
func TestProductsAtOnce(t *testing.T) {
	onEach(t, func(t *testing.T, s *inventory.Store) {
		p := s.Products()
		if _, err := p.Set(t.Context(), "p", 1000); err != nil {
			t.Fatal(err)
		}
		var callers sync.WaitGroup
		for range 32 {
			callers.Go(func() {
				for range 10 {
					if err := p.Reserve(t.Context(), "p", 1); err != nil {
						t.Errorf("Reserve() = %v", err)
					}
					if err := p.Release(t.Context(), "p", 1); err != nil {
						t.Errorf("Release() = %v", err)
					}
				}
			})
		}
		callers.Wait()
		wantStock(t, s, dray.DefaultLocation, "p", 1000, 0)
		audit(t, s, dray.DefaultLocation)
	})
}
