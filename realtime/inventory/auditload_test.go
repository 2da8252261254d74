package inventory_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"dray"
	"dray/realtime/inventory"
	"dray/redisconn/redistest"
)

// A trade is 16 clients who do whatever changes the stock of one location, among so many SKUs
// that these and their reservations are read in pages; reservations are forgotten soon after their end.
type trade struct {
	t     *testing.T
	store *inventory.Store
	skus  int
	stop  func() // and wait
}

const bazaar = dray.DefaultLocation // that of Products

func startTrade(t *testing.T, ledger int64) *trade {
	client := redistest.Open(t, redistest.Single(t).Config())
	x := &trade{t: t, skus: 1500, store: newStore(t, inventory.Config{Redis: client, LedgerLength: ledger, Retention: 20 * time.Millisecond})}
	x.together(x.skus, func(i int) error {
		_, err := x.store.Set(t.Context(), bazaar, x.sku(i), inventory.Set{Quantity: 1000}, inventory.Options{})
		return err
	})
	x.together(3000, func(i int) error {
		_, err := x.store.Reserve(t.Context(), bazaar, cart(x.sku(i%x.skus), 1, x.sku((i*7+1)%x.skus), 2), time.Hour, inventory.Options{})
		return err
	})
	begin := seed(t)
	var clients sync.WaitGroup
	var over atomic.Bool
	for i := range 16 {
		clients.Go(func() {
			for rnd := rand.New(rand.NewPCG(begin, uint64(i))); !over.Load(); {
				x.change(rnd)
			}
		})
	}
	x.stop = func() {
		over.Store(true)
		clients.Wait()
	}
	t.Cleanup(x.stop)
	return x
}

func (x *trade) together(n int, do func(i int) error) {
	x.t.Helper()
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			if err := do(i); err != nil {
				x.t.Error(err)
			}
		})
	}
	all.Wait()
}

func (x *trade) sku(i int) string { return "sku-" + strconv.Itoa(i) }

// change does one thing; a few SKUs are in it most of the time.
func (x *trade) change(rnd *rand.Rand) {
	ctx, none := context.Background(), inventory.Options{}
	some := func() string {
		if rnd.IntN(2) == 0 {
			return x.sku(rnd.IntN(4))
		}
		return x.sku(rnd.IntN(x.skus))
	}
	var err error
	switch rnd.IntN(8) {
	case 0:
		_, err = x.store.Adjust(ctx, bazaar, some(), 3, "", none)
	case 1:
		sku := "new-" + strconv.Itoa(rnd.IntN(100_000))
		if _, err = x.store.Set(ctx, bazaar, sku, inventory.Set{Quantity: 5, Force: true}, none); err == nil {
			_, err = x.store.ReserveFor(ctx, bazaar, cart(sku, 1), 30*time.Millisecond, none)
		}
	case 2, 3:
		p, product := x.store.Products(), some()
		if err = p.Reserve(ctx, product, 2); err == nil {
			err = errors.Join(ignore(p.Sell(ctx, product, 1)), ignore(p.Release(ctx, product, 1)))
		}
	default:
		var r dray.Reservation
		r, err = x.store.ReserveFor(ctx, bazaar, cart(some(), 2, some(), 1), time.Duration(5+rnd.IntN(50))*time.Millisecond, none)
		if err != nil {
			break
		}
		item := []dray.Item{{SKU: r.Items[0].SKU, Quantity: 1}}
		switch rnd.IntN(4) {
		case 0:
			_, err = x.store.Commit(ctx, r.Reservation, item, none)
		case 1:
			_, err = x.store.Release(ctx, r.Reservation, item, none)
		case 2:
			_, err = x.store.Commit(ctx, r.Reservation, nil, none)
		} // else it expires
	}
	if ignore(err) != nil {
		x.t.Errorf("a change = %v", err)
	}
}

// ignore drops the refusals that clients who do not know of each other get.
func ignore(err error) error {
	for _, refusal := range []error{dray.ErrReservationExpired, dray.ErrInsufficientStock, dray.ErrExceedsHeld, dray.ErrNotFound, dray.ErrAlreadyCommitted, dray.ErrAlreadyReleased} {
		if errors.Is(err, refusal) {
			return nil
		}
	}
	return err
}

// Nothing differs, however much changes while an audit reads, and though the ledger is cut meanwhile.
func TestAuditUnderLoadFindsNothing(t *testing.T) {
	x := startTrade(t, 20_000)
	for range 15 {
		found, err := x.store.Audit(t.Context(), bazaar, true)
		if _, cut := errors.AsType[*inventory.CutError](err); cut {
			continue // more was written meanwhile than is kept
		}
		if err != nil || len(found) > 0 {
			t.Fatalf("Audit() = %v, %v, want no difference", found, err)
		}
	}
	x.stop()
	if found, err := x.store.Audit(t.Context(), bazaar, false); err != nil || len(found) > 0 {
		t.Errorf("Audit() afterwards = %v, %v, want no difference", found, err)
	}
}

