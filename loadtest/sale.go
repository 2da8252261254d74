package loadtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"dray"
)

// A SalePlan is a flash sale: buyers who all want one unit after the other of one SKU until it is
// sold out. Each order has a key and some are sent twice; what is reserved is committed.
type SalePlan struct {
	Plan
	Units       int64
	Connections int
	Repeat      float64 // part of the orders that are sent a second time under the same key
}

// Validate checks p.
func (p *SalePlan) Validate() error {
	if err := p.Plan.Validate(); err != nil {
		return err
	}
	switch {
	case p.Units < 1 || p.Units > 10_000_000:
		return errors.New("--units must be 1 to 10000000")
	case p.Connections < 1 || p.Connections > 60_000:
		return errors.New("--connections must be 1 to 60000")
	case p.Repeat < 0 || p.Repeat > 1:
		return errors.New("--repeat must be 0 to 1")
	}
	return nil
}

// FlashSale measures how fast stock is sold out, and checks that exactly what there was is sold:
// no key got two reservations, counters and ledger agree. Plan.Duration bounds it; the window is from
// the first order to the last unit. An operation is a unit sold: a reservation and its commit.
func FlashSale(ctx context.Context, t Target, p *SalePlan) (*Result, error) {
	r := newRun(ctx, "flash-sale", t, &p.Plan)
	defer r.end()
	store, err := r.openShop()
	if err != nil {
		return nil, err
	}
	defer store.close()
	const sku = "hot"
	if err := store.fill(r.ctx, []string{sku}, p.Units); err != nil {
		return nil, err
	}
	r.say("connecting %d buyers", p.Connections)
	shoppers, err := r.shoppers(p.Connections, false)
	if err != nil {
		return nil, err
	}
	s := &sale{run: r, plan: p, location: store.location, sku: sku, reserved: map[string]string{}}
	r.say("selling %d units", p.Units)
	before := r.cpu()
	began := r.meter.open()
	var buyers sync.WaitGroup
	for i, sh := range shoppers {
		buyers.Add(1)
		r.goLoad(func() error {
			defer buyers.Done()
			return s.buy(i, sh)
		})
	}
	soldOut := make(chan struct{})
	r.work.Go(func() {
		buyers.Wait()
		close(soldOut)
	})
	select {
	case <-soldOut:
	case <-r.ctx.Done():
	}
	if err := context.Cause(r.ctx); err != nil {
		return nil, err
	}
	ended := r.meter.close()
	r.result.Operation = "units"
	r.result.Seconds = float64(ended-began) / 1e9
	r.result.used(before, r.cpu())
	r.counted()
	return r.result, s.verify(store)
}

// A sale is what the buyers of one SKU share.
type sale struct {
	run           *run
	plan          *SalePlan
	location, sku string
	sold, refused atomic.Int64

	mu       sync.Mutex        // guards the fields below
	reserved map[string]string // key -> its reservation
	wrong    []string
}

// buy reserves and commits one unit after the other until there are none.
func (s *sale) buy(shard int, sh shopper) error {
	random := rand.New(rand.NewPCG(s.plan.Seed, uint64(shard)))
	ask := func(o *order) (string, *dray.Error, error) {
		if err := sh.send(shard, o); err != nil {
			return "", nil, err
		}
		_, reservation, refusal, err := sh.next()
		return reservation, refusal, err
	}
	for n := 0; ; n++ {
		key := fmt.Sprintf("%s-%d-%d", s.location, shard, n)
		began := nanos()
		tries := 1
		if random.Float64() < s.plan.Repeat {
			tries = 2
		}
		var reservation string
		for range tries {
			id, refusal, err := ask(&order{verb: "reserve", location: s.location, sku: s.sku, quantity: 1, key: key})
			if err != nil {
				return err
			}
			if refusal != nil && refusal.Code == dray.CodeInsufficientStock {
				s.refused.Add(1)
				if reservation == "" {
					return nil // sold out
				}
			} else if refusal != nil {
				return fmt.Errorf("the server refused a reservation: %w", refusal)
			}
			s.note(key, id)
			reservation = id
		}
		if _, refusal, err := ask(&order{verb: "commit", reservation: reservation, key: key + "-commit"}); err != nil {
			return err
		} else if refusal != nil {
			return fmt.Errorf("the server refused a commit: %w", refusal)
		}
		s.sold.Add(1)
		s.run.meter.done(shard, began, nanos(), 1)
	}
}

// note remembers which reservation a key got.
func (s *sale) note(key, reservation string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if before, ok := s.reserved[key]; ok && before != reservation {
		s.wrong = append(s.wrong, fmt.Sprintf("key %s got %s, then %s", key, before, reservation))
	}
	s.reserved[key] = reservation
}

func (s *sale) verify(store *shop) error {
	r := s.run
	sold := r.result.check("exactly what there was is sold", s.plan.Units)
	if n := s.sold.Load(); n != s.plan.Units {
		sold.fail(1, "%d of %d units were sold", n, s.plan.Units)
	}
	keys := r.result.check("a key gets one reservation", int64(len(s.reserved)))
	for _, w := range s.wrong {
		keys.fail(1, "%s", w)
	}
	stock, err := store.stock(r.ctx, s.sku)
	if err != nil {
		return err
	}
	counters := r.result.check("nothing is left, nothing is reserved", 1)
	if stock.Quantity != 0 || stock.Reserved != 0 {
		counters.fail(1, "%d on hand, %d reserved", stock.Quantity, stock.Reserved)
	}
	return store.checkLedger(r.ctx, s.sku, &stock, r.result.check("the ledger leads to the counters without a gap", 0))
}
