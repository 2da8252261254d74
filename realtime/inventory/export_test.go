package inventory

import (
	"context"
	"fmt"
	"time"

	"dray"
	"dray/redisconn"
)

// KeysOf are the keys of a location, in the order of apply.lua's KEYS.
func (s *Store) KeysOf(location string) []string { return s.keys.ofApply(location) }

// Client is the Store's own.
func (s *Store) Client() *redisconn.Client { return s.redis }

// ReserveFor is Reserve for a time that may be shorter than Reserve's second.
func (s *Store) ReserveFor(ctx context.Context, location string, items []dray.Item, ttl time.Duration, o Options) (dray.Reservation, error) {
	items, err := checkCart(items)
	if err != nil {
		return dray.Reservation{}, err
	}
	ref := newRef(o.with(s.cfg.Replicas), func(b []byte) []byte {
		return appendItems(fmt.Appendf(b, "reserve %s %d\n", location, ttl.Milliseconds()), items)
	})
	return s.hold(ctx, location, &op{kind: 'h', items: items, ttl: ttl, ref: ref})
}
