package inventory

import (
	"context"
	"fmt"
	"time"

	"dray"
)

// Commit takes held units out of the stock for good: all that are held, or those of items.
//
// It fails with dray.ErrNotFound, with dray.ErrAlreadyCommitted, dray.ErrAlreadyReleased or
// dray.ErrReservationExpired when nothing is held any more (or of the one line asked for), by how
// that ended; with dray.ErrExceedsHeld when more is asked for than is held; and with
// dray.ErrInsufficientStock where the quantity on hand was forced below what is committed. Then
// nothing is changed.
func (s *Store) Commit(ctx context.Context, reservation string, items []dray.Item, o Options) (dray.Reservation, error) {
	return s.resolve(ctx, 'c', reservation, items, o)
}

// Release gives held units back: all that are held, or those of items. Its errors are Commit's.
func (s *Store) Release(ctx context.Context, reservation string, items []dray.Item, o Options) (dray.Reservation, error) {
	return s.resolve(ctx, 'r', reservation, items, o)
}

func (s *Store) resolve(ctx context.Context, kind byte, reservation string, items []dray.Item, o Options) (dray.Reservation, error) {
	items, err := checkItems(items)
	if err != nil {
		return dray.Reservation{}, err
	}
	request := func(b []byte) []byte { return appendItems(fmt.Appendf(b, "%c %s\n", kind, reservation), items) }
	return s.recordOp(ctx, &op{kind: kind, id: reservation, items: items}, o, request)
}

// Extend makes a reservation expire ttl (see [Store.Reserve]) from now, but no later than
// dray.MaxHold after it was made: ExpiresAt tells. Its errors are Commit's.
func (s *Store) Extend(ctx context.Context, reservation string, ttl time.Duration, o Options) (dray.Reservation, error) {
	ttl, err := checkHold(ttl)
	if err != nil {
		return dray.Reservation{}, err
	}
	request := func(b []byte) []byte { return fmt.Appendf(b, "extend %s %d", reservation, ttl.Milliseconds()) }
	return s.recordOp(ctx, &op{kind: 'e', id: reservation, ttl: ttl}, o, request)
}

// Reservation returns a reservation as it is now. It fails with dray.ErrNotFound for one that
// never was, or ended more than Config.Retention ago. With o.Replicas it tells how many replicas have it.
func (s *Store) Reservation(ctx context.Context, reservation string, o Options) (dray.Reservation, error) {
	o.Key = ""
	return s.recordOp(ctx, &op{kind: 'q', id: reservation}, o, nil)
}

// recordOp sends an op on a reservation, whose answer is its record.
func (s *Store) recordOp(ctx context.Context, o *op, opts Options, request func([]byte) []byte) (dray.Reservation, error) {
	r, err := s.record(ctx, o, opts, request)
	return r.Reservation, err
}

func (s *Store) record(ctx context.Context, o *op, opts Options, request func([]byte) []byte) (record, error) {
	location := locationOf(o.id)
	if location == "" {
		return record{}, fmt.Errorf("reservation: %w", dray.ErrNotFound)
	}
	if err := opts.check(); err != nil {
		return record{}, err
	}
	o.ref = newRef(opts.with(s.cfg.Replicas), request)
	if err := s.do(ctx, location, o); err != nil {
		return record{}, err
	}
	r, ok := parseRecord(o.id, o.answer[1:])
	if !ok {
		return record{}, errUnreadable
	}
	r.Replicas = o.acked
	return r, s.durable(o, o.id)
}
