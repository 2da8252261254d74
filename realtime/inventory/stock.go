package inventory

import (
	"context"
	"fmt"
	"strconv"
	"unicode"
	"unicode/utf8"

	"dray"
)

// Get returns the stock of one SKU, after everything due has been given back. It fails with
// dray.ErrNotFound where the SKU was never set, and dray.ErrBadRequest for what is no id.
func (s *Store) Get(ctx context.Context, location, sku string) (dray.Stock, error) {
	if err := checkIDs(location, sku); err != nil {
		return dray.Stock{}, err
	}
	return s.rowOp(ctx, location, &op{kind: 'g', sku: sku}, Options{})
}

// A Set is what [Store.Set] sets.
type Set struct {
	Quantity int64 // on hand, 0 to dray.MaxQuantity
	// Force sets a quantity below what is reserved. Then nothing is available until it fits
	// again, and commits of more than is on hand are refused.
	Force bool
	// Version makes it conditional: the stock's version, or 0 for a SKU that does not exist yet.
	Version *int64
	Reason  string // for the ledger; up to dray.MaxReason bytes in one line
}

// Set sets how many units of a SKU are on hand. It fails with dray.ErrBelowReserved or
// dray.ErrVersionConflict and then changes nothing.
func (s *Store) Set(ctx context.Context, location, sku string, set Set, o Options) (dray.Stock, error) {
	if err := checkIDs(location, sku); err != nil {
		return dray.Stock{}, err
	}
	if set.Quantity < 0 || set.Quantity > dray.MaxQuantity {
		return dray.Stock{}, dray.FieldError(dray.CodeBadRequest, "quantity", "must be 0 to %d", dray.MaxQuantity)
	}
	if err := checkReason(set.Reason); err != nil {
		return dray.Stock{}, err
	}
	version := ""
	if set.Version != nil {
		version = strconv.FormatInt(*set.Version, 10)
	}
	request := func(b []byte) []byte {
		return fmt.Appendf(b, "set %s %s %d %t %s %s", location, sku, set.Quantity, set.Force, version, set.Reason)
	}
	return s.rowOp(ctx, location, &op{
		kind: 's', sku: sku, quantity: set.Quantity, flag: set.Force, version: version, reason: set.Reason,
	}, o, request)
}

// Adjust adds delta, which is not 0, to the units on hand. It fails with dray.ErrNotFound for a SKU
// that was never set, dray.ErrInsufficientStock when fewer than -delta are there,
// dray.ErrBelowReserved when what is left would not cover what is reserved, and dray.ErrBadRequest
// over dray.MaxQuantity.
func (s *Store) Adjust(ctx context.Context, location, sku string, delta int64, reason string, o Options) (dray.Stock, error) {
	if err := checkIDs(location, sku); err != nil {
		return dray.Stock{}, err
	}
	if delta == 0 || delta < -dray.MaxQuantity || delta > dray.MaxQuantity {
		return dray.Stock{}, dray.FieldError(dray.CodeBadRequest, "delta", "must be within ±%d, and not 0", dray.MaxQuantity)
	}
	if err := checkReason(reason); err != nil {
		return dray.Stock{}, err
	}
	request := func(b []byte) []byte { return fmt.Appendf(b, "adjust %s %s %d %s", location, sku, delta, reason) }
	return s.rowOp(ctx, location, &op{kind: 'a', sku: sku, quantity: delta, reason: reason}, o, request)
}

// rowOp sends an op whose answer is a row.
func (s *Store) rowOp(ctx context.Context, location string, o *op, opts Options, request ...func([]byte) []byte) (dray.Stock, error) {
	if err := opts.check(); err != nil {
		return dray.Stock{}, err
	}
	if len(request) > 0 {
		o.ref = newRef(opts.with(s.cfg.Replicas), request[0])
	}
	if err := s.do(ctx, location, o); err != nil {
		return dray.Stock{}, err
	}
	stock, ok := parseRow(location, o.sku, o.answer[1:])
	if !ok {
		return stock, errUnreadable
	}
	return stock, s.durable(o, "")
}

// durable is the error of an op that was done, but not confirmed by as many replicas as were asked
// for. It names the reservation, for one who has no key could not find it.
func (s *Store) durable(o *op, reservation string) error {
	if o.acked >= o.ref.replicas {
		return nil
	}
	e := dray.Errorf(dray.CodeDurabilityNotReached, "it was done, and %d of %d replicas confirmed it within %v; the same key tells when more have",
		o.acked, o.ref.replicas, s.cfg.WaitTimeout)
	if reservation != "" {
		e.Details = []dray.Detail{{Field: "reservation", Message: reservation}}
	}
	return e
}

// List returns up to limit (1 to 1000) SKUs of a location in the order of their bytes, those after
// cursor; next is the cursor to go on with, "" at the end. A location without stock is empty.
func (s *Store) List(ctx context.Context, location, cursor string, limit int) (page []dray.Stock, next string, err error) {
	if err := checkIDs(location); err != nil {
		return nil, "", err
	}
	if cursor != "" && !dray.ValidID(cursor) {
		return nil, "", dray.FieldError(dray.CodeBadRequest, "cursor", "is not one that was given")
	}
	if limit < 1 || limit > dray.MaxLimit {
		return nil, "", dray.FieldError(dray.CodeBadRequest, "limit", "must be 1 to %d", dray.MaxLimit)
	}
	if err := s.do(ctx, location, &op{kind: 'w'}); err != nil { // what is due comes first
		return nil, "", err
	}
	from := "-"
	if cursor != "" {
		from = "(" + cursor
	}
	skus, err := s.redis.Redis().ZRangeArgs(ctx, lexRange(s.keys.skus(location), from, int64(limit)+1)).Result()
	if err != nil || len(skus) == 0 {
		return nil, "", err
	}
	if len(skus) > limit {
		skus = skus[:limit]
		next = skus[limit-1]
	}
	rows, err := s.redis.Redis().HMGet(ctx, s.keys.stock(location), skus...).Result()
	if err != nil {
		return nil, "", err
	}
	for i, row := range rows {
		text, _ := row.(string)
		if stock, ok := parseRow(location, skus[i], text); ok {
			page = append(page, stock)
		} else {
			s.unreadable(location, skus[i])
		}
	}
	return page, next, nil
}

// checkIDs checks a location and, where there is one, a SKU.
func checkIDs(ids ...string) error {
	for i, id := range ids {
		if !dray.ValidID(id) {
			return dray.FieldError(dray.CodeBadRequest, [...]string{"location", "sku"}[i], "must be 1 to %d bytes of A-Z a-z 0-9 . _ : @ -", dray.MaxID)
		}
	}
	return nil
}

func checkReason(reason string) error {
	if len(reason) > dray.MaxReason || !utf8.ValidString(reason) {
		return dray.FieldError(dray.CodeBadRequest, "reason", "must be up to %d bytes of UTF-8", dray.MaxReason)
	}
	for _, r := range reason {
		if unicode.IsControl(r) {
			return dray.FieldError(dray.CodeBadRequest, "reason", "must be one line")
		}
	}
	return nil
}
