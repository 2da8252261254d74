package client

import (
	"fmt"

	"dray"
)

// stockFrame checks f against rows, which f has not changed yet: versions grow, each SKU
// stands once, no row is older than one seen before, only what is held leaves, and events are those
// of the rows.
func (c *checker) stockFrame(id string, f *frame, rows map[string]dray.Stock) (violations []error) {
	broken := func(format string, args ...any) {
		violations = append(violations, fmt.Errorf("subscription %s, %s %d: "+format,
			append([]any{id, f.Type, f.Version}, args...)...))
	}
	if c.began && f.Version <= c.version {
		broken("version did not grow from %d", c.version)
	}
	c.version = f.Version
	snapshot := f.Type == "snapshot"
	switch {
	case !snapshot && !c.began:
		broken("came before the snapshot")
	case !snapshot && len(f.rows)+len(f.Left) == 0:
		broken("is empty")
	}
	c.began = true
	once := map[string]bool{}
	for _, l := range f.Left {
		if _, held := rows[l.SKU]; !held || once[l.SKU] {
			broken("%s left, which is not held", l.SKU)
		}
		once[l.SKU] = true
	}
	told := map[string]dray.StockEvent{}
	for _, e := range f.Events {
		if _, twice := told[e.SKU]; twice {
			broken("%s has two events", e.SKU)
		}
		told[e.SKU] = e
	}
	for _, row := range f.rows {
		key := row.Location + " " + row.SKU
		if once[row.SKU] {
			broken("%s stands in it twice", row.SKU)
		}
		once[row.SKU] = true
		if row.Version < c.rows[key] || !snapshot && row.Version == rows[row.SKU].Version {
			broken("%s is of version %d, after %d", row.SKU, row.Version, c.rows[key])
		}
		c.rows[key] = row.Version
		before, held := rows[row.SKU]
		held = held && before.Location == row.Location
		event, has := told[row.SKU]
		delete(told, row.SKU)
		if kind, crossed := dray.StockCrossing(before.Available, row.Available, 0); held && crossed && event.Event != kind {
			broken("%s went from %d to %d without the event %s", row.SKU, before.Available, row.Available, kind)
		}
		if has && (!held || !follows(event, before.Available, row.Available)) {
			broken("%s went from %d to %d with the event %s of %d", row.SKU, before.Available, row.Available, event.Event, event.Available)
		}
	}
	for sku := range told {
		broken("%s has an event and no row", sku)
	}
	return violations
}

// follows tells whether e can come of a change, for some threshold.
func follows(e dray.StockEvent, before, after int64) bool {
	kind, crossed := dray.StockCrossing(before, after, max(before-1, 0))
	return crossed && kind == e.Event && e.Available == after
}
