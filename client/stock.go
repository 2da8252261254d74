package client

import (
	"context"
	"crypto/rand"
	"strconv"
	"time"

	"dray"
)

// Options of a request that changes reservations. The zero value asks for nothing special.
type Options struct {
	// Key makes the request idempotent, also beyond this Client: for 24 hours the same key with
	// the same request gives the same answer and does nothing again; with another request,
	// dray.ErrIdempotencyMismatch. 1 to dray.MaxKey printable ASCII letters. Empty, the Client
	// makes a key, for a request whose answer was lost with the connection is sent again.
	//
	// A caller that may give up, or end, before the answer came needs a key of its own to ask again.
	Key string
	// Replicas is how many replicas must confirm, to dray.MaxReplicas, where that is more than the server
	// asks for. When they do not in time it fails with dray.ErrDurabilityNotReached, though it was
	// done: the same key tells when more have.
	Replicas int
}

// Stock returns what a location ("" for dray.DefaultLocation) has of a SKU. It fails with
// dray.ErrNotFound where the SKU was never set.
func (c *Client) Stock(ctx context.Context, location, sku string) (s dray.Stock, err error) {
	f, err := c.do(ctx, false, nil, func(id string) []byte {
		b := appendText(request("stock", id), "location", location)
		return append(dray.AppendString(append(b, `,"sku":`...), sku), '}')
	})
	if err != nil {
		return s, err
	}
	return s, dray.Unmarshal(f.Stock, &s)
}

// Reserve holds every item of a cart at a location ("" for dray.DefaultLocation), or none: 1 to
// dray.MaxLines items, of which those of the same SKU are added up. The hold ends after ttl, whole
// seconds to dray.MaxHold, when it is not committed or released before; 0 means dray.DefaultHold.
//
// It fails with dray.ErrInsufficientStock, whose details list every line that is short with what
// is available (see [dray.AsError]).
func (c *Client) Reserve(ctx context.Context, location string, items []dray.Item, ttl time.Duration, o Options) (dray.Reservation, error) {
	return c.order(ctx, "reserve", ttl, items, o, func(b []byte) []byte { return appendText(b, "location", location) })
}

// ReserveNear is Reserve at the nearest location inside a circle that has the whole cart:
// Location and Distance of the answer tell which.
func (c *Client) ReserveNear(ctx context.Context, near dray.Circle, items []dray.Item, ttl time.Duration, o Options) (dray.Reservation, error) {
	if !near.Center().Valid() || near.Radius-near.Radius != 0 {
		return dray.Reservation{}, dray.FieldError(dray.CodeBadRequest, "near", "must be a place on earth and a radius in metres")
	}
	return c.order(ctx, "reserve", ttl, items, o, func(b []byte) []byte { return appendMember(b, "near", near) })
}

// Commit takes held units out of the stock for good: all that are held, or those of items. It fails
// with dray.ErrNotFound, with dray.ErrAlreadyCommitted, dray.ErrAlreadyReleased or
// dray.ErrReservationExpired when nothing is held any more, and with dray.ErrExceedsHeld when
// more is asked for than is held.
func (c *Client) Commit(ctx context.Context, reservation string, items []dray.Item, o Options) (dray.Reservation, error) {
	return c.resolve(ctx, "commit", reservation, 0, items, o)
}

// Release gives held units back: all that are held, or those of items. Its errors are Commit's.
func (c *Client) Release(ctx context.Context, reservation string, items []dray.Item, o Options) (dray.Reservation, error) {
	return c.resolve(ctx, "release", reservation, 0, items, o)
}

// Extend makes a reservation end after ttl (as for Reserve) from now, but no later than
// dray.MaxHold after it was made: ExpiresAt tells. Its errors are Commit's.
func (c *Client) Extend(ctx context.Context, reservation string, ttl time.Duration, o Options) (dray.Reservation, error) {
	return c.resolve(ctx, "extend", reservation, ttl, nil, o)
}

func (c *Client) resolve(ctx context.Context, kind, reservation string, ttl time.Duration, items []dray.Item, o Options) (dray.Reservation, error) {
	return c.order(ctx, kind, ttl, items, o, func(b []byte) []byte {
		return dray.AppendString(append(b, `,"reservation":`...), reservation)
	})
}

// order makes a request whose answer is a reservation; what appends what it is about.
func (c *Client) order(ctx context.Context, kind string, ttl time.Duration, items []dray.Item, o Options, what func([]byte) []byte) (dray.Reservation, error) {
	if ttl%time.Second != 0 {
		return dray.Reservation{}, dray.FieldError(dray.CodeBadRequest, "ttlSeconds", "must be whole seconds")
	}
	if o.Key == "" {
		o.Key = rand.Text()
	}
	f, err := c.do(ctx, false, nil, func(id string) []byte {
		b := what(appendText(request(kind, id), "key", o.Key))
		if len(items) > 0 {
			b = appendMember(b, "items", items)
		}
		if ttl != 0 {
			b = strconv.AppendInt(append(b, `,"ttlSeconds":`...), int64(ttl/time.Second), 10)
		}
		if o.Replicas != 0 {
			b = strconv.AppendInt(append(b, `,"replicas":`...), int64(o.Replicas), 10)
		}
		return append(b, '}')
	})
	switch {
	case err != nil:
		return dray.Reservation{}, err
	case f.Reservation == nil:
		return dray.Reservation{}, dray.Errorf(dray.CodeInternal, "the server's answer has no reservation")
	}
	return *f.Reservation, nil
}

// appendText appends a member that is left out where it is empty.
func appendText(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = append(append(append(b, `,"`...), name...), `":`...)
	return dray.AppendString(b, value)
}
