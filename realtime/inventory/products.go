package inventory

import (
	"context"

	"dray"
)

// Products is the older, simpler shape of the stock: a product has a quantity, some of it
// reserved by number, without carts, reservations or expiry. It is the same stock, at
// dray.DefaultLocation: what is reserved here is one reservation for each product that never
// expires, and stands in the ledger like any other. Safe for concurrent use.
type Products struct{ store *Store }

// Products is the older shape of the stock at dray.DefaultLocation.
func (s *Store) Products() Products { return Products{s} }

// Get returns a product. It fails with dray.ErrNotFound when it was never set.
func (p Products) Get(ctx context.Context, product string) (dray.Stock, error) {
	return p.store.Get(ctx, dray.DefaultLocation, product)
}

// Set sets how many units of a product there are: see [Store.Set].
func (p Products) Set(ctx context.Context, product string, quantity int64) (dray.Stock, error) {
	return p.store.Set(ctx, dray.DefaultLocation, product, Set{Quantity: quantity}, Options{})
}

// Reserve reserves n more units, until they are released or sold. It fails with
// dray.ErrInsufficientStock when fewer are available.
func (p Products) Reserve(ctx context.Context, product string, n int64) error {
	if err := p.check(product, n); err != nil {
		return err
	}
	_, err := p.store.recordOp(ctx, &op{kind: 'p', id: standing(product), sku: product, quantity: n}, Options{}, nil)
	return err
}

// Release gives n reserved units back. It fails with dray.ErrExceedsHeld, or dray.ErrNotFound
// when none are reserved.
func (p Products) Release(ctx context.Context, product string, n int64) error {
	if err := p.check(product, n); err != nil {
		return err
	}
	_, err := p.store.Release(ctx, standing(product), []dray.Item{{SKU: product, Quantity: n}}, Options{})
	return err
}

// Sell takes n reserved units out of the stock. Its errors are Release's.
func (p Products) Sell(ctx context.Context, product string, n int64) error {
	if err := p.check(product, n); err != nil {
		return err
	}
	_, err := p.store.Commit(ctx, standing(product), []dray.Item{{SKU: product, Quantity: n}}, Options{})
	return err
}

func (p Products) check(product string, n int64) error {
	_, err := checkCart([]dray.Item{{SKU: product, Quantity: n}})
	return err
}

// standing is the id of the reservation of a product, which grows and shrinks.
func standing(product string) string {
	return dray.DefaultLocation + ".product-" + hash([]byte(product), 12)
}
