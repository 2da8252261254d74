package inventory

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
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

// ExtendFor is Extend by a time that may be shorter.
func (s *Store) ExtendFor(ctx context.Context, reservation string, ttl time.Duration, o Options) (dray.Reservation, error) {
	return s.recordOp(ctx, &op{kind: 'e', id: reservation, ttl: ttl}, o, func(b []byte) []byte {
		return fmt.Appendf(b, "extend %s %d", reservation, ttl.Milliseconds())
	})
}

// Together makes requests of a location, one op each, which arrive in their order and go to Redis in one
// call. script is the order in which apply.lua takes them if it may: simple holds first, by groups.
// From then on the Store does not sweep.
func (s *Store) Together(location string, requests []func()) (script []int) {
	s.sweeper.close() // it would send something too
	l := lane{location: location}
	s.mu.Lock()
	q := s.queues[l]
	if q == nil {
		q = newQueue(s, l)
		s.queues[l] = q
	}
	q.mu.Lock()
	q.calls += inFlight // none begins
	q.mu.Unlock()
	s.mu.Unlock()

	var all sync.WaitGroup
	waiting := func() []*op {
		q.mu.Lock()
		defer q.mu.Unlock()
		return q.waiting
	}
	for i, request := range requests {
		all.Go(request)
		for len(waiting()) == i {
			runtime.Gosched()
		}
	}
	var e encoder
	place := map[*op]int{}
	for i, o := range waiting() {
		e.add(o)
		place[o] = i
	}
	e.group()
	for _, o := range append(slices.Concat(slices.Concat(e.groups...)...), e.rest...) {
		script = append(script, place[o])
	}

	q.mu.Lock()
	q.calls -= inFlight
	q.sendLocked()
	q.mu.Unlock()
	all.Wait()
	return script
}
