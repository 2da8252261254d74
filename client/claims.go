package client

import (
	"context"
	"crypto/rand"
	"strconv"
	"time"

	"dray"
)

// Claim holds the nearest matching drivers that nobody holds: r.Count of them, or fewer where
// there are fewer. Where r.Key is empty it makes one, for the message is sent again after a
// lost connection, and must not claim twice.
//
// It fails with dray.ErrNoneAvailable where there is none, with dray.ErrIdempotencyMismatch
// where r.Key was used with another request, and as ClaimRequest.Validate does.
func (c *Client) Claim(ctx context.Context, r dray.ClaimRequest) (dray.Claim, error) {
	if err := r.Validate(); err != nil {
		return dray.Claim{}, err
	}
	if r.Key == "" {
		r.Key = rand.Text()
	}
	f, err := c.do(ctx, false, nil, func(id string) []byte {
		b := append(request("claim", id), `,"key":`...)
		b = dray.AppendString(b, r.Key)
		b = dray.AppendNumber(append(b, `,"latitude":`...), r.Latitude)
		b = dray.AppendNumber(append(b, `,"longitude":`...), r.Longitude)
		b = dray.AppendNumber(append(b, `,"radius":`...), r.Radius)
		b = strconv.AppendInt(append(b, `,"count":`...), int64(max(r.Count, 1)), 10)
		b = strconv.AppendInt(append(b, `,"ttlSeconds":`...), int64(r.TTL/time.Second), 10)
		if len(r.Filter) > 0 {
			b = appendMember(b, "filter", r.Filter)
		}
		return append(b, '}')
	})
	switch {
	case err != nil:
		return dray.Claim{}, err
	case f.Claim == nil:
		return dray.Claim{}, dray.Errorf(dray.CodeInternal, "the server's answer has no claim")
	}
	return *f.Claim, nil
}

// Unclaim gives the drivers of a claim back before its time. It fails with dray.ErrNotFound
// where there is no such claim or it has ended: so also when the connection was lost before
// the answer came, for it is asked for again then.
func (c *Client) Unclaim(ctx context.Context, id string) error {
	_, err := c.do(ctx, false, nil, func(n string) []byte {
		b := append(request("unclaim", n), `,"claim":`...)
		return append(dray.AppendString(b, id), '}')
	})
	return err
}
