package inventory_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"dray"
	"dray/realtime/inventory"
)

// A shop is one location as the contract tells of it, for one caller at a time.
type shop struct {
	location     string
	rows         map[string]*row
	reservations map[string]*shopReservation
	ids          []string          // of reservations, oldest first
	answers      map[string]answer // caller and key -> what was answered
	ledger       []entry
	next         int64 // number of the next entry
}

type answer struct{ print, text string }

type shopReservation struct {
	status  byte // 'h', or how its last units ended: 'c', 'r', 'x'
	expires int64
	short   bool // it ends while the test runs
	lines   map[string]dray.ReservedItem
}

func newShop(location string) *shop {
	return &shop{location: location, rows: map[string]*row{}, reservations: map[string]*shopReservation{}, answers: map[string]answer{}}
}

func (m *shop) clone() *shop {
	c := *m
	c.rows, c.reservations, c.answers = map[string]*row{}, map[string]*shopReservation{}, maps.Clone(m.answers)
	for sku, r := range m.rows {
		c.rows[sku] = new(*r)
	}
	for id, v := range m.reservations {
		v = new(*v)
		v.lines = maps.Clone(v.lines)
		c.reservations[id] = v
	}
	c.ledger, c.ids = slices.Clip(m.ledger), slices.Clip(m.ids)
	return &c
}

// once does a request, or answers as before under the same key. do says whether its answer is kept.
func (m *shop) once(o inventory.Options, print string, do func() (string, bool)) string {
	key := o.By + " " + o.Key
	if a, ok := m.answers[key]; ok && o.Key != "" {
		if a.print != print {
			return string(dray.CodeIdempotencyMismatch)
		}
		return a.text
	}
	text, keep := do()
	if keep && o.Key != "" {
		m.answers[key] = answer{print, text}
	}
	return text
}

// change is one entry of the ledger and its effect.
func (m *shop) change(kind, sku string, quantity, reserved int64, reservation, by, reason string) {
	r := m.rows[sku]
	e := entry{number: m.next, kind: kind, sku: sku, reservation: reservation, by: by, reason: reason,
		quantity: dray.Step{Before: r.quantity, After: r.quantity + quantity},
		reserve:  dray.Step{Before: r.reserved, After: r.reserved + reserved}}
	*r = row{e.quantity.After, e.reserve.After, e.number}
	m.ledger = append(m.ledger, e)
	m.next++
}

func (m *shop) stock(sku string) string {
	r := m.rows[sku]
	if r == nil {
		return string(dray.CodeNotFound)
	}
	return fmt.Sprintf("%s %d %d %d version %d", sku, r.quantity, r.reserved, max(r.quantity-r.reserved, 0), r.version)
}

func (m *shop) reservation(id string) string {
	v := m.reservations[id]
	var items []dray.ReservedItem
	committed := false
	for _, sku := range sorted(v.lines) {
		items = append(items, v.lines[sku])
		committed = committed || v.lines[sku].Committed > 0
	}
	status := map[byte]dray.ReservationStatus{'h': dray.StatusHeld, 'c': dray.StatusCommitted, 'r': dray.StatusReleased, 'x': dray.StatusExpired}[v.status]
	if committed && v.status != 'h' {
		status = dray.StatusCommitted
	}
	return fmt.Sprintf("%s %s %v %d", id, status, items, v.expires)
}

func (m *shop) set(sku string, set inventory.Set, by string) (string, bool) {
	r := m.rows[sku]
	if r == nil {
		r = &row{}
	}
	switch {
	case set.Version != nil && *set.Version != r.version:
		return string(dray.CodeVersionConflict), false
	case set.Quantity < r.reserved && !set.Force:
		return string(dray.CodeBelowReserved), false
	}
	m.rows[sku] = r
	m.change("set", sku, set.Quantity-r.quantity, 0, "", by, set.Reason)
	return m.stock(sku), true
}

func (m *shop) adjust(sku string, delta int64, reason, by string) (string, bool) {
	r := m.rows[sku]
	switch {
	case r == nil:
		return string(dray.CodeNotFound), false
	case r.quantity+delta < 0:
		return fmt.Sprintf("%s %s %d %d", dray.CodeInsufficientStock, sku, -delta, r.quantity), false
	case delta < 0 && r.quantity+delta < r.reserved:
		return string(dray.CodeBelowReserved), false
	}
	m.change("adjust", sku, delta, 0, "", by, reason)
	return m.stock(sku), true
}

func (m *shop) reserve(cart map[string]int64, ttl time.Duration, by, got string) (string, bool) {
	var short strings.Builder
	for _, sku := range sorted(cart) {
		available := int64(0)
		if r := m.rows[sku]; r != nil {
			available = max(r.quantity-r.reserved, 0)
		}
		if cart[sku] > available {
			fmt.Fprintf(&short, " %s %d %d", sku, cart[sku], available)
		}
	}
	if short.Len() > 0 {
		return string(dray.CodeInsufficientStock) + short.String(), false
	}
	id := idIn(got)
	v := &shopReservation{status: 'h', expires: expiresIn(got), short: ttl < time.Second, lines: map[string]dray.ReservedItem{}}
	m.reservations[id] = v
	m.ids = append(m.ids, id)
	for _, sku := range sorted(cart) {
		v.lines[sku] = dray.ReservedItem{SKU: sku, Quantity: cart[sku]}
		m.change("hold", sku, 0, cart[sku], id, by, "")
	}
	return m.reservation(id), true
}

