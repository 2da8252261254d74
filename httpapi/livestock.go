package httpapi

import (
	"context"

	"dray"
	"dray/realtime/inventory"
	"dray/realtime/watch"
)

// A difference is what one message of a subscription says: of drivers, or of stock.
type difference struct {
	ofStock bool
	drivers watch.Change
	stock   inventory.Change
}

// driverSub is a watch.Subscription as subscription.
type driverSub struct{ *watch.Subscription }

func (s driverSub) Next(c *difference) bool {
	c.ofStock = false
	return s.Subscription.Next(&c.drivers)
}

func (s driverSub) Update(ctx context.Context, shape *dray.Shape, filter *dray.Filter, accepted func()) error {
	if shape != nil && shape.Stock != nil {
		return dray.FieldError(dray.CodeBadRequest, "stock", "a subscription of drivers stays one")
	}
	return s.Subscription.Update(ctx, shape, filter, accepted)
}

// stockSub is an inventory.Subscription as subscription.
type stockSub struct{ *inventory.Subscription }

func (s stockSub) Next(c *difference) bool {
	c.ofStock = true
	return s.Subscription.Next(&c.stock)
}

func (s stockSub) Update(ctx context.Context, shape *dray.Shape, filter *dray.Filter, accepted func()) error {
	switch {
	case filter != nil:
		return errStockFilter
	case shape.Stock == nil:
		return dray.FieldError(dray.CodeBadRequest, "stock", "a subscription of stock stays one")
	}
	return s.Subscription.Update(ctx, *shape.Stock, accepted)
}

var errStockFilter = dray.FieldError(dray.CodeBadRequest, "filter", "stock has no attributes")

// watchStock takes out the subscription of stock that m asks for.
func (c *conn) watchStock(ctx context.Context, m *message, due func()) (subscription, error) {
	switch {
	case !c.caller.MaySeeStock():
		return nil, dray.ErrForbidden
	case c.s.cfg.LiveStock == nil:
		return nil, dray.FieldError(dray.CodeBadRequest, "stock", "is not served here")
	case m.filter != nil:
		return nil, errStockFilter
	}
	s, err := c.s.cfg.LiveStock.Subscribe(ctx, *m.shape.Stock, inventory.WatchOptions{Interval: m.interval, Due: due})
	if err != nil {
		return nil, err // not s: a nil *Subscription is no nil subscription
	}
	return stockSub{s}, nil
}

// watchDrivers takes out any other.
func (c *conn) watchDrivers(ctx context.Context, m *message, due func()) (subscription, error) {
	if !c.caller.MayWatch() {
		return nil, dray.ErrForbidden
	}
	return c.s.hub.Subscribe(ctx, *m.shape, m.filter, watch.Options{Interval: m.interval, Due: due})
}
