package inventory

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"dray"
)

// passMost is how many entries of others a page of the ledger may have to pass.
const passMost = 20_000

// Ledger returns up to limit (1 to 1000) entries of a SKU, newest first, from cursor on; next is the
// cursor to go on with, "" at the end, which may be where the ledger was cut. A page may be
// shorter than limit and not the last. It fails with dray.ErrNotFound where the SKU was never set.
func (s *Store) Ledger(ctx context.Context, location, sku, cursor string, limit int) (entries []dray.LedgerEntry, next string, err error) {
	from, err := parseCursor(cursor, limit)
	if err != nil {
		return nil, "", err
	}
	stock, err := s.Get(ctx, location, sku)
	if err != nil {
		return nil, "", err
	}
	if from == 0 || from > stock.Version {
		from = stock.Version
	}
	keys := []string{s.keys.ledger(location)}
	answer, err := s.redis.Run(ctx, s.scripts.ledger, keys, from, sku, limit, passMost).StringSlice()
	if err != nil {
		return nil, "", err
	}
	for ; len(answer) > 3; answer = answer[3:] {
		var number, at int64
		if !numbers(answer, &number, &at) {
			return nil, "", errUnreadable
		}
		e, ok := parseEntry(location, sku, number, time.UnixMilli(at), answer[2])
		if !ok {
			return nil, "", errUnreadable
		}
		entries = append(entries, e)
	}
	if answer[0] != "0" {
		next = answer[0]
	}
	return entries, next, nil
}

// ReservationLedger is Ledger for the entries of a reservation. A round trip for each time it was
// changed.
func (s *Store) ReservationLedger(ctx context.Context, reservation, cursor string, limit int) (entries []dray.LedgerEntry, next string, err error) {
	from, err := parseCursor(cursor, limit)
	if err != nil {
		return nil, "", err
	}
	r, err := s.record(ctx, &op{kind: 'q', id: reservation}, Options{}, nil)
	if err != nil {
		return nil, "", err
	}
	at := r.last
	if from > 0 {
		at = from
	}
	for at > 0 {
		m, ok, err := s.message(ctx, r.Location, at)
		if err != nil || !ok {
			return entries, "", err // cut
		}
		at = 0
		var mine []dray.LedgerEntry
		for e, before := range m.entries() {
			if e.Reservation == reservation {
				mine, at = append(mine, e), before
			}
		}
		for _, e := range slices.Backward(mine) {
			switch {
			case from > 0 && e.Entry > from:
			case len(entries) == limit:
				return entries, strconv.FormatInt(e.Entry, 10), nil
			default:
				entries = append(entries, e)
			}
		}
	}
	return entries, "", nil
}

// message reads the message of the ledger that an entry is in; false where it was cut.
func (s *Store) message(ctx context.Context, location string, entry int64) (m message, ok bool, err error) {
	found, err := s.redis.Redis().XRevRangeN(ctx, s.keys.ledger(location), strconv.FormatInt(entry, 10), "-", 1).Result()
	if err != nil || len(found) == 0 {
		return m, false, err
	}
	m, ok = s.parse(location, found[0])
	return m, ok, nil
}

func (s *Store) parse(location string, x redis.XMessage) (m message, ok bool) {
	text, _ := x.Values["m"].(string)
	if m, ok = parseMessage(location, text); !ok {
		s.unreadable(location, x.ID)
	}
	return m, ok
}

func parseCursor(cursor string, limit int) (from int64, err error) {
	if limit < 1 || limit > dray.MaxLimit {
		return 0, dray.FieldError(dray.CodeBadRequest, "limit", "must be 1 to %d", dray.MaxLimit)
	}
	if cursor == "" {
		return 0, nil
	}
	if from, err = strconv.ParseInt(cursor, 10, 64); err != nil || from < 1 || from > 1e15 {
		return 0, dray.FieldError(dray.CodeBadRequest, "cursor", "is not one that was given")
	}
	return from, nil
}