// closed is why a reservation cannot be changed, "" when it can.
func (m *shop) closed(id string) string {
	v := m.reservations[id]
	if v == nil {
		return string(dray.CodeNotFound)
	}
	return string(map[byte]dray.Code{'c': dray.CodeAlreadyCommitted, 'r': dray.CodeAlreadyReleased, 'x': dray.CodeReservationExpired}[v.status])
}

func (m *shop) resolve(id string, part map[string]int64, how byte, by string) (string, bool) {
	v := m.reservations[id]
	if len(part) == 0 {
		for sku, l := range v.lines {
			if left := l.Quantity - l.Committed - l.Released; left > 0 {
				part[sku] = left
			}
		}
	}
	var over, short strings.Builder
	ends := map[byte]bool{} // how the lines ended of which too much is asked for
	for _, sku := range sorted(part) {
		l, there := v.lines[sku]
		if left := l.Quantity - l.Committed - l.Released; part[sku] > left {
			fmt.Fprintf(&over, " %s %d %d", sku, part[sku], left)
			switch {
			case there && left == 0 && l.Released == 0:
				ends['c'] = true
			case there && left == 0 && l.Committed == 0:
				ends['r'] = true
			default:
				ends['x'] = true
			}
		}
		if r := m.rows[sku]; how == 'c' && r != nil && r.quantity < part[sku] {
			fmt.Fprintf(&short, " %s %d %d", sku, part[sku], r.quantity)
		}
	}
	switch {
	case over.Len() > 0 && len(ends) == 1 && ends['c']:
		return string(dray.CodeAlreadyCommitted), false
	case over.Len() > 0 && len(ends) == 1 && ends['r']:
		return string(dray.CodeAlreadyReleased), false
	case over.Len() > 0:
		return string(dray.CodeExceedsHeld) + over.String(), false
	case short.Len() > 0:
		return string(dray.CodeInsufficientStock) + short.String(), false
	}
	left := int64(0)
	for _, sku := range sorted(part) {
		l, n := v.lines[sku], part[sku]
		if how == 'c' {
			m.change("commit", sku, -n, -n, id, by, "")
			l.Committed += n
		} else {
			m.change("release", sku, 0, -n, id, by, "")
			l.Released += n
		}
		v.lines[sku] = l
	}
	for _, l := range v.lines {
		left += l.Quantity - l.Committed - l.Released
	}
	if left == 0 {
		v.status = how
	}
	return m.reservation(id), true
}

// expire ends the reservations that entries tell of, if it is their time.
func (m *shop) expire(t failer, first []entry) {
	for _, e := range first {
		v := m.reservations[e.reservation]
		if v == nil || v.status != 'h' {
			continue // not in this order: the model will differ
		}
		if e.at < v.expires {
			t.Fatalf("%s expired at %d, %d ms early", e.reservation, e.at, v.expires-e.at)
		}
		for _, sku := range sorted(v.lines) {
			l := v.lines[sku]
			if left := l.Quantity - l.Committed - l.Released; left > 0 {
				m.change("expire", sku, 0, -left, e.reservation, "", "")
				l.Released += left
				v.lines[sku] = l
			}
		}
		v.status = 'x'
	}
}

// differs says how the books are not those of the model, "" when they are.
func (m *shop) differs(b books) string {
	if len(b.entries) != len(m.ledger) {
		return fmt.Sprintf(" (%d entries, the model %d)", len(b.entries), len(m.ledger))
	}
	for i, e := range b.entries {
		if e.at = 0; e != m.ledger[i] {
			return fmt.Sprintf(" (entry %+v, the model %+v)", e, m.ledger[i])
		}
	}
	if len(b.rows) != len(m.rows) || len(b.records) != len(m.reservations) {
		return fmt.Sprintf(" (%d SKUs, %d reservations, the model %d, %d)", len(b.rows), len(b.records), len(m.rows), len(m.reservations))
	}
	for sku, r := range b.rows {
		if m.rows[sku] == nil || r != *m.rows[sku] {
			return fmt.Sprintf(" (%s is %+v, the model %+v)", sku, r, m.rows[sku])
		}
	}
	for id, r := range b.records {
		v := m.reservations[id]
		if v == nil || r.status != string(v.status) || r.expires != v.expires || len(r.lines) != len(v.lines) {
			return fmt.Sprintf(" (%s is %+v, the model %+v)", id, r, v)
		}
		for sku, l := range r.lines {
			if want := v.lines[sku]; l != [3]int64{want.Quantity, want.Committed, want.Released} {
				return fmt.Sprintf(" (line %s of %s is %v, the model %+v)", sku, id, l, want)
			}
		}
	}
	return ""
}
