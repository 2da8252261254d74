package inventory

import (
	"context"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"

	"dray"
)

// A Difference is what an audit found of one SKU.
type Difference struct {
	Location string `json:"location"`
	SKU      string `json:"sku,omitempty"` // "" where the ledger itself has a gap
	What     string `json:"what"`          // quantity, reserved, row, or what the ledger says before an entry
	Entry    int64  `json:"entry,omitempty"`
	Expected int64  `json:"expected"`
	Found    int64  `json:"found"`
	Repaired bool   `json:"repaired"`
}

func (d Difference) String() string {
	s := fmt.Sprintf("%s %s: %s is %d, expected %d", d.Location, d.SKU, d.What, d.Found, d.Expected)
	if d.Entry > 0 {
		s += " at entry " + strconv.FormatInt(d.Entry, 10)
	}
	if d.Repaired {
		s += " (repaired)"
	}
	return s
}

// Audit recomputes the counters of a location: on hand from the ledger, reserved from the
// reservations that are held, and checks that each entry of the ledger goes on where the one before
// it ended. Of a SKU whose entries were all cut from the ledger only what is reserved is checked.
//
// With repair, counters that differ are set to what was computed, with a ledger entry whose reason
// says what they were, unless the SKU has changed since it was read. Counters and reservations are read in one step,
// which holds Redis up for about a second per million of them.
func (s *Store) Audit(ctx context.Context, location string, repair bool) ([]Difference, error) {
	if err := checkIDs(location); err != nil {
		return nil, err
	}
	a := audit{location: location, rows: map[string]dray.Stock{}, held: map[string]int64{}, told: map[string]dray.LedgerEntry{}}
	last, err := s.readAll(ctx, &a)
	if err != nil {
		return nil, err
	}
	if err := s.messages(ctx, location, 0, last, a.follow); err != nil {
		return nil, err
	}
	a.compare()
	if repair {
		for i := range a.found {
			if err := s.repair(ctx, &a, &a.found[i]); err != nil {
				return a.found, err
			}
		}
	}
	s.metrics.differences.Set(float64(len(a.found)))
	return a.found, nil
}

// An audit is what was read of a location.
type audit struct {
	location string
	rows     map[string]dray.Stock
	held     map[string]int64            // SKU -> units in reservations that are held
	told     map[string]dray.LedgerEntry // SKU -> its last entry
	next     int64                       // number of the entry to come; 0 at first
	found    []Difference
}

func (a *audit) differ(sku, what string, entry, expected, found int64) {
	if expected != found {
		a.found = append(a.found, Difference{Location: a.location, SKU: sku, What: what, Entry: entry, Expected: expected, Found: found})
	}
}

// readAll reads counters and reservations in one step, and returns the number of the last entry.
func (s *Store) readAll(ctx context.Context, a *audit) (last int64, err error) {
	var rows, holds *redis.MapStringStringCmd
	_, err = s.redis.Redis().TxPipelined(ctx, func(p redis.Pipeliner) error {
		rows, holds = p.HGetAll(ctx, s.keys.stock(a.location)), p.HGetAll(ctx, s.keys.holds(a.location))
		return nil
	})
	if err != nil {
		return 0, err
	}
	for sku, text := range rows.Val() {
		if sku == "#" {
			last, _ = strconv.ParseInt(text, 10, 64)
			continue
		}
		row, ok := parseRow(a.location, sku, text)
		if !ok {
			a.found = append(a.found, Difference{Location: a.location, SKU: sku, What: "row", Expected: 1})
			row = dray.Stock{Location: a.location, SKU: sku}
		}
		a.rows[sku] = row
	}
	for id, text := range holds.Val() {
		r, ok := parseRecord(id, text)
		if !ok {
			s.unreadable(a.location, id)
			continue
		}
		for _, it := range r.Items {
			if r.open {
				a.held[it.SKU] += held(it)
			}
		}
	}
	return last, nil
}

// follow takes the next message of the ledger.
func (a *audit) follow(m message) error {
	if a.next > 0 {
		a.differ("", "number of the ledger's next entry", m.first, a.next, m.first)
	}
	for _, e := range m.entries {
		if before, ok := a.told[e.SKU]; ok {
			a.differ(e.SKU, "quantity before", e.Entry, before.Quantity.After, e.Quantity.Before)
			a.differ(e.SKU, "reserved before", e.Entry, before.Reserved.After, e.Reserved.Before)
		}
		a.told[e.SKU] = e
	}
	a.next = m.last() + 1
	return nil
}

func (a *audit) compare() {
	for sku, row := range a.rows {
		if e, ok := a.told[sku]; ok {
			a.differ(sku, "quantity", 0, e.Quantity.After, row.Quantity)
		}
		a.differ(sku, "reserved", 0, a.held[sku], row.Reserved)
	}
	for sku, units := range a.held {
		if _, ok := a.rows[sku]; !ok {
			a.differ(sku, "reserved", 0, units, 0)
		}
	}
}

// repair sets the counters of a difference, unless the SKU has changed since.
func (s *Store) repair(ctx context.Context, a *audit, d *Difference) error {
	row, ok := a.rows[d.SKU]
	if !ok || d.Entry > 0 || d.Repaired {
		return nil
	}
	told := row
	if e, ok := a.told[d.SKU]; ok {
		told.Quantity, told.Reserved = e.Quantity.After, e.Reserved.After
	}
	o := &op{kind: 'f', sku: d.SKU, quantity: told.Quantity, reserved: a.held[d.SKU], told: &told,
		version: strconv.FormatInt(row.Version, 10), ref: ref{by: anybody("")},
		reason: fmt.Sprintf("audit: counters were %d on hand, %d reserved", row.Quantity, row.Reserved)}
	err := s.do(ctx, a.location, o)
	if err == nil {
		for i := range a.found { // a SKU may have two
			a.found[i].Repaired = a.found[i].Repaired || a.found[i].SKU == d.SKU && a.found[i].Entry == 0
		}
		return nil
	}
	if dray.CodeOf(err) == dray.CodeVersionConflict {
		return nil
	}
	return fmt.Errorf("repair %s: %w", d.SKU, err)
}

// Locations are the locations that have stock, in no order.
func (s *Store) Locations(ctx context.Context) (all []string, err error) {
	for i := range s.keys.bases {
		some, err := s.redis.Redis().SMembers(ctx, s.keys.locations(i)).Result()
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}
