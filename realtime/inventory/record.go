package inventory

import (
	"iter"
	"maps"
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

// A message is what one call changed, as the ledger holds it and the feed tells it (keys.go).
type message struct {
	location    string
	first, last int64 // entries
	at          time.Time
	changes     []change
	rows        map[string]dray.Stock // SKU -> its row as it was before
}

// A change is one entry, or several that differ in the reservation only.
type change struct {
	kind, sku          string
	quantity, reserved int64  // what each adds
	reservations       string // with commas
	before             int64  // message before with entries of the same reservation; 0 for none
	by, reason         string
}

func parseMessage(location, text string) (m message, ok bool) {
	head, text, _ := strings.Cut(text, "\n")
	lines, rows, _ := strings.Cut(text, "\n\n")
	words, ok := fields(head, 3)
	m = message{location: location, rows: map[string]dray.Stock{}}
	var at int64
	if !ok || !numbers(words, &m.first, &m.last, &at) {
		return m, false
	}
	m.at = time.UnixMilli(at)
	for rows != "" {
		var sku, row string
		sku, rows, _ = strings.Cut(rows, "\n")
		row, rows, _ = strings.Cut(rows, "\n")
		if m.rows[sku], ok = parseRow(location, sku, row); !ok {
			return m, false
		}
	}
	for line := range strings.SplitSeq(lines, "\n") {
		w, ok := fields(line, 8)
		if !ok {
			return m, false
		}
		c := change{kind: w[0], sku: w[1], reservations: w[4], by: nobody(w[6]), reason: w[7]}
		if _, known := m.rows[c.sku]; !known || !numbers(w[2:], &c.quantity, &c.reserved) || !numbers(w[5:], &c.before) {
			return m, false
		}
		m.changes = append(m.changes, c)
	}
	return m, true
}

// entries are the entries of a message, in order, each with the message before that has some of its reservation.
func (m *message) entries() iter.Seq2[dray.LedgerEntry, int64] {
	return func(yield func(dray.LedgerEntry, int64) bool) {
		rows, n := maps.Clone(m.rows), m.first
		for _, c := range m.changes {
			row := rows[c.sku]
			for reservation := range strings.SplitSeq(c.reservations, ",") {
				e := dray.LedgerEntry{Entry: n, At: m.at, Location: m.location, SKU: c.sku, Kind: dray.LedgerKind(c.kind),
					Quantity:    dray.Step{Before: row.Quantity, After: row.Quantity + c.quantity},
					Reserved:    dray.Step{Before: row.Reserved, After: row.Reserved + c.reserved},
					Reservation: nobody(reservation), By: c.by, Reason: c.reason}
				if !yield(e, c.before) {
					return
				}
				row.Quantity, row.Reserved = e.Quantity.After, e.Reserved.After
				n++
			}
			rows[c.sku] = row
		}
	}
}

// after turns rows to what they are after the message.
func (m *message) after() map[string]dray.Stock {
	n := m.first - 1
	for _, c := range m.changes {
		entries := 1 + int64(strings.Count(c.reservations, ","))
		n += entries
		row := m.rows[c.sku]
		row.Quantity, row.Reserved = row.Quantity+entries*c.quantity, max(row.Reserved+entries*c.reserved, 0) // as apply.lua does
		row.Available, row.Version, row.LastUpdated = max(row.Quantity-row.Reserved, 0), n, m.at
		m.rows[c.sku] = row
	}
	return m.rows
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
