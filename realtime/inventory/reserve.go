package inventory

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"dray"
)

// Reserve holds every item of a cart at a location, or none: 1 to dray.MaxLines items, of which
// those of the same SKU are added up. The hold ends after ttl, a second to dray.MaxHold, when it is
// not committed or released before; a zero ttl means dray.DefaultHold.
//
// It fails with dray.ErrInsufficientStock, whose details list every line that is short with what is
// available; a SKU or location that was never set has 0. With dray.ErrDurabilityNotReached the
// reservation is returned too: it stands, but fewer replicas than asked for have it.
func (s *Store) Reserve(ctx context.Context, location string, items []dray.Item, ttl time.Duration, o Options) (dray.Reservation, error) {
	if location == "" {
		location = dray.DefaultLocation
	}
	if err := checkIDs(location); err != nil {
		return dray.Reservation{}, err
	}
	items, err := checkCart(items)
	if err != nil {
		return dray.Reservation{}, err
	}
	if ttl, err = checkHold(ttl); err != nil {
		return dray.Reservation{}, err
	}
	if err := o.check(); err != nil {
		return dray.Reservation{}, err
	}
	ref := newRef(o.with(s.cfg.Replicas), func(b []byte) []byte {
		return appendItems(fmt.Appendf(b, "reserve %s %d\n", location, ttl.Milliseconds()), items)
	})
	return s.hold(ctx, location, &op{kind: 'h', items: items, ttl: ttl, ref: ref})
}

// hold sends a hold and makes the reservation of its answer.
func (s *Store) hold(ctx context.Context, location string, o *op) (dray.Reservation, error) {
	o.id = newReservation(location)
	if err := s.do(ctx, location, o); err != nil {
		return dray.Reservation{}, err
	}
	id, until := o.id, o.answer[1:]
	if o.answer[0] == '=' {
		id, until, _ = strings.Cut(until, " ")
	}
	var expires int64
	if !numbers([]string{until}, &expires) {
		return dray.Reservation{}, errUnreadable
	}
	r := dray.Reservation{Reservation: id, Location: location, Status: dray.StatusHeld,
		ExpiresAt: time.UnixMilli(expires), Replicas: o.acked, Distance: math.NaN()}
	for _, it := range o.items {
		r.Items = append(r.Items, dray.ReservedItem{SKU: it.SKU, Quantity: it.Quantity})
	}
	return r, s.durable(o, id)
}

// checkCart validates a cart and returns it with one line a SKU, in the order of their bytes.
func checkCart(items []dray.Item) ([]dray.Item, error) {
	if len(items) == 0 {
		return nil, dray.FieldError(dray.CodeBadRequest, "items", "must not be empty")
	}
	return checkItems(items)
}

func checkItems(items []dray.Item) ([]dray.Item, error) {
	if len(items) > dray.MaxLines {
		return nil, dray.FieldError(dray.CodeTooLarge, "items", "at most %d lines", dray.MaxLines)
	}
	for i, it := range items {
		if !dray.ValidID(it.SKU) {
			return nil, dray.FieldError(dray.CodeBadRequest, fmt.Sprintf("items[%d].sku", i), "must be 1 to %d bytes of A-Z a-z 0-9 . _ : @ -", dray.MaxID)
		}
		if it.Quantity < 1 || it.Quantity > dray.MaxQuantity {
			return nil, dray.FieldError(dray.CodeBadRequest, fmt.Sprintf("items[%d].quantity", i), "must be 1 to %d", dray.MaxQuantity)
		}
	}
	if len(items) < 2 {
		return slices.Clone(items), nil // the caller may give up and use its own for something else
	}
	sorted := slices.SortedFunc(slices.Values(items), func(a, b dray.Item) int { return cmp.Compare(a.SKU, b.SKU) })
	merged := sorted[:1]
	for _, it := range sorted[1:] {
		if last := &merged[len(merged)-1]; last.SKU == it.SKU {
			last.Quantity += it.Quantity // at most MaxLines * MaxQuantity
		} else {
			merged = append(merged, it)
		}
	}
	return merged, nil
}

func checkHold(ttl time.Duration) (time.Duration, error) {
	if ttl == 0 {
		return dray.DefaultHold, nil
	}
	if ttl < time.Second || ttl > dray.MaxHold {
		return 0, dray.FieldError(dray.CodeBadRequest, "ttlSeconds", "must be 1 to %d", int(dray.MaxHold.Seconds()))
	}
	return ttl, nil
}
