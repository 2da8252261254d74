package inventory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"dray"
)

// How a cart goes to the nearest location that has all of it. Without a key the candidates
// are tried in order. With one, two attempts must not end at two locations, though they may
// run at once, and see other candidates or other stock. So the key has a pin, which names the one
// location where its attempts go on, under a key of that location:
//
//  1. Attempt 1 pins A, is refused there, pins B, and its request to B is delayed.
//  2. Attempt 2 finds the pin at B and sends the same request to B: whichever comes first
//     is done, the other one gets its answer.
//  3. If B refuses, B keeps the refusal under that key, so that the delayed request finds
//     it even when there is stock by then. Only after that the pin moves on, by compare and set.
//  4. When all have refused, the pin says so, and the next attempt begins another generation
//     of keys: a refusal of the whole is not kept.

// tryMost is how many locations are tried for one cart.
const tryMost = 10

// A candidate is a location that may have a cart.
type candidate struct {
	location string
	distance float64 // metres
}

// ReserveNear is [Store.Reserve] at the nearest location within radius metres of center, of the
// ten nearest, that has the whole cart: Location and Distance of the answer tell which. Only locations
// with a place (see [Store.PutLocation]) are candidates. Where none has all of it, it fails with
// dray.ErrInsufficientStock, whose details are those of the nearest one. A round trip for each location
// tried, and one or two more with a key.
func (s *Store) ReserveNear(ctx context.Context, center dray.Point, radius float64, items []dray.Item, ttl time.Duration, o Options) (dray.Reservation, error) {
	if !center.Valid() {
		return dray.Reservation{}, dray.FieldError(dray.CodeBadRequest, "near", "must be a place within ±%v and ±180 degrees", dray.MaxLatitude)
	}
	if !(radius > 0 && radius <= dray.MaxRadius) {
		return dray.Reservation{}, dray.FieldError(dray.CodeBadRequest, "near.radius", "must be over 0 and at most %v metres", dray.MaxRadius)
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
	candidates, err := s.candidates(ctx, center, radius)
	if err != nil {
		return dray.Reservation{}, err
	}
	ref := newRef(o.with(s.cfg.Replicas), func(b []byte) []byte {
		return appendItems(fmt.Appendf(b, "near %v %v %v %d\n", center.Latitude, center.Longitude, radius, ttl.Milliseconds()), items)
	})
	a := attempt{store: s, items: items, ttl: ttl, ref: ref, candidates: candidates}
	if ref.key == "" {
		return a.inOrder(ctx)
	}
	return a.pinned(ctx)
}

// An attempt is one request to reserve near a place.
type attempt struct {
	store      *Store
	items      []dray.Item
	ttl        time.Duration
	ref        ref
	candidates []candidate // nearest first
	refusal    error       // of the nearest one tried
}

func (a *attempt) inOrder(ctx context.Context) (dray.Reservation, error) {
	for _, c := range a.candidates {
		r, err := a.at(ctx, c, a.ref, false)
		if !errors.Is(err, dray.ErrInsufficientStock) {
			return r, err
		}
	}
	return dray.Reservation{}, a.refused()
}

// at tries one location. A refusal is remembered for the answer, and kept there where final.
func (a *attempt) at(ctx context.Context, c candidate, ref ref, final bool) (dray.Reservation, error) {
	r, err := a.store.hold(ctx, c.location, &op{kind: 'h', items: a.items, ttl: a.ttl, ref: ref, flag: final})
	r.Distance = c.distance
	if err != nil && a.refusal == nil {
		a.refusal = err
	}
	return r, err
}

// refused is the error when no location has the cart.
func (a *attempt) refused() error {
	e := &dray.Error{Code: dray.CodeInsufficientStock, Message: fmt.Sprintf("none of the %d nearest locations has all of it", len(a.candidates))}
	if len(a.candidates) == 0 {
		e.Message = "there is no location within the radius"
		for _, it := range a.items {
			e.Details = append(e.Details, dray.Detail{SKU: it.SKU, Requested: &it.Quantity, Available: new(int64)})
		}
	} else if a.refusal != nil {
		e.Details = dray.AsError(a.refusal).Details
	}
	return e
}

// nowhere is no id, so no location has this name.
const nowhere = "*"

// A pin is where attempts under a key go on.
type pin struct {
	print      string
	generation int64
	candidate  // location nowhere: all have refused
}

func (p pin) String() string {
	return fmt.Sprintf("%s %d %s %.4f", p.print, p.generation, p.location, p.distance)
}

func parsePin(s string) (p pin, ok bool) {
	w, ok := fields(s, 4)
	if !ok || !numbers(w[1:], &p.generation) {
		return p, false
	}
	p.print, p.location = w[0], w[2]
	var err error
	p.distance, err = strconv.ParseFloat(w[3], 64)
	return p, err == nil
}

// pinned follows and moves the pin of the key until one location has the cart, or none.
func (a *attempt) pinned(ctx context.Context) (dray.Reservation, error) {
	held, err := a.move(ctx, pin{}, a.after(pin{print: a.ref.print, generation: 1}))
	// Others may move the pin meanwhile, each at most once over every candidate of its own.
	for tries := 0; err == nil && tries < 4*tryMost; tries++ {
		if held.print != a.ref.print {
			return dray.Reservation{}, dray.ErrIdempotencyMismatch
		}
		if held.location == nowhere {
			next := a.after(pin{print: held.print, generation: held.generation + 1})
			if next.location == nowhere {
				return dray.Reservation{}, a.refused()
			}
			held, err = a.move(ctx, held, next)
			continue
		}
		ref := a.ref
		ref.key = hash(fmt.Appendf(nil, "near %s %d", a.ref.key, held.generation), 16)
		r, failure := a.at(ctx, held.candidate, ref, true)
		if !errors.Is(failure, dray.ErrInsufficientStock) {
			return r, failure
		}
		next := a.after(held)
		if held, err = a.move(ctx, held, next); err == nil && next.location == nowhere && held == next {
			return dray.Reservation{}, a.refused()
		}
	}
	if err == nil {
		err = dray.Errorf(dray.CodeUnavailable, "too many attempts under this key at once")
	}
	return dray.Reservation{}, err
}

// after is the pin at the candidate behind that of p, which is the first one where p has none.
func (a *attempt) after(p pin) pin {
	for _, c := range a.candidates {
		if p.location == "" || c.distance > p.distance || c.distance == p.distance && c.location > p.location {
			p.candidate = c
			return p
		}
	}
	p.candidate = candidate{location: nowhere}
	return p
}

// move sets the pin where it is still held, and returns what it is then. The zero pin is none.
func (a *attempt) move(ctx context.Context, held, next pin) (pin, error) {
	s, expected := a.store, ""
	if held != (pin{}) {
		expected = held.String()
	}
	key := s.keys.bases[s.redis.Partition(a.ref.key)] + "near:" + a.ref.key
	text, err := s.redis.Run(ctx, s.scripts.pin, []string{key}, expected, next.String(), s.cfg.Retention.Milliseconds()).Text()
	if err != nil {
		return pin{}, err
	}
	p, ok := parsePin(text)
	if !ok {
		return p, errUnreadable
	}
	return p, nil
}

// candidates are the nearest locations, by distance and name. Distances are kept to 0.1 mm, as Redis tells them.
func (s *Store) candidates(ctx context.Context, center dray.Point, radius float64) ([]candidate, error) {
	found, err := s.redis.Redis().GeoSearchLocation(ctx, s.keys.places(), &redis.GeoSearchLocationQuery{
		GeoSearchQuery: redis.GeoSearchQuery{Longitude: center.Longitude, Latitude: center.Latitude, Radius: radius, RadiusUnit: "m",
			Sort: "ASC", Count: tryMost},
		WithDist: true,
	}).Result()
	if err != nil {
		return nil, err
	}
	list := make([]candidate, 0, len(found))
	for _, f := range found {
		if dray.ValidID(f.Name) {
			list = append(list, candidate{f.Name, f.Dist})
		}
	}
	slices.SortFunc(list, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(a.location, b.location))
	})
	return list, nil
}

// PutLocation says where a location is, so that carts can be reserved near it.
func (s *Store) PutLocation(ctx context.Context, location string, at dray.Point) error {
	if err := checkIDs(location); err != nil {
		return err
	}
	if !at.Valid() {
		return dray.FieldError(dray.CodeBadRequest, "latitude", "must be a place within ±%v and ±180 degrees", dray.MaxLatitude)
	}
	return s.redis.Redis().GeoAdd(ctx, s.keys.places(), &redis.GeoLocation{Name: location, Longitude: at.Longitude, Latitude: at.Latitude}).Err()
}

// DeleteLocation forgets where a location is; its stock stays. It fails with dray.ErrNotFound where
// it has no place.
func (s *Store) DeleteLocation(ctx context.Context, location string) error {
	if err := checkIDs(location); err != nil {
		return err
	}
	n, err := s.redis.Redis().ZRem(ctx, s.keys.places(), location).Result()
	if err == nil && n == 0 {
		err = dray.ErrNotFound
	}
	return err
}
