package inventory

import (
	"context"
	"strconv"
	"time"

	"dray"
)

// Columns of a ledger line that tell how far back the entry before it stands.
const (
	bySKU         = 7
	byReservation = 8
)

// Ledger returns up to limit (1 to 1000) entries of a SKU, newest first, from cursor on; next is the
// cursor to go on with, "" at the end, which is where the ledger was cut. It fails with
// dray.ErrNotFound where the SKU was never set. One or two round trips.
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
	entries, next, err = s.walk(ctx, location, from, bySKU, limit)
	if len(entries) > 0 && entries[0].SKU != sku {
		return nil, "", errCursor
	}
	return entries, next, err
}

// ReservationLedger is Ledger for the entries of a reservation.
func (s *Store) ReservationLedger(ctx context.Context, reservation, cursor string, limit int) (entries []dray.LedgerEntry, next string, err error) {
	from, err := parseCursor(cursor, limit)
	if err != nil {
		return nil, "", err
	}
	r, err := s.record(ctx, &op{kind: 'q', id: reservation}, Options{}, nil)
	if err != nil {
		return nil, "", err
	}
	if from == 0 || from > r.last {
		from = r.last
	}
	entries, next, err = s.walk(ctx, r.Location, from, byReservation, limit)
	if len(entries) > 0 && entries[0].Reservation != reservation {
		return nil, "", errCursor
	}
	return entries, next, err
}

var errCursor = dray.FieldError(dray.CodeBadRequest, "cursor", "is not one that was given")

func parseCursor(cursor string, limit int) (from int64, err error) {
	if limit < 1 || limit > dray.MaxLimit {
		return 0, dray.FieldError(dray.CodeBadRequest, "limit", "must be 1 to %d", dray.MaxLimit)
	}
	if cursor == "" {
		return 0, nil
	}
	if from, err = strconv.ParseInt(cursor, 10, 64); err != nil || from < 1 || from > 1e14 {
		return 0, errCursor
	}
	return from, nil
}

func (s *Store) walk(ctx context.Context, location string, from int64, column, limit int) (entries []dray.LedgerEntry, next string, err error) {
	answer, err := s.redis.Run(ctx, s.scripts.ledger, []string{s.keys.ledger(location)}, from, column, limit).StringSlice()
	if err != nil {
		return nil, "", err
	}
	for ; len(answer) > 3; answer = answer[3:] {
		var number, at int64
		if !numbers(answer, &number, &at) {
			return nil, "", errUnreadable
		}
		e, _, ok := parseEntry(location, number, time.UnixMilli(at), answer[2])
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
