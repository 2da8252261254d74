package inventory_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dray"
	"dray/realtime/inventory"
	"dray/redisconn"
	"dray/redisconn/redistest"
)

// TestFightForTheLastUnits sells 1,000 units of one SKU to 64 clients of two nodes, over
// connections that lose answers and are cut, while the nodes restart. Clients retry with the
// same key, on either node, until they know; some walk away from what they hold.
func TestFightForTheLastUnits(t *testing.T) {
	server := redistest.Start(t)
	prefix := redistest.Prefix(t)
	f := &fight{t: t, seed: seed(t), reservations: map[string]string{}}
	for i := range f.nodes {
		f.nodes[i] = newNode(t, server, prefix)
	}
	const units = 1000
	set(t, f.nodes[0].store, "shop", "ticket", units)
	var all sync.WaitGroup
	for client := range 64 {
		all.Go(func() { f.shop(client) })
	}
	all.Go(func() { f.trouble(units) })
	all.Wait()
	if t.Failed() {
		return
	}
	lost := f.nodes[0].proxy.Lost() + f.nodes[1].proxy.Lost()
	t.Logf("seed %d: %d reservations, %d replies lost, %d answers unknown, %d restarts", f.seed, len(f.reservations), lost, f.unknown.Load(), f.restarts.Load())
	if f.sold.Load() != units || f.unknown.Load() == 0 || f.restarts.Load() == 0 {
		t.Errorf("sold %d units, %d answers unknown, %d restarts, want %d and some", f.sold.Load(), f.unknown.Load(), f.restarts.Load(), units)
	}
	s := f.nodes[0].store
	wantStock(t, s, "shop", "ticket", 0, 0)
	b := audit(t, s, "shop")
	committed := int64(0)
	for _, e := range b.entries {
		if e.kind == "commit" {
			committed += e.quantity.Before - e.quantity.After
		}
	}
	if committed != units {
		t.Errorf("the ledger has %d units committed, want %d", committed, units)
	}
	for key, id := range f.reservations {
		if b.records[id].lines == nil {
			t.Errorf("%s was given %s, which is not there", key, id)
		}
	}
	if found, err := s.Audit(t.Context(), "shop", false); err != nil || len(found) > 0 {
		t.Errorf("Audit() = %v, %v, want no difference", found, err)
	}
}

// A node is a Store behind connections that fail, and that may be replaced.
type node struct {
	client *redisconn.Client
	proxy  *redistest.Proxy

	mu    sync.RWMutex // guards the field below
	store *inventory.Store
}

var quiet = slog.New(slog.DiscardHandler)

func newNode(t *testing.T, server *redistest.Server, prefix string) *node {
	n := &node{proxy: redistest.NewProxy(t, server)}
	n.client = redistest.Open(t, redisconn.Config{
		Host: "127.0.0.1", Port: n.proxy.Node().Port, KeyPrefix: prefix, ReadTimeout: 300 * time.Millisecond, Logger: quiet,
	})
	t.Cleanup(func() {
		n.proxy.Replies(redistest.Pass)
		closeStore(t, n.store)
	})
	n.start(t)
	return n
}

// start makes the Store, as often as it takes.
func (n *node) start(t *testing.T) {
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		s, err := inventory.New(context.Background(), inventory.Config{Redis: n.client, Logger: quiet})
		if err == nil {
			n.mu.Lock()
			n.store = s
			n.mu.Unlock()
			return
		}
		if time.Now().After(end) {
			t.Errorf("New() = %v", err)
			return
		}
	}
}

func (n *node) now() *inventory.Store {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.store
}

func closeStore(t *testing.T, s *inventory.Store) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Errorf("Close() = %v", err)
	}
}

type fight struct {
	t       *testing.T
	seed    uint64
	nodes   [2]*node
	sold    atomic.Int64 // units, by the answers
	unknown atomic.Int64 // answers that did not come

	restarts atomic.Int64

	mu           sync.Mutex        // guards the field below
	reservations map[string]string // key -> the reservation that it was given
}

