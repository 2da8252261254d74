package inventory

import (
	"iter"
	"math"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

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

// rowLines yields SKUs and their rows, which stand in a text in turn, a line each.
func rowLines(text string) iter.Seq2[string, string] {
	return func(yield func(sku, row string) bool) {
		for text != "" {
			var sku, row string
			sku, text, _ = strings.Cut(text, "\n")
			row, text, _ = strings.Cut(text, "\n")
			if !yield(sku, row) {
				return
			}
		}
	}
}

// A record is what Redis holds of a reservation.
type record struct {
	dray.Reservation
	made time.Time
	last int64  // message with its last entries
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

// A message is the entries of one call, as the ledger holds them.
type message struct {
	first   int64
	at      time.Time
	entries []dray.LedgerEntry
	before  []int64 // for each entry: the message before with entries of its reservation; 0 for none
}

// last is the number of its last entry.
func (m *message) last() int64 { return m.first + int64(len(m.entries)) - 1 }

// parseMessage reads a message of the ledger (keys.go).
func parseMessage(location string, x redis.XMessage) (m message, ok bool) {
	var at int64
	id, _, _ := strings.Cut(x.ID, "-")
	field := func(name string) string { s, _ := x.Values[name].(string); return s }
	if !numbers([]string{id, field("t")}, &m.first, &at) {
		return m, false
	}
	m.at = time.UnixMilli(at)
	rows := map[string]dray.Stock{} // as they are before the next entry
	for sku, row := range rowLines(field("s")) {
		if rows[sku], ok = parseRow(location, sku, row); !ok {
			return m, false
		}
	}
	for line := range strings.SplitSeq(field("e"), "\n") {
		w, ok := fields(line, 8)
		var quantity, reserved, before int64
		if !ok || !numbers(w[2:], &quantity, &reserved) || !numbers(w[5:], &before) {
			return m, false
		}
		row, known := rows[w[1]]
		if !known {
			return m, false
		}
		for reservation := range strings.SplitSeq(w[4], ",") {
			e := dray.LedgerEntry{Entry: m.first + int64(len(m.entries)), At: m.at, Location: location, SKU: w[1], Kind: dray.LedgerKind(w[0]),
				Quantity:    dray.Step{Before: row.Quantity, After: row.Quantity + quantity},
				Reserved:    dray.Step{Before: row.Reserved, After: row.Reserved + reserved},
				Reservation: nobody(reservation), By: nobody(w[6]), Reason: w[7]}
			row.Quantity, row.Reserved = e.Quantity.After, e.Reserved.After
			m.entries, m.before = append(m.entries, e), append(m.before, before)
		}
		rows[w[1]] = row
	}
	return m, true
}

// parseEntry reads an entry as ledger.lua tells it.
func parseEntry(location, sku string, number int64, at time.Time, text string) (e dray.LedgerEntry, ok bool) {
	w, ok := fields(text, 9)
	if !ok {
		return e, false
	}
	e = dray.LedgerEntry{Entry: number, At: at, Location: location, SKU: sku, Kind: dray.LedgerKind(w[0]),
		Reservation: nobody(w[5]), By: nobody(w[7]), Reason: w[8]}
	return e, numbers(w[1:], &e.Quantity.Before, &e.Quantity.After, &e.Reserved.Before, &e.Reserved.After)
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
