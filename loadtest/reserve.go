package loadtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"

	"dray"
)

// A ReservePlan is shoppers who reserve one unit at a time of stock that does not run out.
type ReservePlan struct {
	Plan
	SKUs        int
	Connections int
	InFlight    int  // orders of a connection under way, over the WebSocket
	HTTP        bool // over REST, an order at a time
	Keys        bool // with an idempotency key each
}

// Validate checks p.
func (p *ReservePlan) Validate() error {
	if err := p.Plan.Validate(); err != nil {
		return err
	}
	switch {
	case p.SKUs < 1 || p.SKUs > 1_000_000:
		return errors.New("--skus must be 1 to 1000000")
	case p.Connections < 1 || p.Connections > 60_000:
		return errors.New("--connections must be 1 to 60000")
	case p.InFlight < 1 || p.InFlight > 1000:
		return errors.New("--in-flight must be 1 to 1000")
	}
	return nil
}

// stocked is the quantity of each SKU.
const stocked = dray.MaxQuantity

// Reserve measures reservations of one unit, and checks that the counters are what was
// acknowledged, and the ledger theirs. The naive server is asked over HTTP only.
func Reserve(ctx context.Context, t Target, p *ReservePlan) (*Result, error) {
	r := newRun(ctx, "reserve", t, &p.Plan)
	defer r.end()
	store, err := r.openShop()
	if err != nil {
		return nil, err
	}
	defer store.close()
	skus := make([]string, p.SKUs)
	for i := range skus {
		skus[i] = "sku-" + strconv.Itoa(i)
	}
	r.say("setting the stock of %d SKUs", len(skus))
	if err := store.fill(r.ctx, skus, stocked); err != nil {
		return nil, err
	}
	r.say("connecting %d shoppers", p.Connections)
	shoppers, err := r.shoppers(p.Connections, p.HTTP)
	if err != nil {
		return nil, err
	}
	held := make([]atomic.Int64, len(skus)) // acknowledged, by SKU
	for i, s := range shoppers {
		b := &buyer{run: r, shopper: s, shard: i, plan: p, location: store.location, skus: skus, held: held,
			random: rand.New(rand.NewPCG(p.Seed, uint64(100+i))), slots: make([]bought, p.inFlight())}
		r.goLoad(b.loop)
	}
	if err := r.measure("reservations"); err != nil {
		return nil, err
	}
	r.counted()
	if !r.stop() {
		r.result.check("orders are answered", 1).fail(1, "some were not within %v", drainWait)
		return r.result, nil
	}
	return r.result, p.verify(r, store, skus, held)
}

func (p *ReservePlan) inFlight() int {
	if p.HTTP {
		return 1
	}
	return p.InFlight
}

// verify compares what was acknowledged with what the server says.
func (p *ReservePlan) verify(r *run, store *shop, skus []string, held []atomic.Int64) error {
	r.say("checking counters and ledger")
	counters := r.result.check("units reserved are those acknowledged", 0)
	var ledger *Check // the naive server has none to read
	if r.target.Name != "naive" {
		ledger = r.result.check("the ledger leads to the counters without a gap", 0)
	}
	for i, sku := range skus {
		if int(counters.Checked) >= max(1, min(p.Check, 1000)) {
			break
		}
		stock, err := store.stock(r.ctx, sku)
		if err != nil {
			return err
		}
		counters.Checked++
		if n := held[i].Load(); stock.Reserved != n || stock.Quantity != stocked {
			counters.fail(1, "%s: %d acknowledged, %d reserved, %d on hand", sku, n, stock.Reserved, stock.Quantity)
		}
		if ledger != nil && ledger.Checked < ledgerMost {
			if err := store.checkLedger(r.ctx, sku, &stock, ledger); err != nil {
				return err
			}
		}
	}
	return nil
}

// A buyer is one connection that reserves, and reserves again when answered.
type buyer struct {
	run      *run
	shopper  shopper
	shard    int
	plan     *ReservePlan
	location string
	skus     []string
	held     []atomic.Int64
	random   *rand.Rand
	slots    []bought // under way, by id
	sent     int
}

type bought struct {
	sku int
	at  int64
}

func (b *buyer) order(id int) error {
	sku := b.random.IntN(len(b.skus))
	o := order{verb: "reserve", location: b.location, sku: b.skus[sku], quantity: 1}
	if b.sent++; b.plan.Keys {
		o.key = fmt.Sprintf("%s-%d-%d", b.location, b.shard, b.sent)
	}
	b.slots[id] = bought{sku, nanos()}
	return b.shopper.send(id, &o)
}

func (b *buyer) loop() error {
	for id := range b.slots {
		if err := b.order(id); err != nil {
			return err
		}
	}
	for open := len(b.slots); open > 0; {
		id, _, refusal, err := b.shopper.next()
		if err != nil {
			return err
		}
		if refusal != nil {
			return fmt.Errorf("the server refused a reservation: %w", refusal)
		}
		if id < 0 || id >= len(b.slots) {
			return fmt.Errorf("an answer to order %d, which was not sent", id)
		}
		x := b.slots[id]
		b.held[x.sku].Add(1)
		b.run.meter.done(b.shard, x.at, nanos(), 1)
		if b.run.stopping.Load() {
			open--
			continue
		}
		if err := b.order(id); err != nil {
			return err
		}
	}
	return nil
}
