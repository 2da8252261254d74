package inventory

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

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
// It reads in pages, and others are served between them; what they change meanwhile it takes from the
// ledger. So it fails with a *CutError where the ledger keeps less than what is written during an audit;
// and with dray.ErrUnavailable at a failover, for only what is read of one server fits together.
//
// With repair, counters that differ are set to what was computed, with a ledger entry whose reason
// says what they were; not those of a SKU that changes again at each of some tries.
func (s *Store) Audit(ctx context.Context, location string, repair bool) ([]Difference, error) {
	if err := checkIDs(location); err != nil {
		return nil, err
	}
	conn, err := s.redis.Conn(ctx, s.keys.stock(location))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	a := audit{store: s, conn: conn, location: location,
		rows: map[string]dray.Stock{}, seen: map[string]int64{}, held: map[string]int64{}, told: map[string]dray.LedgerEntry{}}
	if err := a.read(ctx); err != nil {
		return nil, err
	}
	a.compare()
	if repair {
		for i := range a.found {
			if err := a.repair(ctx, &a.found[i]); err != nil {
				return a.found, fmt.Errorf("repair %s: %w", a.found[i].SKU, err)
			}
		}
	}
	s.metrics.differences.Set(float64(len(a.found)))
	return a.found, nil
}

// An audit is what was read of a location. Rows and reservations are read at different times; followed
// through the ledger, which comes last, they are all as of its last entry.
type audit struct {
	store    *Store
	conn     *redis.Conn
	location string
	begin    int64                       // number of the last entry before anything was read
	rows     map[string]dray.Stock       // a Version of 0: cannot be read
	seen     map[string]int64            // reservation -> message up to which held knows it
	held     map[string]int64            // SKU -> units in reservations that are held
	told     map[string]dray.LedgerEntry // SKU -> its last entry
	next     int64                       // number of the entry to come; 0 before the first
	found    []Difference
}

func (a *audit) differ(sku, what string, entry, expected, found int64) {
	if expected != found {
		a.found = append(a.found, Difference{Location: a.location, SKU: sku, What: what, Entry: entry, Expected: expected, Found: found})
	}
}

func (a *audit) read(ctx context.Context) (err error) {
	keys := &a.store.keys
	if a.begin, err = a.last(ctx); err != nil {
		return err
	}
	if err := a.scan(ctx, keys.stock(a.location), a.readRow); err != nil {
		return err
	}
	if err := a.scan(ctx, keys.holds(a.location), a.readHold); err != nil {
		return err
	}
	last, err := a.last(ctx)
	if err != nil {
		return err
	}
	if err := a.followTo(ctx, last); err != nil {
		return err
	}
	if last > a.begin && a.next <= last {
		return &CutError{a.location, max(a.begin+1, a.next), last}
	}
	return nil
}

// last is the number of the location's last entry; 0 where it has none.
func (a *audit) last(ctx context.Context) (n int64, err error) {
	text, err := a.conn.HGet(ctx, a.store.keys.stock(a.location), "#").Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return 0, err
	}
	numbers([]string{text}, &n)
	return n, nil
}