// shop is one client, until all is sold.
func (f *fight) shop(client int) {
	rnd := rand.New(rand.NewPCG(f.seed, uint64(client)))
	by := fmt.Sprint("client-", client)
	for i := 0; !f.t.Failed(); i++ {
		o := inventory.Options{Key: fmt.Sprint("cart ", i), By: by}
		units, ttl := 1+rnd.IntN(3), time.Minute
		leaves := rnd.IntN(10) == 0
		if leaves {
			ttl = time.Second
		}
		var r dray.Reservation
		err := f.ask(rnd, !leaves, func(s *inventory.Store) (err error) {
			r, err = s.Reserve(f.t.Context(), "shop", cart("ticket", units), ttl, o)
			return err
		})
		switch {
		case err == nil:
			f.given(by+" "+o.Key, r.Reservation)
			if !leaves {
				f.resolve(rnd, r, i)
			}
		case errors.Is(err, dray.ErrInsufficientStock):
			if f.over(rnd) {
				return
			}
		case !leaves || !errors.Is(err, dray.ErrUnavailable):
			f.t.Errorf("Reserve() = %v", err)
		}
	}
}

// ask asks either node until it answers, or just once.
func (f *fight) ask(rnd *rand.Rand, until bool, do func(*inventory.Store) error) error {
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Duration(rnd.IntN(5)) * time.Millisecond) {
		err := do(f.nodes[rnd.IntN(2)].now())
		if !errors.Is(err, dray.ErrUnavailable) {
			return err
		}
		f.unknown.Add(1)
		if !until || time.Now().After(end) {
			return err
		}
	}
}

// given checks that a key is given one reservation, however often it is asked for.
func (f *fight) given(key, id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if was := f.reservations[key]; was != "" && was != id {
		f.t.Errorf("%s was given %s and %s", key, was, id)
	}
	f.reservations[key] = id
}

// resolve commits what is held, or now and then gives it back; with a key or without.
func (f *fight) resolve(rnd *rand.Rand, r dray.Reservation, i int) {
	o := inventory.Options{}
	if rnd.IntN(2) == 0 {
		o.Key = fmt.Sprint("resolve ", i, r.Reservation)
	}
	ctx, release := f.t.Context(), rnd.IntN(5) == 0
	err := f.ask(rnd, true, func(s *inventory.Store) (err error) {
		if release {
			_, err = s.Release(ctx, r.Reservation, nil, o)
		} else {
			_, err = s.Commit(ctx, r.Reservation, nil, o)
		}
		return err
	})
	// Without a key, a retry after a lost answer hears that it was done.
	done := err == nil || o.Key == "" && (release && errors.Is(err, dray.ErrAlreadyReleased) || !release && errors.Is(err, dray.ErrAlreadyCommitted))
	switch {
	case !done:
		f.t.Errorf("resolve %s, key %q: %v", r.Reservation, o.Key, err)
	case !release:
		f.sold.Add(r.Items[0].Quantity)
	}
}

// over tells whether all is sold.
func (f *fight) over(rnd *rand.Rand) bool {
	var stock dray.Stock
	err := f.ask(rnd, true, func(s *inventory.Store) (err error) {
		stock, err = s.Get(f.t.Context(), "shop", "ticket")
		return err
	})
	if err != nil {
		f.t.Errorf("Get() = %v", err)
	}
	return stock.Quantity == 0
}

// lose has answers lost until one is: a second at most, where nobody asks any more.
func (n *node) lose(fate redistest.Fate) {
	lost := n.proxy.Lost()
	n.proxy.Replies(fate)
	for end := time.Now().Add(time.Second); n.proxy.Lost() == lost && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

// trouble makes twelve faults while units are sold.
func (f *fight) trouble(units int64) {
	rnd := rand.New(rand.NewPCG(f.seed, 1000))
	const faults = 12
	for i := range int64(faults) {
		for f.sold.Load() < (i+1)*units/(faults+2) && !f.t.Failed() {
			time.Sleep(time.Millisecond)
		}
		n := f.nodes[rnd.IntN(2)]
		switch i % 4 {
		case 0:
			n.proxy.CutAll()
		case 1:
			n.lose(redistest.Cut)
		case 2:
			n.lose(redistest.Drop)
		case 3:
			closeStore(f.t, n.now())
			n.start(f.t)
			f.restarts.Add(1)
		}
		n.proxy.Replies(redistest.Pass)
	}
}
