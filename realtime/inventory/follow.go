package inventory

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"dray"
)

const (
	followPage  = 100                    // messages read at once
	followEvery = 200 * time.Millisecond // how often the end of the ledger is looked at
)

// A CutError tells that the ledger was cut before it was read: raise [Config.LedgerLength], or
// read more often.
type CutError struct {
	Location string
	From, To int64 // numbers of the entries that are gone, both included
}

func (e *CutError) Error() string {
	return fmt.Sprintf("the ledger of %s was cut: entries %d to %d are gone", e.Location, e.From, e.To)
}

// Follow calls f with each entry of a location's ledger after the entry with the given number, in
// order, those already there and those to come, until ctx ends or f fails: then it returns that
// error. after 0 begins with the oldest entry that is kept. Entries are numbered without gaps; where
// some were cut before they were read it returns a *CutError, and may be called again with its To.
//
// It is the way to keep a ledger elsewhere for good: write each entry out, remember its number,
// and go on from there after a restart.
func (s *Store) Follow(ctx context.Context, location string, after int64, f func(dray.LedgerEntry) error) error {
	each := func(e dray.LedgerEntry) error {
		if err := f(e); err != nil {
			return err
		}
		after = e.Entry
		return nil
	}
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		if err := s.Entries(ctx, location, after, each); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Entries is Follow for what is there already: it returns nil at the end of the ledger.
func (s *Store) Entries(ctx context.Context, location string, after int64, f func(dray.LedgerEntry) error) error {
	if err := checkIDs(location); err != nil {
		return err
	}
	next := after + 1
	return s.messages(ctx, s.redis.Redis(), location, after, 0, func(m message) error {
		if next > 1 && m.first > next {
			return &CutError{location, next, m.first - 1}
		}
		for e := range m.entries() {
			if e.Entry < next {
				continue
			}
			if err := f(e); err != nil {
				return err
			}
			next = e.Entry + 1
		}
		return nil
	})
}

// messages calls f with each message of a ledger that has entries after one number, and begins
// up to another; 0 is no bound.
func (s *Store) messages(ctx context.Context, rdb redis.Cmdable, location string, after, until int64, f func(message) error) error {
	from, to := "-", "+"
	if after > 0 {
		// the message that the entry is in may hold more
		found, err := rdb.XRevRangeN(ctx, s.keys.ledger(location), strconv.FormatInt(after, 10), "-", 1).Result()
		if err != nil {
			return err
		}
		from = "(" + strconv.FormatInt(after, 10) + "-0"
		if len(found) > 0 {
			from = found[0].ID
		}
	}
	if until > 0 {
		to = strconv.FormatInt(until, 10)
	}
	for {
		page, err := rdb.XRangeN(ctx, s.keys.ledger(location), from, to, followPage).Result()
		if err != nil {
			return err
		}
		for _, x := range page {
			m, ok := s.parse(location, x)
			if !ok {
				continue
			}
			if err := f(m); err != nil {
				return err
			}
		}
		if len(page) < followPage {
			return nil
		}
		from = "(" + page[len(page)-1].ID
	}
}
