package inventory

import (
	"math"
	"strings"
	"time"

	"dray"
)

// parseRow reads the row of a SKU.
func parseRow(location, sku, s string) (stock dray.Stock, ok bool) {
	words, ok := fields(s, 4)
	var at int64
	stock = dray.Stock{Location: location, SKU: sku}
	if !ok || !numbers(words, &stock.Quantity, &stock.Reserved, &stock.Version, &at) {
		return stock, false
	}
	stock.Available = max(stock.Quantity-stock.Reserved, 0)
	stock.LastUpdated = time.UnixMilli(at)
	return stock, true
}

// A record is what Redis holds of a reservation.
type record struct {
	dray.Reservation
	made time.Time
	last int64  // number of its last entry
	by   string // who made it
	open bool
}

// parseRecord reads the record of a reservation.
func parseRecord(id, s string) (r record, ok bool) {
	head, lines, _ := strings.Cut(s, "\n")
	words, ok := fields(head, 6)
	var made, expires int64
	if !ok || !numbers(words[1:], &made, &expires, &r.last) {
		return r, false
	}
	r.Reservation = dray.Reservation{Reservation: id, Location: locationOf(id), Distance: math.NaN()}
	r.made, r.by, r.open = time.UnixMilli(made), nobody(words[4]), words[0] == "h"
	if expires > 0 {
		r.ExpiresAt = time.UnixMilli(expires)
	}
	committed := false
	for line := range strings.SplitSeq(lines, "\n") {
		words, ok := fields(line, 4)
		it := dray.ReservedItem{SKU: words[0]}
		if !ok || !numbers(words[1:], &it.Quantity, &it.Committed, &it.Released) {
			return r, false
		}
		committed = committed || it.Committed > 0
		r.Items = append(r.Items, it)
	}
	switch {
	case r.open:
		r.Status = dray.StatusHeld
	case committed:
		r.Status = dray.StatusCommitted
	case words[0] == "r":
		r.Status = dray.StatusReleased
	default:
		r.Status = dray.StatusExpired
	}
	return r, true
}

// held is how many units of it are still held.
func held(it dray.ReservedItem) int64 { return it.Quantity - it.Committed - it.Released }

// parseEntry reads a line of the ledger; back are the distances to the entries before it of
// its SKU and of its reservation.
func parseEntry(location string, number int64, at time.Time, line string) (e dray.LedgerEntry, back [2]int64, ok bool) {
	w, ok := fields(line, 11)
	if !ok {
		return e, back, false
	}
	e = dray.LedgerEntry{Entry: number, At: at, Location: location, SKU: w[1], Kind: dray.LedgerKind(w[0]),
		Reservation: nobody(w[8]), By: nobody(w[9]), Reason: w[10]}
	ok = numbers(w[2:], &e.Quantity.Before, &e.Quantity.After, &e.Reserved.Before, &e.Reserved.After, &back[0], &back[1])
	return e, back, ok
}

// anybody writes "" as "*", which is no id; nobody reads it.
func anybody(id string) string {
	if id == "" {
		return "*"
	}
	return id
}

func nobody(word string) string {
	if word == "*" {
		return ""
	}
	return word
}
