package client

import (
	"fmt"
	"time"

	"dray"
)

// A checker holds a server to its promises on one subscription: versions grow, nobody
// moves or leaves who is not in the set, nobody enters who is, each stands in one list, and
// no position is older than one seen before.
type checker struct {
	version uint64
	began   bool                 // a snapshot came
	newest  map[string]time.Time // driver -> timestamp of its newest position, also of those that left
	rows    map[string]int64     // location and SKU -> version of its newest row
}

// reset begins a new subscription: on another node, or after a fault, all may start anew.
func (c *checker) reset() { *c = checker{newest: map[string]time.Time{}, rows: map[string]int64{}} }

// frame checks f against set, which f has not changed yet.
func (c *checker) frame(id string, f *frame, set map[string]dray.Driver) (violations []error) {
	broken := func(format string, args ...any) {
		violations = append(violations, fmt.Errorf("subscription %s, %s %d: "+format,
			append([]any{id, f.Type, f.Version}, args...)...))
	}
	if c.began && f.Version <= c.version {
		broken("version did not grow from %d", c.version)
	}
	c.version = f.Version
	seen := make(map[string]bool, len(f.Drivers.list)+len(f.Left)+len(f.Entered.list)+len(f.Moved.list))
	once := func(driver string) {
		if seen[driver] {
			broken("%s stands in it twice", driver)
		}
		seen[driver] = true
	}
	newer := func(d *dray.Driver) {
		once(d.Driver)
		if last, ok := c.newest[d.Driver]; ok && d.Timestamp.Before(last) {
			broken("%s is of %d, after one of %d", d.Driver, d.Timestamp.UnixMilli(), last.UnixMilli())
		}
		c.newest[d.Driver] = d.Timestamp
	}
	if f.Type == "snapshot" {
		c.began = true
		for i := range f.Drivers.list {
			newer(&f.Drivers.list[i])
		}
		return violations
	}
	if !c.began {
		broken("came before the snapshot")
	}
	if len(f.Left)+len(f.Entered.list)+len(f.Moved.list) == 0 {
		broken("is empty")
	}
	for _, l := range f.Left {
		once(l.Driver)
		if _, has := set[l.Driver]; !has {
			broken("%s left, which is not in the set", l.Driver)
		}
	}
	for i := range f.Entered.list {
		newer(&f.Entered.list[i])
		if _, has := set[f.Entered.list[i].Driver]; has {
			broken("%s entered, which is in the set", f.Entered.list[i].Driver)
		}
	}
	for i := range f.Moved.list {
		newer(&f.Moved.list[i])
		if _, has := set[f.Moved.list[i].Driver]; !has {
			broken("%s moved, which is not in the set", f.Moved.list[i].Driver)
		}
	}
	return violations
}