// scan visits the fields of a hash; some twice, and those that come or go meanwhile, or not.
func (a *audit) scan(ctx context.Context, key string, visit func(field, text string)) error {
	for cursor := uint64(0); ; {
		pairs, next, err := a.conn.HScan(ctx, key, cursor, "", readAtOnce).Result()
		if err != nil {
			return err
		}
		for i := 0; i+1 < len(pairs); i += 2 {
			visit(pairs[i], pairs[i+1])
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

func (a *audit) readRow(sku, text string) {
	if _, twice := a.rows[sku]; twice || sku == "#" {
		return
	}
	row, ok := parseRow(a.location, sku, text)
	if !ok {
		a.differ(sku, "row", 0, 1, 0)
		row = dray.Stock{}
	}
	a.rows[sku] = row
}

func (a *audit) readHold(id, text string) {
	if _, twice := a.seen[id]; twice {
		return
	}
	r, ok := parseRecord(id, text)
	if !ok {
		a.store.unreadable(a.location, id)
		return
	}
	a.seen[id] = r.last
	for _, it := range r.Items {
		if r.open {
			a.held[it.SKU] += held(it)
		}
	}
}

// followTo follows the ledger to the message that an entry is in; 0 is to its end.
func (a *audit) followTo(ctx context.Context, entry int64) error {
	return a.store.messages(ctx, a.conn, a.location, max(a.next-1, 0), entry, func(m message) error { return a.follow(ctx, m) })
}

// follow takes the next message of the ledger.
func (a *audit) follow(ctx context.Context, m message) error {
	switch {
	case m.last < a.next:
		return nil // it was followed already
	case a.begin+a.next > 0 && m.first > max(a.begin+1, a.next):
		return &CutError{a.location, max(a.begin+1, a.next), m.first - 1}
	case a.next > 0 && m.first > a.next:
		oldest, err := a.conn.XRangeN(ctx, a.store.keys.ledger(a.location), "-", "+", 1).Result()
		if err != nil {
			return err
		}
		if len(oldest) > 0 && strings.HasPrefix(oldest[0].ID, strconv.FormatInt(m.first, 10)+"-") {
			clear(a.told) // cut while it was read
		} else {
			a.differ("", "number of the ledger's next entry", m.first, a.next, m.first)
		}
	}
	for e, before := range m.entries() {
		if told, ok := a.told[e.SKU]; ok {
			a.differ(e.SKU, "quantity before", e.Entry, told.Quantity.After, e.Quantity.Before)
			a.differ(e.SKU, "reserved before", e.Entry, told.Reserved.After, e.Reserved.Before)
		}
		a.told[e.SKU] = e
		if m.first > a.begin {
			a.change(&e, m.first, before)
		}
	}
	a.next = m.last + 1
	return nil
}

// change takes in an entry that is newer than begin. before is the message before with entries of its
// reservation.
func (a *audit) change(e *dray.LedgerEntry, message, before int64) {
	row, known := a.rows[e.SKU]
	if readable := row.Version > 0; readable == known && e.Entry > row.Version { // not known: it is new
		a.rows[e.SKU] = dray.Stock{Quantity: e.Quantity.After, Reserved: e.Reserved.After, Version: e.Entry}
	}
	if e.Reservation == "" {
		return
	}
	last, seen := a.seen[e.Reservation]
	if !seen && before == 0 { // it is new; else it ended and was forgotten before it was seen
		a.seen[e.Reservation], seen = 0, true
	}
	if seen && message > last {
		a.held[e.SKU] += e.Reserved.After - e.Reserved.Before
	}
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

const repairTries = 100 // each costs three round trips

// repair sets the counters of a difference.
func (a *audit) repair(ctx context.Context, d *Difference) error {
	row, ok := a.rows[d.SKU]
	if !ok || d.Entry > 0 || d.Repaired {
		return nil
	}
	for range repairTries {
		told := row
		if e, ok := a.told[d.SKU]; ok {
			told.Quantity, told.Reserved = e.Quantity.After, e.Reserved.After
		}
		o := &op{kind: 'f', sku: d.SKU, quantity: told.Quantity, reserved: a.held[d.SKU], told: &told,
			version: strconv.FormatInt(row.Version, 10), ref: ref{by: anybody("")},
			reason: fmt.Sprintf("audit: counters were %d on hand, %d reserved", row.Quantity, row.Reserved)}
		err := a.store.do(ctx, a.location, o)
		if err == nil {
			for i := range a.found { // a SKU may have two
				a.found[i].Repaired = a.found[i].Repaired || a.found[i].SKU == d.SKU && a.found[i].Entry == 0
			}
		}
		if dray.CodeOf(err) != dray.CodeVersionConflict {
			return err
		}
		if row, err = a.again(ctx, d.SKU); err != nil {
			return err
		}
	}
	return nil
}

// again reads a row, and follows the ledger to its version.
func (a *audit) again(ctx context.Context, sku string) (dray.Stock, error) {
	text, err := a.conn.HGet(ctx, a.store.keys.stock(a.location), sku).Result()
	if err != nil {
		return dray.Stock{}, err
	}
	row, ok := parseRow(a.location, sku, text)
	if !ok {
		row = dray.Stock{}
	}
	return row, a.followTo(ctx, row.Version)
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