func TestAuditUnderLoadRepairs(t *testing.T) {
	x := startTrade(t, -1)
	key := x.store.KeysOf(bazaar)[0]
	const add = `local q, r, rest = redis.call('HGET', KEYS[1], ARGV[1]):match('^(%d+) (%d+)(.*)$')
		redis.call('HSET', KEYS[1], ARGV[1], q .. ' ' .. r + 7 .. rest)`
	for i := range 5 {
		sku := x.sku(100 + i)
		if err := x.store.Client().Redis().Eval(t.Context(), add, []string{key}, sku).Err(); err != nil && !errors.Is(err, redis.Nil) {
			t.Fatal(err)
		}
		repaired := false
		found, err := x.store.Audit(t.Context(), bazaar, true)
		for _, d := range found {
			if d.SKU != sku && d.Entry == 0 {
				t.Errorf("Audit() = %v, and only %s was harmed", d, sku)
			}
			repaired = repaired || d.SKU == sku && d.Repaired && d.Found == d.Expected+7
		}
		if err != nil || !repaired {
			t.Fatalf("Audit() = %v, %v, want %s repaired", found, err, sku)
		}
	}
	x.stop()
	found, err := x.store.Audit(t.Context(), bazaar, false)
	for _, d := range found {
		if d.Entry == 0 { // what stands in the ledger stays
			t.Errorf("Audit() afterwards = %v", d)
		}
	}
	if err != nil {
		t.Error(err)
	}
}

// interrupted is a Store of which an audit is interrupted, once, when the reply to a command of
// that name has come.
func interrupted(t *testing.T) (s *inventory.Store, at func(command string, do func())) {
	client, x := redistest.Open(t, redistest.Single(t).Config()), new(tap)
	client.Redis().AddHook(x)
	return newStore(t, inventory.Config{Redis: client}), func(command string, do func()) {
		var once sync.Once
		after := func(cmd redis.Cmder) {
			if cmd.Name() == command {
				once.Do(do)
			}
		}
		x.after.Store(&after)
	}
}

func TestAuditWhoseLedgerIsCut(t *testing.T) {
	s, at := interrupted(t)
	for n := range int64(250) { // more than a page
		set(t, s, "shop", "milk", n)
	}
	cut := func(keep int64) {
		if err := s.Client().Redis().XTrimMaxLen(t.Context(), s.KeysOf("shop")[4], keep).Err(); err != nil {
			t.Error(err)
		}
	}
	at("xrange", func() { cut(20) })
	if found, err := s.Audit(t.Context(), "shop", true); err != nil || len(found) > 0 {
		t.Errorf("Audit() while old entries are cut = %v, %v, want no difference", found, err)
	}
	var lost dray.Stock
	at("hscan", func() {
		lost = set(t, s, "shop", "milk", 6)
		set(t, s, "shop", "bread", 1)
		cut(1)
	})
	found, err := s.Audit(t.Context(), "shop", true)
	if e, ok := errors.AsType[*inventory.CutError](err); !ok || e.From != lost.Version || e.To != lost.Version {
		t.Errorf("Audit() = %v, %v, want a cut of entry %d, which it needs", found, err, lost.Version)
	}
	if found, err := s.Audit(t.Context(), "shop", true); err != nil || len(found) > 0 {
		t.Errorf("Audit() again = %v, %v, want no difference", found, err)
	}
}

// A SKU that changes between its audit and its repair is repaired as it is then.
func TestRepairOfWhatChanges(t *testing.T) {
	s, at := interrupted(t)
	set(t, s, "shop", "milk", 10)
	hold := func() {
		if _, err := s.Reserve(t.Context(), "shop", cart("milk", 2), time.Minute, inventory.Options{}); err != nil {
			t.Error(err)
		}
	}
	hold()
	stock := wantStock(t, s, "shop", "milk", 10, 2)
	if err := s.Client().Redis().HSet(t.Context(), s.KeysOf("shop")[0], "milk", fmt.Sprintf("10 5 %d 1", stock.Version)).Err(); err != nil {
		t.Fatal(err)
	}
	at("xrange", hold)
	found, err := s.Audit(t.Context(), "shop", true)
	if err != nil || len(found) != 2 || !found[0].Repaired || found[1].Entry != stock.Version+1 {
		t.Errorf("Audit() = %v, %v, want a counter that is repaired and an entry that is not", found, err)
	}
	wantStock(t, s, "shop", "milk", 10, 4)
}
